"""The compiled controller under a site's policy: every row of its schedules is that of the controller in Python."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcplan.simulate.account_policy import AccountPolicy, Association, QosPolicy
from hpcplan.simulate.fast_slurm import usual_cluster, usual_shares
from hpcplan.simulate.jobs import JobSpec
from hpcplan.simulate.slurm_cluster import SlurmCluster
from hpcplan.simulate.slurm_settings import SlurmSettings
from hpcplan.simulate.trace_run import rows_on_nodes
from hpcplan.simulate.traces import Trace, TraceJob
from tests.simulate.test_fast_slurm import NODES, both, jobs, machine, parameters, shared_machine, shares

pytest.importorskip("numba")
ACCOUNTS = ("physics", "optics", "optics2", "chemistry", "nobody")
QOS = ("normal", "high", "scavenger")


def associations(draw: random.Random) -> AccountPolicy:
    """Return accounts in a tree with users, some of whom have several, and QOS."""
    of = draw.choice
    found = [Association("root")] if draw.random() < 0.9 else []
    for number, name in enumerate(ACCOUNTS[:-1]):
        above = of(["root", *ACCOUNTS[:number]])
        found.append(Association(name, parent=above, shares=of([0, 1, 1, 2, 30]), default_qos=of([None, "high"])))
    for account in ACCOUNTS[:-1]:
        for user in range(4):
            if draw.random() < 0.4:
                home, shares_ = of([True, False]), of([0, 1, 1, 5])
                found.append(Association(account, f"user{user}", shares=shares_, default_account=home))
    qos = {name: QosPolicy(name, priority=of([0, 1, 10]), usage_factor=of([1.0, 1.0, 0.3, 2.0])) for name in QOS}
    return AccountPolicy(of([qos, {}]), tuple(of([found, found, []])))


def weighing(draw: random.Random, how: SlurmSettings) -> SlurmSettings:
    """Return settings that weigh fair share, QOS and more."""
    of, flags = draw.choice, ("no_fair_tree", "accrue_always", "small_relative_to_time", "no_normal_qos")
    return replace(
        how, multifactor=of([True, True, False]), priority_weight_fair_share=of([0, 1000, 100000]),
        priority_weight_qos=of([0, 500]), priority_decay_half_life_s=of([7 * 86400, 600, 0]),
        priority_max_age_s=of([7200, 50000]), priority_flags=frozenset(flag for flag in flags if draw.random() < 0.4),
    )  # fmt: skip


def tied(draw: random.Random, made: Iterator[TraceJob], asks: dict[str, Any]) -> Iterator[TraceJob]:
    """Yield the jobs with accounts and QOS, some of which wait for others or for their time."""
    of, names, odd = draw.choice, list[str](), draw.random()
    for job in made:
        more: dict[str, Any] = {
            "account": of([None, None, *ACCOUNTS]), "qos": of([None, None, *QOS, "unknown"]),
            "nice": of([0, 0, -50, 900]), "name": of(["a", "b", "c"]),
        }  # fmt: skip
        if draw.random() < 0.1 * odd:
            more["begin"] = f"now+{of([0, 1, 60, 5000])}"
        if draw.random() < 0.3 * odd and names:
            kinds = ("after", "afterany", "afterok", "afternotok", "aftercorr")
            sign = of(["?", ",", ",", ","])
            later = of(["", "", "+2"]) if sign == "," else ""
            words = []
            for _ in range(of([1, 1, 2, 3])):
                kind, target = of(kinds), of(names[-20:])
                words.append(of([f"{kind}:{target}", f"{kind}:{target}", f"after:{target}{later}", "singleton"]))
            more["dependency"] = sign.join(words)
            more["kill_on_invalid_dep"] = of([True, False])
        names.append(job.name)
        spec = job.ask or JobSpec(ntasks=job.procs, time_limit_s=job.limit_s)
        yield job._replace(ask=replace(spec, **asks, **more))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32), chunk=st.sampled_from([3, 40, 1024]))
def test_every_row_under_a_policy_is_that_of_the_controller_in_python(seed: int, chunk: int) -> None:
    from hpcplan.simulate.compiled import driver

    draw = random.Random(seed)
    cluster = SlurmCluster(machine(draw), weighing(draw, parameters(draw)), policy=associations(draw))
    assert usual_cluster(cluster)
    made = Trace(tuple(tied(draw, jobs(draw, [*cluster.machine.partitions]), {})), None, 0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(driver, "_CHUNK", chunk)
        plain, compiled = both(made, cluster, draw.choice(["submit", "submit", "sjf"]), patch)
    assert compiled == plain


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32), nodes=st.sampled_from([5, 12, NODES]))
def test_every_row_under_a_policy_is_that_of_the_controller_in_python_where_jobs_share_nodes(
    seed: int, nodes: int
) -> None:
    draw = random.Random(seed)
    how = weighing(draw, replace(parameters(draw), consumable=True))
    cluster = SlurmCluster(shared_machine(draw, nodes), how, policy=associations(draw))
    assert usual_shares(cluster)
    with pytest.MonkeyPatch.context() as patch:
        plain, compiled = both(Trace(tuple(tied(draw, shares(draw, nodes), {})), None, 0), cluster, "submit", patch)
    assert compiled == plain


def test_a_job_that_never_starts_does_not_keep_a_simulation_under_fair_share_from_ending() -> None:
    how = SlurmSettings(multifactor=True, priority_weight_fair_share=1000, priority_max_age_s=3600)
    whole = machine(random.Random(1))
    everybody = AccountPolicy({}, (Association("root"), Association("root", "user", default_account=True)))
    shut = replace(whole, partitions={"all": replace(whole.partitions["all"], up=False)})
    cluster = SlurmCluster(shut, how, policy=everybody)
    found = rows_on_nodes([TraceJob(1, 0, 10, 60, 1)], cluster, "slurm", "submit", {})
    assert [row.state for row in found] == ["PENDING"]
