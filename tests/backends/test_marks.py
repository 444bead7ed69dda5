from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcplan.errors import SlurmError
from hpcplan.slurm.marks import Marks

COLUMNS = ("id", "name", "comment")
anything = st.text(alphabet=st.characters(codec="utf-8"), max_size=30)
rows = st.lists(st.tuples(st.integers(1).map(str), anything, anything), max_size=8)


def written(marks: Marks, table: list[tuple[str, ...]]) -> str:
    return "".join("".join(cell + marks.cell for cell in row) + "\n" for row in table)


@given(rows)
def test_cells_of_any_text_come_back_as_they_were(table: list[tuple[str, str, str]]) -> None:
    marks = Marks()
    found = marks.rows(written(marks, list(table)), COLUMNS, "squeue")
    assert [tuple(row[name] for name in COLUMNS) for row in found] == table


def test_each_question_has_its_own_mark() -> None:
    assert len({Marks().cell for _ in range(100)}) == 100


def test_a_mark_of_an_earlier_answer_is_text_like_any_other() -> None:
    earlier, marks = Marks(), Marks()
    (row,) = marks.rows(written(marks, [("1", f"a{earlier.cell}b", "")]), COLUMNS, "squeue")
    assert row["name"] == f"a{earlier.cell}b"


def test_no_rows_are_no_error() -> None:
    assert Marks().rows("", COLUMNS, "squeue") == []
    assert Marks().rows("\n", COLUMNS, "squeue") == []


@pytest.mark.parametrize("cut", [1, 5, 40])
def test_an_answer_that_was_cut_short_is_an_error(cut: int) -> None:
    marks = Marks()
    answer = written(marks, [("1", "a", "b"), ("2", "c", "d")]).rstrip("\n")
    with pytest.raises(SlurmError, match="squeue: the answer cannot be read"):
        marks.rows(answer[:-cut], COLUMNS, "squeue")
