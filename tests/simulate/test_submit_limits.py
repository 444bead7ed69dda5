"""Limits on how many jobs may be queued: the submission beyond them is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcplan.errors import SlurmError
from hpcplan.simulate.account_policy import AccountPolicy, Association, Limits, QosPolicy
from hpcplan.simulate.controller import Controller
from hpcplan.simulate.jobs import Behaviour
from hpcplan.simulate.sacctmgr_files import read_accounting
from hpcplan.simulate.slurm_cluster import SlurmCluster
from hpcplan.simulate.slurm_settings import SlurmSettings
from tests.simulate.clusters import job, machine


def cluster(qos: Limits | None = None, user: Limits | None = None, lab: Limits | None = None) -> Controller:
    people = tuple(
        Association("lab", user=name, limits=user or Limits(), default_account=True) for name in ("ana", "bo")
    )
    tree = (Association("root"), Association("lab", parent="root", limits=lab or Limits()), *people)
    policy = AccountPolicy({"normal": QosPolicy("normal", limits=qos or Limits())}, tree)
    return Controller(SlurmCluster(machine(4), SlurmSettings(), policy=policy), name="tiny")


def submit(tiny: Controller, user: str = "ana", tasks: int = 0) -> int:
    return tiny.submit(job(1, array=tuple(range(tasks))), Behaviour(100), user)


@pytest.mark.parametrize(("tiny", "other", "word"), [
    (cluster(qos=Limits(user_submit=2)), True, "QOSMaxSubmitJobPerUserLimit"),
    (cluster(qos=Limits(group_submit=2)), False, "QOSGrpSubmitJobsLimit"),
    (cluster(qos=Limits(account_submit=2)), False, "MaxSubmitJobsPerAccount"),
    (cluster(user=Limits(user_submit=2)), True, "AssocMaxSubmitJobLimit"),
    (cluster(lab=Limits(group_submit=2)), False, "AssocGrpSubmitJobsLimit"),
])  # fmt: skip
def test_one_too_many_is_refused_until_one_has_ended(tiny: Controller, word: str, *, other: bool) -> None:
    submit(tiny)
    submit(tiny)
    with pytest.raises(SlurmError) as caught:
        submit(tiny)
    assert caught.value.message == (
        f"sbatch: error: {word}\nsbatch: error: Batch job submission failed: "
        "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)"
    )
    if other:
        submit(tiny, user="bo")
    else:
        with pytest.raises(SlurmError, match=word):
            submit(tiny, user="bo")
    tiny.cancel(1)
    submit(tiny)


def test_each_task_of_an_array_counts() -> None:
    tiny = cluster(qos=Limits(user_submit=3))
    submit(tiny, tasks=2)
    with pytest.raises(SlurmError, match="QOSMaxSubmitJobPerUserLimit"):
        submit(tiny, tasks=2)
    submit(tiny)


def test_they_are_read_from_what_sacctmgr_prints(tmp_path: Path) -> None:
    (tmp_path / "qos").write_text("Name|Priority|GrpTRES|GrpSubmit|MaxSubmitPU|MaxSubmitPA\nnormal|0||9|3|5\n")
    dump = "Cluster - 'c':Fairshare=1\nParent - 'root'\nAccount - 'lab':Fairshare=1:GrpSubmitJobs=7\n"
    (tmp_path / "dump").write_text(dump)
    found = read_accounting(tmp_path / "qos", tmp_path / "dump")
    limits = found.qos["normal"].limits
    assert (limits.group_submit, limits.user_submit, limits.account_submit) == (9, 3, 5)
    assert found.accounts["lab"].limits.group_submit == 7
