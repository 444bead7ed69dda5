"""A long queue by widths: it finds the jobs that a look at each would."""

from __future__ import annotations

from bisect import insort

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcplan.simulate import replay
from hpcplan.simulate.queue_index import QueueIndex, Waiting
from hpcplan.simulate.replay import Order
from hpcplan.simulate.traces import TraceJob

jobs = st.lists(st.tuples(st.integers(0, 3), st.integers(1, 9), st.integers(1, 9)), max_size=30)


def queued(drawn: list[tuple[int, int, int]]) -> list[Waiting]:
    return [
        (order, rank, width, limit_s, 1, TraceJob(rank, 0, 1, limit_s, width))
        for rank, (order, width, limit_s) in enumerate(drawn)
    ]


@settings(max_examples=200)
@given(drawn=jobs, gone=st.sets(st.integers(0, 29)), room=st.tuples(*[st.integers(0, 20)] * 3))
def test_it_finds_what_a_look_at_each_job_finds(
    drawn: list[tuple[int, int, int]], gone: set[int], room: tuple[int, int, int]
) -> None:
    made = queued(drawn)
    index, waiting = QueueIndex([]), []
    for one in made:
        index.add(one)
    for one in made:
        if one[1] in gone:
            index.remove(one)
        else:
            insort(waiting, one)
    free, latest_s, extra = room
    expected = replay._fitting(waiting, free, latest_s, min(free, extra), 1)
    assert index.fitting(free, latest_s, min(free, extra)) == expected


@settings(max_examples=100)
@given(
    drawn=st.lists(st.tuples(*[st.integers(1, 20)] * 3, st.integers(1, 8)), max_size=40),
    order=st.sampled_from(["submit", "sjf"]),
)
def test_the_schedule_is_the_same_with_it(drawn: list[tuple[int, int, int, int]], order: Order) -> None:
    trace, moment = [], 0
    for number, (gap, run_s, limit_s, procs) in enumerate(drawn):
        moment += gap // 6
        trace.append(TraceJob(number, moment, run_s, limit_s, procs))
    expected = replay.replay(trace, 8, order=order)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(replay, "_LONG", 2)
        assert replay.replay(trace, 8, order=order) == expected
