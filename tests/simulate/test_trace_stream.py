"""Traces from file to file: nothing changes by their not being in memory as a whole."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcplan.errors import HpcplanError, InputError
from hpcplan.simulate import outcome, picture
from hpcplan.simulate.made_traces import write_trace
from hpcplan.simulate.outcome import Figures, Row, csv_parts, metrics
from hpcplan.simulate.picture import Sketch
from hpcplan.simulate.trace_files import open_trace, read_trace
from hpcplan.simulate.trace_run import TRACE_POLICIES, on_processors
from hpcplan.simulate.trace_stream import Target, schedule_trace
from hpcplan.simulate.traces import SwfJobs, Trace, TraceJob

PROCS = 16


def made_up(count: int = 120) -> list[TraceJob]:
    draw = random.Random(3)
    found, moment = [], 0
    for number in range(1, count + 1):
        moment += draw.randrange(30)
        found.append(TraceJob(number, moment, draw.randint(1, 200), draw.choice([60, 120, 300]), draw.randint(1, 9)))
    return found


def written(folder: Path, jobs: list[TraceJob]) -> Path:
    path = folder / "trace.swf"
    write_trace(Trace(tuple(jobs), PROCS, 0), path)
    return path


@pytest.mark.parametrize("policy", TRACE_POLICIES)
@pytest.mark.parametrize("sort", [True, False], ids=["in order", "out of order"])
def test_a_trace_from_its_file_comes_out_as_one_in_memory(tmp_path: Path, policy: str, sort: bool) -> None:
    jobs = made_up()
    if not sort:
        random.Random(1).shuffle(jobs)
    source = open_trace(written(tmp_path, jobs))
    assert isinstance(source, SwfJobs)
    found = schedule_trace(source, Target(output=tmp_path / "schedule.csv"), policy)
    whole = on_processors(read_trace(tmp_path / "trace.swf"), PROCS, policy)
    assert (tmp_path / "schedule.csv").read_bytes() == b"".join(csv_parts(whole.rows))
    assert (found.metrics, found.procs) == (whole.metrics(), PROCS)
    assert [row.job_id for row in whole.rows] == [str(job.id) for job in jobs]


def test_nothing_is_written_where_the_trace_turns_out_to_be_wrong(tmp_path: Path) -> None:
    path = written(tmp_path, made_up())
    path.write_text(path.read_text() + "1 2 3\n")
    with pytest.raises(InputError, match="has 3 fields"):
        schedule_trace(open_trace(path), Target(output=tmp_path / "schedule.csv"), "easy")
    assert [one.name for one in tmp_path.iterdir()] == ["trace.swf"]


def test_a_picture_of_another_kind_is_refused_before_anything_is_scheduled(tmp_path: Path) -> None:
    with pytest.raises(HpcplanError, match="must end with"):
        schedule_trace(open_trace(written(tmp_path, made_up())), Target(picture=tmp_path / "schedule.gif"), "easy")


rows = st.lists(
    st.tuples(st.integers(0, 20), st.integers(0, 50), st.integers(1, 60), st.integers(1, 8), st.booleans()), max_size=40
)


def as_rows(drawn: list[tuple[int, int, int, int, bool]]) -> list[Row]:
    found, submit = [], 0
    for number, (gap, wait, run, width, ran) in enumerate(drawn):
        submit += gap
        start, end = (submit + wait, submit + wait + run) if ran else (None, None)
        found.append(Row(str(number), submit, start, end, width, None, None, "COMPLETED" if ran else "PENDING"))
    return found


@settings(max_examples=50, deadline=None)
@given(drawn=rows)
def test_figures_added_up_in_small_batches_are_the_same(drawn: list[tuple[int, int, int, int, bool]]) -> None:
    made = as_rows(drawn)
    expected = metrics(made, PROCS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outcome, "_BATCH", 4)
        patch.setattr(outcome, "_MANY", 3)
        figures = Figures(PROCS)
        assert list(figures.of(iter(made))) == made
        assert figures.metrics() == expected


@settings(max_examples=50, deadline=None)
@given(drawn=rows)
def test_the_area_under_a_coarse_curve_is_that_of_the_jobs(drawn: list[tuple[int, int, int, int, bool]]) -> None:
    made = as_rows(drawn)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(picture, "_MAX_SPANS", 8)
        sketch = Sketch()
        assert list(sketch.of(iter(made))) == made
    ran = [(row.submit_s, row.start_s, row.end_s, row.procs) for row in made if row.start_s is not None]
    used = sum(width * ((end or 0) - start) for _, start, end, width in ran)
    waited = sum(start - submit for submit, start, _, _ in ran)
    for curve, area in ((sketch.busy, used), (sketch.waiting, waited)):
        times, means = curve.points()
        assert len(times) <= 8
        assert sum(means) * curve.span_s == pytest.approx(area)
