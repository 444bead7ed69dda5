from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcplan.errors import InputError
from hpcplan.report.faults import Faults
from hpcplan.report.sacct_rows import is_header, rows, split_columns

HEADER = ["JobID", "JobName", "State", "Elapsed", "AllocCPUS"]


def read(path: Path, text: str | bytes, columns: str | None = None) -> tuple[list[list[str]], Faults]:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    faults = Faults()
    named = None if columns is None else split_columns(columns)
    return [list(row.cells) for row in rows(path, faults, named)], faults


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sacct.txt"


@pytest.mark.parametrize("delimiter", ["|", ";|;", "^|^", "☃", "\t", ",", ";", ":", " | ", "|||"])
@pytest.mark.parametrize("last", [True, False])
def test_any_delimiter_is_found_from_the_header(path: Path, delimiter: str, last: bool) -> None:
    end = (delimiter if last else "") + "\n"
    row = ["7", "train", "COMPLETED", "90", "8"]
    found, faults = read(path, delimiter.join(HEADER) + end + delimiter.join(row) + end)
    assert found == [row]
    assert faults.total == 0


def test_an_empty_last_cell_is_not_taken_for_the_last_delimiter(path: Path) -> None:
    found, faults = read(path, "JobID|State|Reason\n7|PENDING|\n8|RUNNING||\n")
    assert found == [["7", "PENDING", ""], ["8", "RUNNING", ""]]
    assert faults.total == 0


def test_gzip_and_windows_line_ends_and_a_byte_order_mark_are_read(path: Path) -> None:
    text = "\ufeffJobID|State\r\n7|COMPLETED\r\n"
    assert read(path, gzip.compress(text.encode()))[0] == [["7", "COMPLETED"]]


def test_a_compressed_file_that_was_cut_short_gives_what_it_has_and_says_so(path: Path) -> None:
    lines = "".join(f"{i}|COMPLETED|{i * 7919 % 1000}\n" for i in range(20_000))
    whole = gzip.compress(("JobID|State|AllocCPUS\n" + lines).encode())
    found, faults = read(path, whole[: len(whole) // 2])
    assert 0 < len(found) < 20_000
    assert faults.counts["file cut short"] == 1


def test_text_that_is_not_utf8_does_not_stop_the_file(path: Path) -> None:
    found, faults = read(path, b"JobID|JobName|State\n7|caf\xe9|COMPLETED\n8|ok|FAILED\n")
    assert found == [["7", "caf\ufffd", "COMPLETED"], ["8", "ok", "FAILED"]]
    assert faults.total == 0


def test_files_put_one_behind_the_other_may_have_different_headers(path: Path) -> None:
    found, _ = read(path, "JobID|State\n7|COMPLETED\nJobID|AllocCPUS|State\n8|4|FAILED\n")
    assert found == [["7", "COMPLETED"], ["8", "4", "FAILED"]]


def test_a_delimiter_inside_a_job_name_goes_back_into_the_name(path: Path) -> None:
    found, faults = read(path, "|".join(HEADER) + "\n7|a|b|c|COMPLETED|00:01:30|8\n8|plain|FAILED|00:00:01|1\n")
    assert found == [["7", "a|b|c", "COMPLETED", "00:01:30", "8"], ["8", "plain", "FAILED", "00:00:01", "1"]]
    assert faults.total == 0


def test_a_newline_inside_a_job_name_goes_back_into_the_name(path: Path) -> None:
    found, faults = read(path, "|".join(HEADER) + "\n7|first\nsecond|COMPLETED|00:01:30|8\n8|plain|FAILED|1|1\n")
    assert found == [["7", "first\nsecond", "COMPLETED", "00:01:30", "8"], ["8", "plain", "FAILED", "1", "1"]]
    assert faults.total == 0


def test_a_row_that_could_be_mended_in_two_ways_is_left_out_and_quoted(path: Path) -> None:
    text = "JobID|JobName|User|Comment|State\n7|a|b|c|d|COMPLETED\n8|x|u||FAILED\n"
    found, faults = read(path, text)
    assert found == [["8", "x", "u", "", "FAILED"]]
    assert faults.counts == {"row skipped": 1}
    assert faults.quoted[0].quote == "7|a|b|c|d|COMPLETED"
    assert faults.quoted[0].line == 2


def test_a_short_row_is_left_out_without_taking_its_neighbour_along(path: Path) -> None:
    found, faults = read(path, "|".join(HEADER) + "\n7|cut of\n8|plain|FAILED|00:00:01|1\n")
    assert found == [["8", "plain", "FAILED", "00:00:01", "1"]]
    assert faults.counts == {"row skipped": 1}


def test_commas_inside_quotes_do_not_split_a_cell(path: Path) -> None:
    found, _ = read(path, 'JobID,ReqTRES,State\n7,"cpu=1,mem=4G",COMPLETED\n')
    assert found == [["7", "cpu=1,mem=4G", "COMPLETED"]]


def test_columns_can_be_named_for_a_file_without_a_header(path: Path) -> None:
    found, _ = read(path, "7☃a|b☃COMPLETED☃\n8☃c☃FAILED☃\n", columns="JobID,JobName%20,State")
    assert found == [["7", "a|b", "COMPLETED"], ["8", "c", "FAILED"]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "the file is empty"),
        (b"\n\n", "the file is empty"),
        (b"7|COMPLETED\n", "no header"),
        (b"{}\n", "no header"),
        (b"       JobID    JobName      State\n------- ---------- ----------\n", "cuts long values"),
        (b"\0\1\2\n", "binary"),
    ],
)
def test_what_is_not_sacct_output_is_refused_with_file_and_a_way_to_make_one(
    path: Path, text: bytes, message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read(path, text)
    assert "sacct.txt" in str(caught.value)


def test_missing_files_and_directories_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        list(rows(tmp_path / "absent", Faults()))
    with pytest.raises(InputError, match="is a directory"):
        list(rows(tmp_path, Faults()))


def test_a_misspelt_column_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(InputError, match="jobname"):
        split_columns("JobID,JobNmae")
    with pytest.raises(InputError, match="JobID or JobIDRaw"):
        split_columns("State,Elapsed")


def test_a_field_that_a_later_release_adds_does_not_hide_the_header(path: Path) -> None:
    assert read(path, "JobID|State|Elapsed|Novelty\n7|COMPLETED|1|x\n")[0] == [["7", "COMPLETED", "1", "x"]]


def test_a_row_is_no_header() -> None:
    assert is_header("7|jobid|COMPLETED") is None
    assert is_header("JobID State") is None
    assert is_header("JobID|State;Elapsed") is None
    assert is_header("jobid|one|two|three") is None


@given(st.text(st.characters(exclude_characters="\n\r", exclude_categories=["Cs"]), max_size=60))
def test_no_line_breaks_the_search_for_a_header(line: str) -> None:
    header = is_header(line)
    assert header is None or "jobid" in line.lower()
