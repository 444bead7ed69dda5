"""What users' finished jobs say of those that run and wait."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hpcplan.schedule.forecast.runtimes import RunTimes
from hpcplan.schedule.forecast.snapshot import QueueJob


def ended(number: int, user: str | None, run_s: int, limit_s: int = 1000, **more: object) -> QueueJob:
    asked = {"width": 1, "name": None, **more}
    return QueueJob(label=f"e{number}", limit_s=limit_s, submit_s=0, start_s=0, end_s=run_s, user=user, **asked)


def live(label: str, user: str | None, start_s: int | None = None, limit_s: int = 1000) -> QueueJob:
    return QueueJob(label=label, width=1, limit_s=limit_s, submit_s=0, start_s=start_s, user=user)


def draw(runs: RunTimes, jobs: list[QueueJob], now_s: int = 0, samples: int = 400) -> np.ndarray:
    return runs.draw(jobs, now_s, samples, np.random.default_rng(0))


def test_a_user_who_repeats_a_job_is_believed_more_than_everybody_else() -> None:
    runs = RunTimes()
    for number in range(20):
        runs.add(ended(number, "ann", 100))
        runs.add(ended(number, "bob", 900))
    found = draw(runs, [live("a", "ann"), live("b", "bob")])
    assert np.median(found[0]) == 100
    assert np.median(found[1]) == 900


def test_a_job_of_the_same_name_but_for_its_number_tells_more_than_the_users_other_jobs() -> None:
    runs = RunTimes()
    for number in range(12):
        runs.add(ended(number, "ann", 50, name=f"short-{number}"))
        runs.add(ended(number, "ann", 950, name=f"long-{number}"))
    job = QueueJob(label="x", width=2, limit_s=2000, submit_s=0, user="ann", name="long-77")
    assert np.median(draw(runs, [job])[0]) == 1900


def test_without_history_anything_up_to_the_limit_may_happen() -> None:
    found = draw(RunTimes(), [live("a", None)])[0]
    assert found.min() <= 200
    assert found.max() == 1000


def test_a_running_job_lasts_longer_than_it_has_lasted() -> None:
    runs = RunTimes()
    for number in range(20):
        runs.add(ended(number, "ann", 100 if number % 2 else 800))
    found = draw(runs, [live("a", "ann", start_s=0)], now_s=300)[0]
    assert found.min() > 300
    assert np.median(found) == 800


def test_running_jobs_tell_about_their_users_waiting_jobs() -> None:
    runs = RunTimes()
    for number in range(4):
        runs.add(ended(number, "ann", 10))
    alone = draw(runs, [live("w", "ann")])[0]
    beside = draw(runs, [*(live(f"r{i}", "ann", start_s=0) for i in range(8)), live("w", "ann")], now_s=700)[-1]
    assert np.median(alone) == 10
    assert np.median(beside) > 700


def test_like_jobs_end_soon_or_late_together() -> None:
    runs = RunTimes()
    for number in range(3):
        runs.add(ended(number, "ann", 100))
        runs.add(ended(number, "ann", 900))
    first, second = draw(runs, [live("a", "ann"), live("b", "ann")], samples=2000)
    assert np.corrcoef(first, second)[0, 1] > 0.1


@given(
    st.lists(st.tuples(st.integers(0, 5000), st.integers(1, 5000)), max_size=30),
    st.integers(0, 2000),
    st.integers(1, 1500),
)
def test_what_is_drawn_is_between_what_has_passed_and_the_limit(
    past: list[tuple[int, int]], gone_s: int, limit_s: int
) -> None:
    runs = RunTimes()
    for number, (run_s, past_limit_s) in enumerate(past):
        runs.add(ended(number, "u", run_s, past_limit_s))
    found = runs.draw([live("r", "u", start_s=0, limit_s=limit_s)], gone_s, 20, np.random.default_rng(1))
    assert (found > gone_s).all()
    assert (found <= max(limit_s, gone_s + 1)).all()


def test_what_is_known_from_elsewhere_counts_by_partition_until_jobs_were_seen() -> None:
    usual = {"short": (0.1, 0.1, 0.1), "long": (0.9, 0.9, 0.9)}
    jobs = [
        live(name, "ann").model_copy(update={"partition": name, "user": f"user-{name}"})
        for name in ("short", "long", "other")
    ]
    found = draw(RunTimes(usual), jobs[:1])
    assert set(found[0]) == {100}
    assert set(draw(RunTimes(usual), jobs[1:2])[0]) == {900}
    assert set(draw(RunTimes(usual), jobs[2:])[0]) == {100, 900}
    seen = RunTimes(usual)
    for number in range(40):
        seen.add(ended(number, "user-short", 500))
    assert np.mean(draw(seen, jobs[:1])[0] == 500) > 0.9
