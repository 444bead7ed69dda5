"""A night replayed with better requests."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcplan.errors import InputError
from hpcplan.schedule.counterfactual import Asked, PastJob, replay
from hpcplan.simulate.slurm_cluster import SlurmCluster, read_slurm_cluster

CONF = """\
ClusterName=t
SchedulerType=sched/backfill
SchedulerParameters=bf_resolution=60,bf_interval=30
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
NodeName=n[1-2] CPUs=8 RealMemory=64000 State=UNKNOWN
PartitionName=batch Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


@pytest.fixture
def cluster(tmp_path: Path) -> SlurmCluster:
    (tmp_path / "slurm.conf").write_text(CONF)
    return read_slurm_cluster(tmp_path / "slurm.conf")


def job(number: int, submit_s: int, asked: Asked, needed: Asked, *, run_s: int = 3600, counted: bool = True) -> PastJob:
    return PastJob(str(number), submit_s, run_s, 1, asked, needed, "batch", "alice", None, counted)


def test_jobs_that_ask_for_half_the_cpus_share_a_node_and_wait_less(cluster: SlurmCluster) -> None:
    jobs = [job(n, n, Asked(7200, 8), Asked(7200, 4)) for n in range(4)]
    found = replay(jobs, cluster, nodes_shared=True)
    assert (found.jobs, found.changed, found.left_out) == (4, 4, 0)
    assert found.asked_wait_hours == pytest.approx(2.0, abs=0.1)  # two run at once, the others an hour later
    assert found.needed_wait_hours < 0.1


def test_less_memory_does_as_well(cluster: SlurmCluster) -> None:
    jobs = [job(n, n, Asked(7200, 1, 60 * 2**30), Asked(7200, 1, 8 * 2**30)) for n in range(6)]
    found = replay(jobs, cluster, nodes_shared=True)
    assert found.asked_wait_hours > 5
    assert found.needed_wait_hours < 0.1


def test_requests_that_were_right_change_nothing(cluster: SlurmCluster) -> None:
    jobs = [job(n, n * 60, Asked(7200, 8), Asked(7200, 8)) for n in range(6)]
    found = replay(jobs, cluster, nodes_shared=False)
    assert found.changed == 0
    assert found.asked_wait_hours == found.needed_wait_hours


def test_shorter_limits_let_backfill_start_jobs_on_whole_nodes(cluster: SlurmCluster) -> None:
    wide = PastJob("w", 10, 3600, 2, Asked(7200, 16), Asked(7200, 16), "batch", "bob", None)
    running = job(1, 0, Asked(7200, 8), Asked(7200, 8), run_s=7000, counted=False)
    short = [job(n, 20 + n, Asked(86_400, 8), Asked(900, 8), run_s=600) for n in range(2, 5)]
    found = replay([running, wide, *short], cluster, nodes_shared=False)
    assert found.needed_wait_hours < found.asked_wait_hours - 3


def test_jobs_from_before_hold_their_nodes_but_do_not_count(cluster: SlurmCluster) -> None:
    before = [job(n, 0, Asked(3600, 8), Asked(3600, 8), counted=False) for n in (1, 2)]
    found = replay([*before, job(3, 1, Asked(60, 8), Asked(60, 8), run_s=60)], cluster, nodes_shared=False)
    assert found.jobs == 1
    assert found.asked_wait_hours == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("shared", [True, False])
def test_what_the_cluster_would_refuse_is_left_out(cluster: SlurmCluster, shared: bool) -> None:
    found = replay(
        [job(1, 0, Asked(60, 4), Asked(60, 4)), job(2, 0, Asked(60, 99), Asked(60, 4))], cluster, nodes_shared=shared
    )
    assert (found.jobs, found.left_out) == (1, 1)
    with pytest.raises(InputError):
        replay([], cluster, nodes_shared=shared)


def test_a_job_that_only_the_smaller_request_could_start_is_in_no_replay(cluster: SlurmCluster) -> None:
    too_wide = job(1, 0, Asked(7200, 32), Asked(7200, 8))
    others = [job(n, n, Asked(7200, 8), Asked(7200, 8)) for n in range(2, 6)]
    found = replay([too_wide, *others], cluster, nodes_shared=True)
    assert (found.jobs, found.left_out) == (4, 1)
    assert found.needed_wait_hours == found.asked_wait_hours


def test_a_limit_that_would_cut_a_run_short_is_refused(cluster: SlurmCluster) -> None:
    with pytest.raises(ValueError, match="needed limit"):
        replay([job(1, 0, Asked(7200, 8), Asked(1800, 8))], cluster, nodes_shared=True)
    with pytest.raises(ValueError, match="needed limit"):
        replay([job(1, 0, Asked(7200, 8), Asked(9000, 8))], cluster, nodes_shared=True)


def test_exact_limits_may_cost_small_jobs_hours_and_gain_them_for_wide_ones(cluster: SlurmCluster) -> None:
    first = job(1, 0, Asked(36_000, 8), Asked(3600, 8))
    wide = PastJob("w", 1, 3600, 2, Asked(7200, 16), Asked(7200, 16), "batch", "bob", None)
    small = [job(n, n, Asked(7200, 1), Asked(7200, 1), run_s=7200) for n in (2, 3)]  # pass while the first seems long
    found = replay([first, wide, *small], cluster, nodes_shared=True)
    assert found.needed_wait_hours > found.asked_wait_hours
    assert found.needed_core_hour_s < found.asked_core_hour_s
    assert found.sized_wait_hours == found.asked_wait_hours  # their sizes were right
