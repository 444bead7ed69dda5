"""What a ring carries where links join only some accelerators of a node with each other, and no switch joins all.

In a DGX-1 with V100 each accelerator has six NVLinks, to four of the others: one link to two of them, two links to the
other two (NVIDIA DGX-1 with Tesla V100 white paper, 2017, figure 4). NCCL lays rings over the links that are there: a
group of ranks gets as many as fit, each once around all of its accelerators, over other links than the others, and in
both directions. So the share of an accelerator's links that a collective can use depends on which accelerators take
part, and two that share one link get a sixth of what eight get.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import pairwise, permutations

import numpy as np

from hpcplan.cost.shardings import Floats

__all__ = ["ring_shares", "rings"]

Mesh = Sequence[Sequence[int]]

_LARGEST = 8  # ranks whose rings are counted one by one: 2,520 ways around


def rings(mesh: Mesh, ranks: Sequence[int]) -> float:
    """Return how many rings the links between these accelerators hold, the two directions counted apart.

    The largest packing is a linear program: a number for each way around all ranks, such that no link is used twice. A
    ring that uses a link in one direction leaves the other to its own reverse. Where no way around them exists, one
    ring in each direction goes through accelerators outside the group (NCCL 2.12, ``NCCL_NVB_DISABLE``); 0 if even that
    does not.
    """
    if len(ranks) == 2:
        return float(mesh[ranks[0]][ranks[1]])
    direct = _packing({(a, b): mesh[a][b] for a in ranks for b in ranks if a < b}, ranks)
    if direct > 0:
        return 2.0 * direct
    outside = [x for x in range(len(mesh)) if x not in ranks]
    through = {
        (a, b): mesh[a][b] + sum(min(mesh[a][x], mesh[x][b]) for x in outside) for a in ranks for b in ranks if a < b
    }
    return 2.0 * min(1.0, _packing(through, ranks))


def _packing(links: dict[tuple[int, int], int], ranks: Sequence[int]) -> float:
    """Return how many times all ranks can be gone around at once, over so many links between each two."""
    from scipy.optimize import linprog

    first, *others = ranks
    edges = {edge: row for row, (edge, count) in enumerate(links.items()) if count > 0}
    columns: list[list[int]] = []
    for order in permutations(others):
        if order[0] > order[-1]:  # the same way around, backwards
            continue
        used = [tuple(sorted(pair)) for pair in pairwise((first, *order, first))]
        if all(pair in edges for pair in used):
            columns.append([edges[pair] for pair in used])  # type: ignore[index]
    if not columns:
        return 0.0
    table = np.zeros((len(links), len(columns)))
    for column, rows in enumerate(columns):
        table[rows, column] = 1.0
    found = linprog(-np.ones(len(columns)), A_ub=table, b_ub=np.array(list(links.values()), dtype=float))
    return float(-found.fun)


@cache
def ring_shares(mesh: tuple[tuple[int, ...], ...], host_share: float) -> Floats:
    """Return which share of one accelerator's links the rings of a group use, for groups of 1, 2, … of a node.

    Groups are consecutive accelerators, and all of a node run at once: the one with fewest rings counts. Where links
    make no ring, data go over the host, ``host_share`` of the links' rate. Beyond eight accelerators the shares are
    those of the accelerator with fewest links inside its group.
    """
    count, most = len(mesh), max(sum(row) for row in mesh)
    shares = [1.0]
    for size in range(2, count + 1):
        blocks = [tuple(range(start, start + size)) for start in range(0, count - size + 1, size)]
        held = min(rings(mesh, block) if size <= _LARGEST else _least_links(mesh, block) for block in blocks)
        shares.append(held / most if held > 0 else host_share)
    return np.array(shares)


def _least_links(mesh: Mesh, ranks: Sequence[int]) -> float:
    return float(min(sum(mesh[a][b] for b in ranks) for a in ranks))
