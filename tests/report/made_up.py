"""Accounting that these tests make up themselves: seeded, with every oddity that sacct is known for."""

from __future__ import annotations

import random
from collections.abc import Sequence

from hpcplan.slurm.records import JobRecord, JobState, NodeRecord

START = 1_714_521_600  # 2024-05-01T00:00:00 UTC
DAY = 86_400


def nodes(count: int = 16, cpus: int = 64, gpus: int = 8) -> list[NodeRecord]:
    return [
        NodeRecord(name=f"n{i:03d}", state="idle", partitions=("batch",), cpus=cpus, gpus=gpus, memory_bytes=2**39)
        for i in range(count)
    ]


def records(count: int, *, seed: int = 1, start: int = START, end: int = START + DAY) -> list[JobRecord]:
    """Return jobs of a few users around the window: some waiting, some running, some of unknown use."""
    draw = random.Random(seed)
    return [_record(draw, 1000 + index, start, end) for index in range(count)]


def _record(draw: random.Random, job_id: int, start: int, end: int) -> JobRecord:
    user = draw.choice(["alice", "bob", "carol", "dave", "erin"])
    submit = draw.randrange(start - DAY // 2, end)
    begin = submit + int(draw.expovariate(1 / 2400))
    limit = draw.choice([1800, 3600, 4 * 3600, 24 * 3600])
    run = min(limit, max(1, int(draw.expovariate(4 / limit))))
    state = draw.choices(
        [JobState.COMPLETED, JobState.FAILED, JobState.TIMEOUT, JobState.CANCELLED, JobState.NODE_FAIL],
        [80, 8, 6, 5, 1],
    )[0]
    nodes_held = draw.choice([1, 1, 1, 2, 4])
    gpus = draw.choice([0, 0, 8 * nodes_held])
    cpus = draw.choice([4, 16, 64]) * nodes_held
    known = draw.random() < 0.8
    running, waiting = begin < end < begin + run, begin >= end
    if running or waiting:
        state, known = (JobState.RUNNING if running else JobState.PENDING), False
    memory = draw.choice([16, 64, 256]) * 2**30 * nodes_held
    first = draw.randrange(16)
    return JobRecord(
        job_id=job_id,
        state=state,
        name=f"job-{job_id}",
        cluster="testbed",
        user=user,
        account={"alice": "physics", "bob": "physics", "carol": "chemistry"}.get(user),
        partition=draw.choice(["batch", "short"]),
        submit_time=submit,
        eligible_time=submit + draw.choice([0, 0, 600]),
        start_time=None if waiting else begin,
        end_time=None if running or waiting else begin + run,
        time_limit_s=limit,
        exit_code=0,
        nodes=nodes_held,
        node_list=None if waiting else f"n{first:03d}",
        cpus=cpus,
        gpus=gpus,
        memory_bytes=memory,
        total_cpu_s=round(run * cpus * draw.random() ** 0.5, 3) if known else None,
        max_rss_bytes=int(memory * draw.random() ** 2) if known else None,
        gpu_utilisation=draw.choice([0.0, draw.random()]) if known and gpus else None,
        backfilled=draw.random() < 0.3,
    )


def sacct_text(header: Sequence[str], rows: Sequence[Sequence[str]], delimiter: str = "|") -> str:
    """Return sacct's parsable output."""
    return "".join(delimiter.join(row) + "\n" for row in [list(header), *rows])
