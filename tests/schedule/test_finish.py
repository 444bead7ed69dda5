"""Chains of jobs, and the choice of how to ask by when the training is done."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcplan.errors import InfeasibleError, InputError
from hpcplan.plan import Segment
from hpcplan.schedule.chain_waits import ChainWaits, drawn_waits
from hpcplan.schedule.finish import REQUEUE_S, Chain, Finish, one_way, simulate_chain
from hpcplan.schedule.finish_picture import draw_tradeoff
from hpcplan.schedule.finish_queue import KnownQueue
from hpcplan.schedule.finish_search import FinishPlan, Queue, Stand, plan_for_finish
from hpcplan.schedule.forecast.snapshot import QueueJob, QueueSnapshot
from hpcplan.schedule.forecast.wait import Forecaster, future_of
from hpcplan.simulate.machine import Machine, NodeGroupShape, PartitionShape
from hpcplan.site import load_site
from hpcplan.site.policy import Qos
from hpcplan.workload import load_workload

NOW = 1_700_000_000


def segments(count: int, steps: int, limit_s: int = 100_000) -> tuple[Segment, ...]:
    return tuple(
        Segment(
            index=number + 1, first_step=number * steps + 1, last_step=(number + 1) * steps, time_limit_s=limit_s,
            warning_s=100, expected_s=1.0,
        )
        for number in range(count)
    )  # fmt: skip


def run(chain: Chain, first: float = 0, later: float = 0, samples: int = 200) -> object:
    random = np.random.default_rng(0)
    return simulate_chain(chain, lambda _: drawn_waits([first], [later], random), samples=samples, random=random)


def test_without_chance_a_chain_is_its_waits_start_ups_steps_and_checkpoints() -> None:
    chain = Chain(segments(3, 100), 10.0, 10.0, 25, 4.0, startup_s=50)
    found = run(chain, first=1000, later=200)
    assert found.finish_s == pytest.approx(1000 + 2 * 200 + 3 * (50 + 100 * 10 + 4 * 4))
    assert found.waited_s == pytest.approx(1400)
    assert (found.attempts == 3).all()
    assert (found.lost_s == 0).all()


def test_failures_lose_at_most_a_checkpoint_interval_and_wait_again() -> None:
    chain = Chain(segments(2, 1000), 10.0, 10.0, 10, 5.0, failure_rate_per_s=1 / 4000, startup_s=50)
    found = run(chain, later=300)
    failures = found.attempts - 2
    assert failures.mean() > 2
    assert (found.lost_s <= failures * (50 + 10 * 10 + 5) + 1e-6).all()
    assert found.waited_s == pytest.approx(300 * (found.attempts - 1))
    pure = 2 * (50 + 1000 * 10 + 100 * 5)
    assert found.finish_s == pytest.approx(pure + found.lost_s + found.waited_s + failures * REQUEUE_S)


def test_a_mean_over_many_failures_is_that_of_the_theory() -> None:
    """Daly 2006, equation 9: the time for a stretch between two checkpoints under exponential failures."""
    mean_s, cycle_s, restart_s = 5_000.0, 1_010.0, 100.0
    chain = Chain(segments(1, 2000), 10.0, 10.0, 100, 10.0, failure_rate_per_s=1 / mean_s, startup_s=restart_s)
    found = run(chain, samples=1500)
    cycles = 20
    theory = mean_s * np.exp(restart_s / mean_s) * (np.exp(cycle_s / mean_s) - 1) * cycles
    assert (found.finish_s - (found.attempts - 1) * REQUEUE_S).mean() == pytest.approx(theory, rel=0.02)


def test_jobs_that_fail_faster_than_they_save_are_never_done() -> None:
    chain = Chain(segments(1, 100), 100.0, 100.0, 100, 10.0, failure_rate_per_s=1 / 50, startup_s=50)
    assert np.isinf(run(chain, samples=3).finish_s).all()


def test_steps_slower_than_planned_spill_into_further_jobs() -> None:
    chain = Chain(segments(1, 100, limit_s=1200), 20.0, 20.0, 10, 1.0, startup_s=50)
    found = run(chain, later=500)
    assert (found.attempts > 1).all()
    assert (found.waited_s == 500 * (found.attempts - 1)).all()


@settings(max_examples=30)
@given(
    st.integers(1, 4),
    st.integers(1, 60),
    st.floats(0.1, 100),
    st.floats(0, 50),
    st.integers(1, 100),
    st.floats(0, 1e-3),
)
def test_time_adds_up_and_is_never_shorter_than_the_work(
    count: int, steps: int, step_s: float, write_s: float, every: int, rate: float
) -> None:
    chain = Chain(segments(count, steps), step_s, step_s, every, write_s, failure_rate_per_s=rate)
    found = run(chain, first=10, later=20, samples=5)
    done = np.isfinite(found.finish_s)
    failures = found.attempts - count
    assert found.finish_s[done] == pytest.approx((found.waited_s + found.held_s + failures * REQUEUE_S)[done], abs=1e-3)
    assert (found.held_s[done] >= count * steps * step_s - 1e-6).all()


def test_the_jobs_of_a_chain_wait_in_one_future_one_after_another() -> None:
    """Those that come while a job of the chain runs are before the next, and one's own nodes are not free."""
    group = NodeGroupShape(mask=0b11, cpus=8, memory_bytes=2**30)
    machine = Machine(("n0", "n1"), (group,), {"a": PartitionShape("a", 0b11, default=True)}).as_dict()
    other = QueueJob(label="o", width=2, limit_s=500, submit_s=0)
    first = QueueJob(label="r", width=2, limit_s=900, submit_s=0, start_s=NOW - 100)
    target = QueueJob(label="x", width=2, limit_s=1000, submit_s=NOW)
    for where in ({"procs": 2}, {"machine": machine}):
        snapshot = QueueSnapshot(now_s=NOW, jobs=(first,), **where)
        course = future_of(snapshot).course(target, [400], [(NOW + 350, other, 500)])
        assert course.wait_s(NOW, 1000) == 300
        assert course.wait_s(NOW + 1300, 200) == 500
        assert course.wait_s(NOW + 2000, 200) == 0


def test_beyond_the_reach_of_a_future_later_jobs_wait_as_those_before_them_did() -> None:
    running = QueueJob(label="r", width=4, limit_s=900, submit_s=NOW - 100, start_s=NOW - 100)
    past = tuple(
        QueueJob(label=f"h{n}", width=4, limit_s=600, submit_s=begin, start_s=begin, end_s=begin + 600)
        for n, begin in enumerate(range(NOW - 10 * 86400, NOW - 3600, 700))
    )
    snapshot = QueueSnapshot(now_s=NOW, procs=4, jobs=(running,), history=past)
    forecaster = Forecaster(past, snapshot.jobs)
    futures = ChainWaits(snapshot, forecaster, futures=3, reach_s=40_000)
    target = QueueJob(label="x", width=4, limit_s=100, submit_s=NOW)
    wait = futures.wait_in(1, target, np.random.default_rng(0))
    _, *later = (wait(time, 100) for time in (0, 10_000, 20_000, 30_000))
    assert {wait(50_000, 100) for _ in range(30)} <= set(later)


def test_without_history_later_jobs_wait_as_the_first_did_and_what_does_not_start_waits_for_ever() -> None:
    running = QueueJob(label="r", width=4, limit_s=900, submit_s=NOW - 100, start_s=NOW)
    snapshot = QueueSnapshot(now_s=NOW, procs=4, jobs=(running,))
    futures = ChainWaits(snapshot, Forecaster(), futures=3)
    target = QueueJob(label="x", width=4, limit_s=100, submit_s=NOW)
    wait = futures.wait_in(1, target, np.random.default_rng(0))
    first = wait(0, 100)
    assert 0 < first <= 900
    assert wait(5000, 100) == first
    group = NodeGroupShape(mask=1, cpus=8, memory_bytes=2**30)
    machine = Machine(("n0",), (group,), {"a": PartitionShape("a", 1, default=True)}).as_dict()
    down = QueueSnapshot(now_s=NOW, machine=machine, unusable="n0")
    target = target.model_copy(update={"width": 1})
    assert ChainWaits(down, Forecaster(), futures=1).wait_in(0, target, np.random.default_rng(0))(0, 100) == np.inf


def test_a_chain_that_is_not_done_by_the_cap_is_not_followed_further() -> None:
    chain = Chain(segments(3, 100), 10.0, 10.0, 25, 4.0, startup_s=50)
    way = one_way(chain, lambda submit_s, held_s: 500.0, np.random.default_rng(0), cap_s=2000.0)
    assert way[0] == np.inf
    assert way[4] == 2


def queue(width: int, left_s: int, waiting: int = 0) -> Queue:
    """A cluster on which everything but a few nodes is taken for long."""
    site = load_site("superpod-h100").site
    machine = Machine.from_site(site)
    jobs = [
        QueueJob(
            label="r", width=width, limit_s=left_s, submit_s=NOW - 100, start_s=NOW, partition="batch",
            nodes=machine.node_list((1 << width) - 1), user="u",
        ),
        *(QueueJob(label=f"w{n}", width=8, limit_s=3600, submit_s=NOW - 50, partition="batch") for n in range(waiting)),
    ]  # fmt: skip
    ran = tuple(
        QueueJob(label=f"h{n}", width=64, limit_s=left_s, submit_s=begin, start_s=begin, end_s=begin + left_s, user="u")
        for n, begin in enumerate(range(NOW - 10**6, NOW - 10**6 + 10_000, 1000))
    )  # fmt: skip
    return Queue(QueueSnapshot(now_s=NOW, machine=machine.as_dict(), policy="easy", jobs=tuple(jobs), history=ran))


def planned(known: Queue | None, tokens: str = "20B", **more: object) -> FinishPlan:
    loaded = load_workload("llama3-8b")

    training = loaded.workload.training.model_copy(update={"tokens": int(tokens[:-1]) * 10**9})
    request = loaded.workload.request.model_copy(update={"partition": "batch"})
    workload = loaded.workload.model_copy(update={"training": training, "request": request})
    loaded = dataclasses.replace(loaded, workload=workload)
    return plan_for_finish(loaded, load_site("superpod-h100"), known, nodes=(16, 128), **more)  # type: ignore[arg-type]


def test_fewer_nodes_win_where_more_would_wait_long_and_the_sentence_says_so() -> None:
    found = planned(queue(96, 86400))
    assert found.best.nodes < 128
    plan = found.planned.plan
    assert plan.plan.nodes == found.best.nodes
    assert plan.search.objective == "finish"
    assert "would wait ~" in plan.search.why
    assert "P90 by" in plan.search.why
    assert found.as_dict()["finish"]["best"]["nodes"] == found.best.nodes


def test_those_that_could_win_are_looked_at_more_often_than_the_others_and_any_number_of_processes_agrees() -> None:
    told: list[Stand] = []
    found = planned(queue(96, 86400), each=told.append)
    futures = {one.nodes: len(one.finish.finish_s) for one in found.options}
    assert futures[found.best.nodes] == max(futures.values()) == 32
    assert min(futures.values()) < 32
    assert told[-1].done == sum(futures.values()) <= told[-1].most
    assert str(found.best.nodes) in told[-1].best
    again = planned(queue(96, 86400), processes=2)
    assert again.as_dict()["finish"] == found.as_dict()["finish"]


def test_without_a_queue_the_most_nodes_win_and_the_notes_say_what_was_assumed(tmp_path: Path) -> None:
    found = planned(None)
    assert found.best.nodes == 128
    assert any("nothing is known of the queue" in note for note in found.planned.notes)
    draw_tradeoff(found, tmp_path / "tradeoff.png", "time to solution")
    assert (tmp_path / "tradeoff.png").stat().st_size > 2000


def test_the_cheapest_within_a_deadline_is_chosen_and_an_impossible_one_is_refused() -> None:
    fast = planned(None)
    late_s = 4 * fast.best.finish.quantile_s(0.9)
    cheap = planned(None, criterion="cost", deadline_s=late_s)
    assert cheap.best.cost is not None
    assert cheap.best.cost <= min(one.cost for one in cheap.options if one.finish.quantile_s(0.9) <= late_s)
    assert cheap.best.finish.quantile_s(0.9) <= late_s
    with pytest.raises(InfeasibleError, match="the deadline binds"):
        planned(None, deadline_s=600.0)


def test_the_cheapest_is_not_looked_for_among_nodes_without_a_price() -> None:
    loaded = load_site("superpod-h100")
    groups = {
        name: group.model_copy(update={"price_per_hour": None, "power_w": None})
        for name, group in loaded.site.node_groups.items()
    }
    free = dataclasses.replace(loaded, site=loaded.site.model_copy(update={"node_groups": groups}))
    with pytest.raises(InputError, match="'superpod-h100' has no price of dgx to tell") as caught:
        plan_for_finish(load_workload("llama3-8b"), free, None, criterion="cost")
    assert "price_per_hour" in (caught.value.hint or "")


def waits_of(known: Queue) -> KnownQueue:
    site = load_site("superpod-h100").site
    qos = {"urgent": Qos(priority=50), "normal": Qos(priority=10)}
    return KnownQueue(known, site.model_copy(update={"qos": qos}), seed=0)


def test_a_higher_qos_goes_ahead_of_waiting_jobs_of_lower_ones() -> None:
    jobs = tuple(
        QueueJob(label=f"w{n}", width=8, limit_s=60, submit_s=NOW - 50, priority=100 + n, qos="normal")
        for n in range(3)
    )
    waits = waits_of(Queue(QueueSnapshot(now_s=NOW, procs=64, jobs=jobs)))
    assert waits.priority("urgent") == 103
    assert waits.priority("normal") == 0
    assert waits.priority(None) == 0


def test_preemptions_of_the_past_are_expected_again() -> None:
    ran = [
        QueueJob(label=f"h{n}", width=1, limit_s=9000, submit_s=0, start_s=0, end_s=3600, partition="batch", qos="low",
                 state="PREEMPTED" if n < 3 else "COMPLETED")
        for n in range(30)
    ]  # fmt: skip
    waits = waits_of(Queue(QueueSnapshot(now_s=NOW, procs=64, history=tuple(ran))))
    assert waits.preemption_rate_per_s("batch", "low") == pytest.approx(3 / (30 * 3600))
    assert waits.preemption_rate_per_s("debug", None) == 0


def test_ways_to_ask_are_compared_in_the_futures_that_both_went_through() -> None:
    """The first futures were kind to both: a tenth later in each of them, though the median of all says otherwise."""
    many = Finish.of([(float(t), 0.0, 0.0, 0.0, 1) for t in (100, 110, 120, 200, 210, 220, 230)])
    few = Finish.of([(1.1 * t, 0.0, 0.0, 0.0, 1) for t in (100, 110, 120)])
    assert few.quantile_s(0.5) < many.quantile_s(0.5)
    assert few.later_than(many) == pytest.approx(0.1)
    never = Finish.of([(math.inf, 0.0, 0.0, 0.0, 1)] * 3)
    assert never.later_than(many) == math.inf
    assert math.isnan(many.later_than(never))
