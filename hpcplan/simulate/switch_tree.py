"""Which leaf switches a job's nodes come from, one after another (select/cons_tres of Slurm 22.05, topology/tree)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hpcplan.simulate.machine import lowest

__all__ = ["SwitchShape", "Tree", "parents"]


@dataclass(frozen=True, slots=True)
class SwitchShape:
    """A switch: the mask of all nodes under it, and how far above the nodes it stands, 0 for a leaf."""

    name: str
    mask: int
    level: int


def parents(switches: Sequence[SwitchShape]) -> list[int | None]:
    """Return which switch is above each one: the lowest that has all of its nodes."""

    def parent(own: SwitchShape) -> int | None:
        over = [
            (one.level, position)
            for position, one in enumerate(switches)
            if one.level > own.level and not own.mask & ~one.mask
        ]
        return min(over)[1] if over else None

    return [parent(one) for one in switches]


class Tree:
    """Switches with those above them, and how many links lie between any two leaves."""

    def __init__(self, switches: Sequence[SwitchShape]) -> None:
        self._switches = switches
        self._above = parents(switches)
        self._leaves = [number for number, switch in enumerate(switches) if not switch.level]
        self._distances = {leaf: self._links_from(leaf) for leaf in self._leaves}

    def _links_from(self, leaf: int) -> dict[int, int]:
        """Return the number of links to every leaf that can be reached."""
        up: dict[int, int] = {}
        at: int | None = leaf
        while at is not None:
            up[at] = len(up)
            at = self._above[at]
        found = {}
        for other in self._leaves:
            at, steps = other, 0
            while at is not None and at not in up:
                at, steps = self._above[at], steps + 1
            if at is not None:
                found[other] = steps + up[at]
        return found

    def leaf_by_leaf(self, pool: int, wanted: int, given: int = 0) -> int:
        """Return ``wanted`` nodes of ``pool``, the lowest of each leaf; nodes that the job has already are ``given``.

        The next leaf is the one nearest to those used so far, and among equals the one that fits best (see
        :meth:`_better`). All that can be reached, if there are not enough.
        """
        counts = [(switch.mask & pool).bit_count() for switch in self._switches]
        far = dict.fromkeys(self._leaves, 0)
        for leaf in self._leaves:
            if self._switches[leaf].mask & given:
                self._move_away(far, leaf)
        chosen = 0
        while wanted > 0:
            best = None
            for leaf in self._leaves:
                if not counts[leaf] or leaf not in far:
                    continue
                if best is None:
                    best = leaf
                    continue
                better = self._better(leaf, best, wanted, counts)
                if (far[leaf] < far[best] and better >= 0) or (far[leaf] == far[best] and better > 0):
                    best = leaf
            if best is None:
                break
            nodes = lowest(self._switches[best].mask & pool, wanted)
            chosen |= nodes
            wanted -= nodes.bit_count()
            counts[best] = 0
            self._move_away(far, best)
        return chosen

    def _move_away(self, far: dict[int, int], leaf: int) -> None:
        links = self._distances[leaf]
        for other in list(far):
            if other in links:
                far[other] += links[other]
            else:
                del far[other]

    def _better(self, one: int, other: int, wanted: int, counts: Sequence[int]) -> int:
        """Return whether ``one`` (1) or ``other`` (-1) is the better leaf to begin with, 0 if they are alike.

        The better one has a switch with enough nodes sooner on the way up, and there the fewest; where neither has any,
        the one with the most.
        """
        while True:
            enough, others = counts[one] >= wanted, counts[other] >= wanted
            if enough != others:
                return 1 if enough else -1
            if enough:
                if counts[one] != counts[other]:
                    return 1 if counts[one] < counts[other] else -1
                break
            above, over = self._above[one], self._above[other]
            if above is None or over is None:
                break
            one, other = above, over
        if counts[one] != counts[other]:
            return 1 if counts[one] > counts[other] else -1
        levels = self._switches[one].level, self._switches[other].level
        return (levels[0] < levels[1]) - (levels[0] > levels[1])
