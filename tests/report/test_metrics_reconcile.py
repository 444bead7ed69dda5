"""Every total of the report against a slow and simple reference, on random records with holes in them."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import UTC
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcplan.report import build_report, read_sacct
from hpcplan.report.table import span
from hpcplan.slurm.records import JobRecord, JobState, NodeRecord

START, END = 1_000_000, 1_000_000 + 7200
ENDED = [
    JobState.COMPLETED, JobState.FAILED, JobState.TIMEOUT, JobState.CANCELLED, JobState.NODE_FAIL,
    JobState.OUT_OF_MEMORY, JobState.PREEMPTED,
]  # fmt: skip


@st.composite
def records(draw: st.DrawFn, job_id: int) -> JobRecord:
    def maybe(strategy: st.SearchStrategy[int]) -> int | None:
        return draw(st.one_of(st.none(), strategy))

    submit = draw(st.integers(START - 9000, END + 500))
    begin = submit + draw(st.integers(0, 9000))
    finish = begin + draw(st.integers(0, 9000))
    kind = draw(st.sampled_from(["ended", "ended", "ended", "running", "pending", "never"]))
    state = draw(st.sampled_from(ENDED))
    if kind == "running":
        state = JobState.RUNNING
    elif kind == "pending":
        state = JobState.PENDING
    elif kind == "never":
        state = JobState.CANCELLED
    ran = kind in ("ended", "running")
    return JobRecord(
        job_id=job_id,
        state=state,
        user=draw(st.sampled_from(["alice", "bob", None])),
        account=draw(st.sampled_from(["physics", None])),
        partition=draw(st.sampled_from(["batch", "debug"])),
        submit_time=submit,
        eligible_time=maybe(st.just(submit)),
        start_time=begin if ran else None,
        end_time=finish if kind in ("ended", "never") else None,
        time_limit_s=maybe(st.integers(60, 10_000)),
        nodes=maybe(st.integers(1, 4)),
        node_list=f"n[{draw(st.integers(0, 3))}-{draw(st.integers(3, 5))}]" if ran else None,
        cpus=maybe(st.integers(1, 128)),
        gpus=maybe(st.integers(0, 8)),
        memory_bytes=maybe(st.integers(1, 2**40)),
        total_cpu_s=maybe(st.integers(0, 10**6)) if kind == "ended" else None,
        max_rss_bytes=maybe(st.integers(0, 2**40)) if kind == "ended" else None,
        gpu_utilisation=draw(st.one_of(st.none(), st.floats(0, 1))) if kind == "ended" else None,
    )


@st.composite
def many(draw: st.DrawFn) -> list[JobRecord]:
    return [draw(records(job_id=number)) for number in range(1, 1 + draw(st.integers(0, 12)))]


def seen(job: JobRecord) -> bool:
    assert job.submit_time is not None
    return job.submit_time < END and not (job.state.final and job.end_time is not None and job.end_time < START)


def inside(time: int | None) -> bool:
    return time is not None and START <= time < END


def seconds_on(job: JobRecord) -> int:
    if job.start_time is None or job.start_time >= END:
        return 0
    stop = job.end_time if job.state.final and job.end_time is not None else END
    return max(0, min(stop, END) - max(job.start_time, START))


def hours(jobs: Sequence[JobRecord], size: str) -> tuple[float, int]:
    values = [
        seconds_on(job) * getattr(job, size) for job in jobs if seconds_on(job) and getattr(job, size) is not None
    ]
    return sum(values) / 3600, len(values)


@given(many())
@settings(max_examples=150, deadline=None)
def test_totals_agree_with_a_slow_reference(given_records: list[JobRecord]) -> None:
    nodes = [NodeRecord(f"n{i}", "idle", cpus=128, gpus=8) for i in range(6)]
    report = build_report(given_records, start=START, end=END, nodes=nodes)
    jobs = [job for job in given_records if seen(job)]
    ran = [job for job in jobs if seconds_on(job)]

    assert report.jobs.total == len(jobs) == sum(report.jobs.by_status.values())
    assert report.jobs.submitted == sum(inside(job.submit_time) for job in jobs)
    assert report.jobs.started == sum(inside(job.start_time) for job in jobs)
    assert report.jobs.ended == sum(inside(job.end_time) for job in jobs if job.state.final)
    assert report.jobs.running + report.jobs.pending + report.jobs.ended == len(jobs)

    for size, measure in (("cpus", report.core_hours), ("gpus", report.gpu_hours), ("nodes", report.node_hours)):
        total, known = hours(ran, size)
        assert (measure.known, measure.total) == (known, len(ran))
        assert measure.value is None if known == 0 < len(ran) else measure.value == pytest.approx(total)
    if report.core_hours.value is not None:
        assert report.cpu_utilisation.value == pytest.approx(report.core_hours.value / (6 * 128 * 2))

    waits = [max(0, job.start_time - job.submit_time) for job in jobs if inside(job.start_time)]  # type: ignore[operator]
    assert report.wait.known == len(waits) == sum(report.wait_histogram.counts)
    if waits:
        assert report.wait.mean == pytest.approx(statistics.mean(waits))
        assert report.wait.median == pytest.approx(statistics.median(waits))
        assert report.wait.max == max(waits)


@given(many())
@settings(max_examples=100, deadline=None)
def test_parts_add_up_to_the_whole(given_records: list[JobRecord]) -> None:
    report = build_report(given_records, start=START, end=END)
    for rows in (report.by_user, report.by_account, report.by_partition):
        assert sum(row.jobs for row in rows) == report.jobs.total
        assert sum(row.core_hours or 0 for row in rows) == pytest.approx(report.core_hours.value or 0)
        assert sum(row.gpu_hours or 0 for row in rows) == pytest.approx(report.gpu_hours.value or 0)
        assert sum(row.idle_core_hours or 0 for row in rows) == pytest.approx(report.idle_core_hours.value or 0)
        assert sum(row.idle_gpu_hours or 0 for row in rows) == pytest.approx(report.idle_gpu_hours.value or 0)
        assert sum(row.lost_core_hours or 0 for row in rows) == pytest.approx(
            sum(x.core_hours or 0 for x in report.lost)
        )
    widths = [b - a for a, b in zip(report.series.start, [*report.series.start[1:], END], strict=True)]
    for values, whole in ((report.series.cpus, report.core_hours), (report.series.gpus, report.gpu_hours)):
        area = sum(value * width for value, width in zip(values, widths, strict=True)) / 3600
        assert area == pytest.approx(whole.value or 0, abs=1e-6)


@given(many())
@settings(max_examples=100, deadline=None)
def test_efficiency_and_losses_agree_with_a_slow_reference(given_records: list[JobRecord]) -> None:
    report = build_report(given_records, start=START, end=END)
    over = [
        job for job in given_records
        if seen(job) and job.state.final and inside(job.end_time) and job.start_time is not None
    ]  # fmt: skip
    used = held = idle = 0.0
    lost: dict[str, float] = defaultdict(float)
    counts: Counter[str] = Counter()
    for job in over:
        run = job.elapsed_s() or 0
        if run and job.cpus and job.total_cpu_s is not None:
            used, held = used + job.total_cpu_s, held + run * job.cpus
            idle += seconds_on(job) * job.cpus * (1 - min(1.0, job.total_cpu_s / (run * job.cpus))) / 3600
        if job.state is not JobState.COMPLETED and seconds_on(job):
            counts[job.state] += 1
            lost[job.state] += seconds_on(job) * (job.cpus or 0) / 3600
    if held:
        assert report.cpu_efficiency.value == pytest.approx(used / held)
        assert report.idle_core_hours.value == pytest.approx(idle)
    else:
        assert report.cpu_efficiency.value is None
    assert {row.state: row.jobs for row in report.lost} == counts
    for row in report.lost:
        assert row.core_hours is None or row.core_hours == pytest.approx(lost[row.state])


@given(many())
@settings(max_examples=20, deadline=None)
def test_node_utilisation_counts_every_second_of_a_node_once(given_records: list[JobRecord]) -> None:
    from hpcplan.hostlist import expand

    nodes = [NodeRecord(f"n{i}", "idle") for i in range(6)]
    report = build_report(given_records, start=START, end=END, nodes=nodes)
    busy: set[tuple[str, int]] = set()
    for job in given_records:
        if seconds_on(job) and job.node_list is not None and job.start_time is not None:
            begin = max(job.start_time, START)
            busy |= {
                (name, second) for name in expand(job.node_list) for second in range(begin, begin + seconds_on(job))
            }
    assert report.node_utilisation.value == pytest.approx(len(busy) / (6 * (END - START)))


@given(st.integers(START, END), many())
@settings(max_examples=60, deadline=None)
def test_two_windows_side_by_side_add_up_to_one(cut: int, given_records: list[JobRecord]) -> None:
    if cut in (START, END):
        return
    whole = build_report(given_records, start=START, end=END)
    parts = [build_report(given_records, start=a, end=b) for a, b in ((START, cut), (cut, END))]
    assert sum(part.core_hours.value or 0 for part in parts) == pytest.approx(whole.core_hours.value or 0)
    assert sum(part.jobs.ended for part in parts) == whole.jobs.ended
    assert sum(part.jobs.started for part in parts) == whole.jobs.started
    assert sum(part.jobs.submitted for part in parts) == whole.jobs.submitted


def test_a_sum_is_unknown_where_only_what_held_nothing_is_known(tmp_path: Path) -> None:
    rows = [
        "JobID|User|State|Submit|Start|End|Elapsed|NNodes|AllocCPUS|TotalCPU|ReqMem|NodeList",
        "1|a|COMPLETED|2024-05-01T00:00:00|2024-05-01T00:00:00|2024-05-01T01:00:00|01:00:00|1|4|02:00:00|1G|n1",
        "2|a|COMPLETED|2024-05-01T00:00:00|2024-05-01T00:00:00|2024-05-01T01:00:00|01:00:00|1|12||1G|n1",
        "3|a|OUT_OF_ME+|2024-05-01T00:00:00|2024-05-01T00:00:00|2024-05-01T01:00:00|01:00:00|1||||n1",
        "4|a|PENDING|2024-05-01T00:00:00|Unknown|Unknown|00:00:00|1|4|00:00:00|1G|None assigned",
    ]
    (tmp_path / "sacct.txt").write_text("\n".join(rows))
    table, faults = read_sacct([tmp_path / "sacct.txt"], zone=UTC)
    assert (faults.total, sorted(table["state"])) == (0, ["COMPLETED", "COMPLETED", "OUT_OF_MEMORY", "PENDING"])
    first, last = span(table)
    (user,) = build_report(table, start=first, end=last + 1).by_user
    assert (user.core_hours, user.gpu_hours) == (16.0, None)  # zero GPUs of the pending job say nothing of the others
    assert (user.cpu_efficiency, user.cpu_coverage, user.memory_efficiency) == (0.5, 0.25, None)
