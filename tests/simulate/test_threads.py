"""When slurmctld's threads look: the main loop a second at a time, backfill when something has changed."""

from __future__ import annotations

from hpcplan.simulate.job_ends import groups_of_ends
from hpcplan.simulate.node_space import NodeSpace
from hpcplan.simulate.profile import Slot
from hpcplan.simulate.slurm_settings import SlurmSettings
from hpcplan.simulate.threads import BackfillThread, MainThread

SETTINGS = SlurmSettings(consumable=True, bf_interval_s=10, bf_resolution_s=10, sched_interval_s=15, started_s=0)


def next_pass(thread: BackfillThread, at_ms: int) -> int:
    """Tell of a change, and return when the pass is that follows."""
    thread.changed(at_ms)
    assert thread.due_ms is not None
    return thread.due_ms


def test_backfill_asks_every_second_once_nothing_has_changed_since_its_last_pass() -> None:
    thread = BackfillThread(SETTINGS)
    assert thread.due_ms is None
    assert next_pass(thread, 1_000) == 10_080
    thread.passed(planned_idle=False, competing=False)
    assert 25_500 <= next_pass(thread, 25_500) < 26_501  # it woke at 20 s, and each second since


def test_backfill_has_a_pass_every_interval_where_jobs_compete_or_idle_nodes_are_promised() -> None:
    for planned_idle, competing in ((True, False), (False, True)):
        thread = BackfillThread(SETTINGS)
        next_pass(thread, 1_000)
        thread.passed(planned_idle=planned_idle, competing=competing)
        assert thread.due_ms is None  # such a pass finds nothing new
        assert next_pass(thread, 25_500) == 10_080 + 2 * 10_002
    thread.passed(planned_idle=False, competing=False)
    thread.queue_is_empty()
    assert next_pass(thread, 55_500) < 56_501


def test_what_is_worth_no_pass_moves_the_next_one_all_the_same() -> None:
    quiet, touched = BackfillThread(SETTINGS), BackfillThread(SETTINGS)
    for thread in (quiet, touched):
        next_pass(thread, 1_000)
        thread.passed(planned_idle=False, competing=False)
    touched.touched(21_500)  # a pass at its next waking finds nothing
    assert touched.due_ms is None
    assert next_pass(quiet, 24_000) < 25_100
    assert next_pass(touched, 24_000) > 31_000


def test_the_main_loop_looks_at_the_whole_queue_every_interval_and_after_events_not_before_its_delay() -> None:
    thread = MainThread(SETTINGS)
    assert thread.due_ms is None
    thread.changed(500, batch=True)
    assert thread.due_ms is not None
    assert (thread.due_ms // 1000, thread.due_whole) == (3, False)
    thread.passed(truncated=False)
    assert thread.due_ms is None  # it has seen all that there is
    thread.changed(5_000, batch=False)
    assert thread.due_ms is not None
    assert (thread.due_ms // 1000, thread.due_whole) == (15, True)


def test_a_pass_over_the_head_of_the_queue_leaves_the_rest_to_the_next_over_all_of_it() -> None:
    thread = MainThread(SETTINGS)
    thread.changed(500, batch=True)
    thread.passed(truncated=True)
    assert thread.due_whole


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


def test_passes_of_the_main_loop_over_a_queue_that_stays_as_it_is_are_told_of_at_the_next_change() -> None:
    thread = MainThread(SETTINGS)
    assert thread.changed(500, batch=True) == []
    thread.passed(truncated=False)
    assert [at // 1000 for at in thread.changed(50_000, batch=True)] == [15, 30, 45]


def test_a_backfill_pass_that_completewait_holds_back_comes_a_second_later() -> None:
    thread = BackfillThread(SETTINGS)
    due_ms = next_pass(thread, 1_000)
    thread.postponed()
    assert thread.due_ms == due_ms + 1001
