"""When nothing is left: which constraint binds, what came closest, and what would make the request feasible."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hpcplan.cost.memory import host_bytes
from hpcplan.cost.shape import Shape
from hpcplan.cost.shardings import Floats, Shardings
from hpcplan.errors import InfeasibleError
from hpcplan.frameworks import FRAMEWORKS, Framework
from hpcplan.partition.adapters import ADAPTED, with_adapters
from hpcplan.partition.families import families
from hpcplan.partition.fixed import COLUMNS, spelled
from hpcplan.partition.found import Found, describe, node_count
from hpcplan.partition.kinds import Kind
from hpcplan.partition.pricing import Block, blocks, memory_of, price_block, spaces
from hpcplan.partition.prune import within
from hpcplan.units import format_bytes, format_count, format_duration
from hpcplan.workload.model import Workload

__all__ = ["nothing_divides", "nothing_is_left"]

_TRIED = 5_000_000  # shardings looked at to find out what would do
_SHOWN = 6  # values that would do


def nothing_divides(
    workload: Workload, kinds: Sequence[Kind], nodes: tuple[int, int], fixed: Mapping[str, int]
) -> InfeasibleError:
    """Return the error for an empty space: nothing divides as it must, or the framework does not have what is fixed."""
    run, shape = workload.training, workload.model
    span = node_count(nodes[0]) if nodes[0] == nodes[1] else f"{nodes[0]} to {nodes[1]} nodes"
    what = f" with {', '.join(f'{name}={spelled(name, value)}' for name, value in fixed.items())}" if fixed else ""
    per_node = " or ".join(sorted({str(kind.gpus_per_node) for kind in kinds}))
    framework = workload.request.framework
    message = (
        f"no sharding of {workload.name!r} divides evenly and runs under {framework} on {span} of {per_node} "
        f"accelerators{what}: the batch is {run.global_batch} sequences, the model has {shape.layers} layers and "
        f"{shape.heads} heads"
    )
    hints = _other_values(workload, kinds, nodes, fixed)
    if fixed and not hints and _has_any(workload, kinds, nodes, {}):
        hints.append("without --fix there are shardings")
    counts = _counts_that_divide(workload, kinds, nodes, fixed)
    if counts:
        hints.append(f"{' or '.join(str(count) for count in counts)} nodes would do")
    others = [name for name in FRAMEWORKS if _runs_under(name, workload, kinds, nodes, fixed)]
    if fixed and others:
        hints.append(f"--framework {' or '.join(others[:_SHOWN])} has it")
    return InfeasibleError(message, hint="; ".join(hints) or None)


def _other_values(
    workload: Workload, kinds: Sequence[Kind], nodes: tuple[int, int], fixed: Mapping[str, int]
) -> list[str]:
    """Return, for each choice that was fixed, what it can be with the others as they are."""
    hints: list[str] = []
    for name in fixed:
        rest = {other: value for other, value in fixed.items() if other != name}
        values: set[int] = set()
        tried = 0
        for s in _enumerated(workload, kinds, nodes, rest):
            values.update(np.unique(getattr(s, COLUMNS.get(name, name))).tolist())
            tried += len(s)
            if tried > _TRIED:
                break
        if values:
            near = sorted(sorted(values, key=lambda value: abs(value - fixed[name]))[:_SHOWN])
            words = [spelled(name, value) for value in near]
            hints.append(f"{name} can be {', '.join(words[:-1]) + ' or ' if words[1:] else ''}{words[-1]}")
    return hints


def _runs_under(
    framework: Framework, workload: Workload, kinds: Sequence[Kind], nodes: tuple[int, int], fixed: Mapping[str, int]
) -> bool:
    if framework == workload.request.framework:
        return False
    return _has_any(_under(framework, workload), kinds, nodes, fixed)


def _enumerated(
    workload: Workload, kinds: Sequence[Kind], nodes: tuple[int, int], fixed: Mapping[str, int]
) -> Iterator[Shardings]:
    """Yield all shardings as they are, some thousands at a time."""
    for kind in kinds:
        every = families(spaces(workload, kind, nodes, fixed))
        yield from (family.shardings for family in every if len(family.base))


def _has_any(workload: Workload, kinds: Sequence[Kind], nodes: tuple[int, int], fixed: Mapping[str, int]) -> bool:
    return next(_enumerated(workload, kinds, nodes, fixed), None) is not None


def _under(framework: Framework, workload: Workload) -> Workload:
    return workload.model_copy(update={"request": workload.request.model_copy(update={"framework": framework})})


def _counts_that_divide(
    workload: Workload, kinds: Sequence[Kind], nodes: tuple[int, int], fixed: Mapping[str, int]
) -> list[int]:
    """Return the nearest numbers of nodes, one below and one above, that have a sharding at all."""
    most = max(kind.machine.nodes for kind in kinds)

    def first(counts: range) -> list[int]:
        return [n for n in counts if _has_any(workload, kinds, (n, n), fixed)][:1]

    below = first(range(nodes[0] - 1, max(0, nodes[0] - 512), -1))
    return below + first(range(nodes[1] + 1, min(most, nodes[1] + 512) + 1))


def nothing_is_left(
    workload: Workload, kinds: Sequence[Kind], nodes: tuple[int, int], fixed: Mapping[str, int]
) -> InfeasibleError:
    """Return the error for a space that rules have emptied: the first rule that nothing passes, and by how much."""
    seen = _closest(workload, kinds, nodes, fixed)
    if seen.fitting is None:
        return _memory_binds(workload, kinds, nodes, fixed, seen)
    fitting, request = seen.fitting, workload.request
    if request.deadline_s is not None and float(fitting.train_s.min()) > request.deadline_s:
        return _deadline_binds(workload, kinds, nodes, fixed, fitting)
    return _budget_binds(workload, kinds, nodes, fixed, fitting)


def _deadline_binds(
    workload: Workload, kinds: Sequence[Kind], nodes: tuple[int, int], fixed: Mapping[str, int], fitting: Found
) -> InfeasibleError:
    run, deadline_s = workload.training, workload.request.deadline_s or 0.0
    i = int(np.argmin(fitting.train_s))
    message = (
        f"the deadline binds: the fastest sharding that fits ({describe(fitting.shardings, i)}, on "
        f"{node_count(fitting.nodes[i])}) trains for {format_duration(fitting.train_s[i])}, but the deadline is "
        f"{format_duration(deadline_s)}"
    )
    tokens = int(deadline_s / fitting.step_s[i]) * run.global_batch * run.sequence_length
    most = max(kind.machine.nodes for kind in kinds)
    enough = _count_that_does(workload, kinds, range(nodes[1] + 1, most + 1), fixed)
    more = f"{enough} nodes would do, or " if enough else ""
    hint = f"{more}{format_count(tokens)} tokens, or --deadline '{_hours_up(fitting.train_s[i])} h'"
    return InfeasibleError(message, hint=hint)


def _budget_binds(
    workload: Workload, kinds: Sequence[Kind], nodes: tuple[int, int], fixed: Mapping[str, int], fitting: Found
) -> InfeasibleError:
    request, run = workload.request, workload.training
    in_time = fitting.train_s <= (np.inf if request.deadline_s is None else request.deadline_s)
    i = int(np.argmin(np.where(in_time, fitting.cost, np.inf)))
    currency, budget = kinds[int(fitting.kind[i])].currency, request.budget or 0.0
    within, cost = "" if in_time.all() else " and meets the deadline", np.ceil(fitting.cost[i])
    message = (
        f"the budget binds: the cheapest sharding that fits{within} ({describe(fitting.shardings, i)}, on "
        f"{node_count(fitting.nodes[i])}) costs {cost:,.0f} {currency}, but the budget is {budget:,.0f}"
    )
    hints = [f"--budget {cost:.0f}"]
    affordable = np.where(fitting.cost <= budget, fitting.train_s, np.inf)
    if np.isfinite(affordable).any():
        hints.append(f"--deadline '{_hours_up(affordable.min())} h'")
    most = max(kind.machine.nodes for kind in kinds)
    counts = [*range(nodes[0] - 1, 0, -1), *range(nodes[1] + 1, most + 1)]  # fewer nodes mostly cost less
    enough = _count_that_does(workload, kinds, counts, fixed)
    if enough:
        hints.append(node_count(enough))
    share = budget / float(fitting.cost[i])
    hints.append(f"{format_count(int(share * run.tokens))} tokens")
    return InfeasibleError(message, hint=f"what would do: {', or '.join(hints)}")


def _hours_up(seconds: float) -> int:
    return int(-(-seconds // 3600))


@dataclass(slots=True)
class _Seen:
    """What came closest: to an accelerator's memory, to the main memory of what fits that, and what fits both."""

    total: int = 0
    smallest: tuple[float, Found, Kind] | None = None
    host: tuple[float, float, Found, Kind] | None = None
    fitting: Found | None = None


def _closest(workload: Workload, kinds: Sequence[Kind], nodes: tuple[int, int], fixed: Mapping[str, int]) -> _Seen:
    """Return the shardings that miss memory by least, and the best of those that fit."""
    headroom, shape = workload.request.memory_headroom, Shape.of(workload.model)
    seen, fitting = _Seen(), []
    for block in blocks(workload, kinds, nodes, fixed):
        kind, shardings = kinds[block.kind], block.family.shardings
        seen.total += block.family.candidates
        needed, fits, fits_host = memory_of(workload, kind, shardings)

        def one(i: int, block: Block = block, kind: Kind = kind, needed: Floats = needed) -> Found:
            row = np.array([i])
            return price_block(workload, kind, block.kind, block.family.shardings.take(row), needed[row])

        good = np.flatnonzero(fits & fits_host)
        if len(good):
            fitting.append(price_block(workload, kind, block.kind, shardings.take(good), needed[good]).front())
        over = np.where(fits_host, needed, np.inf) - kind.free_bytes(headroom)
        i = int(np.argmin(over))
        if over[i] < (np.inf if seen.smallest is None else seen.smallest[0]):
            seen.smallest = (float(over[i]), one(i), kind)
        barred = np.flatnonzero(fits & ~fits_host)
        if len(barred):
            on_host = host_bytes(shape, kind.machine, shardings.take(barred), kind.recipe)
            i = int(np.argmin(on_host))
            more = float(on_host[i]) - kind.free_host_bytes(headroom)
            if seen.host is None or more < seen.host[0]:
                seen.host = (more, float(on_host[i]), one(int(barred[i])), kind)
    seen.fitting = Found.concatenate(fitting) if fitting else None
    return seen


def _memory_binds(
    workload: Workload, kinds: Sequence[Kind], nodes: tuple[int, int], fixed: Mapping[str, int], seen: _Seen
) -> InfeasibleError:
    headroom = workload.request.memory_headroom
    hints: list[str] = []
    if seen.host is not None:  # some fit the accelerators: what they offload is too much for the hosts
        more, needs, found, kind = seen.host
        message = (
            f"main memory binds: of {seen.total:,} shardings none fits. {describe(found.shardings, 0)}, on "
            f"{node_count(found.nodes[0])}, fits the accelerators, but offloads {format_bytes(needs)} to each node, "
            f"{format_bytes(more)} more than the {format_bytes(needs - more)} that are free there"
        )
        headroom_that_does = 1 - needs / kind.free_host_bytes(0.0)
    else:
        assert seen.smallest is not None  # the space is not empty
        more, found, kind = seen.smallest
        needs = float(found.memory_bytes[0])
        message = (
            f"memory binds: of {seen.total:,} shardings none fits. The smallest ({describe(found.shardings, 0)}, on "
            f"{node_count(found.nodes[0])}) needs {format_bytes(needs)} on its fullest accelerator, "
            f"{format_bytes(more)} more than the {format_bytes(needs - more)} that are free"
        )
        headroom_that_does = 1 - needs / kind.free_bytes(0.0)
    if headroom > 0 and headroom_that_does >= 0:
        hints.append(f"--memory-headroom {np.floor(headroom_that_does * 100) / 100:.2f}")
    if fixed and _any_fits(workload, kinds, nodes, {}):
        hints.append("leaving out --fix")
    enough = _nodes_for_memory(workload, kinds, nodes, fixed)
    if enough:
        hints.append(f"{enough} nodes")
    hints += _lighter_training(workload, kinds, nodes, fixed)
    if not hints:
        able = [name for name in FRAMEWORKS if _any_fits(_under(name, workload), kinds, nodes, fixed)]
        hints += [f"--framework {' or '.join(able[:_SHOWN])}"] if able else []
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


def _count_that_does(
    workload: Workload, kinds: Sequence[Kind], counts: Iterable[int], fixed: Mapping[str, int]
) -> int | None:
    """Return the first of some numbers of nodes that meets deadline and budget; ``None`` too if that takes too long."""
    request, tried = workload.request, 0
    for count in counts:
        for block in blocks(workload, kinds, (count, count), fixed, skim=True):
            tried += len(block)
            kind, shardings = kinds[block.kind], block.family.shardings
            needed, fits, fits_host = memory_of(workload, kind, shardings)
            good = np.flatnonzero(fits & fits_host)
            found = price_block(workload, kind, block.kind, shardings.take(good), needed[good])
            if (within(found.train_s, request.deadline_s) & within(found.cost, request.budget)).any():
                return count
        if tried > _TRIED:
            return None
    return None


def _lighter_training(
    workload: Workload, kinds: Sequence[Kind], nodes: tuple[int, int], fixed: Mapping[str, int]
) -> list[str]:
    """Return which ways of fine-tuning with adapters would fit, where all weights are trained now."""
    if workload.training.adapters is not None:
        return []
    for name, adapters in ADAPTED.items():
        changed, kinds_then = with_adapters(workload, kinds, adapters)
        if _any_fits(changed, kinds_then, nodes, fixed):
            return [f"fine-tuning with {name}"]
    return []
