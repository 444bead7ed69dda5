"""The house: which room may know which, what ships, and what must not be said."""

from __future__ import annotations

import ast
import configparser
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "hpcplan"

GROUND = {
    "errors", "units", "hostlist", "documents", "validation", "quantities", "resources", "frameworks", "rank_map",
    "garbage",
}  # fmt: skip
# room: the rooms that it may import, beside the ground and itself (docs/explanation/the-loop.md)
MAY_KNOW: dict[str, set[str]] = {
    "site": set(),
    "plan": {"site"},  # a plan carries the site's launch environment
    "workload": {"plan"},
    "slurm": set(),
    "cost": {"plan", "site", "workload"},
    "partition": {"plan", "site", "workload", "cost"},
    "simulate": {"site", "slurm"},
    "schedule": {"plan", "site", "workload", "cost", "partition", "simulate", "slurm"},
    "render": {"plan"},
    "campaign": {"plan", "render", "slurm"},
    "report": {"slurm"},
    "doctor": {"*"},
    "demo": {"*"},
    "calibrate": {"plan", "site", "workload", "cost", "report", "slurm"},
    "cli": {"*"},
}


def room_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).parts
    return parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            names = [node.module]
            if node.module == "hpcplan":
                names = [f"hpcplan.{alias.name}" for alias in node.names]
        found |= {name.split(".")[1] for name in names if name.startswith("hpcplan.") or name == "hpcplan."}
    return found - {"__version__"}


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_room_imports_only_what_lies_below_it(path: Path) -> None:
    room = room_of(path)
    known = imported_rooms(path) - {room}
    if room in {"__init__", "__main__"}:
        assert known <= {"cli"}
        return
    if room in GROUND:
        assert known <= GROUND
        return
    if "*" not in MAY_KNOW[room]:
        assert known - GROUND <= MAY_KNOW[room]


def test_the_order_of_rooms_has_no_cycle() -> None:
    order: list[str] = []
    pending = {room: needs - {"*"} for room, needs in MAY_KNOW.items()}
    while pending:
        ready = sorted(room for room, needs in pending.items() if needs <= set(order))
        assert ready, f"a cycle among {sorted(pending)}"
        order += ready
        for room in ready:
            del pending[room]


def test_every_package_is_listed_in_setup_cfg() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    listed = set(setup["options"]["packages"].split())
    actual = {"hpcplan"} | {
        "hpcplan." + ".".join(init.parent.relative_to(PACKAGE).parts)
        for init in PACKAGE.rglob("__init__.py")
        if init.parent != PACKAGE
    }
    assert actual | {"hpcplan.templates", "hpcplan.site_configs"} == listed


def test_no_module_is_called_by_a_name_that_says_nothing() -> None:
    assert not [p for p in PACKAGE.rglob("*.py") if p.stem in {"utils", "util", "helpers", "common", "misc"}]


def test_start_up_loads_nothing_heavy() -> None:
    code = (
        "import sys; import hpcplan.cli\n"
        "heavy = {'numpy', 'networkx', 'pydantic', 'rich', 'matplotlib', 'polars', 'jinja2', 'yaml', 'scipy'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
