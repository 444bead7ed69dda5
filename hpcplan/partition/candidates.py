"""Every sharding that a framework can run on so many accelerators: the search space, enumerated without gaps.

What is left out cannot run: a tensor-parallel group that does not divide the heads, stages that do not divide the
layers, batches that do not divide, interleaving whose micro-batches are no multiple of the stages, and what the
framework does not have (:mod:`hpcplan.partition.frameworks`). The table is built a column at a time with NumPy: each
column repeats the rows that are there once for each value that it can have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import gcd

import numpy as np
from numpy.typing import NDArray

from hpcplan.cost.shardings import ALL_TO_ALL, ONE_F_ONE_B, RING, Ints
from hpcplan.frameworks import Framework
from hpcplan.partition.frameworks import Capabilities, capabilities
from hpcplan.plan import Precision
from hpcplan.workload.arithmetic import attention_parameters, dense_ffn_parameters, expert_parameters
from hpcplan.workload.model import ModelShape

__all__ = [
    "SMALL",
    "Columns",
    "Space",
    "distinct",
    "divides_heads",
    "divisors",
    "expand",
    "frames_of",
    "keep",
    "sizes_of",
]

Columns = dict[str, Ints]

_TOKENS_A_CONTEXT_RANK = 2048
_KEY = 1 << 20  # two numbers in one: neither layers, stages nor nodes come near
SMALL = 1 << 12


@dataclass(frozen=True, slots=True)
class Space:
    """What bounds the search on one number of nodes.

    ``host_offload`` and ``nvme_offload`` say whether the nodes have somewhere to put optimizer states.
    """

    shape: ModelShape
    sequence: int
    global_batch: int
    gpus: int
    gpus_per_domain: int  # joined by NVLink or the like
    framework: Framework
    fixed: Mapping[str, int]
    host_offload: bool = False
    nvme_offload: bool = False
    precision: Precision = "bf16"

    @property
    def output_layers(self) -> int:
        """Layers that take as long as the output layer, by parameters, doubled to be on the safe side, and one."""
        shape, experts = self.shape, self.shape.experts
        widths = [expert_parameters(shape) * experts.per_token] if experts else []
        widths += [dense_ffn_parameters(shape)] if experts is None or experts.dense_layers else []
        return 1 + -(-2 * shape.vocab * shape.hidden // (attention_parameters(shape) + min(widths)))

    @property
    def capabilities(self) -> Capabilities:
        """What the framework has."""
        return capabilities(self.framework)


def divisors(number: int) -> list[int]:
    """Return the divisors of a number, in order."""
    small = [d for d in range(1, int(number**0.5) + 1) if number % d == 0]
    return small + [number // d for d in reversed(small) if d * d != number]


def _allowed(space: Space, name: str, values: Sequence[int]) -> Sequence[int]:
    """Return ``values``, or the fixed one if it is among them."""
    if name not in space.fixed:
        return values
    return [value for value in values if value == space.fixed[name]]


def _tensor_groups(space: Space) -> Iterator[int]:
    """Yield tp: within a domain, or over whole domains, as the heads can be cut."""
    domain = space.gpus_per_domain
    for tp in _allowed(space, "tp", divisors(space.gpus) if "tp" in space.capabilities.axes else [1]):
        if (domain % tp == 0 or tp % domain == 0) and divides_heads(space.shape, tp):
            yield tp


def divides_heads(shape: ModelShape, tp: int) -> bool:
    """Whether heads, groups of keys and values, and the feed-forward layer can be cut into ``tp`` equal parts."""
    key_values = shape.key_value_heads % tp == 0 or tp % shape.key_value_heads == 0  # fewer groups are replicated
    inner = shape.experts.ffn if shape.experts else shape.ffn
    return shape.heads % tp == 0 and key_values and shape.ffn % tp == 0 and inner % tp == 0


def _context_groups(space: Space, tp: int) -> Sequence[int]:
    """Return cp: each rank takes two slices of the sequence (for balance), and at least 2,048 tokens."""
    if "cp" not in space.capabilities.axes:
        return _allowed(space, "cp", [1])
    most = max(1, space.sequence // _TOKENS_A_CONTEXT_RANK)
    groups = [cp for cp in range(1, most + 1) if space.gpus // tp % cp == 0]
    return _allowed(space, "cp", [cp for cp in groups if cp == 1 or space.sequence % (2 * cp) == 0])


def _grid(space: Space) -> Columns:
    """Return the columns tp, cp, pp, dp of all grids that use every accelerator."""
    rows: list[tuple[int, int, int, int]] = []
    for tp in _tensor_groups(space):
        for cp in _context_groups(space, tp):
            rest = space.gpus // (tp * cp)
            for dp in _allowed(space, "dp", divisors(gcd(rest, space.global_batch))):
                pp = rest // dp
                staged = pp == 1 or ("pp" in space.capabilities.axes and pp <= space.shape.layers)
                if staged and _allowed(space, "pp", [pp]):
                    rows.append((tp, cp, pp, dp))
    table = np.array(rows, dtype=np.int64).reshape(len(rows), 4)
    return {name: np.ascontiguousarray(column) for name, column in zip(("tp", "cp", "pp", "dp"), table.T, strict=True)}


def expand(columns: Columns, name: str, key: Ints, values_of: Callable[[int], Sequence[int]]) -> Columns:
    """Return the table with a new column: each row once for each value that ``values_of`` gives for its ``key``."""
    keys, inverse = distinct(key)
    lists = [np.asarray(values_of(int(k)), dtype=np.int64) for k in keys]
    counts = np.array([len(values) for values in lists], dtype=np.int64)
    if counts.size == 0 or counts.sum() == 0:
        return {column: values[:0] for column, values in columns.items()} | {name: key[:0]}
    repeat = counts[inverse]
    rows = np.repeat(np.arange(len(key)), repeat)
    within = np.arange(len(rows)) - np.repeat(np.cumsum(repeat) - repeat, repeat)
    starts = (np.cumsum(counts) - counts)[inverse]
    flat = np.concatenate(lists)
    return {column: values[rows] for column, values in columns.items()} | {name: flat[starts[rows] + within]}


def distinct(key: Ints) -> tuple[Ints, Ints]:
    """Return the values there are, and the place of each row's among them; without sorting where values are small."""
    if len(key) == 0 or int(key.max()) >= SMALL:
        keys, places = np.unique(key, return_inverse=True)
        return keys, places
    keys = np.flatnonzero(np.bincount(key))
    place = np.zeros(int(keys[-1]) + 1, dtype=np.int64)
    place[keys] = np.arange(len(keys))
    return keys, place[key]


def keep(columns: Columns, mask: NDArray[np.bool_]) -> Columns:
    return columns if mask.all() else {name: values[mask] for name, values in columns.items()}


def _virtual_stages(space: Space, pp: int) -> Sequence[int]:
    """Return vpp: chunks that all hold as many layers, or that do when embedding and loss count as a layer each."""
    layers = space.shape.layers
    if pp == 1 or "vpp" not in space.capabilities.axes:
        return _allowed(space, "vpp", [1])
    even = divisors(layers // pp) if layers % pp == 0 else []
    counted = divisors((layers + 2) // pp) if (layers + 2) % pp == 0 else []
    return _allowed(space, "vpp", sorted({1, *even, *counted}))


def _last_layers(space: Space, pp: int, vpp: int) -> Sequence[int]:
    """Return how many layers the last stage may have beside the output layer; 0 is as many as all others.

    Without interleaving each is what is left when the other stages are filled with n layers, for all n with which the
    others can be faster than an even cut's last stage; or as many as leave the longest of the others at n: the first
    stages then keep less.
    """
    layers = space.shape.layers
    if pp == 1 or (layers % (pp * vpp) == 0 and vpp > 1):
        return [0]
    if vpp > 1:
        return [(layers + 2) // pp - 1]
    full = -(-layers // pp)
    most = full + space.output_layers
    left = [max(1, layers - n * (pp - 1)) for n in range(full, most + 1)]
    if layers % pp == 0:
        left[0] = 0
    left += [max(1, min(n - 1, layers - (n - 1) * (pp - 1) - 1)) for n in range(full, most + 1)]
    return sorted(set(left))


def _schedules(space: Space, kind: int) -> Sequence[int]:
    """Return the schedules; ``kind`` is 0 without a pipeline, 1 for a plain and 2 for an interleaved one (1F1B)."""
    return _allowed(space, "schedule", space.capabilities.schedules if kind == 1 else [ONE_F_ONE_B])


def sizes_of(space: Space, key: int) -> Sequence[int]:
    """Return the micro-batches, smallest first; ``key`` holds dp, and pp where stages are interleaved."""
    dp, interleaved = divmod(key, _KEY)
    share = space.global_batch // dp
    sizes = divisors(share) if space.capabilities.accumulates else [share]
    if interleaved:
        sizes = [size for size in sizes if share // size % interleaved == 0]
    if "micro_batches" in space.fixed:
        sizes = [size for size in sizes if share // size == space.fixed["micro_batches"]]
    return _allowed(space, "micro_batch", sizes)


def _expert_groups(space: Space, replicas: int) -> Sequence[int]:
    if space.shape.experts is None:
        return _allowed(space, "ep", [1])
    count = space.shape.experts.count
    groups = divisors(gcd(replicas, count)) if "ep" in space.capabilities.axes else [1]
    return _allowed(space, "ep", groups)


def _zero_stages(space: Space, kind: int) -> Sequence[int]:
    """Return the stages.

    ``kind`` is 0 (4 with tensor parallelism) without replicas, else 1 with nothing else that is split, 2 beside tensor
    or context parallelism, 3 in a pipeline.
    """
    can = space.capabilities
    if kind in (0, 4):  # nothing to divide the states over
        return [] if kind == 4 and can.tensor_needs_replicas else _allowed(space, "zero", [0])
    stages = [z for z in can.zero if kind != 3 or z in can.zero_in_pipeline]
    return _allowed(space, "zero", [z for z in stages if z or kind == 1 or not can.replicated_alone])


def _shard_groups(space: Space, dp: int, cp: int, ep: int, zero: int) -> Sequence[int]:
    """Return the ranks that ZeRO may divide over, the most first; 0 is all, fewer have copies (hybrid sharding)."""
    can, replicas = space.capabilities, dp * cp
    groups = [replicas // copies for copies in divisors(dp)[1:]] if zero in can.hybrid and can.copies(ep) else []
    groups = [size for size in groups if size >= can.least_replicas * cp and size > 1 and size % ep == 0]
    only = space.fixed.get("shard_group")
    return [size for size in [0, *groups] if only is None or (size or replicas) == (only or replicas)]


def _second_groups(space: Space, replicas: int) -> Sequence[int]:
    """Return the ranks that may keep weights once more beside ZeRO 3, the most first; 0 is none."""
    groups = divisors(replicas)[-2:0:-1] if space.capabilities.secondary else []
    return _allowed(space, "secondary_group", [0, *groups])


def _on_request(space: Space, t: Columns) -> Columns:
    """Return rows with what the search does not try by itself, those that can have it.

    Quantized messages change what is learned. All-gathers and all-to-alls of context parallelism gain where parts of
    the sequence are short: by the model, but no measured run says so.
    """
    can = space.capabilities
    if how := space.fixed.get("quantized", 0):
        alone = (t["zero"] == 3) & (t["shard_group"] == 0) & (t["tp"] * t["pp"] * t["ep"] == 1)
        t = keep(t | {"quantized": np.full_like(t["tp"], how)}, alone & can.secondary)
    if how := space.fixed.get("context_exchange", RING):
        heads = space.shape.heads // t["tp"] % t["cp"] == 0
        heads &= np.maximum(1, space.shape.key_value_heads // t["tp"]) % t["cp"] == 0
        able = (t["cp"] > 1) & (how in can.context_exchange) & (heads | (how != ALL_TO_ALL))
        t = keep(t | {"context_exchange": np.full_like(t["tp"], how)}, able)
    return t


def _sequence_parallel(space: Space, tp: int) -> Sequence[int]:
    values: Sequence[int] = space.capabilities.sequence_parallel if tp > 1 else [0]
    if tp > 1 and space.shape.experts is not None and space.capabilities.experts_need_sequence_parallel:
        values = [1]
    return _allowed(space, "sequence_parallel", values)


def frames_of(space: Space) -> Columns:
    """Return all columns but micro-batches and levers."""
    t = _grid(space)
    t = expand(t, "vpp", t["pp"], lambda pp: _virtual_stages(space, pp))
    t = expand(t, "schedule", (t["pp"] > 1) * (1 + (t["vpp"] > 1)), lambda kind: _schedules(space, kind))
    t = expand(t, "last_layers", t["pp"] * _KEY + t["vpp"], lambda key: _last_layers(space, *divmod(key, _KEY)))
    replicas = t["dp"] * t["cp"]
    if not space.capabilities.experts_beside_tensor:
        replicas = np.where(t["tp"] > 1, 1, replicas)
    t = expand(t, "ep", replicas, lambda ranks: _expert_groups(space, ranks))
    beside = np.where(t["pp"] > 1, 3, np.where(t["tp"] * t["cp"] > 1, 2, 1))
    grouped = np.where(t["dp"] * t["cp"] > 1, beside, 4 * (t["tp"] > 1))
    t = expand(t, "zero", grouped, lambda kind: _zero_stages(space, kind))
    t = expand(t, "sequence_parallel", t["tp"], lambda tp: _sequence_parallel(space, tp))
    alone = (t["tp"] == 1) | (not space.capabilities.hybrid_alone)
    zero = np.where(alone, t["zero"], 0)
    t["parent"] = np.arange(len(t["tp"]))
    t = expand(t, "shard_group", ((t["dp"] * SMALL + t["cp"]) * SMALL + t["ep"]) * 4 + zero,
                lambda key: _shard_groups(space, key // 4 // SMALL**2, key // 4 // SMALL % SMALL,
                                          key // 4 % SMALL, key % 4))  # fmt: skip
    alone = (t["zero"] == 3) & (t["shard_group"] == 0) & (t["tp"] * t["pp"] * t["ep"] == 1)
    t = expand(t, "secondary_group", np.where(alone, t["dp"] * t["cp"], 1), lambda n: _second_groups(space, n))
    t = _on_request(space, t)
    t["sizes"] = t["dp"] * _KEY + np.where(t["vpp"] > 1, t["pp"], 0)
    has_some = {key: bool(sizes_of(space, key)) for key in np.unique(t["sizes"]).tolist()}
    return keep(t, np.array([has_some[key] for key in t["sizes"].tolist()], dtype=np.bool_))
