"""Where jobs go in Slurm's topology/block (Slurm 23.11 and later; topology.conf(5), ``BlockName``, ``BlockSizes``).

Blocks, such as the nodes that one NVLink fabric joins, are grouped by twos, fours, eights … of the first size. A job is
one segment, or with ``--segment`` several of that many nodes (sbatch(1)); each lies within one block of the least size
that holds it, wherever the others are, and there in no more of the next smaller blocks than would hold it if they were
empty. Of such blocks the one with the fewest free nodes is taken, of equals the last. Base blocks within are taken in
the same way, the emptiest first while none holds the rest; where not all of the next smaller blocks may be used, those
are chosen so before, and filled one after the other. A job that spans several of the largest blocks has to find enough
free nodes in those that are whole. Measured on Slurm 25.11.7: ``tests/slurm/record_blocks.py``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hpcplan.simulate.machine import lowest

__all__ = ["Blocks"]


class Blocks:
    """Base blocks in their order (masks), and the sizes in nodes, the first of which is that of a base block."""

    def __init__(self, masks: Sequence[int], sizes: Sequence[int] = ()) -> None:
        base = sizes[0] if sizes else max((mask.bit_count() for mask in masks), default=1)
        self._levels: list[tuple[int, list[int]]] = [(base, list(masks))]
        for size in sizes[1:]:
            count = max(1, size // base)
            groups = [masks[first : first + count] for first in range(0, len(masks), count)]
            self._levels.append((size, [_union(group) for group in groups]))
        size, largest = self._levels[-1]
        everything = _union(masks)
        self._spanned = _union([block for block in largest if block.bit_count() >= size]) or everything
        self._levels.append((max(self._levels[-1][0], everything.bit_count()), [everything]))

    @property
    def most(self) -> int:
        """How many nodes one job, or one segment of it, can have."""
        return self._spanned.bit_count()

    def choose(self, pool: int, wanted: int, segment: int, required: int = 0) -> int:
        """Return ``wanted`` nodes of ``pool`` in segments (0 is one for all), 0 if they do not fit."""
        size = segment or wanted
        if wanted % size:
            return 0
        last = len(self._levels) - 1
        level = next((level for level, (holds, _) in enumerate(self._levels) if size <= holds), last)
        chosen = 0
        for _ in range(wanted // size):
            left, needed = pool & ~chosen, required & ~chosen
            counted = left & self._spanned if level == last else left
            able = [block for block in self._levels[level][1] if self._holds(level, block & counted, size)]
            if needed and any(block & needed for block in able):
                able = [block for block in able if block & needed]
            if not able:
                return 0
            block = min(reversed(able), key=lambda one: (one & left).bit_count())
            first = lowest(needed & block, size)
            chosen |= first | self._within(level, block, left & ~first, size - first.bit_count())
        return 0 if required & ~chosen else chosen

    def _holds(self, level: int, pool: int, size: int) -> bool:
        """Whether so many nodes of a block are free in as many of the smaller blocks within as would hold them."""
        if not level:
            return pool.bit_count() >= size
        smaller, blocks = self._levels[level - 1]
        free = sorted(((block & pool).bit_count() for block in blocks), reverse=True)
        return sum(free[: -(-size // smaller)]) >= size

    def _within(self, level: int, block: int, pool: int, wanted: int) -> int:
        """Return nodes of one block that are in ``pool``."""
        if not level:
            return lowest(block & pool, wanted)
        smaller, blocks = self._levels[level - 1]
        inside = [one for one in blocks if one & block]
        shares = [(block & pool, wanted)]
        if len(inside) > -(-wanted // smaller):
            shares = list(_divide([one & pool for one in inside], wanted))
        base = self._levels[0][1]
        pieces = [piece for part, count in shares for piece in _divide([one & part for one in base], count)]
        return sum(lowest(part, count) for part, count in pieces)


def _divide(parts: Sequence[int], wanted: int) -> Iterator[tuple[int, int]]:
    """Yield which parts give how many nodes: the smallest that holds the rest, the largest while none does."""
    left = [part for part in reversed(parts) if part]  # of equals the last one comes first
    while wanted and left:
        enough = [part for part in left if part.bit_count() >= wanted]
        part = min(enough, key=int.bit_count) if enough else max(left, key=int.bit_count)
        left.remove(part)
        count = min(wanted, part.bit_count())
        yield part, count
        wanted -= count


def _union(masks: Sequence[int]) -> int:
    found = 0
    for mask in masks:
        found |= mask
    return found
