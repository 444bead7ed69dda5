"""Two ways to the same backfill pass: from try to try on whole nodes, and step by step with all that there is."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from hpcplan.simulate.exact_backfill import WholeNodesPass
from hpcplan.simulate.jobs import Behaviour, Job, JobSpec, Request
from hpcplan.simulate.machine import Machine, NodeGroupShape, PartitionShape
from hpcplan.simulate.placement import Placement
from hpcplan.simulate.slurm_backfill import BackfillPass
from hpcplan.simulate.slurm_settings import SlurmSettings

NODES = 12
ALL = (1 << NODES) - 1


def machine() -> Machine:
    part = PartitionShape("batch", ALL, default=True)
    return Machine(
        tuple(f"n{number}" for number in range(1, NODES + 1)), (NodeGroupShape(ALL, 4, 1 << 30),), {"batch": part}
    )


def waiting(draw: random.Random, number: int) -> Job:
    width = draw.randint(1, 6)
    eligible = draw.choice([ALL, ALL, (1 << 8) - 1, ALL & ~0b111])
    limit_s = 60 * draw.choice([1, 1, 2, 3, 5])
    request = Request("batch", width, width, limit_s, eligible)
    spec = JobSpec(name=str(number), nodes_min=width, nodes_max=width, time_limit_s=limit_s)
    return Job(number, spec, request, Behaviour(1), "user", 0, 1000 - number, eligible_time=0)


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_both_passes_start_the_same_jobs_on_the_same_nodes(seed: int) -> None:
    draw = random.Random(seed)
    now = draw.randrange(1000, 1200)
    of = SlurmSettings(
        bf_resolution_s=draw.choice([1, 10, 60, 300]), bf_window_s=draw.choice([86400, 900]),
        clock_s=draw.randrange(60), bf_max_job_test=draw.choice([500, 4]), bf_max_job_start=draw.choice([0, 0, 1]),
        bf_job_part_count_reserve=draw.choice([0, 0, 2]), bf_node_space_size=draw.choice([0, 0, 3, 8]),
    )  # fmt: skip
    free, running = ALL, []
    for number in range(1, draw.randint(2, 7)):
        nodes = draw.getrandbits(NODES) & draw.getrandbits(NODES) & free
        if nodes:
            free &= ~nodes
            running.append((now + draw.randint(1, 400), number, nodes))
    running.sort()
    queue = [waiting(draw, number) for number in range(10, 10 + draw.randint(1, 14))]
    placement = Placement(machine(), (), (), by_line=True)
    found = []
    for kind in (BackfillPass, WholeNodesPass):
        starts: dict[int, int] = {}
        one = kind(of, placement, now, free, ALL, list(running))
        one.run(queue, lambda job, nodes, starts=starts: starts.update({job.id: nodes}))  # type: ignore[misc]
        found.append((starts, one.comes_again()))
    assert found[0] == found[1]
