"""Gaps in the backward part of a piece, as rules that forbid them."""

from __future__ import annotations

from collections.abc import Sequence, Set

from hpcplan.partition.graph.groups import Groups

__all__ = ["gap_triples"]


def gap_triples(groups: Groups, pieces: Sequence[Sequence[int]]) -> list[tuple[int, int, int]]:
    """Return triples (a, b, c) of groups, one for each way out of a piece that leads back into it.

    Some backward path runs from a node of ``a`` through one of ``b`` to one of ``c``; ``a`` and ``c`` are in the piece
    and ``b`` is not. No piece of any valid split is like that, so the rule may be kept for all that follow.
    """
    graph = groups.graph
    if not graph.training:
        return []
    piece_of = {g: p for p, piece in enumerate(pieces) for g in piece}
    group = [0] * len(graph.nodes)
    for g, members in enumerate(groups.members):
        for i in members:
            group[i] = g
    after: list[list[int]] = [[] for _ in graph.nodes]
    ways_out: dict[tuple[int, int], None] = {}
    for source, target in graph.edges:
        if graph.nodes[source].backward:
            after[source].append(target)
            if piece_of[group[source]] != piece_of[group[target]]:
                ways_out[source, target] = None
    found: dict[tuple[int, int, int], None] = {}
    for source, target in ways_out:
        home = {i for i in range(len(group)) if piece_of[group[i]] == piece_of[group[source]]}
        back = _first_back(after, target, home)
        if back is not None:
            found[group[source], group[target], group[back]] = None
    return list(found)


def _first_back(after: Sequence[Sequence[int]], start: int, home: Set[int]) -> int | None:
    seen = {start}
    for vertex in (queue := [start]):
        for target in after[vertex]:
            if target in home:
                return target
            if target not in seen:
                seen.add(target)
                queue.append(target)
    return None
