"""Priced shardings: what the search keeps, how the best are picked, and which no other beats."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpcplan.cost.shardings import (
    CONTEXT_EXCHANGE,
    DEVICE,
    OFFLOAD,
    ONE_F_ONE_B,
    QUANTIZED,
    RECOMPUTE,
    RECOMPUTE_MLP,
    SCHEDULES,
    Floats,
    Ints,
    Shardings,
)
from hpcplan.cost.step import Costs
from hpcplan.partition.kinds import Kind
from hpcplan.workload.model import Workload

__all__ = ["Found", "describe", "join_costs", "layer_count", "node_count", "undominated"]


_FIRST = 1 << 11  # of the best shardings, looked at first for the best of each combination of degrees


@dataclass(frozen=True, slots=True)
class Found:
    """Arrays of shape (shardings,). ``cost`` and ``energy_kwh`` are of the whole training, NaN where not known."""

    shardings: Shardings
    kind: Ints
    nodes: Ints
    step_s: Floats
    train_s: Floats
    memory_bytes: Floats
    cost: Floats
    energy_kwh: Floats

    @classmethod
    def of(
        cls, workload: Workload, kind: Kind, index: int, shardings: Shardings, step_s: Floats, memory_bytes: Floats
    ) -> Found:
        """Return shardings on one kind of node with what follows from their step time."""
        nodes = shardings.gpus // kind.gpus_per_node
        train_s = step_s * workload.training.steps
        node_hours = train_s / 3600 * nodes

        def total(each: float | None) -> Floats:
            return node_hours * (np.nan if each is None else each)

        return cls(
            shardings=shardings,
            kind=np.full(len(shardings), index, dtype=np.int64),
            nodes=nodes,
            step_s=step_s,
            train_s=train_s,
            memory_bytes=memory_bytes,
            cost=total(kind.node_hour_price),
            energy_kwh=total(kind.node_hour_kwh),
        )

    def __len__(self) -> int:
        return len(self.kind)

    def take(self, index: Ints) -> Found:
        """Return the shardings at these places."""
        names = [field.name for field in dataclasses.fields(self) if field.name != "shardings"]
        return Found(self.shardings.take(index), **{name: getattr(self, name)[index] for name in names})

    @classmethod
    def concatenate(cls, parts: Sequence[Found]) -> Found:
        """Return all of them, one after the other."""
        names = [field.name for field in dataclasses.fields(cls) if field.name != "shardings"]
        columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
        return cls(Shardings.concatenate([part.shardings for part in parts]), **columns)

    def value(self, objective: str) -> Floats:
        """Return what is minimised. With one global batch, time to train is the step time times a constant."""
        if objective == "cost":
            return self.cost
        return self.energy_kwh if objective == "energy" else self.step_s

    def leaders(self, objective: str, keep: int) -> Found:
        """Return the best sharding, then the best of every other (kind, nodes, tp, pp, cp, ep), at most ``keep``."""
        values, s, count = self.value(objective), self.shardings, _FIRST
        while True:
            near = np.arange(len(self))
            if count < len(self):
                near = np.flatnonzero(values <= np.partition(values, count)[count])
            order = near[np.lexsort((self.nodes[near], values[near]))]
            degrees = np.stack([column[order] for column in (self.kind, self.nodes, s.tp, s.pp, s.cp, s.ep)])
            _, first = np.unique(degrees, axis=1, return_index=True)
            if len(first) >= keep or len(near) == len(self):
                return self.take(order[np.sort(first)[:keep]])
            count *= 8

    def objectives(self) -> dict[str, Floats]:
        """Return what may be traded against each other; what is not known of every sharding is left out."""
        columns: dict[str, Floats] = {
            "step_s": self.step_s,
            "cost": self.cost,
            "energy_kwh": self.energy_kwh,
            "nodes": self.nodes.astype(np.float64),
        }
        return {name: values for name, values in columns.items() if not np.isnan(values).any()}

    def front(self) -> Found:
        """Return the shardings that no other beats, by step time; of equals the one enumerated first."""
        return self.take(undominated(np.stack([*self.objectives().values()], axis=1)))


def undominated(values: Floats) -> Ints:
    """Return the rows that no other row beats or equals in every column, in order of the first column.

    Of equal rows the first is returned. ``values`` is of shape (rows, objectives); less is better.
    """
    order = np.lexsort((np.arange(len(values)), *values.T[::-1]))
    left = values[order]
    chosen: list[np.int64] = []
    while len(left):  # the first row in lexicographic order is beaten by none that is left
        chosen.append(order[0])
        better = (left < left[0]).any(axis=1)
        order, left = order[better], left[better]
    return np.array(chosen, dtype=np.int64)


def join_costs(parts: Sequence[tuple[Ints, Costs]], count: int) -> Costs:
    """Return the costs of ``count`` shardings from those of parts of them, with the places of each."""
    return _join(Costs, parts, count)  # type: ignore[no-any-return]


def _join(kind: type[Any], parts: Sequence[tuple[Ints, Any]], count: int) -> Any:
    columns: dict[str, Any] = {}
    for field in dataclasses.fields(kind):
        values = [(rows, getattr(part, field.name)) for rows, part in parts]
        if dataclasses.is_dataclass(values[0][1]):
            columns[field.name] = _join(type(values[0][1]), values, count)
            continue
        column: NDArray[Any] = np.empty(count)
        for rows, part in values:
            column[rows] = part
        columns[field.name] = column
    return kind(**columns)


def node_count(nodes: int | np.int64) -> str:
    """Return ``1 node`` or ``8 nodes``."""
    return f"{nodes} node" + ("" if nodes == 1 else "s")


def layer_count(layers: int | np.int64) -> str:
    """Return ``1 layer`` or ``8 layers``."""
    return f"{layers} layer" + ("" if layers == 1 else "s")


def describe(s: Shardings, i: int) -> str:
    """Return ``tp 8, pp 4, dp 2, micro-batch 1, recompute full`` for one sharding."""
    words = [f"tp {s.tp[i]}", f"pp {s.pp[i]}"]
    words += [f"vpp {s.vpp[i]}"] if s.vpp[i] > 1 else []
    words += [f"{SCHEDULES[s.schedule[i]]}"] if s.schedule[i] != ONE_F_ONE_B else []
    how = f" by {CONTEXT_EXCHANGE[s.context_exchange[i]]}" if s.context_exchange[i] else ""
    words += [f"cp {s.cp[i]}{how}"] if s.cp[i] > 1 else []
    words += [f"ep {s.ep[i]}"] if s.ep[i] > 1 else []
    groups = f" in groups of {s.shard_group[i]}" if s.shard_group[i] else ""
    groups += f" with hpZ in {s.secondary_group[i]}s" if s.secondary_group[i] else ""
    groups += f" with {QUANTIZED[s.quantized[i]]} quantized" if s.quantized[i] else ""
    words += [f"dp {s.dp[i]}", f"micro-batch {s.micro_batch[i]}", f"ZeRO {s.zero[i]}{groups}"]
    some = f" of {layer_count(s.spared_layers[i])} a rank" if s.spared_layers[i] else ""
    blocks = f" in blocks of {s.recompute_block[i]}" if s.recompute_block[i] > 1 else ""
    mlp = f" and of MLPs {RECOMPUTE_MLP[s.recompute_mlp[i]]}" if s.recompute_mlp[i] else ""
    words += [f"recompute {RECOMPUTE[s.recompute[i]]}{some}{blocks}{mlp}"]
    words += [f"optimizer on {OFFLOAD[s.offload[i]]}"] if s.offload[i] != DEVICE else []
    return ", ".join(words)
