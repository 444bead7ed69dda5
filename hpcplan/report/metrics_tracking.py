"""Steps of training, predicted beside measured over time, and what to do when they drift apart.

Which campaign drifts is decided where the predictions are kept (two control charts on log(actual / predicted)); here
that is shown, and weighed by what hpcplan's own jobs held in the window.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import polars as pl

from hpcplan.report.formats import percent
from hpcplan.report.rows import Advice
from hpcplan.report.site_facts import Tracked

__all__ = ["drifted", "ranked", "until"]

_LATEST: Final = 5  # campaigns that tell by how much it has drifted
_OURS: Final = "hpcplan:"
_PLANNING: Final = ("time limit", "partition")  # kinds of advice that free nothing themselves


def until(tracked: Sequence[Tracked], end: int) -> tuple[Tracked, ...]:
    """Return the campaigns that had ended by ``end`` (unix seconds), oldest first."""
    return tuple(sorted((one for one in tracked if one.time < end), key=lambda one: (one.time, one.campaign)))


def drifted(tracked: Sequence[Tracked], seen: pl.DataFrame) -> Advice | None:
    """Return what to do about a drift that the last campaign shows, ``None`` without one.

    The gain is what hpcplan's own jobs held in the window beyond what they would have as predicted: of each core-hour
    1 − predicted / actual, by the geometric mean of the latest campaigns. Where training has become faster
    there is no gain.
    """
    if not tracked or tracked[-1].drift is None:
        return None
    latest = tracked[-_LATEST:]
    ratio = math.exp(sum(math.log(one.ratio) for one in latest) / len(latest))
    ours = seen.filter(pl.col("comment").fill_null("").str.starts_with(_OURS))
    held, own = (float(table["core_s"].sum()) / 3600 for table in (seen, ours))
    gain = own * max(0.0, 1 - 1 / ratio)
    slower = tracked[-1].drift == "slower"
    action = (
        "look for slow nodes and links (hpcplan calibrate bench) and for what changed in the software; then learn "
        "again (hpcplan calibrate learn), so that limits and deadlines hold"
        if slower
        else "learn again (hpcplan calibrate learn): plans ask for more time than training takes"
    )
    count = "campaign's" if len(latest) == 1 else f"{len(latest)} campaigns'"
    return Advice(
        kind="drift", who="hpcplan's predictions",
        finding=f"training has become {tracked[-1].drift} than predicted, campaign after campaign: the last {count} "
        f"steps took {percent(ratio)} of the predicted time",
        action=action, gain=gain, unit="core-hours", gain_share=gain / held if held > 0 else 0.0, jobs=len(ours),
    )  # fmt: skip


def ranked(advice: Sequence[Advice], drift: Advice | None) -> tuple[Advice, ...]:
    """Return the advice with that on a drift at its place: by share, and before what only helps to plan."""
    if drift is None:
        return tuple(advice)
    place = next(
        (i for i, one in enumerate(advice) if one.kind in _PLANNING or one.gain_share < drift.gain_share), len(advice)
    )
    return (*advice[:place], drift, *advice[place:])
