"""Compiled futures of a cluster: jobs of one's own wait as long in them as in those in Python."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcplan.schedule.forecast.cluster import ClusterCourse, ClusterFuture, compiles_first
from hpcplan.schedule.forecast.pool import Coming
from hpcplan.schedule.forecast.snapshot import QueueJob, QueueSnapshot
from hpcplan.simulate.machine import Machine, NodeGroupShape, PartitionShape
from hpcplan.simulate.slurm_cluster import SlurmCluster
from hpcplan.simulate.slurm_settings import SlurmSettings
from hpcplan.simulate.switch_tree import SwitchShape

pytest.importorskip("numba")
NODES, NOW = 70, 1_700_000_000  # more than one word of 64
MANY = 160


def machine(draw: random.Random) -> Machine:
    """Return nodes of two lines of slurm.conf in one or two partitions."""
    everything, cut = (1 << NODES) - 1, draw.randrange(1, NODES)
    groups = (
        NodeGroupShape((1 << cut) - 1, 4, 1 << 30, weight=draw.choice([1, 2])),
        NodeGroupShape(everything & ~((1 << cut) - 1), 4, 1 << 30),
    )
    parts = {"all": PartitionShape("all", everything, default=True, max_time_s=draw.choice([None, 3600]))}
    if draw.random() < 0.5:
        parts["some"] = PartitionShape("some", draw.getrandbits(NODES) | 1, priority_tier=draw.choice([1, 2]))
    return Machine(tuple(f"n{number}" for number in range(NODES)), groups, parts)


def asked(draw: random.Random, known: Machine, number: int, submit_s: int) -> QueueJob:
    """Return a job that may be too wide or too long for its partition."""
    return QueueJob(
        label=str(number), width=draw.choice([1, 1, 2, 5, 16, 40, 80]), limit_s=draw.choice([60, 600, 1800, 7200]),
        submit_s=submit_s, user=draw.choice("ab"), partition=draw.choice([None, *known.partitions]),
        priority=draw.choice([0, 0, 5]),
    )  # fmt: skip


def queue(draw: random.Random) -> QueueSnapshot:
    """Return a cluster of which some nodes are down, some are taken, and many jobs wait."""
    known, jobs = machine(draw), []
    free = list(range(NODES))
    draw.shuffle(free)
    for number in range(MANY):
        one = asked(draw, known, number, NOW - draw.randrange(1, 5000))
        if len(free) > NODES // 3 and one.width <= len(free):
            mine, free = free[: one.width], free[one.width :]
            nodes = known.node_list(sum(1 << node for node in mine))
            one = one.model_copy(update={"start_s": NOW - draw.randrange(5000), "nodes": nodes, "partition": None})
        jobs.append(one)
    down = ",".join(f"n{node}" for node in draw.sample(range(NODES), draw.choice([0, 0, 1, 9])))
    return QueueSnapshot(now_s=NOW, machine=known.as_dict(), policy="slurm", jobs=tuple(jobs), unusable=down or None)


def coming(draw: random.Random, known: Machine) -> list[Coming]:
    """Return what others submit, several in some seconds."""
    found, time = [], NOW
    for number in range(draw.choice([0, 5, 400])):
        time += draw.choice([0, 1, 40, 200])
        found.append((time, asked(draw, known, 1000 + number, time), draw.choice([1, 59, 500, 9000])))
    return found


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 2**32))
def test_waits_are_those_of_the_controller_in_python(seed: int) -> None:
    draw = random.Random(seed)
    snapshot = queue(draw)
    known = Machine.from_dict(snapshot.machine or {})
    switches = [SwitchShape(f"leaf{first}", ((1 << 10) - 1) << first, 0) for first in range(0, NODES, 10)]
    switches.append(SwitchShape("top", known.all_nodes, 1))
    cluster = SlurmCluster(known, SlurmSettings(), tuple(switches)) if draw.random() < 0.5 else None
    future = ClusterFuture(snapshot, cluster)
    assert future.compiled
    runs_s = [
        (0 if job.start_s is None else NOW - job.start_s) + draw.choice([1, 100, 3000, 9000]) for job in future.live
    ]
    arrivals = coming(draw, future.machine)
    target = QueueJob(
        label="mine", width=draw.choice([1, 8, 30]), limit_s=1800, submit_s=NOW, priority=draw.choice([0, 0, 4])
    )
    slow = ClusterFuture(snapshot, cluster)
    slow.compiled = False
    assert future.start_of(target, runs_s, arrivals) == slow.start_of(target, runs_s, arrivals)
    mine, theirs = future.course(target, runs_s, arrivals), slow.course(target, runs_s, arrivals)
    assert isinstance(theirs, ClusterCourse)
    assert not isinstance(mine, ClusterCourse)
    time, until_s = NOW, draw.choice([None, NOW + 20_000])
    for _ in range(4):
        held_s = draw.choice([1, 600, 1800, 4000])
        wait_s = theirs.wait_s(time, held_s, until_s)
        assert mine.wait_s(time, held_s, until_s) == wait_s
        time += min(wait_s, 10_000) + draw.choice([0, held_s, held_s + 121])


def test_that_the_scheduler_has_to_be_compiled_is_known_beforehand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hpcplan.simulate.compiled import jit

    crowded = queue(random.Random(3))
    monkeypatch.setattr(jit.numba.config, "CACHE_DIR", str(tmp_path))
    assert compiles_first(crowded)
    assert not compiles_first(crowded.model_copy(update={"jobs": crowded.jobs[:5]}))  # followed in Python
    (tmp_path / "controller.submit-1.py311.nbi").touch()
    assert not compiles_first(crowded)
