"""Measured rows as arrays, so that all of them are priced in one call."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpcplan.calibrate.hardware import site_name
from hpcplan.calibrate.rows import Row
from hpcplan.cost.coefficients import NAMES, Coefficients
from hpcplan.cost.machine import Machine, machine_of, slowest
from hpcplan.cost.memory import Memory, by_stage, memory
from hpcplan.cost.recipe import Recipe
from hpcplan.cost.shape import Shape
from hpcplan.cost.shardings import NONE, RECOMPUTE, SCHEDULES, SELECTIVE, Floats, Ints, Shardings
from hpcplan.cost.step import Costs, price
from hpcplan.errors import InputError
from hpcplan.plan import Precision
from hpcplan.site.catalogue import accelerators
from hpcplan.site.load import load_site
from hpcplan.site.model import NodeGroup
from hpcplan.site.topology import build_topology

__all__ = ["Batch", "System", "known_system", "make_batch", "system_of"]

_MOST_VIRTUAL_STAGES = 12
_SAVES = 0.9  # share of the activations below which selective recomputation is worth while beside fused attention
_ROOM = 0.95  # share of the memory that a run is taken to have used, where what it left out of it is not said
_GRAPHED = {"attention-graph": 0.5, "router-graph": 0.3}  # of a layer's kernels outside experts, counted
_MICRO_BATCHES = (1, 2, 4, 8, 16)  # tried, largest memory last, where a table does not say


@dataclass(frozen=True, slots=True)
class System:
    """Where a row ran: the machine at the row's precision, its accelerator and its family."""

    machine: Machine
    accelerator: str
    family: str


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows and what pricing them takes, as arrays of shape (rows,). ``notes`` says, row by row, what was inferred."""

    rows: tuple[Row, ...]
    systems: tuple[System, ...]
    shape: Shape
    machine: Machine
    shardings: Shardings
    sequence: Floats
    global_batch: Floats
    recipe: Recipe
    notes: tuple[tuple[str, ...], ...]

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, index: NDArray[np.int64]) -> Batch:
        """Return the rows at these places."""

        def of(values: Any) -> Any:
            return type(values)(*(getattr(values, field.name)[index] for field in dataclasses.fields(values)))

        return Batch(
            tuple(self.rows[i] for i in index), tuple(self.systems[i] for i in index), of(self.shape),
            of(self.machine), self.shardings.take(index), self.sequence[index], self.global_batch[index],
            of(self.recipe), tuple(self.notes[i] for i in index),
        )  # fmt: skip

    def price(self, coefficients: Coefficients) -> Costs:
        """Return the costs of every row; coefficients are scalars or arrays of shape (rows,)."""
        return price(
            self.shape,
            self.sequence,
            self.global_batch,
            self.machine,
            coefficients,
            self.shardings,
            self.recipe,
        )

    def memory_bytes(self, c: Coefficients) -> tuple[Floats, Floats]:
        """Return the memory of every row as its own figure counts it, and what the card holds, in bytes.

        Where a row states its cut into stages, that is of its fullest one.
        """

        def held(c: Coefficients) -> Memory:
            return memory(self.shape, self.sequence, self.machine, self.shardings, c, self.recipe)

        reported, card = _figures(self.rows, c, held)
        cut = [i for i, row in enumerate(self.rows) if row.stage_layers]
        if cut:
            counts = np.array([len(self.rows[i].stage_layers) for i in cut])
            every, begins = np.repeat(cut, counts), np.cumsum(counts) - counts
            layers = np.concatenate([np.array(self.rows[i].stage_layers) for i in cut])
            found = self.take(every)._stages(c.take(every) if np.ndim(c.link_efficiency) else c, layers, begins)
            reported[cut], card[cut] = (np.maximum.reduceat(values, begins) for values in found)
        return reported, card

    def _stages(self, c: Coefficients, layers: Ints, begins: Ints) -> tuple[Floats, Floats]:
        """Return the same of stages, one a row, of so many layers; ``begins`` are the rows of first stages."""
        stage = np.arange(len(layers)) - np.repeat(begins, np.diff(begins, append=len(layers)))

        def held(c: Coefficients) -> Memory:
            return by_stage(
                self.shape, self.sequence, self.machine, self.shardings, c, self.recipe, stage, layers
            )  # fmt: skip

        return _figures(self.rows, c, held)

    def coefficients(self, base: Coefficients, logs: NDArray[np.float64]) -> Coefficients:
        """Return ``base`` times the exponential of ``logs``, of shape (rows, constants)."""
        factors = np.exp(logs)
        return Coefficients(**{name: getattr(base, name) * factors[:, i] for i, name in enumerate(NAMES)})


def _figures(rows: Sequence[Row], c: Coefficients, held: Callable[[Coefficients], Memory]) -> tuple[Floats, Floats]:
    """Return the memory of rows as their figures count it, and what the card holds.

    A figure may be what the allocator reserved, without CUDA's context and NCCL's buffers, or what it had handed out at
    the most: tensors alone, without what fragments.
    """
    found, counted = held(c), np.array([row.memory_counted for row in rows])
    reported = np.where(counted == "card", found.total, found.reserved)
    if np.any(counted == "allocated"):
        tensors = held(dataclasses.replace(c, activation_fragmentation=np.ones_like(c.activation_fragmentation)))
        reported = np.where(counted == "allocated", tensors.reserved - tensors.framework, reported)
    return reported, found.total


@cache
def system_of(name: str, precision: Precision, hardware: str = "") -> System:
    """Return the system of that site name: the node groups whose accelerators ``hardware`` names, else the first.

    A run over several pools goes at the pace of the slowest; see :func:`hpcplan.cost.machine.slowest`.

    Raises:
        InputError: no site is called so.
    """
    site = load_site(name).site
    pools = [group for group, node in site.node_groups.items() if node.accelerators]
    named = [group for group in pools if _names(hardware, site.node_groups[group])] or pools[:1]
    node = site.node_groups[named[0]].accelerators
    assert node is not None
    chip = {**accelerators(), **site.accelerators}[node.type]
    topology = build_topology(site)
    machines = [machine_of(site, topology, group, precision) for group in named]
    return System(slowest(machines), node.type, chip.family or node.type)


def _names(hardware: str, group: NodeGroup) -> bool:
    """Tell whether a hardware column names a group's accelerators: ``16x RTX-2080`` those of RTX-2080-8GB."""
    plain = re.sub(r"[^a-z0-9]", "", hardware.lower())
    chip = re.sub(r"-\d+GB.*$", "", group.accelerators.type if group.accelerators else "")
    return bool(chip) and re.sub(r"[^a-z0-9]", "", chip.lower()) in plain


def make_batch(rows: Sequence[Row], base: Coefficients | Callable[[Batch], Coefficients]) -> Batch:
    """Return the rows as arrays; recomputation and micro-batch are inferred where a row does not say.

    Recomputation is none, or selective where that would not fit; micro-batch and virtual stages are the fastest: what a
    tuned run would have used. ``base`` are the constants to infer by, of all rows or of each.

    Raises:
        InputError: a row names a site that is not known (see :func:`known_system`).
    """
    named = [site_name(row.site, row.hardware) for row in rows]
    systems = tuple(system_of(name, row.precision, row.hardware) for row, (name, _) in zip(rows, named, strict=True))
    micro = np.array([row.micro_batch or 1 for row in rows], dtype=np.int64)
    virtual = np.array([row.vpp or 1 for row in rows], dtype=np.int64)
    shardings = Shardings(
        tp=_column(rows, "tp"), pp=_column(rows, "pp"), vpp=virtual, dp=_column(rows, "dp"),
        cp=_column(rows, "cp"), ep=_column(rows, "ep"), micro_batch=micro, micro_batches=_counts(rows, micro),
        zero=_column(rows, "zero"), recompute=np.array([row.recompute or NONE for row in rows], dtype=np.int64),
        sequence_parallel=_column(rows, "sequence_parallel"),
        schedule=np.array([SCHEDULES.index(row.schedule) for row in rows], dtype=np.int64),
        last_layers=np.array([row.stage_layers[-1] if row.stage_layers else 0 for row in rows], dtype=np.int64),
        fullest_layers=np.array([max(row.stage_layers, default=0) for row in rows], dtype=np.int64),
        shard_group=_column(rows, "shard_group"),
        spared_layers=_column(rows, "recompute_layers"),
        kept_layers=np.array([_kept_layers(row) for row in rows], dtype=np.int64),
    )  # fmt: skip
    batch = Batch(
        rows=tuple(rows),
        systems=systems,
        shape=Shape.stack([Shape.of(row.model) for row in rows]),
        machine=Machine.stack([system.machine for system in systems]),
        shardings=shardings,
        sequence=np.array([float(row.sequence) for row in rows]),
        global_batch=np.array([float(row.global_batch) for row in rows]),
        recipe=Recipe.stack([_recipe(row) for row in rows]),
        notes=tuple((note,) if note else () for _, note in named),
    )
    c = base if isinstance(base, Coefficients) else base(batch)
    batch = _infer_recompute(batch, c)
    return _infer_virtual_stages(_infer_micro_batch(batch, c), c)


def _kept_layers(row: Row) -> int:
    """Return of how many layers the fullest stage of a stated cut keeps activations; 0 where no cut is stated."""
    m = max(1, row.global_batch // row.dp // (row.micro_batch or 1))
    s = Shardings.of(pp=row.pp, vpp=row.vpp or 1, micro_batches=m, schedule=SCHEDULES.index(row.schedule))
    return round(max((size * float(s.in_flight(stage)[0]) for stage, size in enumerate(row.stage_layers)), default=0))


def _recipe(row: Row) -> Recipe:
    return Recipe(
        flash=float(row.flash),
        dispatch_once=float(row.framework == "nemo" and "all-to-all" not in row.features),  # DeepEP and HybridEP
        graphed=sum(share for name, share in _GRAPHED.items() if name in row.features),
        fused_experts=float("fused-experts" in row.features),
        owner_after_owner=float(row.framework == "internevo"),  # its HybridZeroOptimizer
        adapter_rank=row.adapter_rank,
        frozen_bytes=row.frozen_bytes,
    )


def known_system(row: Row) -> str | None:
    """Return why a row's system cannot be priced, ``None`` if it can."""
    try:
        system_of(site_name(row.site, row.hardware)[0], row.precision)
    except InputError as error:
        return f"site {row.site!r}: {error.message}"
    return None


def _column(rows: Sequence[Row], name: str) -> Ints:
    return np.array([int(getattr(row, name)) for row in rows], dtype=np.int64)


def _counts(rows: Sequence[Row], micro: Ints) -> Ints:
    shares = [row.global_batch // row.dp for row in rows]
    return np.array([max(1, share // int(size)) for share, size in zip(shares, micro, strict=True)], dtype=np.int64)


def _with(batch: Batch, notes: list[str], **changes: Ints) -> Batch:
    added = tuple((*old, note) if note else old for old, note in zip(batch.notes, notes, strict=True))
    return dataclasses.replace(batch, shardings=dataclasses.replace(batch.shardings, **changes), notes=added)


def _infer_recompute(batch: Batch, c: Coefficients) -> Batch:
    """Infer none, or selective where none would not fit: full recomputation says so, as it costs a third.

    Selective recomputation drops the scores, which fused attention does not keep, unless the trainer drops more. Where
    that is not enough, activations of as few layers as it takes are inferred to be elsewhere: recipes drop those of
    single operators, or keep them on the host, and say neither.
    """
    open_ = np.array([row.recompute is None for row in batch.rows])
    chosen = np.where(open_, NONE, batch.shardings.recompute)
    layers = batch.shardings.spared_layers.copy()
    saves = (np.asarray(batch.recipe.flash) == 0) | (np.asarray(c.selective_kept) < _SAVES)
    chosen = np.where(open_ & saves & _over(batch, c, chosen, layers), SELECTIVE, chosen)
    wanting = open_ & _over(batch, c, chosen, layers, _ROOM)
    for count in range(1, int(batch.shardings.stage_layers(batch.shape.layers).max()) + 1):
        if not wanting.any():
            break
        layers = np.where(wanting, count, layers)
        wanting = wanting & _over(batch, c, chosen, layers, _ROOM)
    layers = np.where(wanting, batch.shardings.spared_layers, layers)  # nothing makes it fit
    some = [f", activations of {count} layers a stage elsewhere" if count else "" for count in layers]
    notes = [
        f"recompute {RECOMPUTE[level]} inferred{part}" if told else ""
        for told, level, part in zip(open_, chosen, some, strict=True)
    ]
    return _with(batch, notes, recompute=chosen, spared_layers=layers)


def _over(batch: Batch, c: Coefficients, recompute: Ints, layers: Ints, share: float = 1.0) -> NDArray[np.bool_]:
    """Tell which rows would not fit with that recomputation into a share of the accelerator's memory."""
    s = dataclasses.replace(batch.shardings, recompute=recompute, spared_layers=layers)
    needed = memory(batch.shape, batch.sequence, batch.machine, s, c, batch.recipe).total
    return np.asarray(needed > share * batch.machine.memory_bytes)


def _infer_micro_batch(batch: Batch, base: Coefficients) -> Batch:
    open_ = np.array([row.micro_batch is None for row in batch.rows])
    share = np.array([row.global_batch // row.dp for row in batch.rows])
    chosen, best = batch.shardings.micro_batch.copy(), np.full(len(batch), np.inf)
    for size in _MICRO_BATCHES:
        trial_size = np.where(open_ & (share % size == 0), size, batch.shardings.micro_batch)
        counts = _counts(batch.rows, trial_size)
        costs = _with(batch, [""] * len(batch), micro_batch=trial_size, micro_batches=counts).price(base)
        better = (costs.memory_bytes <= batch.machine.memory_bytes) & (costs.step_s < best)
        chosen, best = np.where(better, trial_size, chosen), np.where(better, costs.step_s, best)
    notes = [f"micro_batch {size} inferred" if o else "" for o, size in zip(open_, chosen, strict=True)]
    return _with(batch, notes, micro_batch=chosen, micro_batches=_counts(batch.rows, chosen))


def _infer_virtual_stages(batch: Batch, base: Coefficients) -> Batch:
    """Infer the fastest interleaving that divides a stage's layers and whose micro-batches divide by the stages.

    A cut that is stated by stages is taken to be of plain ones.
    """
    open_ = np.array([row.vpp is None and not row.stage_layers for row in batch.rows])
    s = batch.shardings
    held = np.ceil(batch.shape.layers / s.pp)
    can = open_ & (s.micro_batches % s.pp == 0)
    chosen, best = s.vpp.copy(), batch.price(base).step_s
    for stages in range(2, _MOST_VIRTUAL_STAGES + 1):
        trial = np.where(can & (held % stages == 0), stages, s.vpp)
        step_s = _with(batch, [""] * len(batch), vpp=trial).price(base).step_s
        chosen, best = np.where(step_s < best, trial, chosen), np.minimum(step_s, best)
    notes = [f"vpp {stages} inferred" if o else "" for o, stages in zip(open_, chosen, strict=True)]
    return _with(batch, notes, vpp=chosen)
