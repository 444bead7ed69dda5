"""Jobs that name several partitions run in the first that has room."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcplan.errors import SlurmError
from hpcplan.simulate.controller import Controller
from hpcplan.simulate.engine import Engine
from hpcplan.simulate.job_records import live_record
from hpcplan.simulate.jobs import Behaviour
from hpcplan.simulate.machine import Machine, PartitionShape
from hpcplan.simulate.pending import earliest_start, reasons
from hpcplan.simulate.policies import policy_named
from hpcplan.simulate.slurm_cluster import SlurmCluster
from hpcplan.simulate.slurm_settings import SlurmSettings
from hpcplan.simulate.snapshot import restore, snapshot
from tests.simulate.clusters import job, machine

POLICIES = ("fcfs", "easy", "backfill", "slurm")
LEFT, RIGHT = 0b0011, 0b1100


def cluster(policy: str, *, tiers: tuple[int, int] = (1, 1), up: tuple[bool, bool] = (True, True)) -> Engine:
    """Return four nodes, two in ``left`` and two in ``right``, and ``short`` of ten minutes at most on the left."""
    whole = machine(4)
    parts = {
        "left": PartitionShape("left", LEFT, default=True, priority_tier=tiers[0], up=up[0]),
        "right": PartitionShape("right", RIGHT, priority_tier=tiers[1], up=up[1]),
        "short": PartitionShape("short", LEFT, max_time_s=600),
    }
    here = Machine(whole.names, whole.groups, parts)
    if policy == "slurm":
        return Controller(SlurmCluster(here, SlurmSettings()), name="tiny")
    return Engine(here, policy_named(policy), cluster="tiny")


def submit(tiny: Engine, partition: str, nodes: int = 2, run_s: int = 300, limit_s: int = 600) -> int:
    return tiny.submit(job(nodes, limit_s, partition=partition), Behaviour(run_s), "ana")


@pytest.mark.parametrize("policy", POLICIES)
def test_it_runs_where_there_is_room_first(policy: str) -> None:
    tiny = cluster(policy)
    submit(tiny, "left", run_s=500)
    submit(tiny, "right", run_s=100)
    both = submit(tiny, "left,right")
    tiny.advance(60)
    assert live_record(tiny.jobs[both], tiny, None).partition == "left,right"
    assert reasons(tiny)[both] in {"Resources", "Priority"}
    tiny.advance(350)
    assert live_record(tiny.jobs[both], tiny, None).partition == "right"
    assert tiny.running[both].node_list == "n[3-4]"
    tiny.advance(2000)
    assert len(tiny.ended) == 3


@pytest.mark.parametrize("policy", POLICIES)
def test_of_two_with_room_the_first_named_is_taken(policy: str) -> None:
    for names, nodes in (("left,right", "n[1-2]"), ("right,left", "n[3-4]")):
        tiny = cluster(policy)
        number = submit(tiny, names)
        tiny.advance(60)
        assert tiny.running[number].node_list == nodes


def test_a_higher_tier_goes_before_the_order_of_names() -> None:
    tiny = cluster("slurm", tiers=(1, 2))
    number = submit(tiny, "left,right")
    tiny.advance(60)
    assert tiny.running[number].node_list == "n[3-4]"


def test_a_partition_that_is_down_or_whose_limit_is_broken_is_passed_over() -> None:
    tiny = cluster("backfill", up=(False, True))
    assert tiny.running[submit(tiny, "left,right")].node_list == "n[3-4]"
    tiny = cluster("backfill")
    assert tiny.running[submit(tiny, "short,right", limit_s=1200)].node_list == "n[3-4]"
    assert tiny.blocked(tiny.jobs[submit(tiny, "short", limit_s=1200)]) == "PartitionTimeLimit"


def test_each_partition_named_has_to_be_there() -> None:
    with pytest.raises(SlurmError, match="invalid partition specified: nosuch"):
        submit(cluster("fcfs"), "left,nosuch")
    with pytest.raises(SlurmError, match="Requested node configuration is not available"):
        cluster("fcfs").submit(job(1, partition="left,right", cpus_per_task=100), Behaviour(1), "ana")


def test_once_requeued_it_may_go_to_the_other() -> None:
    tiny = cluster("backfill")
    number = submit(tiny, "left,right", run_s=500)
    tiny.requeue(number)
    submit(tiny, "left", run_s=500)
    tiny.advance(200)
    assert tiny.running[number].node_list == "n[3-4]"


def test_when_it_would_start_is_the_earliest_of_its_partitions() -> None:
    tiny = cluster("backfill")
    submit(tiny, "left", limit_s=1200)
    submit(tiny, "right", limit_s=600)
    waiting = tiny.jobs[submit(tiny, "left,right")]
    slot = earliest_start(tiny, waiting)
    assert slot is not None
    assert (slot.start, slot.nodes) == (600, RIGHT)


NAMES = ("left", "right", "left,right", "right,left", "short,right", "left,right,short")


@pytest.mark.parametrize("policy", POLICIES)
@settings(max_examples=15, deadline=None)
@given(
    asked=st.lists(
        st.tuples(st.sampled_from(NAMES), st.integers(1, 2), st.integers(1, 500), st.integers(0, 100)), max_size=10
    )
)
def test_no_job_runs_twice_no_node_is_given_twice_and_all_end(
    policy: str, asked: list[tuple[str, int, int, int]]
) -> None:
    tiny = cluster(policy)
    for names, nodes, run_s, wait_s in asked:
        submit(tiny, names, nodes, run_s)
        tiny.advance(tiny.now + wait_s)
        used = [one.nodes for one in tiny.running.values()]
        assert sum(mask.bit_count() for mask in used) == (sum(used) if used else 0).bit_count()
        for one in tiny.running.values():
            assert not one.nodes & ~tiny.machine.partitions[one.request.partition].mask
            assert one.request.partition in (one.spec.partition or "").split(",")
        again = cluster(policy)
        restore(again, snapshot(tiny))
        again.ended, tiny = tiny.ended, again
    tiny.advance(tiny.now + 20_000)
    assert sorted(one.job_id for one in tiny.ended) == list(range(1, len(asked) + 1))


def test_a_request_for_one_partition_has_no_alternatives() -> None:
    tiny = cluster("fcfs")
    one = tiny.resolve(job(1, partition="left"))
    assert tiny.resolve(job(1, partition="left,left")) == replace(one, alternatives=())
