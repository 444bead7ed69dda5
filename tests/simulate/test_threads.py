"""When slurmctld's threads look: the main loop a second at a time, backfill when something has changed."""

from __future__ import annotations

from hpcplan.simulate.job_ends import groups_of_ends
from hpcplan.simulate.node_space import NodeSpace
from hpcplan.simulate.profile import Slot
from hpcplan.simulate.slurm_settings import SlurmSettings
from hpcplan.simulate.threads import BackfillThread, MainThread

SETTINGS = SlurmSettings(consumable=True, bf_interval_s=10, bf_resolution_s=10, sched_interval_s=15, started_s=0)


def test_backfill_looks_every_interval_while_there_are_changes_and_asks_every_second_once_there_are_none() -> None:
    thread = BackfillThread(SETTINGS)
    assert thread.due_ms == 10_080
    thread.passed(planned_idle=False)
    assert thread.due_ms is None
    thread.changed(25_500)  # it woke at 20 s, and each second since
    assert thread.due_ms is not None
    assert 25_500 <= thread.due_ms < 26_500
    thread.passed(planned_idle=True)
    assert thread.due_ms is not None  # promising idle nodes is a change


def test_the_main_loop_looks_at_the_whole_queue_every_interval_and_after_events_not_before_its_delay() -> None:
    thread = MainThread(SETTINGS)
    assert thread.due_ms is None
    thread.changed(500, batch=True)
    assert thread.due_ms is not None
    assert thread.due_ms // 1000 == 3
    thread.passed(thread.due_ms, whole=False)
    assert thread.is_whole()
    assert thread.due_ms // 1000 == 15


def test_running_jobs_end_in_groups_by_half_minutes_of_the_controllers_clock() -> None:
    ends = [(at, at, 1) for at in (10, 40, 59, 61, 95, 300)]
    assert [group for _, group in groups_of_ends(ends, 1, SETTINGS)] == [[0, 1, 2], [3], [4], [5]]
    shifted = SlurmSettings(consumable=True, clock_s=10)
    assert [group for _, group in groups_of_ends(ends, 1, shifted)] == [[0, 1], [2, 3], [4], [5]]
    assert len(list(groups_of_ends(ends, 1, SlurmSettings()))) == len(ends)
    assert list(groups_of_ends(ends, 2, SETTINGS)) == []


def test_a_promise_holds_its_nodes_for_a_resolution_at_least_and_the_end_of_one_is_when_to_ask_again() -> None:
    space = NodeSpace(0, 0b111, SETTINGS)
    space.take(Slot(20, 24, 0b011))
    assert space.during(0b111, 0, 15) == (0b111, 30)
    assert space.during(0b111, 0, 25) == (0b100, 30)
    assert space.during(0b111, 30, 90) == (0b111, None)
    assert space.overlaps(Slot(10, 25, 0b001))
    assert not space.overlaps(Slot(30, 50, 0b001))
