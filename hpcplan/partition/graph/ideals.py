"""Families of ideals of the order of groups: all of them, or those near given cuts.

A family is a table of ideals sorted so that each comes after all that it contains. With all ideals in it, the best
chain through it is the optimum; with some, the best chain is a valid split and so an upper bound.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hpcplan.partition.graph.groups import Groups

__all__ = ["MAX_TABLE", "Family", "TooManyIdealsError", "all_ideals", "family", "masks_near", "prefixes"]

Floats = NDArray[np.float64]
WORD: Final = 64
MAX_TABLE: Final = 200_000_000  # bytes of the table of ideals: one for each group and ideal
MAX_STEPS: Final = 3_000_000  # of looking for ideals near one, over all groups


class TooManyIdealsError(Exception):
    """There are more ideals than was allowed for; carries no message to a user."""


@dataclass(frozen=True, slots=True)
class Family:
    """Ideals as columns, sorted by ``accelerator_time`` and then by how many groups they have.

    ``has[g, i]`` says whether ideal ``i`` has group ``g``; the other arrays are sums over an ideal. ``border`` is the
    time of all outputs that cross the border of the ideal.
    """

    has: NDArray[np.bool_]
    accelerator_time: Floats
    cpu_time: Floats
    size_bytes: Floats
    cpu_only: NDArray[np.int32]
    border: Floats

    def __len__(self) -> int:
        return int(self.has.shape[1])


def all_ideals(groups: Groups, limit: int) -> Family:
    """Return every ideal.

    Raises:
        TooManyIdealsError: there are more than ``limit``.
    """
    words = max(1, -(-len(groups) // WORD))
    room = np.zeros((1024, words), dtype=np.uint64)  # grows by doubling; the first `count` rows are in use
    count = 1
    for g in range(len(groups)):  # groups are in a topological order: ideals of the first g extend to those of g + 1
        need = np.zeros(words, dtype=np.uint64)
        for other in groups.before[g]:
            need[other // WORD] |= np.uint64(1 << (other % WORD))
        used = np.flatnonzero(need)
        ready = np.flatnonzero(((room[:count, used] & need[used]) == need[used]).all(axis=1))
        total = count + len(ready)
        if total > limit:
            raise TooManyIdealsError
        if total > len(room):
            room = np.concatenate([room, np.zeros((max(len(room), total), words), dtype=np.uint64)])
        room[count:total] = room[ready]
        room[count:total, g // WORD] |= np.uint64(1 << (g % WORD))
        count = total
    return _family(groups, _columns(room[:count], len(groups)))


def family(groups: Groups, masks: Iterable[int]) -> Family:
    """Return the family of the given ideals (bit ``g`` for group ``g``) with the empty and the full one.

    If the table would grow beyond ``MAX_TABLE`` bytes, it has an even selection of them.
    """
    given = list(dict.fromkeys(masks))
    most = max(1, MAX_TABLE // len(groups))
    chosen = {0, (1 << len(groups)) - 1, *given[:: -(-len(given) // most) if given else 1]}
    size = max(1, -(-len(groups) // WORD)) * 8
    packed = b"".join(mask.to_bytes(size, "little") for mask in sorted(chosen))
    return _family(groups, _columns(np.frombuffer(packed, dtype=np.uint64).reshape(len(chosen), -1), len(groups)))


def _columns(table: NDArray[np.uint64], count: int) -> NDArray[np.bool_]:
    bits = np.unpackbits(np.ascontiguousarray(table).view(np.uint8), axis=1, bitorder="little")[:, :count]
    return np.ascontiguousarray(bits.T).view(np.bool_)


def _family(groups: Groups, has: NDArray[np.bool_]) -> Family:
    # Sums run over the groups in one order, so that rounding keeps them monotone: a superset never sums to less.
    accelerator_time = _sums(has, np.where(groups.on_accelerator, groups.accelerator_time, 0.0))
    order = np.lexsort((has.sum(axis=0, dtype=np.int32), accelerator_time))
    has = np.ascontiguousarray(has[:, order])
    border = np.zeros(has.shape[1])
    for pins, time in zip(groups.borders, groups.border_time, strict=True):
        rows = has[list(pins)]
        border += time * (rows.any(axis=0) ^ rows.all(axis=0))
    return Family(
        has=has,
        accelerator_time=accelerator_time[order],
        cpu_time=_sums(has, groups.cpu_time),
        size_bytes=_sums(has, groups.size_bytes),
        cpu_only=has[~groups.on_accelerator].sum(axis=0, dtype=np.int32),
        border=border,
    )


def _sums(has: NDArray[np.bool_], weight: Floats) -> Floats:
    total = np.zeros(has.shape[1])
    for g in np.flatnonzero(weight):
        total += weight[g] * has[g]
    return total


def prefixes(groups: Groups, order: Iterable[int]) -> list[int]:
    """Return the ideals that a topological order of the groups passes through."""
    masks, mask = [], 0
    for g in order:
        mask |= 1 << g
        masks.append(mask)
    return masks


def masks_near(groups: Groups, start: int, limit: int) -> list[int]:
    """Return up to ``limit`` ideals near ``start``, nearest first: those with one group more or less, and so on."""
    before = [sum(1 << other for other in others) for others in groups.before]
    after = [sum(1 << other for other in others) for others in groups.after]
    found = {start: None}
    limit = min(limit, MAX_STEPS // len(groups))
    for mask in (queue := [start]):
        for g in range(len(groups)):
            bit = 1 << g
            if mask & bit:
                other = mask ^ bit if not after[g] & mask else mask
            else:
                other = mask | bit if before[g] & mask == before[g] else mask
            if other not in found:
                found[other] = None
                queue.append(other)
                if len(found) >= limit:
                    return list(found)
    return list(found)
