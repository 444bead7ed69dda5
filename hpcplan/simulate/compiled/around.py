"""Runs of nodes around those that a job must have, where it shares nodes, compiled: ``_around`` and ``_best`` of
:mod:`hpcplan.simulate.shared_choice` on arrays.

Runs are in the rows ``RUN_BEGINS`` and after. They go on behind nodes that the job must have, without these:
``RUN_REQUIRED`` is the first of those that are among a run (-1: none).
"""
# ruff: noqa: I001  (long lists of constants)

from __future__ import annotations

from typing import Final

import numpy as np

from hpcplan.simulate.compiled.jit import compiled, trailing_zeros
from hpcplan.simulate.compiled.layout import (
    OFFER, POOL, RUN_BEGINS, RUN_CPUS, RUN_ENDS, RUN_REQUIRED, RUN_SIZES, RUN_WEIGHTS, WEIGHTS, Ints, Sets,
)  # fmt: skip
from hpcplan.simulate.compiled.weighing import nearness

__all__ = ["best_around", "runs_around"]

_ONE: Final = np.uint64(1)


@compiled
def runs_around(of: Ints, sets: Sets, required: int) -> int:
    """Find the runs in ``POOL``, lowest first, and return how many there are."""
    found, follows, run, first = 0, -1, -1, -1
    for word in range(sets.shape[1]):
        bits = sets[POOL, word]
        while bits:
            node = word * 64 + trailing_zeros(bits)
            must = sets[required, word] & bits & (~bits + _ONE)
            bits &= bits - _ONE
            if node != follows:
                run = first = -1
            follows = node + 1
            if must:
                if run >= 0:
                    of[RUN_REQUIRED, run] = node if of[RUN_REQUIRED, run] < 0 else of[RUN_REQUIRED, run]
                elif first < 0:
                    first = node
                continue
            weight = of[WEIGHTS, node] - nearness(of, sets, node)
            if run < 0 or of[RUN_WEIGHTS, run] != weight:
                run, found = found, found + 1
                of[RUN_BEGINS, run], of[RUN_SIZES, run], of[RUN_CPUS, run] = node, 0, 0
                of[RUN_WEIGHTS, run], of[RUN_REQUIRED, run] = weight, first
                first = -1
            of[RUN_ENDS, run] = node + 1
            of[RUN_SIZES, run] += 1
            of[RUN_CPUS, run] += of[OFFER, node]
    return found


@compiled
def best_around(of: Ints, runs: int, cpus: int, nodes: int) -> int:
    """Return the run to take nodes from next: one with a required node, of the least weight, that fits tightest."""
    best, fits = -1, False
    for run in range(runs):
        if not of[RUN_SIZES, run]:
            continue
        enough = of[RUN_CPUS, run] >= cpus and of[RUN_SIZES, run] >= nodes
        if best >= 0:
            lighter = of[RUN_WEIGHTS, run] - of[RUN_WEIGHTS, best]
            more = of[RUN_CPUS, run] - of[RUN_CPUS, best]
            better = (enough and (not fits or more < 0)) or (not enough and more > 0)
            nearer = of[RUN_REQUIRED, best] < 0 <= of[RUN_REQUIRED, run]
            if not (nearer or lighter < 0 or (lighter == 0 and better)):
                continue
        best, fits = run, enough
    return best
