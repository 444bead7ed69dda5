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

from hpcplan.cost.memory import memory
from hpcplan.cost.shape import Shape
from hpcplan.cost.shardings import GPIPE, Floats, Shardings
from hpcplan.cost.step import price
from hpcplan.partition.kinds import Kind
from hpcplan.workload.model import Workload

__all__ = ["Layer", "LayerCosts", "StageCut", "cut_layers", "layer_costs", "layers_of", "stage_layers"]


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

    Returns:
        ``None`` where no cut fits the memory, or there are fewer layers than stages.
    """
    count = len(layers)
    if stages < 1 or count < stages:
        return None
    table = _Table(layers, stages, in_flight or [1] * stages, first, last, speeds or [1.0] * stages)
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
    ) -> None:
        self.ends = {0: first, stages - 1: last} if stages > 1 else {}
        self.both = (first, last)
        self.stages, self.in_flight, self.speeds = stages, in_flight, speeds
        self.sums = {
            field.name: _span_sums([getattr(layer, field.name) for layer in layers])
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


def _span_sums(values: Sequence[float]) -> Floats:
    """Return sums over [i, j), shape (n + 1, n + 1); infinite where j <= i."""
    total = np.concatenate([[0.0], np.cumsum(values)])
    sums = total[None, :] - total[:, None]
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
    """Layers of a model as each of many shardings runs them: arrays of shape (shardings,).

    ``plain`` is a layer without experts, ``routed`` one with them, ``ends`` the embedding and the output layer.
    """

    plain: dict[str, Floats]
    routed: dict[str, Floats]
    ends: dict[str, Floats]
    embedding: float  # share of the parameters of ``ends`` that is the embedding's
    dense: int
    layers: int

    def of(self, i: int) -> tuple[list[Layer], Layer, Layer]:
        """Return the layers of one sharding, and what its first and its last stage have beside."""
        plain, routed, ends = (_layer(costs, i) for costs in (self.plain, self.routed, self.ends))
        states = ends.state_bytes
        first = Layer(0.0, states * self.embedding, 0.0)
        last = Layer(ends.time_s, states * (1 - self.embedding), ends.kept_bytes)
        return [plain] * self.dense + [routed] * (self.layers - self.dense), first, last


_BUSY = ("compute", "recompute", "tensor_parallel", "context_parallel", "expert_parallel")


def _layer(costs: dict[str, Floats], i: int) -> Layer:
    return Layer(sum(float(costs[name][i]) for name in _BUSY), float(costs["states"][i]), float(costs["kept"][i]))


def layer_costs(workload: Workload, kind: Kind, s: Shardings) -> LayerCosts:
    """Return what each layer takes: the difference that it makes to the price of a model without a pipeline.

    Times are seconds a micro-batch by term of the price; ``tail`` is the gradient exchange and the optimizer, once a
    step; ``states`` and ``kept`` are bytes.
    """
    model, shape = workload.model, Shape.of(workload.model)
    one = np.ones_like(s.pp)
    flat = dataclasses.replace(s, pp=one, vpp=one, last_layers=one * 0, schedule=one * 0)
    plain, routed = dataclasses.replace(shape, experts=0), dataclasses.replace(shape, dense_layers=0)

    def priced(base: Shape, count: int) -> dict[str, Floats]:
        return _whole(workload, kind, dataclasses.replace(base, layers=count), flat)

    first = {base is plain: priced(base, 1) for base in (plain, routed)}
    each = {base is plain: _minus(priced(base, 2), first[base is plain]) for base in (plain, routed)}
    return LayerCosts(
        plain=each[True],
        routed=each[False] if model.experts else each[True],
        ends=_minus(first[True], each[True]),
        embedding=float(shape.table_parameters / (shape.table_parameters + shape.head_parameters)),
        dense=model.experts.dense_layers if model.experts else model.layers,
        layers=model.layers,
    )


def _minus(more: dict[str, Floats], less: dict[str, Floats]) -> dict[str, Floats]:
    return {name: more[name] - less[name] for name in more}


def _whole(workload: Workload, kind: Kind, shape: Shape, s: Shardings) -> dict[str, Floats]:
    """Return what a whole model of that shape takes."""
    run = workload.training
    c, machine, recipe = kind.coefficients, kind.machine, kind.recipe
    time = price(shape, run.sequence_length, run.global_batch, machine, c, s, recipe).time
    held = memory(shape, run.sequence_length, machine, s, c, recipe)
    found: dict[str, Floats] = {name: getattr(time, name) / s.micro_batches for name in _BUSY}
    found["tail"] = time.data_parallel + time.optimizer
    found["states"] = held.parameters + held.gradients + held.optimizer
    found["kept"] = held.activations + held.logits
    return found


def layers_of(workload: Workload, kind: Kind, s: Shardings) -> tuple[list[Layer], Layer, Layer]:
    """Return the layers of a model as one sharding runs them, and what its first and its last stage have beside."""
    return layer_costs(workload, kind, s).of(0)


def stage_layers(workload: Workload, kind: Kind, s: Shardings) -> tuple[int, ...]:
    """Return the layers of each part of one sharding's pipeline, in order; none where all have as many.

    Interleaved parts have as many each, or the first and the last one fewer; plain stages are cut by
    :func:`cut_layers` within the memory that the search grants, and as the search priced them where that finds no cut.
    """
    layers, pp, vpp = workload.model.layers, int(s.pp[0]), int(s.vpp[0])
    if pp == 1 or (vpp > 1 and layers % (pp * vpp) == 0):
        return ()
    if vpp > 1:
        size = (layers + 2) // (pp * vpp)
        return (size - 1, *[size] * (pp * vpp - 2), size - 1)
    m = int(s.micro_batches[0])
    in_flight = [m if s.schedule[0] == GPIPE else min(m, pp - i) for i in range(pp)]
    items, first, last = layers_of(workload, kind, s)
    fixed = float(np.asarray(kind.coefficients.framework_bytes))
    free = kind.free_bytes(workload.request.memory_headroom) - fixed
    cut = cut_layers(items, pp, in_flight=in_flight, free_bytes=free, first=first, last=last)
    sizes = cut.sizes if cut is not None else _as_priced(layers, pp, int(s.last_layers[0]))
    return () if len(set(sizes)) == 1 else sizes


def _as_priced(layers: int, pp: int, last: int) -> tuple[int, ...]:
    """Return the cut with so many layers on the last stage, the others even, the longer ones late: they keep less."""
    if not last:
        return (layers // pp,) * pp
    least, extra = divmod(layers - last, pp - 1)
    return (*[least] * (pp - 1 - extra), *[least + 1] * extra, last)
