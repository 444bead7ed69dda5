"""Cancelling: all that may still run, nothing that is not ours, and no more submissions after it."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from hpcplan.campaign import cancel, preview, status, submit
from hpcplan.campaign.journal import read_journal
from hpcplan.errors import ConflictError, SlurmUnreachableError
from hpcplan.slurm.records import JobState


@pytest.fixture
def slurm(fakes: ModuleType) -> Any:
    return fakes.FakeSlurm()


def test_the_last_of_the_chain_goes_first_so_that_none_starts_meanwhile(directory: Path, slurm: Any) -> None:
    submit(directory, slurm)
    slurm.run(100)
    result = cancel(directory, slurm)
    assert (result.job_ids, result.ended) == ((102, 101, 100), ())
    assert slurm.cancelled == [102, 101, 100]
    assert status(directory, slurm).state == "cancelled"
    assert [entry.event for entry in read_journal(directory)][-5:] == [
        "cancel", "cancelled", "ended", "ended", "ended",
    ]  # fmt: skip


def test_jobs_that_have_ended_are_left_alone(directory: Path, slurm: Any) -> None:
    submit(directory, slurm)
    slurm.run(100)
    slurm.end(100)
    result = cancel(directory, slurm)
    assert (result.job_ids, result.ended) == ((102, 101), (100,))


def test_a_job_that_now_has_our_id_but_is_not_ours_is_left_alone(directory: Path, slurm: Any) -> None:
    submit(directory, slurm)
    slurm.set(101, JobState.RUNNING, comment="hpcplan:another:train:2")
    cancel(directory, slurm)
    assert slurm.cancelled == [102, 100]


def test_a_lost_job_is_found_and_cancelled_too(directory: Path, slurm: Any, fakes: ModuleType) -> None:
    slurm.after = fakes.on_call(2, fakes.die)
    with pytest.raises(fakes.Died):
        submit(directory, slurm)
    slurm.after = lambda call: None
    assert cancel(directory, slurm, settle_s=0).job_ids == (101, 100)
    assert all(record.state is JobState.CANCELLED for record in slurm.records.values())


def test_a_cancelled_campaign_is_not_submitted_again(directory: Path, slurm: Any, fakes: ModuleType) -> None:
    slurm.before = fakes.on_call(3, fakes.die)
    with pytest.raises(fakes.Died):
        submit(directory, slurm)
    slurm.before = lambda call: None
    cancel(directory, slurm, settle_s=0)
    for action in (lambda: submit(directory, slurm), lambda: preview(directory)):
        with pytest.raises(ConflictError, match="this campaign was cancelled"):
            action()
    assert len(slurm.records) == 1


def test_cancelling_what_was_never_submitted_does_nothing(directory: Path, slurm: Any) -> None:
    assert cancel(directory, slurm).job_ids == ()
    assert slurm.calls == []
    assert len(submit(directory, slurm)) == 3


def test_no_answer_leaves_the_campaign_to_be_cancelled_again(directory: Path, slurm: Any) -> None:
    submit(directory, slurm)
    slurm.unreachable = True
    with pytest.raises(SlurmUnreachableError):
        cancel(directory, slurm)
    slurm.unreachable = False
    assert len(cancel(directory, slurm).job_ids) == 3


def test_another_cluster_is_not_told_to_cancel_anything(directory: Path, slurm: Any, fakes: ModuleType) -> None:
    submit(directory, slurm)
    other = fakes.FakeSlurm(cluster="other")
    with pytest.raises(ConflictError, match="belongs to cluster"):
        cancel(directory, other)
    assert other.cancelled == []
