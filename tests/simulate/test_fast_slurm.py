"""The compiled controller: every row of its schedules is that of the controller in Python."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import reduce
from itertools import pairwise
from operator import or_
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcplan.simulate import trace_run
from hpcplan.simulate.fast_slurm import is_usual, usual_cluster, usual_shares
from hpcplan.simulate.jobs import JobSpec
from hpcplan.simulate.machine import Machine, NodeGroupShape, PartitionShape, Sharing
from hpcplan.simulate.outcome import Row
from hpcplan.simulate.slurm_cluster import SlurmCluster
from hpcplan.simulate.slurm_settings import SlurmSettings
from hpcplan.simulate.switch_tree import SwitchShape
from hpcplan.simulate.traces import Trace, TraceJob

pytest.importorskip("numba")


@pytest.fixture(autouse=True, scope="module")
def _few_are_compiled_for() -> Iterator[None]:
    """Compile for traces so short that it would not be worth it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trace_run, "worth_compiling", lambda **_: 0)
        yield


NODES = 70  # more than one word of 64
MIB = 1024**2


def machine(draw: random.Random) -> Machine:
    """Return nodes of two lines of slurm.conf in up to three partitions."""
    cut = draw.randrange(1, NODES)
    groups = (
        NodeGroupShape((1 << cut) - 1, 4, 1 << 30, features=("old",), weight=draw.choice([1, 2])),
        NodeGroupShape((1 << NODES) - (1 << cut), draw.choice([1, 4]), 1 << 30),
    )
    everything = (1 << NODES) - 1
    parts = {"all": PartitionShape("all", everything, default=True, max_time_s=draw.choice([None, 3600]))}
    for number in range(draw.randrange(3)):
        name = f"part{number}"
        mask = draw.getrandbits(NODES) or 1
        parts[name] = PartitionShape(name, mask, priority_tier=draw.choice([1, 2]), priority_job_factor=number + 1)
    return Machine(tuple(f"n{number}" for number in range(1, NODES + 1)), groups, parts)


def parameters(draw: random.Random) -> SlurmSettings:
    """Return settings other than the defaults."""
    of = draw.choice
    return SlurmSettings(
        builtin=of([False, False, False, True]), multifactor=of([False, True]), sched_interval_s=of([60, 5]),
        default_queue_depth=of([100, 0, 3]), partition_job_depth=of([0, 2]), bf_interval_s=of([30, 1, 5]),
        bf_resolution_s=of([60, 1, 300]), bf_window_s=of([86400, 3600]), bf_max_job_test=of([500, 10]),
        bf_max_job_start=of([0, 1]), sched_max_job_start=of([0, 0, 2]), defer=of([False, True]),
        nodes_tell=of([False, True]), cleanup_ms=of([10, 700]), epilog_ms=of([22, 900]),
        bf_min_prio_reserve=of([0, 0, 650]), bf_max_job_part=of([0, 0, 4]), bf_max_job_user=of([0, 0, 3]),
        bf_job_part_count_reserve=of([0, 0, 1]), bf_min_age_reserve_s=of([0, 60]), over_time_limit_s=of([0, 60]),
        priority_weight_age=of([0, 1000]), priority_weight_job_size=of([0, 1000]), priority_max_age_s=of([7200, 10**6]),
        priority_weight_tres=of([(), (("cpu", 300),)]), priority_calc_period_s=of([20, 300]),
        priority_recalculated=of([False, True]), clock_s=of([0, 1234567]), complete_wait_s=of([0, 0, 0, 32]),
        bf_node_space_size=of([0, 0, 2000, 5]),
    )  # fmt: skip


def tree(draw: random.Random, nodes: int) -> tuple[SwitchShape, ...]:
    """Return leaves of unequal sizes with one or two levels above them, or none; some nodes may be under no switch."""
    of = draw.choice
    cuts = sorted({0, *(draw.randrange(1, nodes) for _ in range(of([1, 3, 7]))), nodes})
    masks = [(1 << end) - (1 << begin) for begin, end in pairwise(cuts)]
    if of([False, False, True]):  # spread over the machine
        masks = [sum(1 << node for node in range(first, nodes, len(masks))) for first in range(len(masks))]
    if of([False, False, False, True]):
        masks[-1] &= draw.getrandbits(nodes)
    leaves = [SwitchShape(f"leaf{number}", mask, 0) for number, mask in enumerate(masks) if mask]
    half = len(leaves) // 2
    above = [SwitchShape(f"over{half}", _union(part), 1) for part in (leaves[:half], leaves[half:]) if part]
    kind = of(["flat", "forest", "tree", "tree"])
    top = SwitchShape("top", of([_union(leaves), (1 << nodes) - 1]), 2)
    found = [*leaves, *({"flat": [top], "forest": above, "tree": [*above, top]}[kind])]
    draw.shuffle(found)
    return tuple(found)


def _union(switches: list[SwitchShape]) -> int:
    return reduce(or_, (switch.mask for switch in switches), 0)


def also_asked(draw: random.Random, names: Sequence[str], *, by_name: bool = True) -> dict[str, Any]:
    """Return what few jobs ask for besides: few switches, nodes by name, a lower priority."""
    of = draw.choice
    found: dict[str, Any] = of([{}, {}, {"switches": of(["1", "1@5", "2@1:00", "3"])}])
    found |= of([{}, {}, {}, {"nodelist": ",".join(draw.sample(list(names), of([1, 2, 3])))}]) if by_name else {}
    return found | of([{}, {}, {"nice": of([-100, 3, 1000])}])


def jobs(draw: random.Random, partitions: list[str], names: Sequence[str] = ()) -> Iterator[TraceJob]:
    """Yield jobs of which many wait; with the ``names`` of nodes, some ask for more than that."""
    moment, gap_s = 0, draw.choice([2, 20, 100])
    for number in range(1, draw.choice([30, 150]) + 1):
        moment += int(draw.expovariate(1 / gap_s))
        limit_s = draw.choice([60, 600, 601, 3600, 7200])
        run_s = int(min(draw.expovariate(1 / limit_s), 1.5 * limit_s)) + 1
        width = min(NODES, int(2 ** draw.uniform(0, 6.5)))
        ask = None
        if draw.random() < 0.4:
            ask = JobSpec(
                nodes_min=width, nodes_max=width, time_limit_s=draw.choice([limit_s, None]), exclusive=True,
                partition=draw.choice(partitions), priority=draw.choice([None, None, 700]),
                constraint=draw.choice([None, None, "old"]), **(also_asked(draw, names) if names else {}),
            )  # fmt: skip
        yield TraceJob(number, moment, run_s, limit_s, width, ask=ask, user=f"user{draw.randrange(4)}")


def both(
    trace: Trace, cluster: SlurmCluster, order: str, patch: pytest.MonkeyPatch
) -> tuple[tuple[Row, ...], tuple[Row, ...]]:
    """Return the rows of the controller in Python, and of the compiled one."""
    found = []
    for few in (10**9, 0):
        patch.setattr(trace_run, "FEW", few)
        found.append(trace_run.on_nodes(trace, cluster, "slurm", order).rows)
    return found[0], found[1]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), chunk=st.sampled_from([3, 40, 1024]), order=st.sampled_from(["submit", "sjf"]))
def test_every_row_is_that_of_the_controller_in_python(seed: int, chunk: int, order: str) -> None:
    from hpcplan.simulate.compiled import driver

    draw = random.Random(seed)
    cluster = SlurmCluster(machine(draw), parameters(draw))
    if draw.random() < 0.4:  # select/cons_tres, all of whose partitions are exclusive
        how = replace(cluster.settings, consumable=True, bf_window_linear_s=draw.choice([0, 0, 300]))
        cluster = replace(cluster, machine=replace(cluster.machine, sharing=Sharing()), settings=how)
    names = cluster.machine.names if draw.random() < 0.5 else ()
    if draw.random() < 0.6:
        cluster = replace(cluster, switches=tree(draw, NODES))
    assert usual_cluster(cluster)
    made = Trace(tuple(jobs(draw, [*cluster.machine.partitions], names)), None, 0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(driver, "_CHUNK", chunk)
        plain, compiled = both(made, cluster, order, patch)
    assert compiled == plain


def shared_machine(draw: random.Random, nodes: int) -> Machine:
    """Return nodes of two lines of slurm.conf that jobs share, with memory, GPUs and another GRES."""
    of, cut, threads = draw.choice, draw.randrange(1, nodes), draw.choice([1, 1, 2])
    sharing = Sharing(
        memory=of([True, False]), default_memory_per_cpu_bytes=of([None, 1000 * MIB]), sockets=of([False, False, True]),
        least_loaded=of([False, False, False, True]), max_memory_per_cpu_bytes=of([None, None, 2000 * MIB]),
    )  # fmt: skip
    groups = (
        NodeGroupShape(
            (1 << cut) - 1, 8, 8000 * MIB, gpus=of([0, 4]), features=("old",), weight=of([1, 2]),
            threads_per_core=threads, cpus_per_socket=4, other_gres=of([(), (("nvme", 2),)]),
        ),
        NodeGroupShape(
            (1 << nodes) - (1 << cut), of([4, 16]), 16000 * MIB, gpus=4, threads_per_core=threads,
            cpus_per_socket=of([4, 0]),
            other_gres=(("nvme", 1), *of([(), tuple((f"gres{number}", 2) for number in range(6))])),
        ),
    )  # fmt: skip
    everything = (1 << nodes) - 1
    parts = {
        "all": PartitionShape("all", everything, default=True, exclusive=False, max_time_s=of([None, 3600])),
        "some": PartitionShape(
            "some", draw.getrandbits(nodes) or 1, priority_tier=of([1, 2]), exclusive=of([False, False, True]),
            max_nodes=of([None, None, 3]), least_loaded=of([False, False, True]),
        ),
    }  # fmt: skip
    return Machine(tuple(f"n{number}" for number in range(1, nodes + 1)), groups, parts, sharing)


def shares(draw: random.Random, nodes: int, names: Sequence[str] = ()) -> Iterator[TraceJob]:
    """Yield jobs that take tasks, shares of nodes or whole nodes."""
    of, moment, gap_s = draw.choice, 0, draw.choice([1, 5, 30, 100])
    for number in range(1, of([30, 150]) + 1):
        moment += int(draw.expovariate(1 / gap_s))
        limit_s = of([60, 600, 601, 3600, 7200])
        run_s = int(min(draw.expovariate(1 / limit_s), 1.5 * limit_s)) + 1
        tasks, width = of([1, 2, 3, 5, 8, 13]), min(nodes, of([1, 1, 1, 2, 3, 5]))
        memory = of([
            {}, {}, {"memory_per_cpu_bytes": of([500, 1500]) * MIB}, {"memory_per_node_bytes": of([0, 1000]) * MIB},
        ])  # fmt: skip
        gres: dict[str, Any] = of([
            {}, {}, {"gpus_per_node": of([1, 2, 4])}, {"gpus": of([1, 3])},
            {"other_gres": (of([("nvme", 1), ("gres5", 2)]),)},
        ])  # fmt: skip
        asks = of([
            None, {"ntasks": tasks, "cpus_per_task": of([1, 1, 2, 3]), **memory, **of([{}, gres])},
            {"nodes_min": width, "ntasks_per_node": of([None, 1, 2]), "cpus_per_task": of([1, 3]), **memory, **gres},
            {"nodes_min": width, "ntasks": width * of([1, 2]) + of([0, 1]), **memory, **gres},
            {"nodes_min": width, "nodes_max": width, "exclusive": True},
        ])  # fmt: skip
        ask = None
        if asks is not None:
            ask = JobSpec(
                time_limit_s=of([limit_s, None]), partition=of(["all", "all", "some"]),
                priority=of([None, None, None, 700]), constraint=of([None, None, None, "old"]), **asks,
                **(also_asked(draw, names, by_name=False) if names else {}),
            )  # fmt: skip
        yield TraceJob(number, moment, run_s, limit_s, tasks, ask=ask, user=f"user{draw.randrange(4)}")


def shared_case(draw: random.Random, nodes: int) -> tuple[SlurmCluster, Trace]:
    """Return a cluster whose jobs share nodes, with switches or without, and a trace."""
    how = replace(parameters(draw), consumable=True, bf_window_linear_s=draw.choice([0, 0, 300]))
    cluster = SlurmCluster(shared_machine(draw, nodes), how)
    names = cluster.machine.names if draw.random() < 0.5 else ()
    if draw.random() < 0.5:
        cluster = replace(cluster, switches=tree(draw, nodes))
    return cluster, Trace(tuple(shares(draw, nodes, names)), None, 0)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), nodes=st.sampled_from([5, 12, NODES]))
def test_every_row_is_that_of_the_controller_in_python_where_jobs_share_nodes(seed: int, nodes: int) -> None:
    draw = random.Random(seed)
    cluster, made = shared_case(draw, nodes)
    assert usual_shares(cluster)
    assert not usual_cluster(cluster)
    with pytest.MonkeyPatch.context() as patch:
        plain, compiled = both(made, cluster, "submit", patch)
    assert compiled == plain


def _standing(draw: random.Random) -> Iterator[TraceJob]:
    """Yield jobs that come faster than they go: some with GPUs, some on several nodes, some on whole ones."""
    for number in range(1, 351):
        limit_s, width = draw.choice([1200, 3000, 3600]), draw.choice([1, 1, 2, 5])
        share = draw.choice([
            {"cpus_per_task": 2}, {"cpus_per_task": 3, "gpus_per_node": draw.choice([1, 2])}, {"exclusive": True},
        ])  # fmt: skip
        ask = JobSpec(nodes_min=width, nodes_max=width, ntasks_per_node=1, time_limit_s=limit_s, **share)
        yield TraceJob(number, 2 * number, draw.randrange(limit_s // 2, limit_s), limit_s, width, ask=ask)


@pytest.mark.parametrize("seed", [1, 2])
def test_where_a_queue_stands_every_row_is_that_of_the_controller_in_python(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = random.Random(seed)
    how = SlurmSettings(consumable=True, bf_node_space_size=draw.choice([0, 40]))
    cluster = SlurmCluster(shared_machine(draw, NODES), how)
    plain, compiled = both(Trace(tuple(_standing(draw)), None, 0), cluster, "submit", monkeypatch)
    waits = [row.start_s - row.submit_s for row in plain if row.start_s is not None]
    assert max(waits) > 3600
    assert compiled == plain


def test_ways_to_share_that_compiled_code_does_not_know_are_left_to_python() -> None:
    usual = shared_machine(random.Random(1), 5)
    assert usual_shares(SlurmCluster(usual, SlurmSettings(consumable=True)))
    parts = {name: replace(part, jobs_per_resource=2) for name, part in usual.partitions.items()}
    assert not usual_shares(SlurmCluster(replace(usual, partitions=parts), SlurmSettings(consumable=True)))
    many = replace(usual.groups[0], other_gres=tuple((f"gres{number}", 1) for number in range(8)))
    assert not usual_shares(SlurmCluster(replace(usual, groups=(many,)), SlurmSettings(consumable=True)))


@pytest.mark.parametrize(
    "asks",
    [
        {"dependency": "afterok:1?after:2+5"},
        {"reservation": "maintenance"},
        {"nodes_min": 1, "nodes_max": 2},
        {"partition": "a,b"},
        {"licenses": "ansys"},
    ],
)
def test_what_compiled_code_cannot_do_is_left_to_python(asks: dict[str, object]) -> None:
    assert not is_usual(TraceJob(1, 0, 10, 60, 1, ask=JobSpec(**asks)))  # type: ignore[arg-type]


def test_jobs_that_share_nodes_and_name_some_are_left_to_python() -> None:
    job = TraceJob(1, 0, 10, 60, 1, ask=JobSpec(nodelist="n1"))
    assert is_usual(job)
    assert not is_usual(job, shared=True)


def test_a_trace_given_job_by_job_comes_out_as_one_given_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace_run, "FEW", 20)
    draw = random.Random(5)
    made = [job._replace(ask=None) for job in jobs(draw, ["all"])]
    whole = trace_run.on_processors(Trace(tuple(made), NODES, 0), NODES, "slurm").rows
    assert tuple(trace_run.rows_on_processors(iter(made), NODES, "slurm", "submit", {})) == whole
    assert len(whole) == len(made)
