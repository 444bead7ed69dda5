"""Where jobs go in Slurm's topology/block (Slurm 23.11 and later; topology.conf(5), ``BlockName``, ``BlockSizes``).

Blocks, such as the nodes that one NVLink fabric joins, are grouped by twos, fours, eights … of the first size. A job is
one segment, or with ``--segment`` several of that many nodes (sbatch(1)); each lies within one block of the least size
that holds it, wherever the others are, and there in no more of the next smaller blocks than would hold it if they were
empty. Of such blocks the one with the fewest free nodes is taken, of equals the last. Base blocks within are taken in
the same way, the emptiest first while none holds the rest; where not all of the next smaller blocks may be used, those
are chosen so before, and filled one after the other. A job that spans several of the largest blocks has to find enough
free nodes in those that are whole, unless it names nodes.

Blocks of which a job must have nodes (``--nodelist``) are filled before others, in their order. With
``--consolidate-segments`` all segments lie where one of all their nodes would, with ``--spread-segments`` none in a
base block of another. With ``--exclusive=topo`` a job takes nodes of base blocks alone of which nobody has any, and
nobody gets any of these until it ends. Measured on Slurm 25.11.7: ``tests/slurm/record_blocks.py``.
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

    def untouched(self, pool: int) -> int:
        """Return the nodes of ``pool`` in base blocks all of which are in it."""
        return _union([block for block in self._levels[0][1] if not block & ~pool])

    def around(self, nodes: int) -> int:
        """Return all the nodes of the base blocks of some."""
        return _union([block for block in self._levels[0][1] if block & nodes])

    def choose(
        self, pool: int, wanted: int, segment: int, required: int = 0, *, together: bool = False, apart: bool = False
    ) -> int:
        """Return ``wanted`` nodes of ``pool`` in segments (0 is one for all), 0 if they do not fit.

        With ``together`` all of them are where one segment of so many nodes would be, ``apart`` no two have nodes of
        the same base block.
        """
        size = segment or wanted
        if wanted % size:
            return 0
        if not together or size == wanted:
            return self._segments(pool, wanted // size, size, required, apart=apart)
        for block in self._able(pool, wanted, 0):
            if found := self._segments(pool & block, wanted // size, size, required, apart=apart):
                return found
        return 0

    def _segments(self, pool: int, count: int, size: int, required: int, *, apart: bool) -> int:
        level = self._level(size)
        chosen = 0
        for _ in range(count):
            left, needed = pool & ~(self.around(chosen) if apart else chosen), required & ~chosen
            able = self._able(left, size, needed)
            if not able:
                return 0
            chosen |= self._within(level, able[0], left, size, needed & able[0])
        return 0 if required & ~chosen else chosen

    def _level(self, size: int) -> int:
        """Return the level of the least blocks that hold so many nodes."""
        last = len(self._levels) - 1
        return next((level for level, (holds, _) in enumerate(self._levels) if size <= holds), last)

    def _able(self, pool: int, size: int, needed: int) -> list[int]:
        """Return the blocks that have room for so many nodes, the best first; with those needed, if one has."""
        level = self._level(size)
        counted = pool & self._spanned if level == len(self._levels) - 1 and not needed else pool
        able = [block for block in self._levels[level][1] if self._holds(level, block & counted, size)]
        with_needed = [block for block in able if block & needed]
        last_first = list(reversed(with_needed or able))
        return sorted(last_first, key=lambda one: (one & pool).bit_count())

    def _holds(self, level: int, pool: int, size: int) -> bool:
        """Whether so many nodes of a block are free in as many of the smaller blocks within as would hold them."""
        if not level:
            return pool.bit_count() >= size
        smaller, blocks = self._levels[level - 1]
        free = sorted(((block & pool).bit_count() for block in blocks), reverse=True)
        return sum(free[: -(-size // smaller)]) >= size

    def _within(self, level: int, block: int, pool: int, wanted: int, needed: int) -> int:
        """Return nodes of one block that are in ``pool``, with those needed."""
        if not level:
            return _with(needed, block & pool, wanted)
        smaller, blocks = self._levels[level - 1]
        inside = [one for one in blocks if one & block]
        base = self._levels[0][1]
        scattered = len(inside) > -(-wanted // smaller)
        if scattered or level == len(self._levels) - 1:
            shares = _divide([one & pool for one in inside], wanted, needed) if scattered else [(block & pool, wanted)]
            pieces = [piece for part, count in shares for piece in _divide([one & part for one in base], count, needed)]
            return sum(_with(needed, part, count) for part, count in pieces)
        first = lowest(needed, wanted)
        rest = [one & block & pool & ~first for one in base]
        return first | sum(lowest(part, count) for part, count in _divide(rest, wanted - first.bit_count(), 0))


def _with(needed: int, part: int, wanted: int) -> int:
    """Return so many nodes of a part, those that are needed among them."""
    first = lowest(needed & part, wanted)
    return first | lowest(part & ~first, wanted - first.bit_count())


def _divide(parts: Sequence[int], wanted: int, needed: int) -> Iterator[tuple[int, int]]:
    """Yield which parts give how many nodes: first those with nodes that are needed, as much as they have; then the
    smallest that holds the rest, the largest while none does.
    """
    owed = (needed & _union(parts)).bit_count()
    for part in parts:
        if part & needed:
            owed -= (part & needed).bit_count()
            count = min(part.bit_count(), wanted - owed)
            yield part, count
            wanted -= count
    left = [part for part in reversed(parts) if part and not part & needed]  # of equals the last one comes first
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
