"""Jobs of several records: a heterogeneous job is told with its components, and acted on as a whole."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from hpcplan.campaign import cancel, status, submit
from hpcplan.campaign.journal import read_journal
from hpcplan.cli.status import _why
from hpcplan.slurm.records import JobRecord, JobState


@pytest.fixture
def slurm(fakes: ModuleType, directory: Path) -> Any:
    """Three jobs, the first of which is heterogeneous; the name and comment are the first component's."""
    made = fakes.FakeSlurm()
    submit(directory, made)
    first = made.records[100]
    made.records[100] = replace(first, het_job_id=100, het_offset=0, nodes=2)
    made.records[110] = replace(first, job_id=110, het_job_id=100, het_offset=1, nodes=1, name="part", comment=None)
    return made


def parts(slurm: Any, state: JobState, **changes: Any) -> None:
    for job_id, nodes in ((100, "n[0-1]"), (110, "n7")):
        slurm.records[job_id] = replace(
            slurm.records[job_id], state=state, node_list=nodes, start_time=slurm.clock, **changes
        )


def test_components_are_told_one_by_one_and_their_nodes_together(directory: Path, slurm: Any) -> None:
    job = status(directory, slurm).jobs[0]
    assert (job.state, job.nodes, job.node_list, job.tasks) == ("PENDING", 3, None, None)
    parts(slurm, JobState.RUNNING)
    job = status(directory, slurm).jobs[0]
    assert (job.job_id, job.state, job.nodes, job.node_list) == (100, "RUNNING", 3, "n[0-1,7]")
    assert job.components is not None
    assert [(one.offset, one.job_id, one.state, one.nodes, one.node_list) for one in job.components] == [
        (0, 100, "RUNNING", 2, "n[0-1]"), (1, 110, "RUNNING", 1, "n7")
    ]  # fmt: skip
    assert _why(job) == "components: 0 running on n[0-1], 1 running on n7"
    (told, *_) = status(directory, slurm).as_dict()["jobs"]
    assert told["components"][1]["node_list"] == "n7"


def test_one_component_that_fails_fails_the_whole(directory: Path, slurm: Any) -> None:
    parts(slurm, JobState.COMPLETED, end_time=slurm.clock + 9)
    assert status(directory, slurm).jobs[0].state == "COMPLETED"
    slurm.records[110] = replace(slurm.records[110], state=JobState.NODE_FAIL)
    job = status(directory, slurm).jobs[0]
    assert (job.state, job.reason) == ("NODE_FAIL", "a node failed under it")
    (entry,) = (entry for entry in read_journal(directory)[-1:] if entry.event == "ended")
    assert JobRecord.from_dict(entry.data["record"]).nodes == 3


def test_a_job_without_components_has_none(directory: Path, slurm: Any) -> None:
    assert status(directory, slurm).jobs[1].components is None


def test_cancelling_names_the_whole(directory: Path, slurm: Any) -> None:
    parts(slurm, JobState.RUNNING)
    assert cancel(directory, slurm, settle_s=0).job_ids == (102, 101, 100)


@pytest.mark.parametrize("kind", ["components", "tasks"])
def test_a_lost_answer_finds_the_whole_and_takes_no_part_for_a_duplicate(
    kind: str, directory: Path, fakes: ModuleType
) -> None:
    made = fakes.FakeSlurm()
    made.after = fakes.on_call(1, fakes.die)
    with pytest.raises(fakes.Died):
        submit(directory, made)
    first = made.records[100]
    of = {"het_job_id": 100} if kind == "components" else {"array_job_id": 100}
    made.records[100] = replace(first, **of)
    made.records[101] = replace(first, job_id=101, **of)
    made.next_id = 102
    made.after = lambda call: None
    steps = submit(directory, made, settle_s=0)
    assert [(step.action, step.job_id) for step in steps] == [("found", 100), ("submitted", 102), ("submitted", 103)]
    assert made.cancelled == []
    assert not re.search("duplicate", " ".join(entry.event for entry in read_journal(directory)))


def test_an_array_is_cancelled_although_its_first_task_has_ended(directory: Path, fakes: ModuleType) -> None:
    made = fakes.FakeSlurm()
    submit(directory, made)
    first = made.records[100]
    made.records[100] = replace(first, array_job_id=100, array_task_id=0, state=JobState.COMPLETED)
    made.records[110] = replace(first, job_id=110, array_job_id=100, array_task_id=1, state=JobState.RUNNING)
    assert 100 in cancel(directory, made, settle_s=0).job_ids
