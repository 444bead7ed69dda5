"""Where jobs go in Slurm's topology/block (Slurm 23.11 and later; topology.conf(5), ``BlockName``, ``BlockSizes``).

Blocks of equal size, such as the nodes that one NVLink fabric joins, are grouped by fours, eights … of the first size.
A job is one segment, or with ``--segment`` several of that many nodes (sbatch(1)); each lies within one block of the
least size that holds it, wherever the others are. Of such blocks the one with the fewest free nodes is taken, and in a
larger one the base blocks in the same way. So it is documented; no recording of such a Slurm was at hand.
"""

from __future__ import annotations

from collections.abc import Sequence

from hpcplan.simulate.machine import lowest

__all__ = ["Blocks"]


class Blocks:
    """Base blocks in their order (masks), and the sizes in nodes, the first of which is that of a base block."""

    def __init__(self, masks: Sequence[int], sizes: Sequence[int] = ()) -> None:
        self._base = list(masks)
        base = sizes[0] if sizes else max((mask.bit_count() for mask in masks), default=1)
        self._levels: list[tuple[int, list[int]]] = [(base, self._base)]
        for size in sizes[1:]:
            count = max(1, size // base)
            groups = [self._base[first : first + count] for first in range(0, len(self._base), count)]
            self._levels.append((size, [_union(group) for group in groups]))
        everything = _union(self._base)
        self._levels.append((max(self._levels[-1][0], everything.bit_count()), [everything]))

    def choose(self, pool: int, wanted: int, segment: int, required: int = 0) -> int:
        """Return ``wanted`` nodes of ``pool`` in segments (0 is one for all), 0 if they do not fit."""
        size = segment or wanted
        if wanted % size:
            return 0
        blocks = next((found for holds, found in self._levels if size <= holds), self._levels[-1][1])
        chosen = 0
        for _ in range(wanted // size):
            left, needed = pool & ~chosen, required & ~chosen
            able = [block for block in blocks if (block & left).bit_count() >= size]
            if needed and any(block & needed for block in able):
                able = [block for block in able if block & needed]
            if not able:
                return 0
            block = min(able, key=lambda one: (one & left).bit_count())
            chosen |= self._within(block & left, size, needed & block)
        return 0 if required & ~chosen else chosen

    def _within(self, pool: int, wanted: int, required: int) -> int:
        """Return nodes of one block: of the fullest of its base blocks that holds all, else of the emptiest first."""
        chosen = lowest(required, wanted)
        parts = [base & pool & ~chosen for base in self._base if base & pool & ~chosen]
        while chosen.bit_count() < wanted and parts:
            need = wanted - chosen.bit_count()
            enough = [part for part in parts if part.bit_count() >= need]
            best = min(enough, key=int.bit_count) if enough else max(parts, key=int.bit_count)
            parts.remove(best)
            chosen |= lowest(best, need)
        return chosen


def _union(masks: Sequence[int]) -> int:
    found = 0
    for mask in masks:
        found |= mask
    return found
