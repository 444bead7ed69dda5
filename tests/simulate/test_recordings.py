"""What real controllers decided, decided again: see :mod:`tests.simulate.recordings`."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcplan.errors import InputError
from hpcplan.simulate.moments import read_moments
from tests.simulate import recordings


@pytest.mark.parametrize("name", recordings.names())
def test_at_the_moments_when_a_real_controller_looked_the_same_jobs_start_on_the_same_nodes(name: str) -> None:
    found = recordings.compare(name, moments=True)
    assert found.within_2_s == 1
    assert found.same_nodes == 1
    assert abs(found.mean_wait) < 0.002


@pytest.mark.parametrize("name", ["favour-small", "memory", "partitions"])
def test_with_the_controllers_clock_modelled_too_jobs_start_within_seconds(name: str) -> None:
    found = recordings.compare(name, moments=False)
    assert found.within_5_s == 1
    assert found.same_nodes >= 0.9
    assert abs(found.mean_wait) < 0.005


def test_what_is_no_record_of_moments_is_refused(tmp_path: Path) -> None:
    (tmp_path / "moments.json").write_text('{"clock_s": 0}')
    with pytest.raises(InputError, match="moments"):
        read_moments(tmp_path / "moments.json")
