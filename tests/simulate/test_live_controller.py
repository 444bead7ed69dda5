"""The default mock cluster looks at once, and gives out the same nodes however fast the machine is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hpcplan.simulate.jobs import Behaviour
from hpcplan.simulate.live import REAL
from hpcplan.simulate.live_controller import LiveController, at_once
from hpcplan.simulate.machine import Machine, Sharing
from hpcplan.simulate.slurm_cluster import SlurmCluster
from hpcplan.simulate.slurm_settings import SlurmSettings
from hpcplan.simulate.snapshot import restore, snapshot
from hpcplan.slurm.records import JobState
from tests.simulate.clusters import job, machine


def live(now: int, *, sharing: bool = False) -> LiveController:
    whole, settings = machine(4), SlurmSettings()
    if sharing:
        parts = {name: replace(part, exclusive=False) for name, part in whole.partitions.items()}
        whole = Machine(whole.names, whole.groups, parts, Sharing(cpus=True, memory=False))
        settings = SlurmSettings(consumable=True)
    return LiveController(at_once(SlurmCluster(whole, settings)), now=now)


@pytest.mark.parametrize("sharing", [False, True])
@pytest.mark.parametrize("second", range(5))
def test_a_node_is_given_out_again_as_soon_as_its_job_has_ended(second: int, *, sharing: bool) -> None:
    tiny = live(1_700_000_000 + 7 * second, sharing=sharing)
    for _ in range(3):
        number = tiny.submit(job(2, cpus_per_task=16), REAL, "ana")
        assert tiny.running[number].node_list == "n[1-2]"
        tiny.finish(number, JobState.COMPLETED)
        assert tiny.free == tiny.machine.all_nodes


@pytest.mark.parametrize("sharing", [False, True])
def test_a_change_is_seen_though_the_cluster_was_saved_in_between(*, sharing: bool) -> None:
    tiny = live(1_700_000_000, sharing=sharing)
    first = tiny.submit(job(4, cpus_per_task=16), Behaviour(10**6), "ana")
    for _ in range(4):
        again = live(tiny.now, sharing=sharing)
        restore(again, snapshot(tiny))
        tiny = again
        waiting = tiny.submit(job(4, cpus_per_task=16), Behaviour(10**6), "ana")
        tiny.cancel(first)
        assert list(tiny.running) == [waiting]
        first = waiting


@pytest.mark.parametrize("sharing", [False, True])
def test_whatever_lets_a_job_start_is_looked_at_at_once(*, sharing: bool) -> None:
    tiny = live(1_700_000_000, sharing=sharing)
    first = tiny.submit(job(1, cpus_per_task=16), REAL, "ana")
    held = tiny.submit(job(1, cpus_per_task=16, hold=True), REAL, "ana")
    after = tiny.submit(job(1, cpus_per_task=16, dependency=f"afterok:{first}"), REAL, "ana")
    tiny.advance(tiny.now + 7)
    tiny.release(held)
    assert list(tiny.running) == [first, held]
    tiny.set_partition(replace(tiny.machine.partitions["batch"], up=False))
    down = tiny.submit(job(1, cpus_per_task=16), REAL, "ana")
    tiny.finish(first, JobState.COMPLETED)
    assert list(tiny.running) == [held]
    tiny.set_partition(replace(tiny.machine.partitions["batch"], up=True))
    assert list(tiny.running) == [held, after, down]


@pytest.mark.parametrize("sharing", [False, True])
def test_nodes_that_a_stopped_job_has_left_are_given_out_before_it_has_ended_on_the_others(*, sharing: bool) -> None:
    tiny = live(1_700_000_000, sharing=sharing)
    stopped = tiny.submit(job(4, cpus_per_task=16), REAL, "ana")
    waiting = tiny.submit(job(2, cpus_per_task=16), REAL, "ana")
    tiny.vacate(stopped, 0b1000)
    assert list(tiny.running) == [stopped]
    tiny.vacate(stopped, 0b1100)
    assert tiny.running[waiting].node_list == "n[3-4]"
    again = live(tiny.now, sharing=sharing)
    restore(again, snapshot(tiny))
    assert again.free == 0
    again.finish(stopped, JobState.CANCELLED)
    assert (again.ended[-1].nodes, again.ended[-1].node_list) == (4, "n[1-4]")
    assert again.free == 0b0011
    again.finish(waiting, JobState.COMPLETED)
    assert again.free == again.machine.all_nodes
