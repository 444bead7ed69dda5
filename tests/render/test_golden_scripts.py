"""Golden scripts: what each framework gets, to the byte. Refresh with `pytest tests/render --update-golden`."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

from hpcplan.render import render_plan

GOLDEN = Path(__file__).parent / "golden"
CASES = {
    "megatron-lm": ("plan", "train-02.sbatch"),
    "torchrun": ("torchrun_plan", "train-01.sbatch"),
    "srun": ("srun_plan", "train-02.sbatch"),
}


@pytest.fixture(autouse=True)
def _fixed_provenance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hpcplan.render.context.__version__", "1.2.3")
    monkeypatch.setattr("hpcplan.render.context.digest", lambda plan: "0" * 64)


def rendered(plans: ModuleType, case: str) -> str:
    maker, script = CASES[case]
    return render_plan(getattr(plans, maker)())[script]


@pytest.mark.parametrize("case", CASES)
def test_script_is_the_golden_one(case: str, plans: ModuleType, request: pytest.FixtureRequest) -> None:
    golden = GOLDEN / f"{case}.sbatch"
    text = rendered(plans, case)
    if request.config.getoption("--update-golden"):
        golden.write_text(text, encoding="utf-8")
    assert text == golden.read_text(encoding="utf-8")


@pytest.mark.parametrize("case", CASES)
def test_golden_script_parses_as_bash(case: str) -> None:
    subprocess.run(["bash", "-n", str(GOLDEN / f"{case}.sbatch")], check=True)


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
@pytest.mark.parametrize("case", CASES)
def test_shellcheck_finds_nothing_in_golden_script(case: str) -> None:
    found = subprocess.run(["shellcheck", str(GOLDEN / f"{case}.sbatch")], capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout) == (0, "")


@pytest.mark.parametrize("case", CASES)
def test_rendering_twice_gives_the_same_bytes(case: str, plans: ModuleType) -> None:
    maker, _ = CASES[case]
    assert render_plan(getattr(plans, maker)()) == render_plan(getattr(plans, maker)())


@pytest.mark.parametrize("case", CASES)
def test_directives_stand_before_the_first_command(case: str, plans: ModuleType) -> None:
    lines = rendered(plans, case).splitlines()
    first_command = next(i for i, line in enumerate(lines) if line and not line.startswith("#"))
    assert any(line.startswith("#SBATCH") for line in lines[:first_command])
    assert not any(line.startswith("#SBATCH") for line in lines[first_command:])


@pytest.mark.parametrize("case", CASES)
def test_gpus_are_asked_for_in_one_way_only(case: str, plans: ModuleType) -> None:
    text = rendered(plans, case)
    assert text.count("#SBATCH --gres=") + text.count("#SBATCH --gpus-per-node=") <= 1
    assert "--gpus-per-task" not in text
