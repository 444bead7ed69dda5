"""Local search over nodes: swap two, or put a free one in the place of one, for as long as the step gets shorter."""

from __future__ import annotations

from itertools import islice, permutations

import numpy as np

from hpcplan.cost.shardings import Floats, Ints
from hpcplan.partition.placement.predict import Predictor

__all__ = ["exhaust", "improve", "permutations_of"]

_TIE = 1e-9
_BATCH = 400_000  # flows looked at in one call
_MOST_MOVES = 4000  # tried before giving up, where there are more


def permutations_of(free: int, count: int, most: int) -> int | None:
    """Return how many ordered choices of ``count`` from ``free`` hosts there are, ``None`` if more than ``most``."""
    total = 1
    for left in range(free, free - count, -1):
        total *= left
        if total > most:
            return None
    return total


def exhaust(predictor: Predictor, free: Ints, count: int) -> tuple[Ints, float]:
    """Return the best of all ordered choices of ``count`` from ``free`` hosts, and its step in seconds."""
    best, best_s = free[:count], np.inf
    choices = permutations(free.tolist(), count)
    size = max(1, _BATCH // predictor.effort)
    while batch := list(islice(choices, size)):
        table = np.array(batch, dtype=np.int64)
        step = predictor.quality(table).step_s
        at = int(step.argmin())
        if step[at] < best_s * (1 - _TIE):
            best, best_s = table[at], float(step[at])
    return best, best_s


def improve(
    predictor: Predictor, hosts: Ints, free: Ints, *, work: int, bound_s: float, seed: int = 0
) -> tuple[Ints, float]:
    """Return a placement with no longer a step, and that step in seconds.

    Moves are tried in batches, in a random order that ``seed`` fixes; the best of a batch is taken if it shortens the
    step, or keeps it and evens out the links. It ends when no move helps (of some thousand, where there are more), when
    the step reaches ``bound_s``, or after about ``work`` flows were looked at.
    """
    generator = np.random.default_rng(seed)
    best = hosts.copy()
    first = predictor.quality(best[None])
    step, uneven = float(first.step_s[0]), float(first.unevenness[0])
    left = work
    each = predictor.effort
    size = int(np.clip(_BATCH // each, 1, 256))
    better = True
    while better and left > 0 and step > bound_s * (1 + _TIE):
        better = False
        moves = _moves(best, free, generator)
        for start in range(0, len(moves), size):
            if left <= 0:
                break
            trials = _after(best, moves[start : start + size])
            left -= len(trials) * each
            quality = predictor.quality(trials)
            at = _best(quality.step_s, quality.unevenness)
            if _is_better(float(quality.step_s[at]), float(quality.unevenness[at]), step, uneven):
                best, better = trials[at], True
                step, uneven = float(quality.step_s[at]), float(quality.unevenness[at])
                break
    return best, step


def _moves(hosts: Ints, free: Ints, generator: np.random.Generator) -> Ints:
    """Return moves, shape (moves, 2): two places to swap, or a place (from 0) and an unused host (-1 - its number)."""
    count = len(hosts)
    unused = np.setdiff1d(free, hosts)
    if count * (count - 1) // 2 + count * len(unused) > _MOST_MOVES:
        place = generator.integers(0, count, _MOST_MOVES)
        other = generator.integers(-len(unused), count, _MOST_MOVES)
        drawn: Ints = np.stack([place, np.where(other < 0, -1 - _picked(unused, other), other)], axis=1)[place != other]
        return drawn
    a, b = np.triu_indices(count, 1)
    place, other = np.meshgrid(np.arange(count), -1 - unused, indexing="ij")
    moves = np.concatenate([np.stack([a, b], axis=1), np.stack([place.ravel(), other.ravel()], axis=1)])
    shuffled: Ints = generator.permutation(moves)
    return shuffled


def _picked(unused: Ints, other: Ints) -> Ints:
    return unused[np.where(other < 0, -1 - other, 0)] if len(unused) else other


def _after(hosts: Ints, moves: Ints) -> Ints:
    trials = np.repeat(hosts[None], len(moves), axis=0)
    rows, place, other = np.arange(len(moves)), moves[:, 0], moves[:, 1]
    swap = other >= 0
    trials[rows[swap], place[swap]] = hosts[other[swap]]
    trials[rows[swap], other[swap]] = hosts[place[swap]]
    trials[rows[~swap], place[~swap]] = -1 - other[~swap]
    return trials


def _best(step: Floats, uneven: Floats) -> int:
    shortest = np.flatnonzero(step <= step.min() * (1 + _TIE))
    return int(shortest[uneven[shortest].argmin()])


def _is_better(step: float, uneven: float, than_step: float, than_uneven: float) -> bool:
    if step < than_step * (1 - _TIE):
        return True
    return step <= than_step * (1 + _TIE) and uneven < than_uneven * (1 - 1e-6)
