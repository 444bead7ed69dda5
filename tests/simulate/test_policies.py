"""Which jobs a scheduling pass starts, and on which nodes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcplan.errors import InputError
from hpcplan.simulate.admission import resolve
from hpcplan.simulate.jobs import Behaviour, Job
from hpcplan.simulate.machine import Machine
from hpcplan.simulate.policies import Backfill, ClusterView, Decision, Policy, Start, policy_named
from hpcplan.simulate.profile import Profile, Slot, choose
from tests.simulate.clusters import job, machine

EIGHT = machine(8)


def queued(number: int, nodes: int, limit_s: int, cluster: Machine = EIGHT, **options: object) -> Job:
    spec = job(nodes, limit_s, **options)
    return Job(number, spec, resolve(spec, cluster), Behaviour(limit_s), "ana", submit_time=0, priority=1)


def view(running: list[tuple[int, int]], now: int = 0, down: int = 0) -> ClusterView:
    busy = sum(nodes for _, nodes in running)
    available = EIGHT.all_nodes & ~down
    masks = {name: part.mask for name, part in EIGHT.partitions.items()}
    return ClusterView(now, available & ~busy, available, running, masks)


def started(decision: Decision) -> dict[int, str]:
    return {start.job.id: EIGHT.node_list(start.nodes) for start in decision.starts}


def test_nodes_are_taken_lowest_first() -> None:
    decision = policy_named("backfill").decide([queued(1, 2, 60), queued(2, 1, 60)], view([(60, 0b1)]))
    assert started(decision) == {1: "n[2-3]", 2: "n4"}


def test_fcfs_starts_nothing_behind_a_job_that_does_not_fit() -> None:
    queue = [queued(1, 2, 60), queued(2, 8, 60), queued(3, 1, 60)]
    assert started(policy_named("fcfs").decide(queue, view([]))) == {1: "n[1-2]"}


def test_under_fcfs_a_blocked_partition_keeps_its_nodes_and_leaves_the_others() -> None:
    queue = [queued(1, 4, 60, partition="half"), queued(2, 5, 60), queued(3, 4, 60)]
    decision = policy_named("fcfs").decide(queue, view([(60, 0b1)]))
    assert started(decision) == {}  # batch's job 2 waits, and holds up all of batch's nodes
    decision = policy_named("fcfs").decide([queue[0], queue[2]], view([(60, 0b1)]))
    assert started(decision) == {3: "n[5-8]"}


def test_easy_plans_the_heads_reservation_and_fills_around_it() -> None:
    running = [(100, 0b00001111)]
    queue = [queued(1, 6, 60), queued(2, 2, 900), queued(3, 1, 100), queued(4, 1, 101)]
    decision = policy_named("easy").decide(queue, view(running))
    assert started(decision) == {2: "n[7-8]", 3: "n5"}
    slot = decision.reservations[1]
    assert (slot.start, slot.end, slot.nodes.bit_count()) == (100, 160, 6)
    assert [start.backfilled for start in decision.starts] == [True, True]


def test_easy_keeps_a_reservation_for_the_head_of_each_partition() -> None:
    running = [(100, 0b11111110)]
    head, long_job = queued(1, 2, 60), queued(3, 1, 900)
    second_of_batch, head_of_half = queued(2, 8, 60), queued(2, 4, 60, partition="half")
    assert started(policy_named("easy").decide([head, second_of_batch, long_job], view(running))) == {3: "n1"}
    assert started(policy_named("easy").decide([head, head_of_half, long_job], view(running))) == {}


def test_backfill_reserves_for_every_job_it_looks_at() -> None:
    """Three jobs on 8 nodes: the third fits beside the head's reservation but would delay the second's."""
    running = [(100, 0b00111111)]
    queue = [queued(1, 7, 60), queued(2, 8, 60), queued(3, 1, 900)]
    assert started(policy_named("easy").decide(queue, view(running))) == {3: "n8"}
    assert started(policy_named("backfill").decide(queue, view(running))) == {}


def test_backfill_looks_at_no_more_jobs_than_it_is_told_to() -> None:
    running = [(100, 0b11111110)]
    queue = [queued(1, 8, 60), queued(2, 2, 60), queued(3, 1, 60)]
    assert started(Backfill(bf_max_job_test=3).decide(queue, view(running))) == {3: "n1"}
    assert started(Backfill(bf_max_job_test=2).decide(queue, view(running))) == {}


def test_a_reservation_beyond_the_window_is_not_made() -> None:
    running = [(5000, 0b11111110)]
    queue = [queued(1, 8, 60), queued(2, 1, 6000)]
    assert started(Backfill(bf_window_s=4000).decide(queue, view(running))) == {2: "n1"}
    assert started(Backfill(bf_window_s=6000).decide(queue, view(running))) == {}


@pytest.mark.parametrize("policy", ["fcfs", "easy", "backfill"])
def test_a_job_whose_nodes_are_down_holds_up_nobody(policy: str) -> None:
    queue = [queued(1, 8, 60), queued(2, 1, 90000)]
    assert started(policy_named(policy).decide(queue, view([], down=0b1))) == {2: "n2"}


def test_a_job_that_takes_a_range_of_nodes_gets_as_many_as_there_are() -> None:
    spec = queued(1, 1, 60, nodes_min=2, nodes_max=6)
    assert started(policy_named("backfill").decide([spec], view([(60, 0b111)]))) == {1: "n[4-8]"}
    assert started(policy_named("backfill").decide([spec], view([]))) == {1: "n[1-6]"}
    assert started(policy_named("backfill").decide([spec], view([(60, 0b1111111)]))) == {}


def test_nodes_that_are_asked_for_by_name_are_in_the_allocation() -> None:
    spec = queued(1, 3, 60, nodelist="n[6,8]")
    assert started(policy_named("backfill").decide([spec], view([]))) == {1: "n[1,6,8]"}
    assert started(policy_named("backfill").decide([spec], view([(60, 0b10000000)]))) == {}


def test_a_profile_finds_the_first_gap_that_lasts_long_enough() -> None:
    profile = Profile(0, 0b00001111, 0xFF, [(50, 0b00110000), (80, 0b11000000)])
    profile.take(Slot(50, 70, 0b00111100))
    request = queued(1, 3, 40).request
    assert profile.earliest(request) == Slot(0, 40, 0b00000111)
    assert profile.earliest(queued(1, 3, 60).request) == Slot(70, 130, 0b00000111)
    assert profile.earliest(queued(1, 8, 60).request) == Slot(80, 140, 0b11111111)


def test_a_profile_without_room_for_a_request_says_so() -> None:
    profile = Profile(0, 0b00001111, 0b01111111, [(50, 0b11110000)])
    assert profile.earliest(queued(1, 8, 60).request) is None


def test_an_unknown_policy_is_named_with_the_nearest() -> None:
    with pytest.raises(InputError, match="no policy is called 'easi'; did you mean 'easy'"):
        policy_named("easi")


shapes = st.tuples(st.integers(1, 8), st.integers(1, 40), st.sampled_from(["batch", "half"]))
policies = st.sampled_from(
    [policy_named("fcfs"), policy_named("easy"), policy_named("backfill"), Backfill(2, 30, 4), Backfill(spread=True)]
)


@st.composite
def situations(draw: st.DrawFn) -> tuple[list[Job], ClusterView]:
    running, taken = [], 0
    for end, mask in draw(st.lists(st.tuples(st.integers(1, 60), st.integers(1, 255)), max_size=4)):
        if mask & ~taken:
            running.append((end, mask & ~taken))
            taken |= mask
    queue = [
        queued(number, min(nodes, EIGHT.partitions[part].mask.bit_count()), 60 * limit, partition=part)
        for number, (nodes, limit, part) in enumerate(draw(st.lists(shapes, max_size=10)), start=1)
    ]
    return queue, view(running, down=draw(st.integers(0, 255)) & ~taken)


@settings(max_examples=400, deadline=None)
@given(situation=situations(), policy=policies)
def test_a_pass_gives_each_job_free_nodes_of_its_own(situation: tuple[list[Job], ClusterView], policy: Policy) -> None:
    queue, seen = situation
    taken = 0
    for start in policy.decide(queue, seen).starts:
        assert start.nodes & ~seen.free == 0
        assert start.nodes & taken == 0
        assert start.nodes & ~start.job.request.eligible == 0
        assert start.nodes.bit_count() == start.job.request.minimum
        taken |= start.nodes


@settings(max_examples=400, deadline=None)
@given(situation=situations(), policy=policies)
def test_the_head_of_the_queue_starts_whenever_it_fits(
    situation: tuple[list[Job], ClusterView], policy: Policy
) -> None:
    queue, seen = situation
    if not queue:
        assert policy.decide(queue, seen).starts == []
        return
    fits = choose(queue[0].request, seen.free) != 0
    assert (queue[0].id in started(policy.decide(queue, seen))) == fits


@settings(max_examples=400, deadline=None)
@given(situation=situations())
def test_what_easy_starts_does_not_delay_the_heads_shadow_time(situation: tuple[list[Job], ClusterView]) -> None:
    """The shadow time is when the first job that has to wait could start if nothing behind it were started now."""
    queue, seen = situation
    decision = policy_named("easy").decide(queue, seen)
    ids = set(started(decision))
    waiting = [one for one in queue if one.id not in ids and choose(one.request, seen.available)]
    if not waiting:
        return
    head = waiting[0]
    before = [start for start in decision.starts if start.job.id < head.id]
    after = [start for start in decision.starts if start.job.id > head.id]

    def shadow(starts: list[Start]) -> int:
        free, running = seen.free, list(seen.running)
        for start in starts:
            free &= ~start.nodes
            running.append((seen.now + start.job.request.limit_s, start.nodes))
        slot = Profile(seen.now, free, seen.available, running).earliest(head.request)
        assert slot is not None
        return slot.start

    assert shadow([*before, *after]) == shadow(before)


@settings(max_examples=300, deadline=None)
@given(situation=situations())
def test_reservations_never_share_a_node_at_one_time(situation: tuple[list[Job], ClusterView]) -> None:
    queue, seen = situation
    plan = Backfill().plan(queue, seen)
    slots = list(plan.reservations.values())
    slots += [Slot(seen.now, seen.now + start.job.request.limit_s, start.nodes) for start in plan.starts]
    slots += [Slot(seen.now, end, nodes) for end, nodes in seen.running]
    for position, one in enumerate(slots):
        for other in slots[position + 1 :]:
            if one.start < other.end and other.start < one.end:
                assert one.nodes & other.nodes == 0


@settings(max_examples=300, deadline=None)
@given(situation=situations())
def test_planning_for_the_whole_queue_starts_the_same_jobs(situation: tuple[list[Job], ClusterView]) -> None:
    queue, seen = situation
    assert Backfill().plan(queue, seen).starts == Backfill().decide(queue, seen).starts
