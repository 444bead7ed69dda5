"""Campaigns on a real Slurm while its parts fail and clients are killed: in short what the scripts do at length."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcplan.campaign import advance, status, submit
from hpcplan.campaign.journal import read_journal
from hpcplan.slurm.command import CommandBackend
from tests.campaign import kill
from tests.campaign.tiny import ran, write_tiny_campaign
from tests.slurm import faults
from tests.slurm.cluster import SlurmCluster


@pytest.mark.timeout(600)  # more than the run itself waits, which then says what it waited for
def test_nothing_is_lost_and_nothing_runs_twice_while_one_part_after_the_other_fails(slurm: SlurmCluster) -> None:
    found = faults.run(slurm, 40, away_s=3)
    slurm.run("sacctmgr", "--immediate", "show", "runawayjobs")  # those that were forgotten would run for ever in sacct
    assert (found["lost"], found["twice"], found["ends_taken_back"]) == (0, 0, 0)
    assert found["rounds_without_answer"]


def test_clients_killed_at_random_submit_every_job_once(slurm: SlurmCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kill, "_BATCH", 5)
    assert kill.at_random(kill.slurm_world(slurm), 10, random.Random(3)) >= 5


def test_a_job_that_fails_is_gone_on_with_and_the_budget_is_kept(slurm: SlurmCluster) -> None:
    backend = CommandBackend()
    directory = write_tiny_campaign(slurm.job_folder() / "c", 2, name="fails", exit_code=3)
    (directory / "policy.yaml").write_text("retry: {application_error: 1}\n")
    submit(directory, backend, settle_s=1)

    def ended() -> bool:
        return status(directory, backend).state.value == "failed"

    slurm.wait_until(ended, "both jobs have failed")
    assert advance(directory, backend, settle_s=1).acts[0].startswith("retries train-0001, train-0002")
    slurm.wait_until(ended, "both have failed again")
    assert "gone on with 1 times already" in advance(directory, backend, settle_s=1).acts[0]
    assert ran(directory) == {"train-0001": 2, "train-0002": 2}
    assert [entry.event for entry in read_journal(directory)].count("submitted") == 4


@pytest.fixture
def limited(slurm: SlurmCluster) -> Iterator[SlurmCluster]:
    """The cluster, on which this user may have two jobs in the queue."""
    conf = Path(slurm.env["SLURM_CONF"])
    text = conf.read_text()

    def restart(settings: str, limit: int) -> None:
        slurm.run("sacctmgr", "--immediate", "modify", "user", "root", "set", f"MaxSubmitJobs={limit}")
        slurm.stop_daemon("slurmctld")
        conf.write_text(settings)
        slurm.start_daemon("slurmctld")
        slurm.wait_until(slurm.is_ready, "every node is back")

    restart(text + "AccountingStorageEnforce=limits\n", 2)
    yield slurm
    slurm.drain_queue()
    restart(text, -1)


def test_slurms_limit_on_queued_jobs_is_respected_and_room_is_used_as_it_comes(limited: SlurmCluster) -> None:
    backend = CommandBackend()
    directory = write_tiny_campaign(limited.job_folder() / "c", 3, name="limited", seconds=1)
    for script in directory.glob("*.sbatch"):
        script.write_text(script.read_text().replace("sleep 1\n", "while [[ ! -e go ]]; do sleep 0.2; done\n"))
    assert [step.action for step in submit(directory, backend, settle_s=1)] == ["submitted", "submitted", "later"]
    found = status(directory, backend)
    assert (found.due, found.moving) == (("train-0003",), True)
    assert found.state.value in ("submitting", "running"), "as soon as the first has started"
    (directory / "go").touch()
    limited.wait_until(
        lambda: submit(directory, backend, settle_s=1)[-1].action in ("submitted", "already"), "there is room again"
    )
    limited.wait_until(lambda: status(directory, backend).state.value == "done", "all have run")
    assert ran(directory) == {f"train-000{number}": 1 for number in (1, 2, 3)}
