"""What is installed here, which backends answer, what is missing and how to get it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hpcplan import __version__, resources
from hpcplan.errors import HpcplanError

__all__ = ["Finding", "examine"]

Verdict = Literal["ok", "missing", "optional", "broken"]

# library: what for; the first are needed, the second do more
_NEEDED = {
    "click": "commands", "jinja2": "scripts and pages", "matplotlib": "pictures", "networkx": "topology",
    "numpy": "cost model", "polars": "reports", "pydantic": "file formats", "pyyaml": "file formats",
    "rich": "tables", "scipy": "calibration",
}  # fmt: skip
_TOOLS = {"shellcheck": ("checks rendered scripts in the tests", "apt-get install shellcheck")}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. ``verdict``: ``ok``; ``missing`` or ``broken`` and needed; ``optional`` and not there."""

    what: str
    verdict: Verdict
    detail: str
    hint: str = ""


def examine() -> list[Finding]:
    """Look at this installation; takes at most about half a minute where Slurm does not answer."""
    return [*_itself(), *_libraries(), *_folders(), *_backends(), *_tools()]


def _itself() -> Iterator[Finding]:
    yield Finding("hpcplan", "ok", f"{__version__}, in {Path(__file__).parent}")
    python = platform.python_version()
    enough = sys.version_info >= (3, 11)
    detail, hint = f"{python} on {platform.platform()}", "" if enough else "3.11 or newer is needed"
    yield Finding("Python", "ok" if enough else "broken", detail, hint)


def _libraries() -> Iterator[Finding]:
    for name, purpose in _NEEDED.items():
        try:
            yield Finding(name, "ok", f"{importlib.metadata.version(name)} ({purpose})")
        except importlib.metadata.PackageNotFoundError:
            yield Finding(name, "missing", purpose, f"pip install {name}")


def _folders() -> Iterator[Finding]:
    try:
        sites = resources.listing("sites", ".yaml")
        templates = sum(1 for _ in resources.shipped("templates").rglob("*.j2"))
        own = sum(found.origin != "shipped" for found in sites.values())
        yield Finding("sites", "ok", f"{len(sites)}, {own} of them not shipped; your own go to "
                                     f"{resources.config_dir() / 'sites'}")  # fmt: skip
        yield Finding("templates", "ok" if templates else "broken", f"{templates} shipped")
    except HpcplanError as error:
        yield Finding("shipped files", "broken", error.message, "reinstall hpcplan")
    data = resources.data_dir()
    nearest = next(folder for folder in (data, *data.parents) if folder.exists())
    writable = os.access(nearest, os.W_OK)
    yield Finding("data folder", "ok" if writable else "broken", str(data), "" if writable else "set HPCPLAN_DATA_DIR")


def _backends() -> Iterator[Finding]:
    from hpcplan.simulate.backend import MockBackend
    from hpcplan.slurm.choose import available

    hints = {
        "rest": "only for machines without Slurm's commands: set HPCPLAN_SLURMRESTD and SLURM_JWT",
        "command": "run hpcplan on a login node, or dry-run: hpcplan mock start SITE",
        "pyslurm": "pip install 'hpcplan[pyslurm]' where Slurm's headers are; the command backend does the same",
    }
    for backend in available():
        verdict: Verdict = "ok" if backend.ok else "optional"
        yield Finding(f"backend {backend.name}", verdict, backend.detail, "" if backend.ok else hints[backend.name])
    try:
        info = MockBackend().ping()
        yield Finding("backend mock", "ok", f"cluster {info.cluster} runs")
    except HpcplanError as error:
        yield Finding("backend mock", "optional", error.message, "hpcplan mock start SITE")


def _tools() -> Iterator[Finding]:
    for name, (purpose, hint) in _TOOLS.items():
        path = shutil.which(name)
        yield Finding(name, "ok", f"{path} ({purpose})") if path else Finding(name, "optional", purpose, hint)
