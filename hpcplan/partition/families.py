"""Shardings in families that differ in nothing but recomputation and offload, and what of them need not be priced.

Three proofs keep the table small. What fits without recomputation and offload is no slower than with them
(:mod:`hpcplan.partition.prune`). Of all numbers of recomputed layers the least that fits is the best
(:mod:`hpcplan.partition.levers`). And of two groups that ZeRO divides over, the larger one needs less memory and leaves
each rank fewer states to step; where its ranks exchange data no longer than those of the smaller, it is no slower.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from hpcplan.cost.shardings import ACTIVATION, CPU, DEVICE, FULL, NONE, NVME, Floats, Ints, Shardings
from hpcplan.partition.candidates import (
    SMALL,
    Columns,
    Space,
    distinct,
    expand,
    frames_of,
    keep,
    sizes_of,
)
from hpcplan.partition.levers import ALL, LEVERS, SOME, Fits, block_choices, layer_choices, settle

__all__ = ["Blocks", "Exchange", "Family", "enumerate_families", "enumerate_shardings", "families"]

_FRAMES = 1 << 12  # rows expanded at a time
_SOME = np.array([layers == SOME for _, layers, _, _ in LEVERS])
_ALL = np.array([again == FULL and layers == ALL for again, layers, _, _ in LEVERS])
Blocks = Callable[[Shardings], Ints]
"""In what blocks layers that are all recomputed in full need least memory."""
Exchange = Callable[[Shardings], Floats]
"""Seconds that data-parallel ranks exchange data, up to a factor that is the same for all groups that ZeRO may have."""


@dataclass(frozen=True, slots=True)
class Family:
    """Shardings, and which of them differ in their levers alone: arrays of shape (candidates,).

    Rows of one ``base`` have everything in common but recomputation and offload; ``lever`` indexes ``LEVERS``. A row
    that recomputes some layers also stands for ``fewer`` shardings with a smaller number of them, which do not fit and
    of which ``below`` is the largest, and ``more`` with a larger. One that fits without any lever may stand for all
    others of its base. ``skipped`` counts shardings that were left out because they cannot fit, ``grouped`` those with
    a smaller group than another that exchanges data no longer.
    """

    shardings: Shardings
    base: Ints
    lever: Ints
    fewer: Ints
    more: Ints
    below: Ints
    skipped: int = 0
    grouped: int = 0

    @property
    def candidates(self) -> int:
        """Shardings that are here, that its rows stand for, and that were left out."""
        return len(self.base) + int(self.fewer.sum() + self.more.sum()) + self.skipped + self.grouped

    @classmethod
    def concatenate(cls, parts: Sequence[Family]) -> Family:
        """Return all of them, one after the other; no two parts share a base."""
        if len(parts) == 1:
            return parts[0]
        sizes = [int(part.base[-1]) + 1 if len(part.base) else 0 for part in parts]
        starts = np.cumsum([0, *sizes[:-1]])
        base = np.concatenate([part.base + start for part, start in zip(parts, starts, strict=True)])
        shardings = Shardings.concatenate([part.shardings for part in parts])
        lever, fewer, more, below = (
            np.concatenate([getattr(part, name) for part in parts]) for name in ("lever", "fewer", "more", "below")
        )
        skipped, grouped = (sum(getattr(part, name) for part in parts) for name in ("skipped", "grouped"))
        return cls(shardings, base, lever, fewer, more, below, skipped, grouped)


def _levers(space: Space, zero: int, choices: int) -> list[int]:
    """Return which of ``LEVERS`` there are: recomputation, and offload where states are divided first."""
    can, fixed = space.capabilities, space.fixed
    places = {DEVICE} | {place for place in can.offload if zero >= can.offload_from}
    places -= ({CPU} if not space.host_offload else set()) | ({NVME} if not space.nvme_offload else set())
    kinds = can.recompute if zero >= can.recompute_from else (NONE,)
    no_activation = space.precision in can.activation_not_in or (
        space.shape.experts is None and can.activation == "experts"
    )
    mlps = {mlp for mlp in can.recompute_mlp if not (mlp == ACTIVATION and no_activation)}
    return [
        i
        for i, (again, layers, where, mlp) in enumerate(LEVERS)
        if again in kinds
        and where in places
        and (mlp == 0 or (mlp in mlps and len(kinds) > 1))
        and (choices > 0 if layers == SOME else not fixed.get("recompute_layers"))
        and fixed.get("recompute", again) == again
        and fixed.get("recompute_mlp", mlp) == mlp
        and (fixed.get("recompute_block", 1) == 1 or (again == FULL and layers == ALL and can.blocks is not None))
        and fixed.get("offload", where) == where
    ]


def families(
    spaces: Iterable[Space],
    fits: Fits | None = None,
    exchange: Exchange | None = None,
    blocks: Blocks | None = None,
    *,
    skim: bool = False,
    lean: bool = False,
) -> Iterator[Family]:
    """Yield every sharding of some spaces, in a fixed order, some thousands at a time; levers vary fastest.

    The spaces differ in nothing but the number of accelerators; small ones are looked at together. With ``fits`` only
    the least number of recomputed layers that fits is there, and stands for the others. With ``exchange`` groups that
    ZeRO divides over are counted and left out where a larger one, which needs no more memory, exchanges data no longer.
    Memory grows with the micro-batch: with ``skim``, those with which nothing fits, whatever the levers, are counted
    and left out. With ``lean`` so are all levers of what fits without. Where layers that are all recomputed do not fit
    one by one, ``blocks`` says in what blocks they need least, and the others are counted.
    """
    for space, frames in _together(spaces):
        yield from _families(space, frames, fits, exchange, blocks, skim, lean)


def _together(spaces: Iterable[Space]) -> Iterator[tuple[Space, Columns]]:
    """Yield one of some spaces and the rows of them all, so many that it is worth the while."""
    held: list[Columns] = []
    last: Space | None = None
    rows = parents = 0
    for last in spaces:
        frames = frames_of(last)
        frames["parent"] += parents
        parents = int(frames["parent"][-1]) + 1 if len(frames["parent"]) else parents
        rows += len(frames["parent"])
        held.append(frames)
        if rows >= _FRAMES:
            yield last, {name: np.concatenate([frames[name] for frames in held]) for name in held[0]}
            held, rows, parents = [], 0, 0
    if held and last is not None:
        yield last, {name: np.concatenate([frames[name] for frames in held]) for name in held[0]}


def _families(
    space: Space,
    frames: Columns,
    fits: Fits | None,
    exchange: Exchange | None,
    blocks: Blocks | None,
    skim: bool,
    lean: bool,
) -> Iterator[Family]:
    skipped = grouped = 0
    if space.fixed.get("recompute_block", 1) > 1 and space.capabilities.blocks == "pipeline":
        frames = keep(frames, frames["pp"] > 1)
    levers = _Levers(space, frames, blocks)
    frames |= {"choices": levers.choices, "blocks_of": levers.blocks_of, "fitting": levers.sizes(frames)}
    if exchange is not None and len(frames["tp"]):
        best = _best_groups(frames, exchange)
        grouped = int(levers.shardings_of(frames)[~best].sum())
        frames = keep(frames, best)
    if skim and fits is not None and len(frames["tp"]):
        everything = int(levers.shardings_of(frames).sum())
        frames["fitting"] = levers.sizes_that_fit(frames, fits)
        skipped = everything - int(levers.shardings_of(frames).sum())
        frames = keep(frames, frames["fitting"] > 0)
    for start in range(0, max(1, len(frames["tp"])), _FRAMES):
        part = {name: values[start : start + _FRAMES] for name, values in frames.items()}
        key = part["sizes"] * SMALL + part["fitting"]
        part = expand(part, "micro_batch", key, lambda key: sizes_of(space, key // SMALL)[: key % SMALL])
        part = levers.with_micro_batches(part)
        if fits is None:
            yield levers.enumerated(part)
        else:
            yield levers.settled(part, fits, lean, (skipped, grouped) if start == 0 else (0, 0))


class _Levers:
    """Which levers the rows of a space have.

    ``choices`` says which list of numbers of recomputed layers each row has, ``blocks_of`` which list of blocks.
    """

    def __init__(self, space: Space, frames: Columns, blocks: Blocks | None) -> None:
        self.space, self.least_blocks = space, blocks
        layers, last = space.shape.layers, frames["last_layers"]
        others = -(-(layers - last) // np.maximum(1, frames["pp"] - 1))
        held = np.where(last > 0, others, -(-layers // frames["pp"]))
        keys, self.choices = distinct(held * SMALL + frames["vpp"])
        kind = space.capabilities.some_layers
        self.numbers = [layer_choices(kind, *divmod(int(key), SMALL), space.fixed) for key in keys]
        can, keys = space.capabilities.blocks, held * SMALL + frames["vpp"]
        keys, self.blocks_of = distinct(2 * keys + (frames["pp"] > 1))
        able = [can == "always" or (can == "pipeline" and key % 2 == 1) for key in keys.tolist()]
        self.sizes_of_blocks = [
            block_choices(key // 2 // SMALL, key // 2 % SMALL, space.fixed) if each else [0]
            for key, each in zip(keys.tolist(), able, strict=True)
        ]
        self.block_counts = np.array([len(sizes) for sizes in self.sizes_of_blocks], dtype=np.int64)
        self.has_some = np.array([len(numbers) > 0 for numbers in self.numbers], dtype=np.int64)

    def with_micro_batches(self, t: Columns) -> Columns:
        """Return rows with their number of micro-batches, each as a base of its own."""
        batches = self.space.global_batch // (t["dp"] * t["micro_batch"])
        return t | {"micro_batches": batches, "base": np.arange(len(batches))}

    def settled(self, t: Columns, fits: Fits, lean: bool, left_out: tuple[int, int]) -> Family:
        """Return a family with, of numbers of recomputed layers, the least that fits."""
        alone = np.zeros(len(t["base"]), dtype=np.bool_)
        if lean and 0 in _levers(self.space, 0, 0):
            nothing = np.zeros_like(t["base"])
            alone = fits(_shardings(t | {"recompute": nothing, "offload": nothing}))
        t = self._expanded(t, alone)
        rows = np.flatnonzero(_SOME[t["lever"]])
        names = ("spared_layers", "fewer", "more", "below")
        t |= {name: np.zeros_like(t["tp"]) for name in names}
        if len(rows):
            found = settle(_shardings(_rows(t, rows)), self.numbers, t["choices"][rows], fits)
            for name, values in zip(names, found, strict=True):
                t[name][rows] = values
        t = self._in_blocks(t, fits)
        if alone.any():
            first = np.flatnonzero(alone[t["base"]])
            t["more"][first] = self._count(_rows(t, first)) - 1
        return Family(_shardings(t), t["base"], t["lever"], t["fewer"], t["more"], t["below"], *left_out)

    def _in_blocks(self, t: Columns, fits: Fits) -> Columns:
        """Return rows whose layers are all recomputed in the blocks that need least, where one by one they do not fit.

        The others are counted in ``more``.
        """
        rows = np.flatnonzero(_ALL[t["lever"]] & (self.block_counts[t["blocks_of"]] > 1))
        if not len(rows) or self.least_blocks is None:
            return t
        t["more"][rows] = self.block_counts[t["blocks_of"][rows]] - 1
        rows = rows[~fits(_shardings(_rows(t, rows)))]
        size = np.zeros_like(t["tp"])
        size[rows] = self.least_blocks(_shardings(_rows(t, rows)))
        return t | {"recompute_block": size}

    def enumerated(self, t: Columns) -> Family:
        """Return a family with each number of recomputed layers, and each size of blocks, by itself."""
        t = self._expanded(t, np.zeros(len(t["base"]), dtype=np.bool_))
        key = np.where(_SOME[t["lever"]], t["choices"] + 1, 0)
        t = expand(t, "spared_layers", key, lambda key: self.numbers[key - 1] if key else [0])
        key = np.where(_ALL[t["lever"]], t["blocks_of"] + 1, 0)
        t = expand(t, "recompute_block", key, lambda key: self.sizes_of_blocks[key - 1] if key else [0])
        nothing = np.zeros_like(t["tp"])
        return Family(_shardings(t), t["base"], t["lever"], nothing, nothing, nothing)

    def sizes_that_fit(self, frames: Columns, fits: Fits) -> Ints:
        """Return how many micro-batches of each row, the smallest first, fit with some lever."""
        keys, which = distinct(frames["sizes"])
        sizes = [sizes_of(self.space, int(key)) for key in keys]
        counts = frames["fitting"]
        table = np.array([[*values, *[0] * (int(counts.max()) - len(values))] for values in sizes], dtype=np.int64)
        low, high = np.zeros_like(counts), counts.copy()
        open_, tried = np.arange(len(counts)), np.ones_like(counts)  # most fit with none, or with many
        while len(open_):
            rows = _rows(frames, open_) | {"micro_batch": table[which[open_], tried - 1]}
            good = self._any_fits(self.with_micro_batches(rows), fits)
            low[open_[good]] = tried[good]
            high[open_[~good]] = tried[~good] - 1
            open_ = open_[low[open_] < high[open_]]
            tried = (low[open_] + high[open_] + 1) // 2
        return low

    def _any_fits(self, t: Columns, fits: Fits) -> NDArray[np.bool_]:
        """Return which rows fit with some lever.

        The most offload needs least; so does the most recomputation, but where what a layer at work holds is more.
        """
        found = np.zeros(len(t["base"]), dtype=np.bool_)
        t = self._expanded(t, found)
        most = np.array([numbers[-1] if numbers else 0 for numbers in self.numbers], dtype=np.int64)
        t["spared_layers"] = np.where(_SOME[t["lever"]], most[t["choices"]], 0)
        last, offload = np.flatnonzero(np.diff(t["base"], append=-1)), np.zeros(len(found), dtype=np.int64)
        found[t["base"][last[fits(_shardings(_rows(t, last)))]]] = True
        wide = last[~found[t["base"][last]] & (self.block_counts[t["blocks_of"][last]] > 1) & _ALL[t["lever"][last]]]
        if len(wide) and self.least_blocks is not None:
            in_blocks = _shardings(_rows(t, wide))
            in_blocks = replace(in_blocks, recompute_block=self.least_blocks(in_blocks))
            found[t["base"][wide[fits(in_blocks)]]] = True
        offload[t["base"][last]] = t["offload"][last]
        others = np.flatnonzero(~found[t["base"]] & (t["offload"] == offload[t["base"]]))
        found[t["base"][others[fits(_shardings(_rows(t, others)))]]] = True
        return found

    def sizes(self, frames: Columns) -> Ints:
        """Return how many micro-batches each row has."""
        keys, place = distinct(frames["sizes"])
        return np.array([len(sizes_of(self.space, int(key))) for key in keys], dtype=np.int64)[place]

    def shardings_of(self, frames: Columns) -> Ints:
        """Return how many shardings each row stands for, with its smallest ``fitting`` micro-batches."""
        return frames["fitting"] * self._count(frames)

    def _expanded(self, t: Columns, alone: NDArray[np.bool_]) -> Columns:
        """Return rows once for each lever, or with none where they stay alone."""
        key = np.where(alone, 0, 1 + self.has_some[t["choices"]] * 4 + t["zero"])
        t = expand(
            t, "lever", key, lambda key: _levers(self.space, (key - 1) % 4, (key - 1) // 4) if key else [0]
        )  # fmt: skip
        t["recompute"], _, t["offload"], t["recompute_mlp"] = np.array(LEVERS, dtype=np.int64)[t["lever"]].T
        only = self.space.fixed.get("recompute_block", 1)
        return t | {"recompute_block": np.full_like(t["tp"], only)} if only > 1 else t

    def _count(self, t: Columns) -> Ints:
        """Return how many levers each row has, each number of recomputed layers counted."""
        plain, some, every = (np.zeros((2, 4), dtype=np.int64) for _ in range(3))
        for has_some, zero in np.ndindex(2, 4):
            found = _levers(self.space, zero, has_some)
            some[has_some, zero], every[has_some, zero] = _SOME[found].sum(), _ALL[found].sum()
            plain[has_some, zero] = len(found) - some[has_some, zero]
        sizes = np.array([len(numbers) for numbers in self.numbers], dtype=np.int64)
        at = self.has_some[t["choices"]], t["zero"]
        blocks = self.block_counts[t["blocks_of"]] - 1
        return np.asarray(plain[at] + some[at] * sizes[t["choices"]] + every[at] * blocks, dtype=np.int64)


def _rows(columns: Columns, rows: Ints) -> Columns:
    return {name: values[rows] for name, values in columns.items()}


def _shardings(t: Columns) -> Shardings:
    return Shardings(**{field.name: t[field.name] for field in fields(Shardings) if field.name in t})


def _best_groups(frames: Columns, exchange: Exchange) -> NDArray[np.bool_]:
    """Return which rows exchange data for less time than all with a larger group, which come before them.

    Groups that ZeRO divides over, and those that keep weights once more beside it, are compared among themselves: in
    either, larger ones need less memory, and none least.
    """
    second = frames["secondary_group"] > 0
    best = np.ones(len(second), dtype=np.bool_)
    for rows, of_kind in (
        (np.flatnonzero(~second), frames["shard_group"] > 0),
        (np.flatnonzero(frames["shard_group"] == 0), second),
    ):
        if of_kind[rows].any():
            best[rows[of_kind[rows]]] = _shorter(_rows(frames, rows), exchange)[of_kind[rows]]
    return best


def _shorter(frames: Columns, exchange: Exchange) -> NDArray[np.bool_]:
    """Return which rows exchange data for less time than all of the same parent before them."""
    begins = np.flatnonzero(np.diff(frames["parent"], prepend=-1))
    counts = np.diff(np.append(begins, len(frames["parent"])))
    best = np.ones(len(frames["parent"]), dtype=np.bool_)
    rows = np.flatnonzero(np.repeat(counts > 1, counts))
    if not len(rows):
        return best
    line, place = np.repeat(np.arange(len(counts)), counts)[rows], rows - np.repeat(begins, counts)[rows]
    times = np.full((len(counts), int(counts.max())), np.inf)
    one = np.ones_like(rows)
    fixed = {"micro_batch": one, "micro_batches": one, "recompute": one * NONE}
    times[line, place] = exchange(_shardings(_rows(frames, rows) | fixed))
    least = np.minimum.accumulate(times, axis=1)
    best[rows] = (place == 0) | (times[line, place] < least[line, place - 1])
    return best


def enumerate_families(space: Space) -> Family:
    """Return every sharding of the space at once, possibly none."""
    return Family.concatenate([*families([space])])


def enumerate_shardings(space: Space) -> Shardings:
    """Return every sharding of the space, in a fixed order; possibly none."""
    return enumerate_families(space).shardings
