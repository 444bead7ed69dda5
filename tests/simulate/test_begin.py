"""The times of --begin."""

from __future__ import annotations

import contextlib
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcplan.errors import SlurmError
from hpcplan.simulate.begin import begin_time

NOW = int(datetime(2031, 5, 20, 14, 30).timestamp())


def at(year: int, month: int, day: int, hour: int = 0, minute: int = 0, second: int = 0) -> int:
    return int(datetime(year, month, day, hour, minute, second).timestamp())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("now", NOW),
        ("now+1hour", NOW + 3600),
        ("now+90", NOW + 90),
        ("now+2days", NOW + 2 * 86400),
        ("now+3weeks", NOW + 21 * 86400),
        ("16:00", at(2031, 5, 20, 16)),
        ("09:15:30", at(2031, 5, 21, 9, 15, 30)),
        ("noon", at(2031, 5, 21, 12)),
        ("midnight", at(2031, 5, 21)),
        ("teatime", at(2031, 5, 20, 16)),
        ("tomorrow", at(2031, 5, 21, 14, 30)),
        ("2031-06-01", at(2031, 6, 1)),
        ("2031-06-01T08:00", at(2031, 6, 1, 8)),
        ("2020-01-01", at(2020, 1, 1)),
    ],
)
def test_a_time_means_what_sbatch_says_it_does(text: str, expected: int) -> None:
    assert begin_time(text, NOW) == expected


def test_no_text_is_no_time() -> None:
    assert begin_time(None, NOW) is None


@pytest.mark.parametrize("text", ["xyz", "", "25:00", "now+1fortnight", "2031-13-01"])
def test_anything_else_is_refused_in_sbatchs_words(text: str) -> None:
    with pytest.raises(SlurmError, match="Invalid --begin specification"):
        begin_time(text, NOW)


@given(text=st.text(max_size=20))
def test_any_text_is_a_time_or_refused(text: str) -> None:
    with contextlib.suppress(SlurmError):
        assert isinstance(begin_time(text, NOW), int)
