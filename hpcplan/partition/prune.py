"""Dropping what cannot win: each rule either finds that a sharding breaks a limit, or proves that another is no worse.

The only proof that is used is about levers. Recomputation and offload save memory and cost time, nothing else: with all
other choices the same, a sharding with more of them is never faster (its arithmetic grows by more than what it can hide
of gradient traffic). So where a sharding with less of both fits, the one with more is dropped. What measured runs of a
site add to step times may differ between the two; then the one with more is dropped only if it is corrected by no less.
Tests hold this against the cost model and against brute force.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hpcplan.cost.shardings import Floats, Ints
from hpcplan.partition.families import Family
from hpcplan.partition.levers import LESS, LEVERS

__all__ = ["needless_levers", "tally", "within"]

Mask = NDArray[np.bool_]


def needless_levers(family: Family, fits: Mask, correction: Floats | None = None) -> Mask:
    """Return which shardings recompute or offload more than another that fits and is otherwise the same, and no slower.

    Args:
        family: the shardings.
        fits: which of them fit.
        correction: what the step time of each that fits is multiplied by, where that is not the same for all.
    """
    if len(family.base) == 0:
        return fits
    shape = (int(family.base[-1]) + 1, len(LEVERS))
    table = np.zeros(shape, dtype=np.bool_)
    table[family.base, family.lever] = fits
    if correction is None:
        beaten = (table.astype(np.float32) @ LESS.astype(np.float32)) > 0
        return np.asarray(beaten[family.base, family.lever])
    base, lever = family.base[fits], family.lever[fits]
    factor = np.full(shape, np.inf)
    factor[base, lever] = correction
    least = np.stack([factor[:, LESS[:, j]].min(axis=1, initial=np.inf) for j in range(len(LEVERS))], axis=1)
    beaten = np.zeros(len(fits), dtype=np.bool_)
    beaten[fits] = least[base, lever] <= correction
    return beaten


def tally(alive: Mask, pruned: dict[str, int], name: str, passes: Mask, more: Ints | None = None) -> Mask:
    """Return who is still alive after a rule, and add to ``pruned`` those that it dropped first.

    ``more`` are shardings beside itself that each row stands for.
    """
    dropped = alive & ~passes
    pruned[name] = pruned.get(name, 0) + int(dropped.sum()) + (0 if more is None else int(more[dropped].sum()))
    return alive & passes


def within(values: Floats, limit: float | None) -> Mask:
    """Return which values keep to a limit, all of them where there is none."""
    return np.ones(len(values), dtype=np.bool_) if limit is None else values <= limit
