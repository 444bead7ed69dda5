"""What every backend does, whoever answers behind it: one suite, run on each.

A test class inherits :class:`BackendContract` and gives the fixture ``world``: a backend, a way to write scripts, and a
way to let time pass until something holds.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

import pytest

from hpcplan.errors import SlurmError, SlurmUnreachableError
from hpcplan.slurm import Backend, JobRecord, JobState, Submission

LONG_S = 600


class World(ABC):
    """A cluster to test against, and what a test needs besides the backend."""

    backend: Backend
    cluster: str
    partition: str
    nodes: int
    folder: Path
    requeues = True
    estimates = True
    excludes = True
    stores_exit_codes = True
    submits_components = True
    runs_scripts = True

    def script(self, seconds: int = 1, *directives: str, name: str = "job", exit_code: int = 0) -> Path:
        """Write a job script that takes so long and ends so."""
        path = self.folder / f"{name}.sbatch"
        lines = ["#!/bin/bash", f"#SBATCH --partition={self.partition}", "#SBATCH --time=5",
                 *(f"#SBATCH {directive}" for directive in directives),
                 f"# hpcplan: expected-runtime-s={seconds}"]  # fmt: skip
        if exit_code:
            lines.append(f"# hpcplan: pretend-exit={exit_code}")
        path.write_text("\n".join([*lines, f"sleep {seconds}", f"exit {exit_code}"]) + "\n")
        return path

    def submission(self, seconds: int = 1, *directives: str, name: str = "job", exit_code: int = 0, **options: object):  # type: ignore[no-untyped-def]
        """Return the submission of such a script."""
        return Submission(
            script=str(self.script(seconds, *directives, name=name, exit_code=exit_code)),
            work_dir=str(self.folder), **options,  # type: ignore[arg-type]
        )  # fmt: skip

    def submit(self, *arguments: object, **options: object) -> int:
        """Submit such a script."""
        return self.backend.submit(self.submission(*arguments, **options))  # type: ignore[arg-type]

    @abstractmethod
    def until(self, condition: Callable[[], bool], what: str) -> None:
        """Let time pass until the condition holds, or fail."""

    @abstractmethod
    def cut(self) -> None:
        """Take the controller away until the test has ended."""

    def only(self, job_id: int) -> JobRecord:
        """Return the one record of a job."""
        (record,) = self.backend.jobs([job_id])
        return record

    def ends(self, job_id: int) -> JobRecord:
        """Return a job's record when it has ended."""
        self.until(lambda: self.only(job_id).state.final, f"{job_id} has ended")
        return self.only(job_id)

    def runs(self, job_id: int) -> JobRecord:
        """Return a job's record when it runs."""
        self.until(lambda: self.only(job_id).state is JobState.RUNNING, f"{job_id} runs")
        return self.only(job_id)


class BackendContract:
    """The suite."""

    def test_it_is_a_backend_that_says_who_answers(self, world: World) -> None:
        assert isinstance(world.backend, Backend)
        info = world.backend.ping()
        assert (info.backend, info.cluster, info.accounting) == (world.backend.name, world.cluster, True)

    def test_a_job_is_told_truly_from_submission_to_its_end(self, world: World) -> None:
        before = world.backend.now()
        job_id = world.submit(2, "--nodes=2", name="whole", comment="hpcplan:t:train:1")
        assert job_id > 0
        record = world.ends(job_id)
        assert (record.state, record.exit_code, record.signal) == (JobState.COMPLETED, 0, 0)
        assert (record.name, record.comment, record.cluster) == ("whole.sbatch", "hpcplan:t:train:1", world.cluster)
        assert (record.partition, record.nodes, record.time_limit_s) == (world.partition, 2, 300)
        assert record.work_dir == str(world.folder)
        assert record.node_list is not None
        assert None not in (record.submit_time, record.start_time, record.end_time)
        times = (before - 2, record.submit_time, record.start_time, record.end_time, world.backend.now() + 1)
        assert list(times) == sorted(times)  # type: ignore[type-var]

    def test_a_job_that_fails_has_its_exit_code(self, world: World) -> None:
        record = world.ends(world.submit(1, exit_code=3))
        assert (record.state, record.exit_code) == (JobState.FAILED, 3)

    def test_a_held_job_waits_until_it_is_released(self, world: World) -> None:
        job_id = world.submit(1, hold=True)
        record = world.only(job_id)
        assert (record.state, record.reason) == (JobState.PENDING, "JobHeldUser")
        assert (record.start_time, record.end_time, record.exit_code) == (None, None, None)
        world.backend.release([job_id])
        assert world.ends(job_id).state is JobState.COMPLETED

    def test_a_job_that_waits_can_be_held(self, world: World) -> None:
        first = world.submit(LONG_S, name="first")
        second = world.submit(1, dependency=f"afterany:{first}")
        world.backend.hold([second])
        world.until(lambda: (world.only(second).reason or "").startswith("JobHeld"), "it is held")

    def test_a_dependent_job_starts_after_the_first(self, world: World) -> None:
        first = world.submit(2, name="first")
        second = world.submit(1, dependency=f"afterany:{first}")
        waiting = world.only(second)
        assert waiting.state is JobState.PENDING
        assert str(first) in (waiting.dependency or "")
        ended = world.ends(second)
        assert (ended.start_time or 0) >= (world.only(first).end_time or 1 << 40)

    def test_a_heterogeneous_job_is_its_components_and_is_cancelled_as_a_whole(self, world: World) -> None:
        parts = ("--nodes=2", f"hetjob\n#SBATCH --partition={world.partition}\n#SBATCH --nodes=1")
        if not world.submits_components:
            with pytest.raises(SlurmError, match="hetjob"):
                world.submit(LONG_S, *parts)
            return
        job_id = world.submit(LONG_S, *parts, comment="hpcplan:t:train:1")

        def all_are(*states: JobState) -> bool:
            records = world.backend.jobs([job_id])
            return len(records) == 2 and all(record.state in states for record in records)

        world.until(lambda: all_are(JobState.RUNNING), "both components run")
        first, second = world.backend.jobs([job_id])
        assert [(one.job_id, one.het_job_id, one.het_offset) for one in (first, second)] == [
            (job_id, job_id, 0), (second.job_id, job_id, 1)
        ]  # fmt: skip
        assert (first.nodes, second.nodes) == (2, 1)
        assert first.comment == "hpcplan:t:train:1"
        assert {one.submitted_id for one in (first, second)} == {job_id}
        world.backend.cancel([job_id])
        world.until(lambda: all_are(JobState.CANCELLED), "both are cancelled")
        assert [one.het_offset for one in world.backend.jobs([job_id])] == [0, 1]

    def test_a_script_is_told_its_token(self, world: World) -> None:
        submission = world.submission(1, token="hpcplan:t:train:1p2r3")
        script = Path(submission.script)
        script.write_text(script.read_text().replace("sleep", 'echo "${1:-$HPCPLAN_TOKEN}" >token; sleep', 1))
        assert world.ends(world.backend.submit(submission)).state is JobState.COMPLETED
        if world.runs_scripts:
            assert (world.folder / "token").read_text() == "hpcplan:t:train:1p2r3\n"

    def test_jobs_are_cancelled_and_those_already_over_are_no_error(self, world: World) -> None:
        running, over = world.submit(LONG_S), world.submit(1, name="short")
        world.runs(running)
        world.ends(over)
        world.backend.cancel([running, over, 9_999_999])
        assert world.ends(running).state is JobState.CANCELLED
        world.backend.cancel([running])
        assert world.only(over).state is JobState.COMPLETED

    def test_a_job_cancelled_before_its_start_has_none(self, world: World) -> None:
        job_id = world.submit(1, hold=True)
        world.backend.cancel([job_id])
        record = world.ends(job_id)
        assert (record.state, record.start_time, record.node_list) == (JobState.CANCELLED, None, None)

    def test_a_requeued_job_is_the_same_job_once_more(self, world: World) -> None:
        job_id = world.submit(LONG_S)
        world.runs(job_id)
        if not world.requeues:
            with pytest.raises(SlurmError, match="requeue"):
                world.backend.requeue([job_id])
            assert world.only(job_id).state is JobState.RUNNING
            return
        world.backend.requeue([job_id])
        world.until(lambda: world.only(job_id).state.waiting, "it waits again")
        assert world.only(job_id).restarts == 1

    def test_unknown_jobs_are_absent(self, world: World) -> None:
        assert world.backend.jobs([9_999_998, 9_999_999]) == []
        assert world.backend.jobs([]) == []

    def test_each_job_comes_once_and_in_order(self, world: World) -> None:
        ids = [world.submit(1, name=f"job-{number}", hold=True) for number in range(3)]
        assert [record.job_id for record in world.backend.jobs(list(reversed(ids)))] == ids
        assert set(ids) <= {record.job_id for record in world.backend.jobs()}

    def test_what_ended_before_since_is_left_out(self, world: World) -> None:
        record = world.ends(world.submit(1))
        assert record.end_time is not None
        assert world.backend.jobs([record.job_id], since=record.end_time + 1) == []
        assert [found.job_id for found in world.backend.jobs([record.job_id], since=record.end_time)] == [record.job_id]

    def test_nodes_and_partitions_are_there(self, world: World) -> None:
        nodes = [node for node in world.backend.nodes() if world.partition in node.partitions]
        assert len(nodes) == world.nodes
        assert all(node.usable and node.cpus for node in nodes)
        partition = next(found for found in world.backend.partitions() if found.name == world.partition)
        assert (partition.total_nodes, partition.state) == (world.nodes, "up")

    def test_nodes_that_are_excluded_are_not_used(self, world: World) -> None:
        first, *rest = [node.name for node in world.backend.nodes() if world.partition in node.partitions]
        unwanted = ",".join([first, *rest[1:]])
        if not world.excludes:
            with pytest.raises(SlurmError, match="exclude"):
                world.submit(1, exclude=unwanted)
            return
        assert world.ends(world.submit(1, exclude=unwanted)).node_list == rest[0]

    def test_accounting_has_what_ended(self, world: World) -> None:
        before = world.backend.now()
        job_id = world.submit(1, exit_code=4)
        world.ends(job_id)

        def stored() -> list[JobRecord]:
            found = world.backend.accounting(before - 2, world.backend.now() + 1)
            return [record for record in found if record.job_id == job_id and record.state.final]

        world.until(lambda: bool(stored()), "accounting knows it")
        (record,) = stored()
        assert (record.state, record.exit_code) == (JobState.FAILED, 4 if world.stores_exit_codes else None)
        assert record.end_time == world.only(job_id).end_time

    def test_a_refused_script_is_an_error_and_no_lost_connection(self, world: World) -> None:
        with pytest.raises(SlurmError) as refused:
            world.submit(1, "--partition=nowhere")
        assert not isinstance(refused.value, SlurmUnreachableError)
        with pytest.raises(SlurmError, match="Unable to open file"):
            world.backend.submit(Submission(script="/nowhere/job.sbatch", work_dir="/"))

    def test_an_estimate_of_the_start_submits_nothing(self, world: World) -> None:
        submission = world.submission(1, name="never")
        estimate = world.backend.estimate_start(submission)
        assert (estimate is not None) == world.estimates
        if estimate is not None:
            assert abs(estimate.start_time - world.backend.now()) < 600
        assert all(record.name != "never.sbatch" for record in world.backend.jobs())

    def test_without_a_controller_every_question_says_so(self, world: World) -> None:
        submission = world.submission(1, hold=True)
        job_id = world.backend.submit(submission)
        world.cut()
        for question in (
            lambda: world.backend.jobs([job_id]), lambda: world.backend.submit(submission),
        ):  # fmt: skip
            with pytest.raises(SlurmUnreachableError):
                question()
