"""When nothing fits: which rule binds, and what would make room."""

from __future__ import annotations

import dataclasses
import math
from typing import Final

import numpy as np

from hpcplan.errors import InfeasibleError
from hpcplan.partition.graph.groups import Groups
from hpcplan.partition.graph.ideals import MAX_TABLE, TooManyIdealsError, all_ideals
from hpcplan.partition.graph.sweep import Sweep
from hpcplan.units import format_bytes

__all__ = ["refuse_if_infeasible", "why_infeasible"]

FEW_IDEALS: Final = 40_000


def refuse_if_infeasible(groups: Groups) -> None:
    """Refuse what arithmetic alone shows to be impossible. With a CPU there is always a split: all of it there.

    Raises:
        InfeasibleError: names the constraint that binds, and by how much.
    """
    graph = groups.graph
    if graph.cpus:
        return
    if not graph.accelerators:
        raise InfeasibleError("there are no devices to split over", hint="give --devices or --cpus")
    if not groups.on_accelerator.all():
        g = int(np.argmin(groups.on_accelerator))
        node = next(graph.nodes[i] for i in groups.members[g] if not graph.nodes[i].on_accelerator)
        raise InfeasibleError(f"node {node.id} cannot run on an accelerator, and there is no CPU", hint="give --cpus 1")
    memory, total = graph.memory_bytes * (1 + 1e-9), float(groups.size_bytes.sum())
    largest = int(np.argmax(groups.size_bytes))
    if groups.size_bytes[largest] > memory:
        ids = [graph.nodes[i].id for i in groups.members[largest]]
        names = f"node {ids[0]}" if len(ids) == 1 else f"nodes {', '.join(map(str, ids[:5]))}"
        names += f" and {len(ids) - 5} more" if len(ids) > 5 else ""
        need = float(groups.size_bytes[largest])
        together = "" if len(ids) == 1 else ", which must stay together,"
        raise InfeasibleError(
            f"memory binds: {names}{together} need {_bytes(need)}, "
            f"and an accelerator holds {_bytes(graph.memory_bytes)}",
            hint=f"at least --memory {need:.0f}, or --cpus 1, is needed",
        )
    if total > memory * graph.accelerators:
        devices = int(np.ceil(total / graph.memory_bytes))
        raise InfeasibleError(
            f"memory binds: the graph needs {_bytes(total)}, and {graph.accelerators} accelerators of "
            f"{_bytes(graph.memory_bytes)} hold {_bytes(graph.memory_bytes * graph.accelerators)}",
            hint=f"at least --devices {devices}, or --memory {np.ceil(total / graph.accelerators):.0f}, is needed",
        )


def why_infeasible(groups: Groups) -> InfeasibleError:
    """Return the error for a graph that no split fits though its memory would: the pieces do not come out even."""
    graph = groups.graph
    least = _least_memory(groups)
    more = f"at least --memory {math.ceil(least)}, more --devices, or --cpus 1, is needed"
    return InfeasibleError(
        f"memory binds: no split into {graph.accelerators} pieces without gaps fits into "
        f"{_bytes(graph.memory_bytes)} each, though {_bytes(float(groups.size_bytes.sum()))} in all would",
        hint=more if least > graph.memory_bytes else "give --memory or --devices more, or --cpus 1",
    )


def _least_memory(groups: Groups) -> float:
    """Return the least memory that an even enough split takes, or 0 where that is too much work to say."""
    sizes = dataclasses.replace(
        groups,
        graph=dataclasses.replace(groups.graph, memory_bytes=math.inf),
        accelerator_time=groups.size_bytes,
        borders=(),
        border_time=np.zeros(0),
    )
    try:
        table = all_ideals(sizes, min(FEW_IDEALS, MAX_TABLE // len(groups)))
    except TooManyIdealsError:
        return 0.0
    chain = Sweep(sizes, table, float(groups.size_bytes.sum())).best()
    return 0.0 if chain is None else chain.load


def _bytes(count: float) -> str:
    return f"{format_bytes(count)} ({count:.0f} bytes)" if count >= 1024 else f"{count:g} bytes"
