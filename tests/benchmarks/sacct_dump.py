"""Writes a made-up but realistic sacct dump of any size, the same for the same seed: four rows a job.

    python -m tests.benchmarks.sacct_dump 1000000 sacct.txt

Each job has its own row and those of the steps ``batch``, ``extern`` and ``0``, as ``sacct -a -P`` writes them with the
columns that hpcplan asks for. About one job in a thousand has a name with the delimiter in it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl

__all__ = ["COLUMNS", "write_dump"]

COLUMNS: Final = (
    "JobID", "JobIDRaw", "JobName", "User", "Account", "Partition", "QOS", "State", "Submit", "Eligible", "Start",
    "End", "Elapsed", "Timelimit", "NNodes", "AllocCPUS", "NTasks", "ReqMem", "ReqTRES", "AllocTRES", "TotalCPU",
    "MaxRSS", "TRESUsageInTot", "NodeList", "ExitCode", "Flags",
)  # fmt: skip
START: Final = 1_714_521_600  # 2024-05-01T00:00:00 UTC
_CHUNK: Final = 200_000


def write_dump(path: Path, jobs: int, *, seed: int = 1, days: float = 30.0, odd_share: float = 0.001) -> int:
    """Write the dump of that many jobs; return how many bytes it has."""
    draw = np.random.default_rng(seed)
    with path.open("wb") as stream:
        stream.write("|".join(COLUMNS).encode() + b"\n")
        for first in range(0, jobs, _CHUNK):
            count = min(_CHUNK, jobs - first)
            begin = START + days * 86400 * first / jobs
            stream.write(_rows(draw, first, count, begin, days * 86400 * count / jobs, odd_share))
        return stream.tell()


def _clock(seconds: pl.Expr) -> pl.Expr:
    """Return ``[D-]HH:MM:SS``."""

    def two(value: pl.Expr) -> pl.Expr:
        return value.cast(pl.String).str.zfill(2)

    day = seconds // 86400
    hms = pl.format("{}:{}:{}", two(seconds % 86400 // 3600), two(seconds % 3600 // 60), two(seconds % 60))
    return pl.when(day > 0).then(pl.format("{}-{}", day, hms)).otherwise(hms)


def _stamp(seconds: pl.Expr) -> pl.Expr:
    return pl.from_epoch(seconds, time_unit="s").dt.strftime("%Y-%m-%dT%H:%M:%S")


def _jobs(draw: np.random.Generator, first: int, count: int, begin: float, span_s: float) -> pl.DataFrame:
    submit = np.sort(begin + draw.random(count) * span_s).astype(np.int64)
    wait = draw.exponential(1800, count).astype(np.int64)
    limit_min = draw.choice([30, 60, 240, 720, 1440, 2880], count)
    run = np.minimum(draw.exponential(limit_min * 15.0), limit_min * 60).astype(np.int64) + 1
    nodes = draw.choice([1, 1, 1, 1, 2, 4, 8], count)
    cpus = nodes * draw.choice([1, 4, 8, 16, 32, 64], count)
    memory_gib = nodes * draw.choice([4, 8, 32, 64, 250], count)
    user = draw.zipf(1.6, count) % 400
    at = draw.integers(1, 900, count)
    return pl.DataFrame(
        {
            "id": np.arange(first, first + count) + 1_000_000, "submit": submit, "start": submit + wait,
            "run": run, "limit_s": limit_min * 60, "nodes": nodes, "cpus": cpus, "mem": memory_gib,
            "gpus": np.where(draw.random(count) < 0.2, 4 * nodes, 0), "user": user, "at": at,
            "busy": draw.beta(4, 2, count), "filled": draw.beta(2, 4, count), "gpu_busy": draw.beta(3, 2, count),
            "state": draw.choice(["COMPLETED", "FAILED", "CANCELLED by 1042", "OUT_OF_MEMORY", "NODE_FAIL"], count,
                                 p=[0.9, 0.06, 0.03, 0.008, 0.002]),
            "odd": draw.random(count), "main": draw.random(count) < 0.4,
        }
    )  # fmt: skip


def _rows(draw: np.random.Generator, first: int, count: int, begin: float, span_s: float, odd_share: float) -> bytes:
    c = pl.col
    held = pl.format("billing={},cpu={},{}mem={}G,node={}", "cpus", "cpus",
                     pl.when(c("gpus") > 0).then(pl.format("gres/gpu:a100={},gres/gpu={},", "gpus", "gpus"))
                     .otherwise(pl.lit("")), "mem", "nodes")  # fmt: skip
    names = pl.format("n{}", c("at").cast(pl.String).str.zfill(4))
    listed = (
        pl.when(c("nodes") == 1)
        .then(names)
        .otherwise(
            pl.format(
                "n[{}-{}]",
                c("at").cast(pl.String).str.zfill(4),
                (c("at") + c("nodes") - 1).cast(pl.String).str.zfill(4),
            )
        )
    )
    partition = (
        pl.when(c("gpus") > 0)
        .then(pl.lit("gpu"))
        .when(c("limit_s") > 86400)
        .then(pl.lit("long"))
        .otherwise(pl.lit("batch"))
    )
    table = _jobs(draw, first, count, begin, span_s).with_columns(
        held.alias("held"), listed.alias("list"), partition.alias("partition"),
        (c("run") * c("cpus") * c("busy")).cast(pl.Int64).alias("cpu_s"),
        (c("mem") * c("filled") * 2**20).cast(pl.Int64).alias("rss_k"),
        (c("gpus") * c("gpu_busy") * 100).cast(pl.Int64).alias("percent"),
        pl.when(c("odd") < odd_share).then(pl.format("a|b {}", c("id") % 97))
        .otherwise(pl.format("run-{}", c("id") % 997)).alias("name"),
        pl.when(c("run") > c("limit_s")).then(pl.lit("TIMEOUT")).otherwise(c("state")).alias("state"),
    )  # fmt: skip
    lines = table.select(_job_line().alias("0"), *(_step_line(name).alias(name) for name in ("batch", "extern", "s0")))
    joined = lines.select(pl.concat_str(pl.all(), separator="\n")).to_series()
    return ("\n".join(joined.to_list()) + "\n").encode()


def _job_line() -> pl.Expr:
    c = pl.col
    end = c("start") + c("run")
    flags = pl.when(c("main")).then(pl.lit("StartReceived,SchedMain")).otherwise(pl.lit("StartReceived,SchedBackfill"))
    cells = [
        c("id"), c("id"), c("name"), pl.format("user{}", "user"), pl.format("group{}", c("user") % 23),
        c("partition"), pl.lit("normal"), c("state"), _stamp(c("submit")), _stamp(c("submit")), _stamp(c("start")),
        _stamp(end), _clock(c("run")), _clock(c("limit_s")), c("nodes"), c("cpus"), pl.lit(""),
        pl.format("{}G", "mem"), c("held"), c("held"), pl.format("{}.125", _clock(c("cpu_s"))), pl.lit(""),
        pl.lit(""), c("list"), pl.lit("0:0"), flags,
    ]  # fmt: skip
    return pl.concat_str([cell.cast(pl.String) for cell in cells], separator="|")


def _step_line(name: str) -> pl.Expr:
    c = pl.col
    step = {"s0": "0"}.get(name, name)
    part = {"batch": 0.02, "extern": 0.0, "s0": 0.98}[name]
    cpu_s = (c("cpu_s") * part).cast(pl.Int64)
    rss_k = (c("rss_k") * part).cast(pl.Int64)
    gpu = (
        pl.when(c("gpus") > 0)
        .then(pl.format("gres/gpuutil={},", (c("percent") * part).cast(pl.Int64)))
        .otherwise(pl.lit(""))
    )
    used = pl.format("cpu={},energy=0,fs/disk=2012,{}mem={}K,pages=0,vmem={}K", _clock(cpu_s), gpu, rss_k, rss_k)
    end = c("start") + c("run")
    cells = [
        pl.format("{}.{}", "id", pl.lit(step)), pl.format("{}.{}", "id", pl.lit(step)),
        pl.lit(step if step != "0" else "python"), pl.lit(""), pl.format("group{}", c("user") % 23), pl.lit(""),
        pl.lit(""), pl.lit("COMPLETED"), _stamp(c("start")), _stamp(c("start")), _stamp(c("start")), _stamp(end),
        _clock(c("run")), pl.lit(""), c("nodes"), c("cpus"), c("nodes") if step == "0" else pl.lit("1"), pl.lit(""),
        pl.lit(""), c("held"), pl.format("{}.100", _clock(cpu_s)), pl.format("{}K", rss_k // c("nodes")), used,
        c("list"), pl.lit("0:0"), pl.lit(""),
    ]  # fmt: skip
    return pl.concat_str([cell.cast(pl.String) for cell in cells], separator="|")


if __name__ == "__main__":
    size = write_dump(Path(sys.argv[2]), int(sys.argv[1]), seed=int(sys.argv[3]) if len(sys.argv) > 3 else 1)
    print(f"{size / 1e9:.2f} GB")
