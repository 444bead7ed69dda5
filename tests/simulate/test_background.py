"""The other users of a mock cluster."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from hpcplan.simulate.admission import resolve
from hpcplan.simulate.background import Background
from hpcplan.simulate.engine import Engine
from hpcplan.simulate.jobs import Arrival
from hpcplan.simulate.machine import Machine
from hpcplan.simulate.policies import policy_named
from hpcplan.site.load import load_site
from tests.simulate.clusters import machine, write_site

START = 1_900_000_000
DAY = 86400


def stream(cluster: Machine, days: float, *, load: float = 0.7, seed: int = 1) -> list[Arrival]:
    source = Background(cluster, load=load, seed=seed, start=START)
    found = []
    while source.next_time is not None and source.next_time < START + days * DAY:
        found.append(source.pop())
    return found


def test_the_same_seed_gives_the_same_jobs_and_another_seed_others() -> None:
    assert stream(machine(32), 2) == stream(machine(32), 2)
    assert stream(machine(32), 2) != stream(machine(32), 2, seed=2)


def test_a_stream_goes_on_from_where_it_was_saved() -> None:
    whole = Background(machine(32), load=0.7, seed=1, start=START)
    expected = [whole.pop() for _ in range(60)]
    first = Background(machine(32), load=0.7, seed=1, start=START)
    found = [first.pop() for _ in range(20)]
    second = Background(machine(32), load=0.7, seed=1, start=0, state=first.as_dict())
    assert found + [second.pop() for _ in range(40)] == expected


@pytest.mark.parametrize("load", [0.3, 0.9])
def test_the_jobs_would_use_the_share_of_node_time_that_was_asked_for(load: float) -> None:
    days = 120
    used = sum(
        (one.spec.nodes_min or 0) * min(one.behaviour.runtime_s, one.spec.time_limit_s or 0)
        for one in stream(machine(64), days, load=load)
    )
    assert used / (64 * days * DAY) == pytest.approx(load, rel=0.15)


def test_arrivals_come_in_order_more_by_day_than_by_night_and_fewer_at_the_weekend() -> None:
    times = [one.time for one in stream(machine(64), 28)]
    assert times == sorted(times)
    assert times[0] >= START
    hours = Counter(time % DAY // 3600 for time in times)
    assert sum(hours[hour] for hour in range(12, 18)) > 2 * sum(hours[hour] for hour in range(6))
    weekdays = Counter((time // DAY + 3) % 7 for time in times)
    assert (weekdays[5] + weekdays[6]) / 2 < sum(weekdays[day] for day in range(5)) / 5


def test_most_jobs_are_small_and_large_ones_use_most_of_the_time() -> None:
    found = stream(machine(128), 28)
    small = [one for one in found if (one.spec.nodes_min or 0) <= 2]
    assert len(small) > 0.8 * len(found)

    def used(jobs: list[Arrival]) -> int:
        return sum((one.spec.nodes_min or 0) * min(one.behaviour.runtime_s, one.spec.time_limit_s or 0) for one in jobs)

    assert used(small) < 0.4 * used(found)


def test_limits_are_round_and_mostly_far_above_the_run_times() -> None:
    found = [one for one in stream(machine(64), 14) if one.behaviour.state == "COMPLETED"]
    limits = [one.spec.time_limit_s or 0 for one in found]
    assert all(limit % 900 == 0 for limit in limits)
    in_time = sum(limit >= one.behaviour.runtime_s for limit, one in zip(limits, found, strict=True))
    assert 0.85 < in_time / len(found) < 1
    generous = sum(limit > 2 * one.behaviour.runtime_s for limit, one in zip(limits, found, strict=True))
    assert generous > len(found) / 2


def test_every_job_is_one_that_the_machine_takes(tmp_path: Path) -> None:
    cluster = Machine.from_site(load_site(write_site(tmp_path)).site)
    found = stream(cluster, 10)
    assert {one.spec.partition for one in found} == {"batch", "debug"}
    for one in found:
        request = resolve(one.spec, cluster)
        assert request.limit_reason is None
        assert request.minimum <= (2 if request.partition == "debug" else 3)


def test_accounting_tells_all_kinds_of_ends_and_leaves_unknown_what_was_too_short_to_sample() -> None:
    source = Background(machine(64), load=0.7, seed=1, start=START)
    cluster = Engine(machine(64), policy_named("easy"), now=START, arrivals=source)
    cluster.advance(START + 10 * DAY)
    states = Counter(record.state.value for record in cluster.ended)
    assert {"COMPLETED", "FAILED", "TIMEOUT", "CANCELLED", "OUT_OF_MEMORY"} <= set(states)
    assert states["COMPLETED"] > len(cluster.ended) / 2
    for record in cluster.ended:
        assert record.total_cpu_s is not None
        assert 0 <= record.total_cpu_s <= (record.elapsed_s() or 0) * (record.cpus or 0)
        known = record.max_rss_bytes is not None
        assert known == (record.gpu_utilisation is not None)
        if known:
            assert 0 < (record.max_rss_bytes or 0) <= (record.memory_bytes or 0)
            assert 0 <= (record.gpu_utilisation or 0) <= 1
    assert any(record.max_rss_bytes is None for record in cluster.ended)
