"""Slurm's own scheduling: when slurmctld looks at the queue, what it starts and where; against recordings of one."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcplan.errors import InputError
from hpcplan.hostlist import expand
from hpcplan.simulate.jobs import JobSpec
from hpcplan.simulate.outcome import Row
from hpcplan.simulate.slurm_cluster import SlurmCluster, read_slurm_cluster
from hpcplan.simulate.slurm_settings import scheduling
from hpcplan.simulate.table_trace import read_table
from hpcplan.simulate.trace_run import on_nodes
from hpcplan.simulate.traces import Trace, TraceJob

NODES = "NodeName=n[1-8] CPUs=4 RealMemory=1000\nPartitionName=batch Nodes=n[1-8] Default=YES\n"
QUICK = "SchedulerParameters=bf_interval=1,bf_resolution=1,sched_interval=5\nSelectType=select/linear\n"


def cluster(folder: Path, text: str = QUICK + NODES) -> SlurmCluster:
    path = folder / "slurm.conf"
    path.write_text(text)
    return read_slurm_cluster(path)


def job(number: int, submit_s: int, nodes: int, run_s: int, minutes: int, **asks: object) -> TraceJob:
    spec = JobSpec(
        **{"name": str(number), "nodes_min": nodes, "nodes_max": nodes, "time_limit_s": minutes * 60, **asks}
    )  # type: ignore[arg-type]
    return TraceJob(number, submit_s, run_s, minutes * 60, nodes, ask=spec)


def run(machine: SlurmCluster, *jobs: TraceJob) -> tuple[Row, ...]:
    return on_nodes(Trace(jobs, None, 0), machine, "slurm").rows


def starts(rows: tuple[Row, ...]) -> list[int | None]:
    return [row.start_s for row in rows]


# against recordings ---------------------------------------------------------------------------------------------------


def recorded(folder: Path, name: str) -> tuple[tuple[Row, ...], list[dict[str, str]]]:
    table = folder / f"{name}.csv"
    rows = on_nodes(read_table(table), read_slurm_cluster(folder / f"{name}.slurm.conf"), "slurm").rows
    with table.open(newline="") as stream:
        return rows, list(csv.DictReader(stream))


def errors(rows: tuple[Row, ...], real: list[dict[str, str]]) -> list[float]:
    return [(row.start_s or 0) - float(one["start_s"]) for row, one in zip(rows, real, strict=True)]


def test_a_recorded_fifo_run_comes_out_within_two_seconds_and_in_its_order(shared_data: Path) -> None:
    rows, real = recorded(shared_data / "slurm_golden", "fifo")
    assert max(map(abs, errors(rows, real))) <= 2
    for position, one in enumerate(real):
        for other, later in enumerate(real):
            if float(one["start_s"]) < float(later["start_s"]):
                assert (rows[position].start_s or 0) <= (rows[other].start_s or 0)


def test_a_recorded_backfill_run_comes_out_with_its_waits_and_nodes(shared_data: Path) -> None:
    rows, real = recorded(shared_data / "slurm_golden", "backfill")
    waits = [float(one["start_s"]) - float(one["submit_s"]) for one in real]
    assert sum(errors(rows, real)) == pytest.approx(0, abs=0.03 * sum(waits))
    assert sum(abs(error) <= 5 for error in errors(rows, real)) >= 0.95 * len(real)
    same = [expand(row.nodelist or "") == expand(one["nodelist"]) for row, one in zip(rows, real, strict=True)]
    assert sum(same) >= 0.9 * len(real)


# what slurmctld does --------------------------------------------------------------------------------------------------


def test_the_main_scheduler_holds_a_partition_up_behind_its_first_waiting_job(tmp_path: Path) -> None:
    builtin = cluster(tmp_path, "SchedulerType=sched/builtin\n" + QUICK + NODES)
    rows = run(builtin, job(1, 0, 6, 60, 2), job(2, 1, 6, 60, 2), job(3, 2, 1, 10, 1))
    assert rows[2].start_s == rows[1].start_s


def test_backfill_starts_a_short_job_that_delays_nobody_and_no_long_one(tmp_path: Path) -> None:
    machine = cluster(tmp_path)
    rows = run(machine, job(1, 0, 6, 100, 2), job(2, 1, 8, 60, 2), job(3, 2, 1, 10, 1), job(4, 2, 1, 10, 3))
    first, second, short, long = starts(rows)
    assert short == 2
    assert None not in (first, second, long)
    assert (first or 0) + 100 <= (second or 0) < (long or 0)


def test_reservations_are_made_for_every_job_unless_their_number_is_limited(tmp_path: Path) -> None:
    jobs = (job(1, 0, 6, 110, 2), job(2, 1, 7, 60, 2), job(3, 2, 8, 60, 2), job(4, 3, 1, 10, 10))
    everyone = run(cluster(tmp_path), *jobs)
    assert (everyone[3].start_s or 0) > (everyone[2].start_s or 0)
    one = QUICK.replace("bf_interval", "bf_job_part_count_reserve=1,bf_interval")
    assert (run(cluster(tmp_path, one + NODES), *jobs)[3].start_s or 0) < 10


def test_backfill_comes_every_bf_interval(tmp_path: Path) -> None:
    slow = "SchedulerParameters=bf_interval=40,sched_interval=5\nSelectType=select/linear\n"
    rows = run(cluster(tmp_path, slow + NODES), job(1, 0, 6, 300, 9), job(2, 1, 8, 60, 2), job(3, 2, 1, 10, 1))
    assert rows[2].start_s == 37  # the controller is up 3 s before the trace begins


def test_a_batch_of_changes_is_looked_at_three_seconds_after_the_last_pass(tmp_path: Path) -> None:
    slow = "SchedulerParameters=sched_interval=600\nSelectType=select/linear\n"
    rows = run(cluster(tmp_path, slow + NODES), job(1, 0, 1, 10, 1), job(2, 1, 1, 10, 1), job(3, 5, 1, 10, 1))
    assert starts(rows) == [0, 3, 6]


def test_limits_are_enforced_at_the_controllers_next_look(tmp_path: Path) -> None:
    rows = run(cluster(tmp_path), job(1, 0, 1, 500, 1))
    assert (rows[0].start_s, rows[0].end_s, rows[0].state) == (0, 87, "TIMEOUT")


def test_a_job_that_ends_by_itself_over_its_limit_has_timed_out_too(tmp_path: Path) -> None:
    rows = run(cluster(tmp_path), job(1, 0, 1, 70, 1))
    assert (rows[0].end_s, rows[0].state) == (70, "TIMEOUT")


def test_limits_count_in_whole_minutes(tmp_path: Path) -> None:
    half = job(1, 0, 1, 500, 1)._replace(ask=JobSpec(nodes_min=1, nodes_max=1, time_limit_s=61))
    assert run(cluster(tmp_path), half)[0].end_s == 147


def test_a_higher_tier_goes_first_whatever_the_priorities(tmp_path: Path) -> None:
    tiers = NODES + "PartitionName=urgent Nodes=n[1-8] PriorityTier=5\n"
    rows = run(
        cluster(tmp_path, QUICK + tiers),
        job(1, 0, 8, 60, 2),
        job(2, 1, 8, 10, 1),
        job(3, 2, 8, 10, 1, partition="urgent"),
    )
    assert (rows[2].start_s or 0) < (rows[1].start_s or 0)


def test_age_size_and_partition_make_the_multifactor_priority(tmp_path: Path) -> None:
    weights = "PriorityType=priority/multifactor\nPriorityWeightJobSize=1000\n"
    rows = run(
        cluster(tmp_path, weights + QUICK + NODES), job(1, 0, 8, 60, 2), job(2, 1, 2, 10, 3), job(3, 2, 8, 10, 1)
    )
    assert (rows[2].start_s or 0) < (rows[1].start_s or 0)


def test_a_dependent_job_starts_after_its_condition_and_never_where_it_fails(tmp_path: Path) -> None:
    jobs = (
        job(1, 0, 1, 20, 1),
        job(2, 1, 1, 5, 1, dependency="afterok:1"),
        job(3, 1, 1, 5, 1, dependency="afternotok:1"),
    )
    rows = run(cluster(tmp_path), *jobs)
    assert (rows[1].start_s or 0) >= 20
    assert (rows[2].start_s, rows[2].state) == (None, "PENDING")


def test_a_job_waits_for_few_switches_but_not_for_ever(tmp_path: Path) -> None:
    (tmp_path / "topology.conf").write_text(
        "SwitchName=a Nodes=n[1-4]\nSwitchName=b Nodes=n[5-8]\nSwitchName=t Switches=a,b\n"
    )
    machine = cluster(tmp_path, "TopologyPlugin=topology/tree\n" + QUICK + NODES)
    first, second = job(1, 0, 1, 500, 20), job(2, 1, 1, 900, 20, nodelist="n5")
    free = run(machine, first, second, job(3, 9, 4, 10, 1))
    assert (free[2].start_s or 0) < 20
    near = run(machine, first, second, job(3, 9, 4, 10, 1, switches="1"))
    assert 300 <= (near[2].start_s or 0) < 320
    soon = run(machine, first, second, job(3, 9, 4, 10, 1, switches="1@1"))
    assert 69 <= (soon[2].start_s or 0) < 80


def test_what_sbatch_would_refuse_is_named(tmp_path: Path) -> None:
    schedule = on_nodes(Trace((job(1, 0, 9, 20, 1, partition="batsh"),), None, 0), cluster(tmp_path), "slurm")
    assert schedule.rows[0].state == "REFUSED"
    assert "Invalid partition name" in schedule.refused["1"]


# slurm.conf -----------------------------------------------------------------------------------------------------------


def test_scheduling_parameters_are_read_with_slurms_defaults() -> None:
    found = scheduling({"schedulerparameters": "bf_interval=10,bf_window=60,default_queue_depth=7,bf_max_job_test=x"})
    assert (found.bf_interval_s, found.bf_window_s, found.default_queue_depth) == (10, 3600, 7)
    assert (found.bf_max_job_test, found.bf_resolution_s, found.sched_interval_s) == (500, 60, 60)


def test_defaults_of_nodes_and_partitions_and_the_switches_are_read(tmp_path: Path) -> None:
    (tmp_path / "topology.conf").write_text(
        "SwitchName=a Nodes=n[1-3]\nSwitchName=b Nodes=n4\nSwitchName=t Switches=a,b\n"
    )
    found = cluster(
        tmp_path,
        "TopologyPlugin=topology/tree\nNodeName=DEFAULT CPUs=16 Gres=gpu:h100:4 Feature=fast\n"
        "NodeName=n[1-4] Weight=3\n"
        "PartitionName=DEFAULT MaxTime=2:00:00 \nPartitionName=long Nodes=ALL PriorityTier=3\n",
    )
    group, partition = found.machine.groups[0], found.machine.partitions["long"]
    assert (group.cpus, group.gpus, group.gpu_type, group.features, group.weight) == (16, 4, "h100", ("fast",), 3)
    assert (partition.mask, partition.max_time_s, partition.priority_tier) == (0b1111, 7200, 3)
    assert [(switch.name, switch.mask, switch.level) for switch in found.switches] == [
        ("a", 0b111, 0), ("b", 0b1000, 0), ("t", 0b1111, 1),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("PartitionName=a Nodes=n1\n", "names no nodes"),
        ("NodeName=n1 CPUs=2\n", "names no partitions"),
        ("NodeName=n1 CPUs=two\nPartitionName=a Nodes=n1\n", "slurm.conf:1: CPUs: 'two' is not a whole number"),
        ("NodeName=n1\nPartitionName=a Nodes=n2\n", "slurm.conf:2: Nodes: no NodeName line names 'n2'"),
        ("OverTimeLimit=soon\n" + NODES, "overtimelimit: 'soon'"),
    ],
)
def test_a_slurm_conf_without_a_cluster_is_refused_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        cluster(tmp_path, text)


# always ---------------------------------------------------------------------------------------------------------------

some_jobs = st.lists(
    st.tuples(
        st.integers(0, 90),
        st.integers(1, 8),
        st.integers(1, 150),
        st.integers(1, 3),
        st.sampled_from(["batch", "half"]),
    ),
    max_size=15,
)
PARTS = NODES + "PartitionName=half Nodes=n[1-4] MaxTime=2\n"


@settings(max_examples=60)
@given(
    made=some_jobs, extra=st.sampled_from(["", "SchedulerType=sched/builtin\n", "PriorityType=priority/multifactor\n"])
)
def test_no_node_is_given_twice_nothing_starts_before_submission_and_it_is_the_same_again(
    tmp_path_factory: pytest.TempPathFactory, made: list[tuple[int, int, int, int, str]], extra: str
) -> None:
    machine = cluster(tmp_path_factory.mktemp("conf"), extra + QUICK + PARTS)
    jobs = [
        job(number, submit_s, min(nodes, 4) if part == "half" else nodes, run_s, minutes, partition=part)
        for number, (submit_s, nodes, run_s, minutes, part) in enumerate(made, start=1)
    ]
    rows = run(machine, *jobs)
    assert rows == run(machine, *jobs)
    held = []
    for one, row in zip(jobs, rows, strict=True):
        if one.ask is not None and one.ask.partition == "half" and one.limit_s > 120:
            assert row.state == "PENDING"
            continue
        assert row.start_s is not None
        assert row.end_s is not None
        assert row.start_s >= row.submit_s
        nodes = {*expand(row.nodelist or "")}
        assert len(nodes) == one.procs
        assert all(not (nodes & others) or row.start_s >= end or row.end_s <= begin for begin, end, others in held)
        held.append((row.start_s, row.end_s, nodes))
