"""Traces from file to file: nothing changes by their not being in memory as a whole."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcplan.errors import HpcplanError, InputError
from hpcplan.simulate import outcome, picture, table_trace, trace_run
from hpcplan.simulate.made_traces import write_trace
from hpcplan.simulate.outcome import Figures, Row, csv_parts, metrics
from hpcplan.simulate.picture import Sketch
from hpcplan.simulate.slurm_cluster import read_slurm_cluster
from hpcplan.simulate.trace_files import open_trace, read_trace
from hpcplan.simulate.trace_run import TRACE_POLICIES, on_nodes, on_processors
from hpcplan.simulate.trace_stream import Target, schedule_trace
from hpcplan.simulate.trace_submissions import Submissions
from hpcplan.simulate.traces import Trace, TraceJob

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
    found = schedule_trace(open_trace(written(tmp_path, jobs)), Target(output=tmp_path / "schedule.csv"), policy)
    whole = on_processors(read_trace(tmp_path / "trace.swf"), PROCS, policy)
    assert (tmp_path / "schedule.csv").read_bytes() == b"".join(csv_parts(whole.rows))
    assert (found.metrics, found.procs) == (whole.metrics(), PROCS)
    assert [row.job_id for row in whole.rows] == [str(job.id) for job in jobs]


def as_table(folder: Path, jobs: list[TraceJob]) -> Path:
    """Write the jobs as a table in which some wait for others, some share nodes, and one would be refused."""
    lines = ["job,submit_s,nodes,run_s,time_limit_min,cpus,user,dependency"]
    for one in jobs:
        after = f"afterany:{one.id - 3}" if one.id % 9 == 4 else ""
        cpus = "99" if one.id == 50 else "" if one.id % 3 else "2"
        lines.append(f"{one.id},{one.submit_s},{one.procs % 4 + 1},{one.run_s},{one.limit_s // 60},{cpus},u,{after}")
    path = folder / "jobs.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def as_dump(folder: Path, jobs: list[TraceJob]) -> Path:
    """Write the jobs as sacct prints them, with steps between."""
    lines = ["JobID|User|Partition|Submit|ElapsedRaw|TimelimitRaw|NNodes|NCPUS|State"]
    for one in jobs:
        width = one.procs % 4 + 1
        lines.append(f"{one.id}|u||{one.submit_s}|{one.run_s}|{one.limit_s // 60}|{width}|{4 * width}|COMPLETED")
        lines.append(f"{one.id}.batch||||{one.run_s}||1|4|COMPLETED")
    path = folder / "jobs.txt"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("write", [as_table, as_dump])
@pytest.mark.parametrize("sort", [True, False], ids=["in order", "out of order"])
@pytest.mark.parametrize("policy", ["easy", "slurm"])
def test_tables_and_dumps_come_out_as_in_memory_too(
    tmp_path: Path, policy: str, sort: bool, write: Callable[[Path, list[TraceJob]], Path]
) -> None:
    jobs = made_up()
    if not sort:
        jobs = [one for pair in zip(jobs[1::2], jobs[::2], strict=True) for one in pair]
    path = write(tmp_path, jobs)
    conf = tmp_path / "slurm.conf"
    conf.write_text(
        "SelectType=select/cons_tres\nNodeName=n[1-6] CPUs=4\nPartitionName=p Nodes=ALL Default=YES State=UP\n"
    )
    cluster = read_slurm_cluster(conf)
    found = schedule_trace(open_trace(path), Target(cluster=cluster, output=tmp_path / "schedule.csv"), policy)
    whole = on_nodes(read_trace(path), cluster, policy)
    assert (tmp_path / "schedule.csv").read_bytes() == b"".join(csv_parts(whole.rows))
    assert (found.metrics, found.refused) == (whole.metrics(), whole.refused)
    assert len(whole.rows) == len(jobs)


def test_what_compiled_code_cannot_do_late_in_a_trace_is_done_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last job asks for a time to begin, which is seen when others have gone by."""
    begun = []

    def compiled_rows(plan: Submissions, *_: object, **__: object) -> Iterator[tuple[int, Row]]:
        while (one := plan.next()) is not None:
            begun.append(one.job.name)
        yield from ()

    monkeypatch.setattr(trace_run, "FEW", 5)
    monkeypatch.setattr(trace_run, "numba_is_there", lambda tell: True)
    monkeypatch.setattr(trace_run, "worth_compiling", lambda **_: 0)
    monkeypatch.setattr(trace_run, "compiled_rows", compiled_rows)
    path, conf = tmp_path / "jobs.csv", tmp_path / "slurm.conf"
    rows = [f"{number},{number},1,1,1," for number in range(9)] + ["99,300,1,1,1,now+5"]
    path.write_text("\n".join(["job,submit_s,nodes,run_s,time_limit_min,begin", *rows]) + "\n")
    conf.write_text("NodeName=n[1-9] CPUs=4\nPartitionName=p Nodes=ALL Default=YES State=UP\n")
    found = schedule_trace(open_trace(path), Target(cluster=read_slurm_cluster(conf)), "slurm")
    assert begun == [str(number) for number in range(8)]
    assert (found.metrics.jobs, found.metrics.never_started) == (10, 0)


@given(names=st.lists(st.one_of(st.integers(0, 9).map(str), st.sampled_from(["07", "7_1", "a"])), max_size=12))
def test_a_name_is_known_again_whatever_came_between(names: list[str]) -> None:
    seen = table_trace._Names()
    assert [seen.had(name) for name in names] == [name in names[:at] for at, name in enumerate(names)]
    assert bool(seen) == bool(names)


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
