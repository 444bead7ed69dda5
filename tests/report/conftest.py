"""What the tests of the report share."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from zoneinfo import ZoneInfo

import polars as pl
import pytest

from hpcplan.report import read_sacct
from hpcplan.report.faults import Faults

Read = Callable[..., tuple[pl.DataFrame, Faults]]


@pytest.fixture(scope="session")
def made_up() -> ModuleType:
    """Accounting made up by seed: tests/report/made_up.py."""
    name = "samples_report_made_up"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name("made_up.py"))
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


@pytest.fixture
def read_text(tmp_path: Path) -> Read:
    """Return a function that reads text as sacct's output, its times as UTC."""

    def read(text: str | bytes, **options: object) -> tuple[pl.DataFrame, Faults]:
        path = tmp_path / "sacct.txt"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_sacct([path], **{"zone": ZoneInfo("UTC"), **options})  # type: ignore[arg-type]

    return read
