"""What accounting teaches of a site: how much of their time limits jobs use, and how often nodes fail.

Failures are counted against the node-time that jobs spent (a Poisson process); the interval of the mean time between
failures is the exact one (Garwood 1936, "Fiducial limits for the Poisson distribution"), so that no failure in a short
time is not taken for a node that never fails.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hpcplan.hostlist import expand
from hpcplan.slurm.records import JobState

if TYPE_CHECKING:
    import polars as pl

__all__ = ["FailureRate", "LimitUse", "failure_rate", "failures_by_group", "limit_use"]

_FAILED = (JobState.NODE_FAIL, JobState.BOOT_FAIL)
_COVERED = 0.95
_FEWEST = 5  # jobs of a partition, for figures of its own


@dataclass(frozen=True, slots=True)
class LimitUse:
    """Run time over time limit of the jobs of a partition that ended by themselves, and how many hit the limit."""

    partition: str
    jobs: int
    p10: float
    p50: float
    p90: float
    timed_out: float


@dataclass(frozen=True, slots=True)
class FailureRate:
    """Failures of nodes in so many node-seconds; the mean time between failures of one node and its 95 % interval.

    Without a failure ``mtbf_s`` is ``None`` and ``low_s`` what it is at least; ``high_s`` is then ``None``, too.
    """

    failures: int
    node_s: float
    mtbf_s: float | None
    low_s: float
    high_s: float | None


def failure_rate(failures: int, node_s: float) -> FailureRate:
    """Return the mean time between failures that so many failures in so many node-seconds tell."""
    from scipy.stats import chi2

    tail = (1 - _COVERED) / 2
    low = 2 * node_s / float(chi2.ppf(1 - tail, 2 * failures + 2))
    if not failures:
        return FailureRate(0, node_s, None, low, None)
    return FailureRate(failures, node_s, node_s / failures, low, 2 * node_s / float(chi2.ppf(tail, 2 * failures)))


def limit_use(jobs: pl.DataFrame) -> list[LimitUse]:
    """Return how much of their limits jobs use, by partition, the busiest first.

    Args:
        jobs: the job table of :mod:`hpcplan.report.table`.
    """
    import polars as pl

    timed = jobs.filter(
        pl.col("ended") & (pl.col("elapsed_s") > 0) & (pl.col("time_limit_s") > 0)
        & pl.col("state").is_in([JobState.COMPLETED.value, JobState.TIMEOUT.value, JobState.FAILED.value])
    ).with_columns((pl.col("elapsed_s") / pl.col("time_limit_s")).clip(0, 1).alias("use"))  # fmt: skip
    out = pl.col("state") == JobState.TIMEOUT.value
    found = timed.group_by(pl.col("partition").fill_null("")).agg(
        pl.len().alias("jobs"),
        *(pl.col("use").quantile(q, "linear").alias(f"p{round(100 * q)}") for q in (0.1, 0.5, 0.9)),
        out.mean().alias("timed_out"),
    )
    rows = found.filter(pl.col("jobs") >= _FEWEST).sort(["jobs", "partition"], descending=[True, False])
    return [LimitUse(**row) for row in rows.iter_rows(named=True)]


def failures_by_group(jobs: pl.DataFrame, group_of: Mapping[str, str]) -> dict[str, FailureRate]:
    """Return how often nodes fail, by node group; jobs whose nodes are not known count under ``""``.

    Args:
        jobs: the job table.
        group_of: the node group of every host of the site.
    """
    import polars as pl

    seconds: dict[str, float] = {}
    failures: dict[str, int] = {}
    ran = jobs.filter(pl.col("start_time").is_not_null() & (pl.col("elapsed_s") > 0))
    columns = ran.select("node_list", "nodes", "elapsed_s", "state")
    shares: dict[str | None, dict[str, int]] = {}
    for node_list, nodes, elapsed_s, state in columns.iter_rows():
        if node_list not in shares:
            shares[node_list] = _groups(node_list, group_of)
        here = shares[node_list] or {"": nodes or 1}
        for group, count in here.items():
            seconds[group] = seconds.get(group, 0.0) + count * elapsed_s
        if state in _FAILED:
            most = max(here, key=lambda group: here[group])
            failures[most] = failures.get(most, 0) + 1
    return {group: failure_rate(failures.get(group, 0), seconds[group]) for group in sorted(seconds)}


def _groups(node_list: str | None, group_of: Mapping[str, str]) -> dict[str, int]:
    found: dict[str, int] = {}
    try:
        hosts = expand(node_list) if node_list else []
    except ValueError:
        hosts = []  # 'None assigned' and its like
    for host in hosts:
        if host in group_of:
            found[group_of[host]] = found.get(group_of[host], 0) + 1
    return found
