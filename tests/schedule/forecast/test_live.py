"""The queue as a backend shows it."""

from __future__ import annotations

from dataclasses import dataclass, field

from hpcplan.schedule.forecast.cluster import ClusterFuture
from hpcplan.schedule.forecast.live import parse_reservations, snapshot_of_backend
from hpcplan.slurm.records import ClusterInfo, JobRecord, JobState, NodeRecord, PartitionRecord

NOW = 1_700_000_000


@dataclass
class Queue:
    """A backend that only shows."""

    records: list[JobRecord]
    states: tuple[str, ...] = ("allocated", "allocated", "idle", "down")
    asked: list[tuple[int, int]] = field(default_factory=list)
    name: str = "command"

    def now(self) -> int:
        return NOW

    def ping(self) -> ClusterInfo:
        return ClusterInfo("command", "lab", "23.11.0", True)

    def nodes(self) -> list[NodeRecord]:
        return [
            NodeRecord(f"n{number}", state, cpus=16, gpus=4, memory_bytes=2**34, partitions=("batch",))
            for number, state in enumerate(self.states)
        ]

    def partitions(self) -> list[PartitionRecord]:
        return [PartitionRecord("batch", "up", nodes="n[0-3]", total_nodes=4, default=True, max_time_s=86400)]

    def accounting(self, start: int, end: int) -> list[JobRecord]:
        self.asked.append((start, end))
        return self.records


def record(number: int, state: JobState, **more: object) -> JobRecord:
    asked = {
        "user": "ann",
        "partition": "batch",
        "nodes": 2,
        "cpus": 32,
        "submit_time": NOW - 500,
        "time_limit_s": 3600,
    }
    return JobRecord(number, state, **{**asked, **more})  # type: ignore[arg-type]


RUNNING = record(1, JobState.RUNNING, start_time=NOW - 400, end_time=NOW + 3200, node_list="n[0-1]")
PENDING = record(2, JobState.PENDING, reason="Resources", priority=10)
ENDED = record(3, JobState.COMPLETED, start_time=NOW - 400, end_time=NOW - 100, name="train-7")


def test_each_waiting_task_of_an_array_is_a_job_of_the_queue() -> None:
    array = record(2, JobState.PENDING, reason="Priority", priority=9, array_job_id=2, array_tasks_waiting="3-8%4")
    found = snapshot_of_backend(Queue([RUNNING, array]))  # type: ignore[arg-type]
    assert [job.label for job in found.pending] == ["2", "2.task2", "2.task3", "2.task4"]
    assert {(job.width, job.priority, job.limit_s) for job in found.pending} == {(2, 9, 3600)}


def test_running_waiting_and_ended_jobs_are_told_apart() -> None:
    held = record(4, JobState.PENDING, reason="Dependency", priority=0)
    never = record(5, JobState.CANCELLED)
    backend = Queue([RUNNING, PENDING, ENDED, held, never])
    found = snapshot_of_backend(backend, history_s=1000)  # type: ignore[arg-type]
    assert backend.asked == [(NOW - 1000, NOW)]
    assert [job.label for job in found.running] == ["1"]
    assert [job.label for job in found.pending] == ["2"]
    assert [(job.label, job.end_s, job.name) for job in found.history] == [("3", NOW - 100, "train-7")]
    assert found.left_out == 1
    assert found.unusable == "n3"
    assert found.source == "command: lab"


def test_the_queue_goes_on_from_where_it_stands() -> None:
    found = snapshot_of_backend(Queue([RUNNING, PENDING]))  # type: ignore[arg-type]
    future = ClusterFuture(found.model_copy(update={"policy": "easy"}))
    target = PENDING.nodes and found.pending[0].model_copy(update={"label": "x", "width": 3, "priority": 0})
    assert target
    assert future.start_of(target, [1000, 50], ()) == NOW - 400 + 1000 + 50


def test_attempts_of_one_job_are_jobs_of_their_own() -> None:
    again = record(3, JobState.REQUEUED, start_time=NOW - 480, end_time=NOW - 410)
    found = snapshot_of_backend(Queue([again, ENDED]))  # type: ignore[arg-type]
    assert sorted(job.label for job in found.history) == ["3", "3.2"]


def test_shared_nodes_become_a_pool_of_cpus_with_dominant_shares() -> None:
    part = record(6, JobState.RUNNING, start_time=NOW - 9, nodes=1, cpus=2, gpus=2, node_list="n2")
    found = snapshot_of_backend(Queue([part, PENDING]))  # type: ignore[arg-type]
    assert found.machine is None
    assert found.procs == 48
    assert [job.width for job in found.jobs] == [8, 32]


def test_reservations_are_read_as_scontrol_prints_them() -> None:
    answer = (
        "ReservationName=maint StartTime=1700003600 EndTime=1700007200 Duration=01:00:00 Nodes=n[0-1] NodeCnt=2 "
        "Flags=MAINT,SPEC_NODES Users=root\n"
        "ReservationName=class StartTime=2023-11-15T00:00:00 EndTime=2023-11-15T01:00:00 Nodes=n2 Flags=DAILY\n"
        "ReservationName=soft StartTime=1700003600 EndTime=1700007200 Nodes=n3 Flags=FLEX\n"
        "ReservationName=licence StartTime=1700003600 EndTime=1700007200 Nodes=(null) Flags=\n"
    )
    maint, lesson = parse_reservations(answer)
    assert (maint.start_s, maint.end_s, maint.nodes) == (1700003600, 1700007200, "n[0-1]")
    assert lesson.start_s == 1700006400
    assert parse_reservations("No reservations in the system\n") == ()
