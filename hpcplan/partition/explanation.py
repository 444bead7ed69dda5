"""Explaining a choice at length: each term, the runner-up, what nearly fitted, and what changes would be worth."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from hpcplan.cost.shardings import Shardings
from hpcplan.partition.explain import TERMS
from hpcplan.partition.found import Found, describe, node_count
from hpcplan.partition.kinds import Kind
from hpcplan.partition.pricing import Block, blocks, memory_of, price_block
from hpcplan.partition.search import Outcome, search
from hpcplan.partition.stage_memory import StageMemory
from hpcplan.partition.whatif import Change, what_if
from hpcplan.workload.model import Workload

__all__ = ["Explanation", "NearMiss", "Term", "explain", "explanation_data"]


@dataclass(frozen=True, slots=True)
class Term:
    """One term of the step time, of the winner and of the runner-up, in seconds."""

    name: str
    meaning: str
    best_s: float
    runner_up_s: float | None


@dataclass(frozen=True, slots=True)
class NearMiss:
    """The sharding that would beat the winner and misses the memory by least; if none would, the one nearest to fit."""

    sharding: str
    nodes: int
    node_group: str
    step_s: float
    needs_bytes: float
    over_bytes: float
    faster: bool


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why the winner won; ``runner_up`` is described as the tables do, ``None`` if nothing else fits."""

    terms: tuple[Term, ...]
    runner_up: str | None
    near_miss: NearMiss | None
    changes: tuple[Change, ...]
    stages: tuple[StageMemory, ...]


def explain(
    workload: Workload,
    kinds: Sequence[Kind],
    outcome: Outcome,
    nodes: tuple[int, int],
    fixed: Mapping[str, int],
    quantized: Sequence[Kind] = (),
    stages: tuple[StageMemory, ...] = (),
) -> Explanation:
    """Return why the winner won, and what would change it.

    Args:
        workload: what was searched for.
        kinds: the kinds of node searched.
        outcome: what was found.
        nodes: least and most nodes.
        fixed: parts of the sharding that were given.
        quantized: the winner's kind at lower precisions.
        stages: what a GPU of each of the winner's stages holds.
    """
    others = len(outcome.best) > 1
    terms = tuple(
        Term(
            name,
            meaning,
            float(getattr(outcome.costs.time, name)[0]),
            float(getattr(outcome.costs.time, name)[1]) if others else None,
        )
        for name, meaning in TERMS.items()
    )
    again = partial(_search_one, objective=outcome.objective)
    return Explanation(
        terms=terms,
        runner_up=f"{describe(outcome.best, 1)}, on {node_count(outcome.nodes[1])}" if others else None,
        near_miss=_near_miss(workload, kinds, outcome, nodes, fixed),
        changes=tuple(what_if(workload, outcome, fixed, again, quantized)),
        stages=stages,
    )


def _search_one(
    workload: Workload, kinds: Sequence[Kind], nodes: tuple[int, int], fixed: Mapping[str, int], *, objective: str
) -> Outcome:
    return search(workload, kinds, nodes=nodes, objective=objective, fixed=fixed, keep=1)  # type: ignore[arg-type]


def _near_miss(
    workload: Workload, kinds: Sequence[Kind], outcome: Outcome, nodes: tuple[int, int], fixed: Mapping[str, int]
) -> NearMiss | None:
    nearest: dict[bool, tuple[float, Found, Kind]] = {}
    for block in blocks(workload, kinds, nodes, fixed):
        kind = kinds[block.kind]
        shardings = _just_too_large(workload, kind, block)
        if not len(shardings):
            continue
        needed, _, _ = memory_of(workload, kind, shardings)
        found = price_block(workload, kind, block.kind, shardings, needed)
        over = found.memory_bytes - kind.free_bytes(workload.request.memory_headroom)
        better = found.value(outcome.objective) < outcome.value
        for faster, among in ((True, better), (False, ~better)):
            if among.any():
                i = int(np.argmin(np.where(among, over, np.inf)))
                if faster not in nearest or over[i] < nearest[faster][0]:
                    nearest[faster] = (float(over[i]), found.take(np.array([i])), kind)
    if not nearest:
        return None
    faster = True in nearest
    over_bytes, found, kind = nearest[faster]
    return NearMiss(
        sharding=describe(found.shardings, 0),
        nodes=int(found.nodes[0]),
        node_group=kind.group,
        step_s=float(found.step_s[0]),
        needs_bytes=float(found.memory_bytes[0]),
        over_bytes=over_bytes,
        faster=faster,
    )


def _just_too_large(workload: Workload, kind: Kind, block: Block) -> Shardings:
    """Return what does not fit the accelerators; of numbers of recomputed layers the largest that is not enough."""
    s = block.family.shardings
    _, fits, fits_host = memory_of(workload, kind, s)
    less = dataclasses.replace(s, spared_layers=block.family.below)
    return Shardings.concatenate(
        [s.take(~fits & fits_host), less.take(fits & fits_host & (block.family.fewer > 0))]
    )  # fmt: skip


def explanation_data(explanation: Explanation) -> dict[str, Any]:
    """Return an explanation as plain data, for JSON."""
    miss = explanation.near_miss
    return {
        "terms": [dataclasses.asdict(term) for term in explanation.terms],
        "runner_up": explanation.runner_up,
        "near_miss": None if miss is None else dataclasses.asdict(miss),
        "changes": [_change_data(change) for change in explanation.changes],
        "stages": [{**dataclasses.asdict(stage), "memory_bytes": stage.total_bytes} for stage in explanation.stages],
    }


def _change_data(change: Change) -> dict[str, Any]:
    found = change.outcome
    return {
        "change": change.name,
        "step_s": None if found is None else round(float(found.costs.step_s[0]), 6),
        "nodes": None if found is None else int(found.nodes[0]),
        "sharding": None if found is None else describe(found.best, 0),
        "value": None if found is None else found.value,
        "caveat": change.caveat or None,
        "why_not": change.why or None,
    }
