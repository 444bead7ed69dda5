"""Jobs that share nodes under Slurm's policy: what fits beside what, where it goes, and never more than there is."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcplan.hostlist import expand
from hpcplan.simulate import shared_choice
from hpcplan.simulate.controller import Controller
from hpcplan.simulate.job_records import node_shares
from hpcplan.simulate.jobs import Behaviour, JobSpec, Request
from hpcplan.simulate.outcome import Row
from hpcplan.simulate.shared_choice import Offer, choose_nodes
from hpcplan.simulate.slurm_cluster import SlurmCluster, read_slurm_cluster
from hpcplan.simulate.switch_tree import SwitchShape, Tree
from hpcplan.simulate.table_trace import read_table
from hpcplan.simulate.trace_files import read_trace
from hpcplan.simulate.trace_run import on_nodes
from hpcplan.simulate.traces import Trace, TraceJob

NODES = "NodeName=n[1-4] CPUs=8 RealMemory=8000 Gres=gpu:4\n"
SHARED = "SelectType=select/cons_tres\nSelectTypeParameters=CR_CPU\nSchedulerParameters=bf_interval=1,bf_resolution=1\n"
BATCH = "PartitionName=batch Nodes=ALL Default=YES\n"
HERE = Path(__file__).parent / "data"


def cluster(folder: Path, text: str = SHARED + NODES + BATCH) -> SlurmCluster:
    path = folder / "slurm.conf"
    path.write_text(text)
    return read_slurm_cluster(path)


def job(number: int, submit_s: int, nodes: int, run_s: int, minutes: int = 2, **asks: object) -> TraceJob:
    whole = not {"cpus_per_task", "gpus_per_node", "ntasks_per_node"} & {*asks}
    per_node = {} if whole else {"ntasks_per_node": 1}
    fields = {
        "name": str(number), "nodes_min": nodes, "nodes_max": nodes, "time_limit_s": minutes * 60, "exclusive": whole,
        **per_node, **asks,
    }  # fmt: skip
    return TraceJob(number, submit_s, run_s, minutes * 60, nodes, ask=JobSpec(**fields))  # type: ignore[arg-type]


def run(machine: SlurmCluster, *jobs: TraceJob) -> tuple[Row, ...]:
    return on_nodes(Trace(jobs, None, 0), machine, "slurm").rows


def test_jobs_run_side_by_side_as_long_as_a_node_has_cpus(tmp_path: Path) -> None:
    rows = run(cluster(tmp_path), *(job(number, 0, 1, 60, cpus_per_task=4) for number in range(1, 10)))
    early = [row for row in rows if (row.start_s or 0) < 10]
    assert len(early) == 8
    assert sorted(row.nodelist or "" for row in early) == sorted(["n1", "n2", "n3", "n4"] * 2)
    assert rows[8].start_s is not None
    assert rows[8].start_s >= 60


def test_gpus_are_counted_beside_cpus(tmp_path: Path) -> None:
    rows = run(cluster(tmp_path), *(job(number, 0, 4, 60, gpus_per_node=2) for number in range(1, 4)))
    assert [(row.start_s or 0) < 60 for row in rows] == [True, True, False]


def test_a_whole_node_is_nobody_elses(tmp_path: Path) -> None:
    rows = run(cluster(tmp_path), job(1, 0, 4, 60), job(2, 1, 1, 5, cpus_per_task=1))
    assert (rows[1].start_s or 0) >= 60


def test_memory_counts_where_it_is_consumable_and_all_of_it_goes_without_a_default(tmp_path: Path) -> None:
    by_memory = SHARED.replace("CR_CPU", "CR_CPU_Memory")
    two = (job(1, 0, 4, 60, cpus_per_task=1), job(2, 0, 1, 5, cpus_per_task=1))
    assert (run(cluster(tmp_path, by_memory + NODES + BATCH), *two)[1].start_s or 0) >= 60
    default = "DefMemPerCPU=1000\n"
    assert (run(cluster(tmp_path, by_memory + default + NODES + BATCH), *two)[1].start_s or 0) < 10


def test_cores_are_not_divided_between_jobs(tmp_path: Path) -> None:
    threads = "NodeName=n1 Sockets=1 CoresPerSocket=2 ThreadsPerCore=2\n"
    text = SHARED.replace("CR_CPU", "CR_Core") + threads + BATCH
    rows = run(cluster(tmp_path, text), *(job(number, 0, 1, 60, cpus_per_task=1) for number in (1, 2, 3)))
    assert [(row.start_s or 0) < 60 for row in rows] == [True, True, False]


def test_jobs_from_sacct_have_the_share_of_their_nodes_that_they_had(tmp_path: Path) -> None:
    lines = ["JobID|Submit|Elapsed|Timelimit|NNodes|NCPUS|State"]
    lines += [f"{number}|2026-01-01T00:00:0{number}|00:01:00|00:02:00|2|8|COMPLETED" for number in range(1, 6)]
    (tmp_path / "jobs.txt").write_text("\n".join(lines) + "\n")
    rows = on_nodes(read_trace(tmp_path / "jobs.txt"), cluster(tmp_path), "slurm").rows
    begin = rows[0].submit_s
    assert [(row.start_s or 0) < begin + 60 for row in rows] == [True, True, True, True, False]
    assert rows[0].procs == 8


def test_forced_sharing_lets_so_many_jobs_onto_the_same_cpus(tmp_path: Path) -> None:
    text = SHARED + NODES + "PartitionName=batch Nodes=n1 OverSubscribe=FORCE:2\n"
    rows = run(cluster(tmp_path, text), *(job(number, 0, 1, 60, cpus_per_task=8) for number in (1, 2, 3)))
    assert [(row.start_s or 0) < 60 for row in rows] == [True, True, False]


def chosen(nodes: int, cpus: int, free: list[int], usable: list[int], weights: list[int] | None = None) -> int:
    offer = Offer(*map(np.array, (free, [1] * len(free), [0] * len(free), weights or [1] * len(free))))
    request = Request("batch", nodes, nodes, 60, (1 << len(free)) - 1, cpus=nodes * cpus, node_cpus=cpus)
    return choose_nodes(request, np.array(usable), offer)


def test_a_job_goes_where_it_leaves_least() -> None:
    free = [8, 3, 8, 2, 4]
    assert chosen(1, 3, free, [0, 1, 2, 3, 4]) == 0b00010
    assert chosen(1, 3, free, [0, 1, 2, 4]) == 0b10000
    assert chosen(2, 2, free, [0, 1, 3, 4]) == 0b11000
    assert chosen(2, 2, free, [0, 1, 3, 4], [1, 1, 1, 1, 2]) == 0b00011
    assert chosen(3, 2, free, [0, 1, 3]) == 0b01011
    assert chosen(3, 2, free, [0, 1]) == 0


@settings(max_examples=300, deadline=None)
@given(
    drawn=st.lists(st.tuples(st.integers(0, 6), st.integers(1, 2)), min_size=1, max_size=12),
    cpus=st.integers(1, 6),
    usable=st.integers(0, 2**12 - 1),
)
def test_a_job_of_one_node_is_placed_as_the_general_rule_has_it(
    drawn: list[tuple[int, int]], cpus: int, usable: int
) -> None:
    free, weights = zip(*drawn, strict=True)
    zeros = np.zeros(len(drawn), int)
    offer = Offer(np.array(free), zeros + 1, zeros, np.array(weights))
    nodes = np.array([node for node in range(len(drawn)) if usable >> node & 1 and free[node]], int)
    request = Request("batch", 1, 1, 60, usable, cpus=cpus, node_cpus=1)
    expected = shared_choice._evaluate(request, nodes, offer)
    assert choose_nodes(request, nodes, offer) == expected


def test_leaves_under_the_switch_that_has_room_are_used_first() -> None:
    leaves = [SwitchShape("a", 0b1111, 0), SwitchShape("b", 0b110000, 0)]
    above = [SwitchShape("left", 0b1111, 1), SwitchShape("top", 0b111111, 2)]
    assert Tree([*leaves, *above]).leaf_by_leaf(0b111111, 5) == 0b110111
    assert Tree([*leaves, *above]).leaf_by_leaf(0b111111, 2) == 0b110000


def test_a_recorded_run_with_shared_nodes_and_tiers_comes_out() -> None:
    found = read_slurm_cluster(HERE / "linear.slurm.conf")
    found = replace(found, settings=replace(found.settings, started_s=-2, started_ms=150))
    rows = on_nodes(read_table(HERE / "linear.csv"), found, "slurm").rows
    with (HERE / "linear.csv").open(newline="") as stream:
        real = list(csv.DictReader(stream))
    for row, one in zip(rows, real, strict=True):
        assert abs((row.start_s or 0) - float(one["start_s"])) <= 5
        assert expand(row.nodelist or "") == expand(one["nodelist"])


some_jobs = st.lists(
    st.tuples(
        st.integers(0, 60), st.integers(1, 3), st.integers(1, 100), st.integers(1, 2), st.integers(0, 8),
        st.integers(0, 3),
    ),
    max_size=14,
)  # fmt: skip


@pytest.mark.parametrize("memory", ["CR_CPU", "CR_Core_Memory"])
@settings(max_examples=25)
@given(made=some_jobs)
def test_no_cpu_and_no_gpu_is_given_twice(
    tmp_path_factory: pytest.TempPathFactory, memory: str, made: list[tuple[int, int, int, int, int, int]]
) -> None:
    text = SHARED.replace("CR_CPU", memory) + "DefMemPerCPU=500\n" + NODES + BATCH
    jobs = []
    for number, (submit_s, nodes, run_s, minutes, cpus, gpus) in enumerate(made, start=1):
        asks = {"cpus_per_task": max(1, cpus), "gpus_per_node": gpus or None} if cpus or gpus else {}
        jobs.append(job(number, submit_s, nodes, run_s, minutes, **asks))
    machine = cluster(tmp_path_factory.mktemp("conf"), text)
    rows = run(machine, *jobs)
    assert rows == run(machine, *jobs)
    for moment in {row.start_s for row in rows}:
        used: dict[str, list[int]] = {}
        for one, row in zip(jobs, rows, strict=True):
            assert row.start_s is not None
            assert row.end_s is not None
            assert row.start_s >= one.submit_s
            if moment is not None and row.start_s <= moment < row.end_s:
                assert one.ask is not None
                for node in expand(row.nodelist or ""):
                    cpus = 8 if one.ask.exclusive else one.ask.cpus_per_task
                    gpus = 4 if one.ask.exclusive else one.ask.gpus_per_node or 0
                    have = used.setdefault(node, [0, 0])
                    have[0] += cpus
                    have[1] += gpus
        assert all(cpus <= 8 and gpus <= 4 for cpus, gpus in used.values())


def test_tasks_go_to_few_nodes_under_a_switch(tmp_path: Path) -> None:
    """As on a real 22.05.8 (select/cons_tres, topology/tree)."""
    (tmp_path / "topology.conf").write_text("SwitchName=leaf Nodes=n[1-4]\n")
    tree = SHARED + "TopologyPlugin=topology/tree\nGresTypes=gpu\n" + NODES + BATCH
    asked: list[tuple[dict[str, int], str, tuple[int, ...] | None, int]] = [
        ({"ntasks": 2}, "n1", (2,), 0),
        ({"ntasks": 2, "nodes_min": 1}, "n1", (2,), 0),
        ({"ntasks": 10}, "n[1-2]", (8, 2), 0),
        ({"ntasks": 6, "nodes_min": 2}, "n[1-2]", (5, 1), 0),
        ({"ntasks": 6, "nodes_min": 2, "gpus_per_node": 2}, "n[1-2]", (5, 1), 4),
        ({"ntasks": 2, "gpus_per_task": 2}, "n1", None, 4),
    ]
    for spec, nodes, cpus, gpus in asked:
        slurmctld = Controller(cluster(tmp_path, tree), name="tree")
        number = slurmctld.submit(JobSpec(**spec), Behaviour(1000), "ana")  # type: ignore[arg-type]
        slurmctld.advance(slurmctld.now + 5)
        job = slurmctld.running[number]
        assert (job.node_list, job.node_cpus) == (nodes, cpus), spec
        assert sum(share.gpus for share in node_shares(job, slurmctld.machine)) == gpus, spec
