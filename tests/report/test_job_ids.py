"""Which jobs an id names, written as people write it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcplan.errors import InputError
from hpcplan.report.job_ids import chosen, parse_job_ids
from hpcplan.report.table import from_columns

LABELS = {"123_1": 124, "123_2": 125, "123_4": 126, "123_[5-9%2]": 123, "130+0": 130, "130+1": 131, "140": 140}


def picked(*texts: str) -> tuple[list[str], list[str]]:
    table = from_columns({"label": list(LABELS), "job_id": list(LABELS.values())})
    found, absent = chosen(table, parse_job_ids(texts))
    return found["label"].to_list(), absent


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("123_4", ["123_4"]),
        ("123_[1-3]", ["123_1", "123_2"]),
        ("123_[1,4]", ["123_1", "123_4"]),
        ("123_[1-7:3]", ["123_1", "123_4", "123_[5-9%2]"]),
        ("123_[6]", ["123_[5-9%2]"]),
        ("123_7", ["123_[5-9%2]"]),
        ("123", ["123_1", "123_2", "123_4", "123_[5-9%2]"]),
        ("123_*", ["123_1", "123_2", "123_4", "123_[5-9%2]"]),
        ("125", ["123_2"]),
        ("130", ["130+0", "130+1"]),
        ("130+1", ["130+1"]),
        ("130+[0-3]", ["130+0", "130+1"]),
        ("130_1", []),
        ("130-145", ["130+0", "130+1", "140"]),
        ("140.batch", ["140"]),
        ("123_2.0", ["123_2"]),
        ("123_[1-2],140", ["123_1", "123_2", "140"]),
        ("7", []),
    ],
)
def test_an_id_names_jobs_tasks_components_and_rows_of_jobs(text: str, labels: list[str]) -> None:
    found, absent = picked(text)
    assert found == labels
    assert absent == ([] if labels else [text])


def test_what_is_absent_is_told_apart_from_what_is_there() -> None:
    assert picked("140", "99", "123_[77-78]") == (["140"], ["99", "123_[77-78]"])


@pytest.mark.parametrize("text", ["abc", "7_", "7_[", "7_[a]", "+1", "7++1", "1" * 19, "7-", "-7"])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="no job id"):
        parse_job_ids([text])


@given(base=st.integers(1, 10**9), tasks=st.sets(st.integers(0, 60), min_size=1), low=st.integers(0, 60))
@settings(max_examples=60)
def test_a_range_of_tasks_takes_those_in_it(base: int, tasks: set[int], low: int) -> None:
    labels = [f"{base}_{task}" for task in sorted(tasks)]
    table = from_columns({"label": labels, "job_id": [base + 1 + task for task in sorted(tasks)]})
    found, _ = chosen(table, parse_job_ids([f"{base}_[{low}-{low + 9}]"]))
    assert found["label"].to_list() == [f"{base}_{task}" for task in sorted(tasks) if low <= task <= low + 9]
