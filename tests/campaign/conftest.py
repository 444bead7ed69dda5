"""A rendered campaign of three segments, in a directory of its own."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from hpcplan.render import render_plan, write_campaign


@pytest.fixture(scope="session")
def rendered(plans: ModuleType) -> dict[str, str]:
    return render_plan(plans.plan(job=plans.job(checkpoint_dir="checkpoints")))


@pytest.fixture
def directory(rendered: dict[str, str], tmp_path: Path) -> Path:
    write_campaign(rendered, tmp_path / "campaign")
    return tmp_path / "campaign"
