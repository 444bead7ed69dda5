"""Which nodes of its pool each stretch of a workload has: any that are free, the lowest numbers first."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from hpcplan.schedule.sharing.problem import Problem
from hpcplan.schedule.sharing.simulate import Piece, Run

__all__ = ["node_numbers"]


def node_numbers(problem: Problem, runs: Sequence[Run]) -> dict[tuple[int, int], list[int]]:
    """Return node numbers, from 0 in each pool, by workload and stretch; stretches side by side where that is free."""
    result: dict[tuple[int, int], list[int]] = {}
    for pool, nodes in problem.pools.items():
        free = set(range(nodes))
        busy: list[tuple[float, int, list[int]]] = []
        pieces: list[tuple[float, float, int, int, Piece]] = [
            (piece.start_s, piece.end_s, run.job, place, piece)
            for run in runs
            for place, piece in enumerate(run.pieces)
            if piece.option.pool == pool
        ]
        for number, (start, end, job, place, piece) in enumerate(sorted(pieces, key=lambda p: p[:4])):
            while busy and busy[0][0] <= start + 1e-6:
                free |= set(heapq.heappop(busy)[2])
            taken = _side_by_side(sorted(free), piece.option.nodes)
            free -= set(taken)
            heapq.heappush(busy, (end, number, taken))
            result[job, place] = taken
    return result


def _side_by_side(free: list[int], count: int) -> list[int]:
    for first in range(len(free) - count + 1):
        if free[first + count - 1] - free[first] == count - 1:
            return free[first : first + count]
    return free[:count]
