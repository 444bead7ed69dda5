"""Cutting a chain of layers into pipeline stages: contiguous, as many as asked for, the slowest as fast as can be.

A pipeline runs at the pace of its slowest stage, and the time to fill and drain it does not depend on the cut (it is
the sum over all layers), so the cut with the fastest slowest stage is the best. Stage i of p keeps the activations of
up to p - i micro-batches under 1F1B (Narayanan et al. 2021, arXiv:2104.04473, section 2.2), so early stages may have to
hold fewer layers. Exact by dynamic programming over (stages, layers so far), O(p L^2).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hpcplan.cost.memory import Memory, memory
from hpcplan.cost.shape import Number, Shape
from hpcplan.cost.shardings import NONE, Floats, Shardings
from hpcplan.cost.step import price
from hpcplan.frameworks import FRAMEWORKS
from hpcplan.partition.kinds import Kind
from hpcplan.workload.model import Workload

__all__ = ["BUSY", "Layer", "LayerCosts", "StageCut", "cut_layers", "layer_costs", "span_sums", "stage_layers"]


@dataclass(frozen=True, slots=True)
class Layer:
    """What a layer takes of the stage that holds it.

    ``time_s`` is of one micro-batch, forward and backward; ``kept_bytes`` stay until its backward pass; ``state_bytes``
    are parameters, gradients and optimizer states.
    """

    time_s: float
    state_bytes: float = 0.0
    kept_bytes: float = 0.0


@dataclass(frozen=True, slots=True)
class StageCut:
    """How many layers each stage has, how long it takes a micro-batch (s) and how much memory it needs (bytes)."""

    sizes: tuple[int, ...]
    times_s: tuple[float, ...]
    memory_bytes: tuple[float, ...]

    @property
    def slowest_s(self) -> float:
        """The time of the slowest stage: what is made least."""
        return max(self.times_s)


def cut_layers(
    layers: Sequence[Layer],
    stages: int,
    *,
    in_flight: Sequence[int] | None = None,
    free_bytes: float = np.inf,
    first: Layer = Layer(0.0),
    last: Layer = Layer(0.0),
    speeds: Sequence[float] | None = None,
    free_bytes_each: Sequence[float] | None = None,
    recomputed: tuple[int, Sequence[Layer]] | None = None,
) -> StageCut | None:
    """Return the cut whose slowest stage is fastest, and of those the one whose fullest stage needs least.

    Args:
        layers: in order.
        stages: how many; each gets a layer at least.
        in_flight: micro-batches whose activations each stage keeps; 1 for all if absent.
        free_bytes: memory of each stage.
        first: what the first stage has beside its layers, such as the embedding.
        last: what the last stage has beside its layers, such as the output layer.
        speeds: of each stage, relative to the layers' times; 1 for all if absent.
        free_bytes_each: memory of each stage where they differ.
        recomputed: of how many layers of each stage, its first, activations are recomputed, and what these then take.

    Returns:
        ``None`` where no cut fits the memory, or there are fewer layers than stages.
    """
    count = len(layers)
    if stages < 1 or count < stages:
        return None
    table = _Table(layers, stages, in_flight or [1] * stages, first, last, speeds or [1.0] * stages, recomputed)
    free = [free_bytes] * stages if free_bytes_each is None else list(free_bytes_each)

    def time_within_memory(stage: int) -> Floats:
        return np.where(table.memory(stage) <= free[stage] * (1 + 1e-12), table.time(stage), np.inf)

    ends, slowest = _minimax(time_within_memory, stages, count)
    if not np.isfinite(slowest):
        return None

    def memory_within_time(stage: int) -> Floats:
        return np.where(time_within_memory(stage) <= slowest * (1 + 1e-12), table.memory(stage), np.inf)

    ends, _ = _minimax(memory_within_time, stages, count)
    starts = [0, *ends[:-1]]
    spans = list(zip(starts, ends, strict=True))
    return StageCut(
        sizes=tuple(end - start for start, end in spans),
        times_s=tuple(float(table.time(i)[start, end]) for i, (start, end) in enumerate(spans)),
        memory_bytes=tuple(float(table.memory(i)[start, end]) for i, (start, end) in enumerate(spans)),
    )


class _Table:
    """Time and memory of every run of layers as every stage: arrays of shape (layers + 1, layers + 1), from and to."""

    def __init__(
        self,
        layers: Sequence[Layer],
        stages: int,
        in_flight: Sequence[int],
        first: Layer,
        last: Layer,
        speeds: Sequence[float],
        recomputed: tuple[int, Sequence[Layer]] | None = None,
    ) -> None:
        self.ends = {0: first, stages - 1: last} if stages > 1 else {}
        self.both = (first, last)
        self.stages, self.in_flight, self.speeds = stages, in_flight, speeds
        count, again = recomputed or (0, layers)
        self.sums = {
            field.name: span_sums(
                [getattr(layer, field.name) for layer in layers], count, [getattr(layer, field.name) for layer in again]
            )
            for field in dataclasses.fields(Layer)
        }

    def _end(self, stage: int, name: str) -> float:
        if self.stages == 1:
            return float(getattr(self.both[0], name) + getattr(self.both[1], name))
        return float(getattr(self.ends[stage], name)) if stage in self.ends else 0.0

    def time(self, stage: int) -> Floats:
        return np.asarray((self.sums["time_s"] + self._end(stage, "time_s")) / self.speeds[stage])

    def memory(self, stage: int) -> Floats:
        kept = self.sums["kept_bytes"] + self._end(stage, "kept_bytes")
        return np.asarray(self.sums["state_bytes"] + self._end(stage, "state_bytes") + kept * self.in_flight[stage])


def span_sums(values: Sequence[float], count: int = 0, again: Sequence[float] = ()) -> Floats:
    """Return sums over [i, j), shape (n + 1, n + 1), infinite where j <= i; ``count`` of each of ``again``."""
    total = np.concatenate([[0.0], np.cumsum(values)])
    sums = total[None, :] - total[:, None]
    if count:
        other = np.concatenate([[0.0], np.cumsum(again)])
        start = np.arange(len(total))[:, None]
        turn = np.minimum(start + count, np.arange(len(total))[None, :])
        sums = other[turn] - other[start] + total[None, :] - total[turn]
    empty = np.tri(len(total), dtype=np.bool_)
    return np.where(empty, np.inf, sums)


def _minimax(value: Callable[[int], Floats], stages: int, count: int) -> tuple[list[int], float]:
    """Return where each stage ends, so that the largest value of a stage is least, and that value."""
    best = np.full(count + 1, np.inf)
    best[0] = 0.0
    choice: list[NDArray[np.int64]] = []
    for stage in range(stages):
        reached = np.maximum(best[:, None], value(stage))
        choice.append(reached.argmin(axis=0))
        best = reached.min(axis=0)
    ends = [count]
    for stage in range(stages - 1, 0, -1):
        ends.insert(0, int(choice[stage][ends[0]]))
    return ends, float(best[count])


@dataclass(frozen=True, slots=True)
class LayerCosts:
    """Layers of a model as stages of each of many shardings run them: arrays of shape (shardings,).

    ``plain`` is a layer without experts, ``routed`` one with them, ``ends`` what the output layer takes: seconds a
    micro-batch by term of the price, ``tail`` for the gradient exchange and the optimizer, once a step, ``states`` and
    ``kept`` in bytes. ``first_bytes`` and ``last_bytes`` are what the first and the last stage hold beside their
    layers, ``once_bytes`` what every stage does.
    """

    plain: dict[str, Floats]
    routed: dict[str, Floats]
    ends: dict[str, Floats]
    first_bytes: Floats
    last_bytes: Floats
    once_bytes: Floats
    dense: int
    layers: int

    def of(self, i: int) -> tuple[list[Layer], Layer, Layer]:
        """Return the layers of one sharding, and what its first and its last stage have beside."""
        plain, routed = (
            Layer(sum(float(part[name][i]) for name in BUSY), float(part["states"][i]), float(part["kept"][i]))
            for part in (self.plain, self.routed)
        )
        output_s = sum(float(self.ends[name][i]) for name in BUSY)
        layers = [plain] * self.dense + [routed] * (self.layers - self.dense)
        return layers, Layer(0.0, float(self.first_bytes[i])), Layer(output_s, float(self.last_bytes[i]))


BUSY = ("compute", "recompute", "tensor_parallel", "context_parallel", "expert_parallel")
_STATES = ("parameters", "gradients", "optimizer", "buffers")


def layer_costs(workload: Workload, kind: Kind, s: Shardings) -> LayerCosts:
    """Return what each layer takes of a stage: the difference that it makes to the price of a stage.

    Embedding and output layer make a difference in the same way. All is the cost model's: nothing is worked out here.
    What the optimizer takes while it steps is no sum over layers, and is left to the search.
    """
    model, shape = workload.model, Shape.of(workload.model)
    plain, routed = dataclasses.replace(shape, experts=0), dataclasses.replace(shape, dense_layers=0)
    one, two = (_stage(workload, kind, plain, s, count) for count in (1, 2))
    each = _minus(two, one)
    with_experts = each
    if model.experts:
        with_experts = _minus(*(_stage(workload, kind, routed, s, count) for count in (2, 1)))
    bare = dataclasses.replace(routed if model.experts else plain, table_parameters=0, head_parameters=0)
    held = _held(workload, kind, bare, s, 1)
    states = sum(getattr(held, name) for name in _STATES)

    def beside(**tables: Number) -> Floats:
        found = _held(workload, kind, dataclasses.replace(bare, **tables), s, 1)
        return np.asarray(sum(getattr(found, name) for name in _STATES) - states)

    return LayerCosts(
        plain=each,
        routed=with_experts,
        ends=_minus(one, each),
        first_bytes=beside(table_parameters=shape.table_parameters),
        last_bytes=beside(head_parameters=shape.head_parameters) + held.logits,
        once_bytes=held.total - held.optimizer_step - held.logits - with_experts["states"] - with_experts["kept"],
        dense=model.experts.dense_layers if model.experts else model.layers,
        layers=model.layers,
    )


def _minus(more: dict[str, Floats], less: dict[str, Floats]) -> dict[str, Floats]:
    return {name: more[name] - less[name] for name in more}


def _alone(s: Shardings, count: int) -> Shardings:
    """Return a stage of each sharding, of so many layers, with one micro-batch in flight."""
    nothing = np.zeros_like(s.pp)
    return dataclasses.replace(
        s, vpp=nothing + 1, last_layers=nothing, schedule=nothing, fullest_layers=nothing + count,
        kept_layers=nothing + count,
    )  # fmt: skip


def _held(workload: Workload, kind: Kind, shape: Shape, s: Shardings, count: int) -> Memory:
    shape, sequence = dataclasses.replace(shape, layers=count), workload.training.sequence_length
    return memory(shape, sequence, kind.machine, _alone(s, count), kind.coefficients, kind.recipe)


def _stage(workload: Workload, kind: Kind, shape: Shape, s: Shardings, count: int) -> dict[str, Floats]:
    """Return what a stage of so many layers takes, with the output layer."""
    run, one = workload.training, _alone(s, count)
    costs = price(
        dataclasses.replace(shape, layers=count), run.sequence_length, run.global_batch, kind.machine,
        kind.coefficients, one, kind.recipe,
    )  # fmt: skip
    found: dict[str, Floats] = {name: getattr(costs.time, name) / s.micro_batches for name in BUSY}
    found["tail"] = costs.time.data_parallel + costs.time.optimizer
    found["states"] = np.asarray(sum(getattr(costs.memory, name) for name in _STATES))
    found["kept"] = costs.memory.activations
    return found


def stage_layers(workload: Workload, kind: Kind, s: Shardings) -> tuple[int, ...]:
    """Return the layers of each part of one sharding's pipeline, in order; none where all have as many.

    Interleaved parts have as many each, or the first and the last one fewer; plain stages are cut by
    :func:`cut_layers` within the memory that the search grants, and as the search priced them where that finds no cut,
    or where which layers are recomputed, or in what blocks, depends on how many a rank has.
    """
    layers, pp, vpp = workload.model.layers, int(s.pp[0]), int(s.vpp[0])
    if pp == 1 or (vpp > 1 and layers % (pp * vpp) == 0):
        return ()
    if vpp > 1:
        size = (layers + 2) // (pp * vpp)
        return (size - 1, *[size] * (pp * vpp - 2), size - 1)
    cut = None
    every_nth = s.spared_layers[0] and FRAMEWORKS[workload.request.framework].some_layers == "nth"
    if not every_nth and s.recompute_block[0] <= 1:
        cut = _best_cut(workload, kind, s)
    sizes = cut.sizes if cut is not None else _as_priced(layers, pp, int(s.last_layers[0]))
    return () if len(set(sizes)) == 1 else sizes


def _best_cut(workload: Workload, kind: Kind, s: Shardings) -> StageCut | None:
    """Return the best cut of the layers of one sharding that fits, ``None`` where none does."""
    pp, again = int(s.pp[0]), int(s.spared_layers[0])
    in_flight = [int(np.ceil(s.in_flight(stage)[0])) for stage in range(pp)]
    costs = layer_costs(workload, kind, dataclasses.replace(s, spared_layers=np.zeros_like(s.pp)))
    items, first, last = costs.of(0)
    recomputed = None
    if again:
        none = dataclasses.replace(s, spared_layers=np.zeros_like(s.pp), recompute=np.full_like(s.pp, NONE))
        recomputed, items = (again, items), layer_costs(workload, kind, none).of(0)[0]
    free = kind.free_bytes(workload.request.memory_headroom) - float(costs.once_bytes[0])
    return cut_layers(items, pp, in_flight=in_flight, free_bytes=free, first=first, last=last, recomputed=recomputed)


def _as_priced(layers: int, pp: int, last: int) -> tuple[int, ...]:
    """Return the cut with so many layers on the last stage, the others even, the longer ones late: they keep less."""
    if not last:
        return (layers // pp,) * pp
    least, extra = divmod(layers - last, pp - 1)
    return (*[least] * (pp - 1 - extra), *[least + 1] * extra, last)
