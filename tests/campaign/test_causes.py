"""Why jobs end badly, and which nodes are to blame."""

from __future__ import annotations

import pytest

from hpcplan.campaign.causes import Cause, cause_of, failed_nodes
from hpcplan.slurm import JobRecord, JobState, NodeRecord


def record(state: JobState, node_list: str | None = "n[1-4]") -> JobRecord:
    return JobRecord(job_id=7, state=state, node_list=node_list)


@pytest.mark.parametrize("state", [state for state in JobState if state.final and state is not JobState.COMPLETED])
def test_every_bad_end_has_a_cause(state: JobState) -> None:
    assert isinstance(cause_of(record(state)), Cause)


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        ("RuntimeError: CUDA out of memory. Tried to allocate 2 GiB", Cause.OUT_OF_MEMORY),
        ("slurmstepd: error: Detected 1 oom_kill event in StepId=7.0", Cause.OUT_OF_MEMORY),
        ("srun: error: Node failure on n3", Cause.NODE_FAILURE),
        ("CUDA error: uncorrectable ECC error encountered", Cause.NODE_FAILURE),
        ("slurmstepd: error: *** JOB 7 ON n0 CANCELLED AT … DUE TO PREEMPTION ***", Cause.PREEMPTION),
        ("hpcplan: this was the last job of the chain, and training stands at step 8 of 9", Cause.TIMEOUT),
        ("ValueError: no such tokenizer", Cause.APPLICATION_ERROR),
    ],
)  # fmt: skip
def test_a_failed_job_is_told_by_its_log(line: str, cause: Cause) -> None:
    assert cause_of(record(JobState.FAILED), f"step: 5\n{line}\n") is cause
    assert cause_of(record(JobState.PREEMPTED), line) is Cause.PREEMPTION, "what Slurm says goes first"


def test_the_node_that_the_log_names_is_to_blame() -> None:
    assert failed_nodes(record(JobState.NODE_FAIL), [], "srun: error: Node failure on n3\n") == ["n3"]
    assert failed_nodes(record(JobState.NODE_FAIL), [], "srun: error: Node failure on n9\n") == []


def test_else_those_that_are_down_and_never_all() -> None:
    nodes = [NodeRecord("n1", "idle"), NodeRecord("n2", "down"), NodeRecord("n9", "down")]
    assert failed_nodes(record(JobState.NODE_FAIL), nodes) == ["n2"]
    assert failed_nodes(record(JobState.NODE_FAIL), nodes[:1]) == []
    assert failed_nodes(record(JobState.NODE_FAIL, "n1"), nodes[:1]) == ["n1"]
    assert failed_nodes(record(JobState.NODE_FAIL, None), nodes) == []
