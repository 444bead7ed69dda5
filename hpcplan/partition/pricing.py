"""The whole space in blocks, and the price of each: what the search and its explanations go through."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from hpcplan.cost.memory import held_parameters, host_bytes, least_blocks, memory
from hpcplan.cost.shape import Shape
from hpcplan.cost.shardings import DEVICE, Floats, Ints, Shardings
from hpcplan.cost.step import Costs, gradient_exchange
from hpcplan.partition.candidates import Space
from hpcplan.partition.families import Family, families
from hpcplan.partition.found import Found, join_costs
from hpcplan.partition.kinds import Kind
from hpcplan.partition.prune import Mask
from hpcplan.workload.model import Workload

__all__ = ["Block", "blocks", "memory_of", "price_block", "price_found", "spaces"]

_BLOCK = 1 << 15  # shardings priced at once: their columns stay in the second-level cache


@dataclass(frozen=True, slots=True)
class Block:
    """Shardings on one kind of node, on one or more numbers of nodes."""

    kind: int
    family: Family

    def __len__(self) -> int:
        return len(self.family.base)


def blocks(
    workload: Workload,
    kinds: Sequence[Kind],
    nodes: tuple[int, int],
    fixed: Mapping[str, int],
    *,
    skim: bool = False,
) -> Iterator[Block]:
    """Yield the whole space: shardings of each kind, as many numbers of nodes at once as make up a good block.

    What another sharding is known to beat is counted in the blocks, but not in them
    (:func:`hpcplan.partition.families.families`); with ``skim`` so is what fits with no lever, or needs none but has
    one.
    """
    for index, kind in enumerate(kinds):
        parts: list[Family] = []
        fits, exchange = partial(_fits, workload, kind), partial(_exchange, workload, kind)
        lean = skim and kind.constants.corrected is None  # else measured runs may favour a lever
        least = partial(_least_blocks, workload, kind)
        for family in families(spaces(workload, kind, nodes, fixed), fits, exchange, least, skim=skim, lean=lean):
            parts += [family] if family.candidates else []
            if sum(len(part.base) for part in parts) >= _BLOCK:
                yield Block(index, Family.concatenate(parts))
                parts = []
        if parts:
            yield Block(index, Family.concatenate(parts))


def spaces(workload: Workload, kind: Kind, nodes: tuple[int, int], fixed: Mapping[str, int]) -> Iterator[Space]:
    """Yield the space of each number of nodes of a kind."""
    run = workload.training
    for count in range(nodes[0], min(nodes[1], kind.machine.nodes) + 1):
        yield Space(
            shape=workload.model,
            sequence=run.sequence_length,
            global_batch=run.global_batch,
            gpus=count * kind.gpus_per_node,
            gpus_per_domain=int(kind.machine.gpus_per_domain),
            framework=workload.request.framework,
            fixed=fixed,
            host_offload=True,
            precision=kind.precision,
            nvme_offload=bool(np.asarray(kind.machine.nvme_bytes_per_s) > 0),
        )


def _fits(workload: Workload, kind: Kind, shardings: Shardings) -> Mask:
    return _needed(workload, kind, shardings) <= kind.free_bytes(workload.request.memory_headroom)


def _least_blocks(workload: Workload, kind: Kind, s: Shardings) -> Ints:
    shape, sequence = Shape.of(workload.model), workload.training.sequence_length
    return least_blocks(shape, sequence, kind.machine, s, kind.coefficients, kind.recipe)


def _exchange(workload: Workload, kind: Kind, s: Shardings) -> Floats:
    """Return seconds of the data-parallel exchange; what of it is waited for grows with it."""
    held = held_parameters(Shape.of(workload.model), s, kind.recipe)
    beside, after = gradient_exchange(kind.machine, kind.coefficients, s, held, kind.recipe)
    return beside + after


def memory_of(workload: Workload, kind: Kind, shardings: Shardings) -> tuple[Floats, Mask, Mask]:
    """Return the bytes of the fullest accelerator, which shardings fit it, and which fit the host's memory."""
    shape, headroom = Shape.of(workload.model), workload.request.memory_headroom
    needed = _needed(workload, kind, shardings)
    fits_host = np.ones(len(shardings), dtype=np.bool_)
    away = np.flatnonzero(shardings.offload != DEVICE)
    if len(away):
        on_host = host_bytes(shape, kind.machine, shardings.take(away), kind.recipe)
        fits_host[away] = on_host <= kind.free_host_bytes(headroom)
    return needed, needed <= kind.free_bytes(headroom), fits_host


def _needed(workload: Workload, kind: Kind, shardings: Shardings) -> Floats:
    shape, sequence = Shape.of(workload.model), workload.training.sequence_length
    needed = np.empty(len(shardings))
    for piece in _pieces(len(shardings)):
        part = shardings.take(piece) if len(shardings) > _BLOCK else shardings
        needed[piece] = memory(shape, sequence, kind.machine, part, kind.coefficients, kind.recipe).total
    return needed


def _pieces(count: int) -> Iterator[slice]:
    for start in range(0, count, _BLOCK):
        yield slice(start, start + _BLOCK)


def price_block(workload: Workload, kind: Kind, index: int, shardings: Shardings, needed: Floats) -> Found:
    step_s = np.empty(len(shardings))
    for piece in _pieces(len(shardings)):
        step_s[piece] = kind.price(workload, shardings.take(piece)).step_s
    return Found.of(workload, kind, index, shardings, step_s, needed)


def price_found(workload: Workload, kinds: Sequence[Kind], found: Found) -> Costs:
    """Return the costs of shardings on several kinds of node, with every term."""
    parts: list[tuple[Ints, Costs]] = []
    for index, kind in enumerate(kinds):
        rows = np.flatnonzero(found.kind == index)
        if len(rows):
            parts.append((rows, kind.price(workload, found.shardings.take(rows))))
    return join_costs(parts, len(found))
