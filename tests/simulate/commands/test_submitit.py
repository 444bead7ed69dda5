"""submitit, unmodified, on the mock cluster: what its own tests of its Slurm executor hold it to."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.simulate.commands.conftest import MockSlurm

submitit = pytest.importorskip("submitit")


def add(first: int, second: int) -> int:
    print(f"adding {first} and {second}")
    print("a word of warning", file=sys.stderr)
    return first + second


def fail() -> None:
    raise ValueError("this was meant to fail")


def whereabouts() -> dict[str, Any]:
    env = submitit.JobEnvironment()
    return {
        "rank": env.global_rank, "local": env.local_rank, "node": env.node, "tasks": env.num_tasks,
        "nodes": env.num_nodes, "host": env.hostname, "gpus": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "array": os.environ.get("SLURM_ARRAY_JOB_ID"), "restarts": os.environ.get("SLURM_RESTART_COUNT"),
    }  # fmt: skip


def sleep(seconds: float) -> str:
    time.sleep(seconds)
    return "slept"


class Counting(submitit.helpers.Checkpointable):  # type: ignore[misc, name-defined]
    """Counts for as long as it takes, and goes on where it was after a requeue; the file says that it has begun."""

    def __init__(self) -> None:
        self.start = 0
        self.now = 0

    def __call__(self, begun: str, enough: int) -> tuple[int, int]:
        self.now = self.start
        Path(begun).write_text(str(self.start))
        while self.now < enough or self.start == 0:
            self.now += 1
            time.sleep(0.02)
        return self.start, self.now

    def checkpoint(self, begun: str, enough: int) -> Any:
        self.start = self.now
        return submitit.helpers.DelayedSubmission(self, begun, enough)


@pytest.fixture
def executor(slurm: MockSlurm) -> Iterator[Any]:
    """submitit's Slurm executor, which logs into a folder of the test."""
    import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    made = submitit.AutoExecutor(folder=slurm.folder / "logs", cluster="slurm")
    made.update_parameters(timeout_min=5, nodes=1, tasks_per_node=1)
    yield made
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


def wait_until(found: Callable[[], object], patience_s: float = 20) -> None:
    deadline = time.monotonic() + patience_s
    while not found():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def state(job: Any) -> str:
    return str(job.watcher.get_state(job.job_id, mode="force"))


def test_auto_executor_takes_the_mock_for_slurm(slurm: MockSlurm) -> None:
    assert submitit.AutoExecutor(folder=slurm.folder).cluster == "slurm"


def test_a_function_is_submitted_and_its_result_comes_back(executor: Any) -> None:
    job = executor.submit(add, 3, second=4)
    assert job.result() == 7
    assert job.done(force_check=True)
    wait_until(lambda: state(job) == "COMPLETED")
    assert job.exception() is None


def test_output_is_where_submitit_looks_for_it(executor: Any) -> None:
    job = executor.submit(add, 1, 2)
    job.wait()
    assert str(job.paths.stdout).endswith(f"{job.job_id}_0_log.out")
    assert job.paths.stdout.exists()
    assert "adding 1 and 2" in job.stdout()
    assert "a word of warning" in job.stderr()


def test_an_exception_comes_back_with_its_traceback(executor: Any) -> None:
    job = executor.submit(fail)
    with pytest.raises(submitit.core.utils.FailedJobError, match="this was meant to fail") as caught:
        job.result()
    assert "Traceback" in str(caught.value)
    assert isinstance(job.exception(), submitit.core.utils.FailedJobError)
    wait_until(lambda: state(job) == "FAILED")


def test_a_batch_is_one_array(executor: Any) -> None:
    executor.update_parameters(slurm_array_parallelism=2)
    jobs = executor.map_array(add, [1, 2, 3], [10, 20, 30])
    arrays = {job.job_id.partition("_")[0] for job in jobs}
    assert len(arrays) == 1
    assert [job.job_id.partition("_")[2] for job in jobs] == ["0", "1", "2"]
    assert [job.result() for job in jobs] == [11, 22, 33]


def test_jobs_of_a_batch_context_are_one_array(executor: Any) -> None:
    with executor.batch():
        jobs = [executor.submit(whereabouts) for _ in range(3)]
    found = [job.result() for job in jobs]
    assert len({one["array"] for one in found}) == 1
    assert found[0]["array"] == jobs[0].job_id.partition("_")[0]


def test_every_task_has_its_rank_its_node_and_its_gpus(executor: Any) -> None:
    executor.update_parameters(nodes=2, tasks_per_node=2, gpus_per_node=4)
    found = executor.submit(whereabouts).results()
    assert [(one["rank"], one["node"], one["local"]) for one in found] == [(0, 0, 0), (1, 0, 1), (2, 1, 0), (3, 1, 1)]
    assert {(one["tasks"], one["nodes"]) for one in found} == {(4, 2)}
    assert {one["gpus"] for one in found} == {"0,1,2,3"}


def test_a_job_is_cancelled(executor: Any) -> None:
    job = executor.submit(sleep, 60)
    wait_until(lambda: state(job) == "RUNNING")
    job._results_timeout_s = 1  # how long submitit waits for a result that is not there
    job.cancel(check=True)
    wait_until(lambda: state(job).startswith("CANCELLED"))
    with pytest.raises(submitit.core.utils.UncompletedJobError):
        job.result()


def test_one_task_of_an_array_is_cancelled_and_the_others_go_on(executor: Any) -> None:
    first, second = executor.map_array(sleep, [60, 1])
    wait_until(lambda: state(first) == "RUNNING")
    first.cancel()
    assert second.result() == "slept"
    wait_until(lambda: state(first).startswith("CANCELLED"))


def test_a_job_that_is_preempted_is_requeued_and_goes_on_from_its_checkpoint(executor: Any, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    job = executor.submit(Counting(), str(begun), 10)
    wait_until(begun.exists)
    job._interrupt()
    start, end = job.result()
    assert 0 < start <= end
    assert "Bypassing signal SIGTERM" in job.stderr()
    assert "Caught signal SIGUSR2" in job.stderr()
    assert "Starting with JobEnvironment" in job.stdout()
    assert "DUE TO JOB REQUEUE" in job.stderr()


def test_a_job_that_times_out_too_often_is_given_up(executor: Any, tmp_path: Path) -> None:
    given_up = submitit.AutoExecutor(folder=tmp_path / "given-up", cluster="slurm", slurm_max_num_timeout=0)
    given_up.update_parameters(timeout_min=5)
    begun = tmp_path / "begun"
    job = given_up.submit(Counting(), str(begun), 10)
    wait_until(begun.exists)
    job._interrupt(timeout=True)
    with pytest.raises(submitit.core.utils.UncompletedJobError, match="timed-out"):
        job.result()


def test_a_job_that_times_out_is_requeued_while_it_may(executor: Any, tmp_path: Path) -> None:
    again = submitit.AutoExecutor(folder=tmp_path / "again", cluster="slurm", slurm_max_num_timeout=2)
    again.update_parameters(timeout_min=5)
    begun = tmp_path / "begun"
    job = again.submit(Counting(), str(begun), 10)
    wait_until(begun.exists)
    job._interrupt(timeout=True)
    start, end = job.result()
    assert 0 < start <= end


def test_as_completed_yields_jobs_as_they_end(executor: Any) -> None:
    jobs = executor.map_array(add, [1, 2], [1, 2])
    found = {job.result() for job in submitit.helpers.as_completed(jobs, poll_frequency=0.1)}
    assert found == {2, 4}


def test_dependencies_and_other_options_go_through(executor: Any, slurm: MockSlurm) -> None:
    first = executor.submit(sleep, 1)
    executor.update_parameters(
        slurm_additional_parameters={"dependency": f"afterok:{first.job_id}"}, slurm_comment="for the test",
        name="second", slurm_partition="batch",
    )  # fmt: skip
    second = executor.submit(whereabouts)
    assert slurm.out("squeue", "-h", "-j", second.job_id, "-o", "%T %r %j %P %k") == (
        "PENDING Dependency second batch for the test"
    )
    assert second.result()["rank"] == 0
