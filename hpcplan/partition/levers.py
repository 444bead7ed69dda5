"""Ways to save memory that only ever cost time: recomputation, of all layers or some, and offload of optimizer states.

How many of a rank's layers are recomputed in full is a number, and both memory and time go one way with it: more layers
need less memory and more time. So of all numbers of layers with which a sharding fits, the least is the best, and
bisection finds it; the others are counted, not priced. How many layers share a checkpoint takes no time: one
where that fits, else as many as need least. Which numbers there are depends on the framework: any; as many
of each virtual stage, as Megatron-LM's ``--recompute-method block`` has it; or every n-th layer, as torchtitan has it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hpcplan.cost.shardings import CPU, DEVICE, FULL, NONE, NVME, RECOMPUTE_MLP, SELECTIVE, Ints, Shardings
from hpcplan.frameworks import SomeLayers

__all__ = ["ALL", "LESS", "LEVERS", "SOME", "Fits", "block_choices", "layer_choices", "settle"]

Fits = Callable[[Shardings], NDArray[np.bool_]]

ALL, SOME = range(2)

# (recomputation, whether of all layers, offload, what of feed-forward layers is recomputed by itself)
LEVERS: Final[tuple[tuple[int, int, int, int], ...]] = tuple(
    (again, layers, where, mlp)
    for where in (DEVICE, CPU, NVME)
    for again, layers, mlp in (
        *((again, ALL, mlp) for mlp in range(len(RECOMPUTE_MLP)) for again in (NONE, SELECTIVE)),
        (FULL, SOME, 0),
        (FULL, ALL, 0),
    )
)


def _less(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> bool:
    """Whether lever a never takes more time than b: of two numbers of layers nothing is known here."""
    nothing, everything = a[0] == NONE and a[3] == 0, b[:2] == (FULL, ALL)
    less = b[0] != FULL and a[0] <= b[0] and a[3] <= b[3]
    return a != b and (nothing or everything or less) and a[2] <= b[2]


LESS: Final = np.array([[_less(a, b) for b in LEVERS] for a in LEVERS])
"""``LESS[i, j]``: lever i takes no more time than lever j, and they differ."""


def layer_choices(kind: SomeLayers | None, layers: int, vpp: int, fixed: Mapping[str, int]) -> list[int]:
    """Return how many of a rank's layers can be recomputed where it is not all, in order; possibly none."""
    if kind is None:
        return []
    if kind == "nth":
        found = sorted({layers // n for n in range(2, layers + 1)})
    else:
        step = vpp if kind == "chunk" else 1
        found = [*range(step, layers, step)]
    only = fixed.get("recompute_layers")
    return found if only is None else [count for count in found if count == only]


def block_choices(layers: int, vpp: int, fixed: Mapping[str, int]) -> list[int]:
    """Return how many of a rank's layers can share a checkpoint, in order; 0 stands for one.

    Of sizes that make as many blocks of a virtual stage the smallest is there: the others need no less.
    """
    part = -(-layers // vpp)
    sizes = sorted({-(-part // blocks) for blocks in range(1, part + 1)})
    sizes = [size if size > 1 else 0 for size in sizes]
    only = fixed.get("recompute_block")
    return sizes if only is None else [only if only > 1 else 0]


def settle(shardings: Shardings, choices: list[list[int]], which: Ints, fits: Fits) -> tuple[Ints, Ints, Ints, Ints]:
    """Return the least number of layers with which each sharding fits, the most there is where it never does.

    Args:
        shardings: that recompute some layers.
        choices: lists of numbers of layers, each in order and not empty.
        which: of the lists each sharding has.
        fits: tells which shardings fit.

    Returns:
        the number of layers, how many choices are less (and do not fit), how many are more (and do, if it fits), and
        the next number below, 0 where there is none.
    """
    counts = np.array([len(numbers) for numbers in choices], dtype=np.int64)
    table = np.zeros((len(choices), int(counts.max(initial=0))), dtype=np.int64)
    for row, numbers in enumerate(choices):
        table[row, : len(numbers)] = numbers
    most = counts[which] - 1

    def fit(rows: Ints, at: Ints) -> NDArray[np.bool_]:
        return fits(dataclasses.replace(shardings.take(rows), spared_layers=table[which[rows], at]))

    low, high = np.zeros_like(most), most.copy()
    everyone = np.arange(len(shardings))
    first = fit(everyone, low) if len(everyone) else np.zeros(0, dtype=np.bool_)
    high[first] = 0
    open_ = np.flatnonzero(~first & (most > 0))
    never = open_[~fit(open_, most[open_])] if len(open_) else open_
    low[never] = most[never]
    low[open_] = np.maximum(low[open_], 1)
    open_ = np.flatnonzero(low < high)
    while len(open_):
        middle = (low[open_] + high[open_]) // 2
        good = fit(open_, middle)
        high[open_[good]] = middle[good]
        low[open_[~good]] = middle[~good] + 1
        open_ = open_[low[open_] < high[open_]]
    below = np.where(high > 0, table[which, np.maximum(high - 1, 0)], 0)
    return table[which, high], high, most - high, below
