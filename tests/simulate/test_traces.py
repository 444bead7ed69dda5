"""Reading the Standard Workload Format."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from hpcplan.errors import InputError
from hpcplan.simulate.traces import TraceJob, read_swf

HEADER = "; Version: 2.2\n; MaxNodes: 64\n; MaxProcs: 128\n;\n"


def line(job: int, submit: int, run: int, procs: int, *, asked_procs: int = -1, asked_time: int = -1) -> str:
    return f"  {job} {submit} 5 {run} {procs} -1 -1 {asked_procs} {asked_time} -1 1 1 1 -1 1 -1 -1 -1\n"


def written(folder: Path, text: str) -> Path:
    path = folder / "trace.swf"
    path.write_text(text)
    return path


def test_a_line_gives_submission_run_time_limit_and_processors(tmp_path: Path) -> None:
    trace = read_swf(written(tmp_path, HEADER + line(3, 70, 100, 16, asked_procs=32, asked_time=600)))
    assert trace.jobs == (TraceJob(3, 70, 100, 600, 16, user="1"),)
    assert (trace.procs, trace.skipped) == (128, 0)


def test_a_gzipped_trace_reads_the_same_whatever_it_is_called(tmp_path: Path) -> None:
    text = HEADER + line(1, 0, 10, 4)
    plain = read_swf(written(tmp_path, text))
    packed = tmp_path / "trace"
    packed.write_bytes(gzip.compress(text.encode()))
    assert read_swf(packed) == plain


def test_requested_processors_stand_in_for_allocated_ones_and_are_capped_at_the_machine(tmp_path: Path) -> None:
    text = HEADER + line(1, 0, 10, -1, asked_procs=500) + line(2, 0, 10, 400)
    assert [job.procs for job in read_swf(written(tmp_path, text)).jobs] == [128, 128]
    assert [job.procs for job in read_swf(written(tmp_path, text), procs=450).jobs] == [450, 400]


def test_the_limit_is_what_was_asked_else_the_run_time(tmp_path: Path) -> None:
    text = HEADER + line(1, 0, 10, 4) + line(2, 0, 90, 4, asked_time=60)
    assert [(job.run_s, job.limit_s) for job in read_swf(written(tmp_path, text)).jobs] == [(10, 10), (90, 60)]


def test_jobs_without_run_time_or_processors_are_skipped_and_counted_and_zero_counts_as_a_second(
    tmp_path: Path,
) -> None:
    text = HEADER + line(1, 0, -1, 4) + line(2, 0, 10, 0, asked_procs=0) + line(3, 0, 0, 4)
    trace = read_swf(written(tmp_path, text))
    assert trace.skipped == 2
    assert trace.jobs == (TraceJob(3, 0, 1, 1, 4, user="1"),)


def test_nodes_stand_in_for_processors_in_the_header(tmp_path: Path) -> None:
    assert read_swf(written(tmp_path, "; MaxNodes: 64\n" + line(1, 0, 1, 1))).procs == 64
    assert read_swf(written(tmp_path, line(1, 0, 1, 99))).procs is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEADER + "1 2 3\n", r"trace\.swf:5: has 3 fields; a line of SWF has 18"),
        (HEADER + line(1, 0, 1, 1).replace(" 1 ", " one ", 1), r"trace\.swf:5: has a field that is not a number"),
        (HEADER, "holds no jobs"),
        ("", "holds no jobs"),
    ],
)
def test_what_is_no_trace_is_refused_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_swf(written(tmp_path, text))


def test_a_missing_file_a_directory_and_a_broken_archive_are_refused(tmp_path: Path) -> None:
    broken = tmp_path / "broken.gz"
    broken.write_bytes(gzip.compress((HEADER + line(1, 0, 1, 1) * 500).encode())[:-20])
    for path in (tmp_path / "none.swf", tmp_path, broken):
        with pytest.raises(InputError, match="cannot be read"):
            read_swf(path)


def test_the_recorded_traces_have_the_jobs_that_their_summary_counts(shared_data: Path) -> None:
    trace = read_swf(shared_data / "swf" / "sdsc-sp2-first5k.swf.gz")
    assert (len(trace.jobs), trace.skipped, trace.procs) == (4606, 355, 128)
