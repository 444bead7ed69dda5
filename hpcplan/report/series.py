"""Use over time: the mean of each hour (or day) of what was allocated, and of how many jobs ran and waited."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import polars as pl

from hpcplan.report.figures import Series
from hpcplan.report.window import picked

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["area_between", "bin_width_s", "over_time"]

_DAY: Final = 86400


def bin_width_s(window_s: int) -> int:
    """Return 10 minutes for up to 6 hours, an hour for up to 10 days, else so many days that 400 bins suffice."""
    if window_s <= 6 * 3600:
        return 600
    if window_s <= 10 * _DAY:
        return 3600
    return _DAY * max(1, -(-window_s // (400 * _DAY)))


def over_time(seen: pl.DataFrame, nodes_in_use: pl.DataFrame, start: int, end: int) -> Series:
    """Return the mean of each bin: ∫ in use dt / length, exact, from the starts and ends clipped to the window.

    Attempts of unknown size or times are left out, as they are in the totals. ``nodes_in_use`` has the intervals of
    occupancy.occupancy().
    """
    import numpy as np

    width = bin_width_s(end - start)
    edges = np.append(np.arange(start, end, width, dtype=np.float64), float(end)) - start
    ran = picked(seen, pl.col("ran_s") > 0, "start_time", "ran_s", "cpus", "gpus")
    first = (pl.col("start_time").clip(lower_bound=start) - start).cast(pl.Float64)
    runs = ran.with_columns(first.alias("_from")).with_columns((pl.col("_from") + pl.col("ran_s")).alias("_to"))
    waits = _waiting(seen, start, end)

    def mean_of(table: pl.DataFrame, size: str | None) -> tuple[float, ...]:
        known = table if size is None else table.filter(pl.col(size) > 0)
        weights = np.ones(len(known)) if size is None else known[size].to_numpy().astype(np.float64)
        area = area_between(known["_from"].to_numpy(), known["_to"].to_numpy(), weights, edges)
        return tuple(float(value) for value in np.diff(area) / np.diff(edges))

    return Series(
        bin_s=width,
        start=tuple(int(edge) + start for edge in edges[:-1]),
        nodes=mean_of(nodes_in_use, "_nodes"),
        cpus=mean_of(runs, "cpus"),
        gpus=mean_of(runs, "gpus"),
        running=mean_of(runs, None),
        pending=mean_of(waits, None),
    )


def _waiting(seen: pl.DataFrame, start: int, end: int) -> pl.DataFrame:
    """Return when each job waited inside the window, from submission to its start, or its end if it never started."""
    until = pl.coalesce("start_time", pl.when(pl.col("ended")).then(pl.col("end_time")).otherwise(end))
    return (
        seen.lazy()
        .filter(pl.col("submit_time").is_not_null())
        .select(
            (pl.col("submit_time").clip(start, end) - start).cast(pl.Float64).alias("_from"),
            (until.clip(start, end) - start).cast(pl.Float64).alias("_to"),
        )
        .filter(pl.col("_to") > pl.col("_from"))
        .collect()
    )


def area_between(first: Any, last: Any, weight: Any, at: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ∫ from the window's start to each of ``at`` of the weights in use: Σ w·(t−first)⁺ − Σ w·(t−last)⁺."""
    return _ramp(first, weight, at) - _ramp(last, weight, at)


def _ramp(moments: Any, weight: Any, at: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return Σ w·(t−moment)⁺ at each of the ascending ``at``: what began before each is added up, bin by bin."""
    import numpy as np

    place = np.searchsorted(at, moments)
    started = np.cumsum(np.bincount(place, weight, len(at) + 1))[: len(at)]
    since = np.cumsum(np.bincount(place, weight * moments, len(at) + 1))[: len(at)]
    result: NDArray[np.float64] = started * at - since
    return result
