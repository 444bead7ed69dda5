"""Heterogeneous jobs: components that wait, start and end as one, under every policy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcplan.errors import SlurmError
from hpcplan.simulate.controller import Controller
from hpcplan.simulate.engine import Engine
from hpcplan.simulate.jobs import Behaviour
from hpcplan.simulate.machine import Machine, Sharing
from hpcplan.simulate.pending import earliest_start, reasons
from hpcplan.simulate.script import parse_components
from hpcplan.simulate.slurm_cluster import SlurmCluster, read_slurm_cluster
from hpcplan.simulate.slurm_settings import SlurmSettings
from hpcplan.simulate.snapshot import restore, snapshot
from hpcplan.simulate.trace_files import read_trace
from hpcplan.simulate.trace_run import on_nodes
from tests.simulate.clusters import engine, job, machine, submit

POLICIES = ("fcfs", "easy", "backfill", "slurm", "slurm-sharing")


def cluster(policy: str, nodes: int = 4) -> Engine:
    if policy == "slurm":
        return Controller(SlurmCluster(machine(nodes), SlurmSettings()), name="tiny")
    if policy == "slurm-sharing":
        whole = machine(nodes)
        parts = {name: replace(part, exclusive=False) for name, part in whole.partitions.items()}
        shared = Machine(whole.names, whole.groups, parts, Sharing(cpus=True, memory=False))
        return Controller(SlurmCluster(shared, SlurmSettings(consumable=True)), name="tiny")
    return engine(nodes, policy)


def submit_het(cluster: Engine, *nodes: int, run_s: int = 300, limit_s: int = 600, **options: object) -> int:
    asked = [job(count, limit_s, cpus_per_task=16, **options) for count in nodes]
    return cluster.submit_together([(spec, Behaviour(run_s)) for spec in asked], "ana")


def lines(cluster: Engine) -> dict[int, tuple[str, int | None, int | None]]:
    return {one.job_id: (one.state.value, one.start_time, one.end_time) for one in cluster.ended}


@pytest.mark.parametrize("policy", POLICIES)
def test_all_components_start_together_once_there_is_room_for_all(policy: str) -> None:
    tiny = cluster(policy)
    submit(tiny, nodes=3, run_s=100, cpus_per_task=16)
    first = submit_het(tiny, 1, 2)
    assert first == 2
    tiny.advance(99)
    assert sorted(tiny.running) == [1]
    tiny.advance(1000)
    ended = lines(tiny)
    assert ended[2] == ended[3]
    assert ended[2][0] == "COMPLETED"
    assert (ended[2][1] or 0) >= 100


@pytest.mark.parametrize("policy", POLICIES)
def test_the_components_share_no_node(policy: str) -> None:
    tiny = cluster(policy)
    submit_het(tiny, 2, 2)
    tiny.advance(60)
    assert [one.node_list for one in tiny.running.values()] == ["n[1-2]", "n[3-4]"]


def test_a_component_that_needs_certain_nodes_gets_them() -> None:
    tiny = engine(4)
    tiny.submit_together([(job(2), Behaviour(60)), (job(2, partition="half"), Behaviour(60))], "ana")
    assert [one.node_list for one in tiny.running.values()] == ["n[3-4]", "n[1-2]"]


def test_what_does_not_fit_together_never_starts_and_holds_up_no_backfill() -> None:
    tiny = engine(4)
    submit_het(tiny, 3, 3)
    submit(tiny, nodes=4)
    tiny.advance(1)
    assert sorted(tiny.running) == [3]
    assert earliest_start(tiny, tiny.jobs[1]) is None


def test_when_it_would_start_is_said_of_the_whole() -> None:
    tiny = engine(4)
    submit(tiny, nodes=3, limit_s=600)
    submit_het(tiny, 1, 2)
    slots = [earliest_start(tiny, tiny.jobs[number]) for number in (2, 3)]
    assert [slot.start if slot else None for slot in slots] == [600, 600]
    assert reasons(tiny)[2] == "Resources"


@pytest.mark.parametrize("policy", POLICIES)
def test_the_end_of_the_first_component_is_the_end_of_all(policy: str) -> None:
    tiny = cluster(policy)
    tiny.submit_together([(job(1), Behaviour(50, "FAILED", 3)), (job(1), Behaviour(500))], "ana")
    tiny.advance(500)
    start = lines(tiny)[1][1] or 0
    assert lines(tiny) == {1: ("FAILED", start, start + 50), 2: ("FAILED", start, start + 50)}
    assert tiny.busy == 0


def test_only_a_running_component_can_be_cancelled_by_itself() -> None:
    tiny = engine(4)
    submit(tiny, nodes=4, run_s=100)
    first = submit_het(tiny, 1, 2)
    with pytest.raises(SlurmError, match="individual component"):
        tiny.cancel(first + 1)
    tiny.advance(110)
    tiny.cancel(first + 1)
    assert sorted(tiny.running) == [first]
    tiny.cancel(first)
    assert not tiny.jobs


def test_holding_requeueing_and_losing_a_node_concern_all_components() -> None:
    tiny = engine(4)
    first = submit_het(tiny, 1, 2)
    tiny.requeue(first + 1)
    assert not tiny.running
    tiny.hold(first)
    assert reasons(tiny) == {first: "JobHeldUser", first + 1: "JobHeldUser"}
    tiny.release(first)
    tiny.advance(200)
    assert len(tiny.running) == 2
    tiny.set_node_state(["n1"], "down")
    assert not tiny.running
    assert {one.restarts for one in tiny.jobs.values()} == {2}


def test_it_waits_for_its_dependency_and_others_for_it() -> None:
    tiny = engine(4)
    before = submit(tiny, nodes=1, run_s=100)
    first = submit_het(tiny, 1, 2, dependency=f"afterok:{before}")
    after = submit(tiny, nodes=1, run_s=10, dependency=f"afterok:{first}")
    tiny.advance(1000)
    ended = lines(tiny)
    assert (ended[first][1], ended[first + 1][1], ended[after][1]) == (100, 100, 400)


def test_a_singleton_does_not_wait_for_its_own_components() -> None:
    tiny = engine(4)
    submit_het(tiny, 1, 1, dependency="singleton")
    assert len(tiny.running) == 2


def test_an_array_cannot_be_heterogeneous() -> None:
    with pytest.raises(SlurmError, match="Invalid job array specification"):
        submit_het(engine(4), 1, 1, array=(0, 1))


def test_nothing_is_queued_where_one_component_is_refused() -> None:
    tiny = engine(4)
    with pytest.raises(SlurmError, match="Invalid partition"):
        tiny.submit_together([(job(1), Behaviour(1)), (job(1, partition="nosuch"), Behaviour(1))], "ana")
    assert not tiny.jobs
    assert submit(tiny) == 1


def test_a_later_component_has_the_limits_and_names_of_the_one_before_but_not_its_size() -> None:
    text = """#!/bin/sh
#SBATCH -J two -t 10 --mem=100 -N2 --ntasks-per-node=2 -p batch --gres=gpu:2 -x n1
#SBATCH hetjob
#SBATCH -n3
"""
    first, second = parse_components(text, typed=[{"nodes_min": 3, "nodes_max": 3}])
    assert (first.nodes_min, first.ntasks_per_node, first.partition, first.gpus_per_node) == (3, 2, "batch", 2)
    assert (second.name, second.time_limit_s, second.memory_per_node_bytes, second.exclude) == (
        first.name, first.time_limit_s, first.memory_per_node_bytes, "n1",
    )  # fmt: skip
    assert (second.nodes_min, second.ntasks, second.ntasks_per_node, second.partition) == (None, 3, None, None)


HET = st.lists(st.integers(1, 4), min_size=1, max_size=3)


@pytest.mark.parametrize("policy", POLICIES)
@settings(max_examples=8, deadline=None)
@given(asked=st.lists(st.tuples(st.integers(0, 200), HET, st.integers(1, 300)), min_size=1, max_size=8))
def test_no_node_is_given_twice_and_it_goes_on_the_same_after_a_restart(
    policy: str, asked: list[tuple[int, list[int], int]]
) -> None:
    def run(*, restarted: bool) -> list[tuple[int, int | None, str | None]]:
        tiny = cluster(policy, 6)
        for wait_s, nodes, run_s in asked:
            tiny.advance(tiny.now + wait_s)
            submit_het(tiny, *nodes, run_s=run_s)
            used = [one.nodes for one in tiny.running.values()]
            assert sum(mask.bit_count() for mask in used) == (sum(used) if used else 0).bit_count()
            together: dict[int, set[int | None]] = {}
            for one in tiny.jobs.values():
                together.setdefault(one.het_id or one.id, set()).add(one.start_time)
            assert all(len(starts) == 1 for starts in together.values())
            if restarted:
                again = cluster(policy, 6)
                restore(again, snapshot(tiny))
                again.ended, tiny = tiny.ended, again
        tiny.advance(tiny.now + 5_000)
        return [(one.job_id, one.start_time, one.node_list) for one in tiny.ended]

    assert run(restarted=False) == run(restarted=True)


def test_the_backend_takes_a_script_of_components(tmp_path: Path) -> None:
    from hpcplan.simulate.backend import MockBackend
    from hpcplan.simulate.lifecycle import StartOptions, start_cluster
    from hpcplan.site.load import load_site
    from hpcplan.slurm.records import JobState, Submission
    from tests.simulate.clusters import write_site

    store = start_cluster(load_site(str(write_site(tmp_path))), StartOptions(speed=0.0), directory=tmp_path / "mock")
    script = tmp_path / "two.sh"
    script.write_text("#!/bin/sh\n#SBATCH -N2 -t 10\n#SBATCH hetjob\n#SBATCH -p debug -N1\ntrue\n")
    backend = MockBackend(store)
    submission = Submission(script=str(script), work_dir=str(tmp_path))
    assert backend.estimate_start(submission) is not None
    number = backend.submit(submission)
    backend.advance(until_idle=True)
    found = backend.jobs([number, number + 1])
    assert [one.state for one in found] == [JobState.COMPLETED] * 2
    assert found[0].start_time == found[1].start_time


def test_the_components_of_a_heterogeneous_job_of_a_trace_start_and_end_together(tmp_path: Path) -> None:
    """Slurm's backfill starts them once both fit; the second would run longer, and ends with the first."""
    conf, table, dump = (tmp_path / name for name in ("slurm.conf", "jobs.csv", "jobs.txt"))
    conf.write_text(
        "SelectType=select/linear\nSchedulerParameters=bf_interval=1,bf_resolution=1,sched_interval=5\n"
        "NodeName=n[1-4] CPUs=4\nPartitionName=a Nodes=n[1-2] Default=YES\nPartitionName=b Nodes=n[3-4]\n"
    )
    table.write_text(
        "job,submit_s,nodes,run_s,time_limit_min,partition,het\n"
        "1,0,2,100,2,b,\n2,5,2,60,3,a,x\n3,5,1,90,3,b,x\n4,6,1,10,1,a,\n"
    )
    dump.write_text(
        "JobID|Submit|ElapsedRaw|TimelimitRaw|NNodes|Partition|State\n1|0|100|2|2|b|COMPLETED\n"
        "2+0|5|60|3|2|a|COMPLETED\n2+1|5|90|3|1|b|COMPLETED\n4|6|10|1|1|a|COMPLETED\n"
    )
    cluster = read_slurm_cluster(conf)
    for path in (table, dump):
        rows = on_nodes(read_trace(path), cluster, "slurm").rows
        assert (rows[1].start_s, rows[1].end_s) == (rows[2].start_s, rows[2].end_s)
        assert rows[0].end_s is not None
        assert (rows[1].start_s or 0) >= rows[0].end_s, "the second component's nodes are taken until then"
        assert (rows[1].end_s or 0) - (rows[1].start_s or 0) == 60
