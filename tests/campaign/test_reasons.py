"""Slurm's reasons in plain words."""

from __future__ import annotations

import pytest

from hpcplan.campaign.reasons import explain_reason, explain_state
from hpcplan.slurm.records import JobState


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("Priority", "jobs with higher priority go first"),
        ("Resources", "first in line; waiting for nodes to become free"),
        ("Dependency", "waiting for the job before it to end"),
        ("AssocGrpCPURunMinutesLimit", "the account's limit on CPUs x minutes of running jobs is used up"),
        ("AssocGrpGRES", "the account's limit on GPUs or other GRES is used up"),
        ("QOSMaxNodePerUserLimit", "the QOS's limit on nodes for one user stands against it"),
        ("QOSMaxJobsPerUserLimit", "the QOS's limit on running jobs for one user stands against it"),
        ("AssocMaxWallDurationPerJobLimit", "the account's limit on wall time for one job stands against it"),
        ("MaxGRESPerAccount", "the QOS's limit on GPUs or other GRES for one account stands against it"),
        ("MaxCpuRunMinsPerUser", "the QOS's limit on CPUs x minutes of running jobs for one user stands against it"),
        ("QOSMinGRES", "it asks for less than the QOS's minimum of GPUs or other GRES"),
        ("QOSMinCpuNotSatisfied", "it asks for less than the QOS's minimum of CPUs"),
        (
            "ReqNodeNotAvail, UnavailableNodes:n[1-3]",
            "nodes that it needs are down, drained or reserved (UnavailableNodes:n[1-3])",
        ),
        (
            "Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority partitions",
            "nodes that it needs are down, drained or reserved",
        ),
        ("launch failed requeued held", "held after it failed to launch; release it with scontrol release"),
        ("SomethingNewIn2031", "SomethingNewIn2031"),
        ("None", None),
        ("", None),
        (None, None),
    ],
)
def test_reason(reason: str | None, words: str | None) -> None:
    assert explain_reason(reason) == words


def test_every_way_to_end_badly_is_explained() -> None:
    silent = {JobState.COMPLETED}
    assert [state for state in JobState if state.final and explain_state(state) is None and state not in silent] == []
