"""When nothing is left: which constraint binds, what came closest, and what would make the request feasible."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from hpcplan.errors import InfeasibleError
from hpcplan.partition.found import Found, describe, node_count
from hpcplan.partition.kinds import Kind
from hpcplan.partition.pricing import blocks, memory_of, price_block
from hpcplan.units import format_bytes, format_count, format_duration
from hpcplan.workload.model import Workload

__all__ = ["nothing_divides", "nothing_is_left"]

_TRIED = 5_000_000  # shardings looked at to find out what would do


def nothing_divides(
    workload: Workload, kinds: Sequence[Kind], nodes: tuple[int, int], fixed: Mapping[str, int]
) -> InfeasibleError:
    """Return the error for an empty space: nothing divides as it must."""
    run, shape = workload.training, workload.model
    span = node_count(nodes[0]) if nodes[0] == nodes[1] else f"{nodes[0]} to {nodes[1]} nodes"
    what = f" with {', '.join(f'{k}={v}' for k, v in fixed.items())}" if fixed else ""
    per_node = " or ".join(sorted({str(kind.gpus_per_node) for kind in kinds}))
    message = (
        f"no sharding of {workload.name!r} divides evenly on {span} of {per_node} accelerators{what}: "
        f"the batch is {run.global_batch} sequences, the model has {shape.layers} layers and {shape.heads} heads"
    )
    hints: list[str] = []
    if fixed and any(len(block) for block in blocks(workload, kinds, nodes, {})):
        hints.append("without --fix there are shardings")
    counts = _counts_that_divide(workload, kinds, nodes, fixed)
    if counts:
        hints.append(f"{' or '.join(str(count) for count in counts)} nodes would do")
    return InfeasibleError(message, hint="; ".join(hints) or None)


def _counts_that_divide(
    workload: Workload, kinds: Sequence[Kind], nodes: tuple[int, int], fixed: Mapping[str, int]
) -> list[int]:
    """Return the nearest numbers of nodes, one below and one above, that have a sharding at all."""
    most = max(kind.machine.nodes for kind in kinds)

    def first(counts: range) -> list[int]:
        return [n for n in counts if next(blocks(workload, kinds, (n, n), fixed), None) is not None][:1]

    below = first(range(nodes[0] - 1, max(0, nodes[0] - 512), -1))
    return below + first(range(nodes[1] + 1, min(most, nodes[1] + 512) + 1))


def nothing_is_left(
    workload: Workload, kinds: Sequence[Kind], nodes: tuple[int, int], fixed: Mapping[str, int]
) -> InfeasibleError:
    """Return the error for a space that rules have emptied: the first rule that nothing passes, and by how much."""
    closest, closest_kind, fitting = _closest(workload, kinds, nodes, fixed)
    if not len(fitting):
        return _memory_binds(workload, kinds, nodes, fixed, closest, closest_kind)
    request, run = workload.request, workload.training
    i = int(np.argmin(fitting.train_s))
    if request.deadline_s is not None and fitting.train_s[i] > request.deadline_s:
        message = (
            f"the deadline binds: the fastest sharding that fits ({describe(fitting.shardings, i)}, on "
            f"{node_count(fitting.nodes[i])}) trains for {format_duration(fitting.train_s[i])}, but the deadline is "
            f"{format_duration(request.deadline_s)}"
        )
        tokens = int(request.deadline_s / fitting.step_s[i]) * run.global_batch * run.sequence_length
        enough = _nodes_for_deadline(workload, kinds, nodes, fixed)
        more = f"{enough} nodes would do, or " if enough else ""
        return InfeasibleError(message, hint=f"{more}{format_count(tokens)} tokens, or --deadline "
                                             f"'{_hours_up(fitting.train_s[i])} h'")  # fmt: skip
    in_time = fitting.train_s <= (np.inf if request.deadline_s is None else request.deadline_s)
    i = int(np.argmin(np.where(in_time, fitting.cost, np.inf)))
    currency = kinds[int(fitting.kind[i])].currency
    message = (
        f"the budget binds: the cheapest sharding that fits ({describe(fitting.shardings, i)}, on "
        f"{node_count(fitting.nodes[i])}) costs {fitting.cost[i]:,.0f} {currency}, "
        f"but the budget is {workload.request.budget:,.0f}"
    )
    share = (request.budget or 0.0) / float(fitting.cost[i])
    return InfeasibleError(
        message,
        hint=f"--budget {np.ceil(fitting.cost[i]):.0f} would do, or {format_count(int(share * run.tokens))} tokens",
    )


def _hours_up(seconds: float) -> int:
    return int(-(-seconds // 3600))


def _closest(
    workload: Workload, kinds: Sequence[Kind], nodes: tuple[int, int], fixed: Mapping[str, int]
) -> tuple[Found | None, Kind | None, Found]:
    """Return the sharding that misses the memory by least, its kind, and the best of those that fit."""
    request = workload.request
    best, best_kind, least = None, None, np.inf
    fitting: list[Found] = []
    for block in blocks(workload, kinds, nodes, fixed):
        kind = kinds[block.kind]
        needed, fits, fits_host = memory_of(workload, kind, block.family.shardings)
        good = np.flatnonzero(fits & fits_host)
        priced = price_block(workload, kind, block.kind, block.family.shardings.take(good), needed[good])
        fitting.append(_extremes(priced))
        on_host = np.where(fits_host, needed, np.inf) - kind.free_bytes(request.memory_headroom)
        i = int(np.argmin(on_host))
        if on_host[i] < least:
            one = np.array([i])
            best = price_block(workload, kind, block.kind, block.family.shardings.take(one), needed[one])
            best_kind, least = kind, float(on_host[i])
    return best, best_kind, Found.concatenate(fitting)


def _extremes(found: Found) -> Found:
    """Return the fastest and, among what is as fast as one of a few deadlines, the cheapest: the front of the two."""
    return found.front() if len(found) else found


def _memory_binds(
    workload: Workload,
    kinds: Sequence[Kind],
    nodes: tuple[int, int],
    fixed: Mapping[str, int],
    closest: Found | None,
    kind: Kind | None,
) -> InfeasibleError:
    assert closest is not None  # the space is not empty
    assert kind is not None
    headroom = workload.request.memory_headroom
    free, needs = kind.free_bytes(headroom), float(closest.memory_bytes[0])
    total = sum(len(block) for block in blocks(workload, kinds, nodes, fixed))
    message = (
        f"memory binds: of {total:,} shardings none fits. The smallest ({describe(closest.shardings, 0)}, on "
        f"{node_count(closest.nodes[0])}) needs {format_bytes(needs)} on its fullest accelerator, "
        f"{format_bytes(needs - free)} more than the {format_bytes(free)} that are free"
    )
    hints: list[str] = []
    if needs <= kind.free_bytes(0.0):
        hints.append(f"--memory-headroom {max(0.0, np.floor((1 - needs / kind.free_bytes(0.0)) * 100) / 100):.2f}")
    if fixed and _any_fits(workload, kinds, nodes, {}):
        hints.append("leaving out --fix")
    enough = _nodes_for_memory(workload, kinds, nodes, fixed)
    if enough:
        hints.append(f"{enough} nodes")
    hints += _lighter_training(workload, kinds, nodes, fixed)
    hint = f"what would do: {', or '.join(hints)}" if hints else "no number of nodes of this site would do"
    return InfeasibleError(message, hint=hint)


def _any_fits(workload: Workload, kinds: Sequence[Kind], nodes: tuple[int, int], fixed: Mapping[str, int]) -> bool:
    for block in blocks(workload, kinds, nodes, fixed):
        _, fits, fits_host = memory_of(workload, kinds[block.kind], block.family.shardings)
        if (fits & fits_host).any():
            return True
    return False


def _nodes_for_memory(
    workload: Workload, kinds: Sequence[Kind], nodes: tuple[int, int], fixed: Mapping[str, int]
) -> int | None:
    """Return the least number of nodes above those asked for on which something fits."""
    most = max(kind.machine.nodes for kind in kinds)
    return next((n for n in range(nodes[1] + 1, most + 1) if _any_fits(workload, kinds, (n, n), fixed)), None)


def _nodes_for_deadline(
    workload: Workload, kinds: Sequence[Kind], nodes: tuple[int, int], fixed: Mapping[str, int]
) -> int | None:
    """Return the least number of nodes above those asked for that meets the deadline."""
    limit, tried = workload.request.deadline_s or np.inf, 0
    for count in range(nodes[1] + 1, max(kind.machine.nodes for kind in kinds) + 1):
        for block in blocks(workload, kinds, (count, count), fixed):
            tried += len(block)
            needed, fits, fits_host = memory_of(workload, kinds[block.kind], block.family.shardings)
            good = np.flatnonzero(fits & fits_host)
            shardings = block.family.shardings.take(good)
            found = price_block(workload, kinds[block.kind], block.kind, shardings, needed[good])
            if len(found) and found.train_s.min() <= limit:
                return count
        if tried > _TRIED:
            return None
    return None


def _lighter_training(
    workload: Workload, kinds: Sequence[Kind], nodes: tuple[int, int], fixed: Mapping[str, int]
) -> list[str]:
    """Return which ways of fine-tuning with adapters would fit, where all weights are trained now."""
    from hpcplan.partition.whatif import ADAPTED, with_adapters

    if workload.training.adapters is not None:
        return []
    for name, adapters in ADAPTED.items():
        changed, kinds_then = with_adapters(workload, kinds, adapters)
        if _any_fits(changed, kinds_then, nodes, fixed):
            return [f"fine-tuning with {name}"]
    return []
