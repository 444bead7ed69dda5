"""Every sharding that a framework can run on so many accelerators: the search space, enumerated without gaps.

What is left out cannot run: a tensor-parallel group that leaves the node or does not divide the heads, stages that do
not divide the layers, batches that do not divide, interleaving whose micro-batches are no multiple of the stages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np

from hpcplan.cost.shardings import FULL, NONE, SELECTIVE, Ints, Shardings
from hpcplan.errors import InputError, nearest
from hpcplan.workload.model import Framework, ModelShape

__all__ = ["FIXABLE", "Space", "enumerate_shardings", "parse_fixed"]

_MAX_MICRO_BATCH = 64

# what `--fix` can name, and how its value is read
_RECOMPUTE = {"none": NONE, "selective": SELECTIVE, "full": FULL}
_FLAG = {"on": 1, "off": 0, "true": 1, "false": 0, "1": 1, "0": 0}
FIXABLE: Mapping[str, Callable[[str], int]] = {
    **dict.fromkeys(("tp", "pp", "vpp", "dp", "cp", "ep", "micro_batch", "micro_batches", "zero"), int),
    "recompute": _RECOMPUTE.__getitem__,
    "sequence_parallel": _FLAG.__getitem__,
}


def parse_fixed(words: tuple[str, ...]) -> dict[str, int]:
    """Return ``{'tp': 8}`` for ``('tp=8',)``.

    Raises:
        InputError: no ``=``, a name that cannot be fixed, or a value that it cannot have.
    """
    fixed: dict[str, int] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if name not in FIXABLE:
            raise InputError(f"--fix {word!r}: write NAME=VALUE" + nearest(name, FIXABLE))
        if not equals:
            raise InputError(f"--fix {word!r}: which {name}? Write NAME=VALUE, as in tp=8")
        try:
            fixed[name] = FIXABLE[name](value.strip().lower())
        except (KeyError, ValueError):
            raise InputError(f"--fix {word!r}: {name} cannot be {value!r}") from None
    return fixed


@dataclass(frozen=True, slots=True)
class Space:
    """What bounds the search on one number of nodes."""

    shape: ModelShape
    sequence: int
    global_batch: int
    gpus: int
    gpus_per_domain: int  # tensor-parallel groups stay inside
    framework: Framework
    fixed: Mapping[str, int]


def _divisors(number: int) -> list[int]:
    small = [d for d in range(1, int(number**0.5) + 1) if number % d == 0]
    return small + [number // d for d in reversed(small) if d * d != number]


def _allowed(space: Space, name: str, values: list[int]) -> list[int]:
    """Return ``values``, or the fixed one if it is among them."""
    if name not in space.fixed:
        return values
    return [value for value in values if value == space.fixed[name]]


def _grids(space: Space) -> Iterator[tuple[int, int, int, int, int]]:
    """Yield (tp, cp, pp, vpp, dp) that use every accelerator."""
    shape = space.shape
    whole_model = space.framework == "torchrun"  # FSDP2 and DDP without a model-parallel trainer
    for tp in _allowed(space, "tp", [1] if whole_model else _divisors(space.gpus_per_domain)):
        if space.gpus % tp or not _divides_heads(shape, tp):
            continue
        for cp in _allowed(space, "cp", [1] if whole_model else _context_groups(space, tp)):
            rest = space.gpus // (tp * cp)
            for pp in _allowed(space, "pp", [1] if whole_model else _divisors(rest)):
                dp = rest // pp
                if pp > shape.layers or space.global_batch % dp or not _allowed(space, "dp", [dp]):
                    continue
                for vpp in _allowed(space, "vpp", _virtual_stages(shape.layers, pp)):
                    yield tp, cp, pp, vpp, dp


def _divides_heads(shape: ModelShape, tp: int) -> bool:
    """Whether heads, groups of keys and values, and the feed-forward layer can be cut into ``tp`` equal parts."""
    key_values = shape.key_value_heads % tp == 0 or tp % shape.key_value_heads == 0  # fewer groups are replicated
    inner = shape.experts.ffn if shape.experts else shape.ffn
    return shape.heads % tp == 0 and key_values and shape.ffn % tp == 0 and inner % tp == 0


def _context_groups(space: Space, tp: int) -> list[int]:
    """Return cp: each rank takes two slices of the sequence (for balance), and at least 2,048 tokens."""
    groups = _divisors(space.gpus // tp)
    return [cp for cp in groups if cp == 1 or (space.sequence % (2 * cp) == 0 and space.sequence // cp >= 2048)]


def _virtual_stages(layers: int, pp: int) -> list[int]:
    if pp == 1:
        return [1]
    if layers % pp:
        return [1]  # uneven stages: the last has fewer layers, and cannot be interleaved
    return [v for v in _divisors(layers // pp) if v <= 12]


def _expert_groups(space: Space, tp: int, cp: int, dp: int) -> list[int]:
    if space.shape.experts is None:
        return _allowed(space, "ep", [1])
    count = space.shape.experts.count
    return _allowed(space, "ep", [ep for ep in _divisors(dp * cp) if count % ep == 0])


def _zero_stages(space: Space, pp: int) -> list[int]:
    if space.framework == "megatron-lm":
        return _allowed(space, "zero", [0, 1])
    if space.framework == "torchrun":
        return _allowed(space, "zero", [0, 2, 3])
    return _allowed(space, "zero", [0, 1, 2, 3] if pp == 1 else [0, 1])


def _batches(space: Space, dp: int, pp: int, vpp: int) -> list[tuple[int, int]]:
    """Return (micro_batch, micro_batches) that make up the batch of one data-parallel rank."""
    share = space.global_batch // dp
    pairs = [(size, share // size) for size in _divisors(share) if size <= _MAX_MICRO_BATCH]
    pairs = [(size, count) for size, count in pairs if vpp == 1 or count % pp == 0]
    sizes, counts = space.fixed.get("micro_batch"), space.fixed.get("micro_batches")
    return [(size, count) for size, count in pairs if sizes in (None, size) and counts in (None, count)]


def enumerate_shardings(space: Space) -> Shardings:
    """Return every sharding of the space, in a fixed order; possibly none."""
    rows: list[tuple[int, ...]] = []
    recompute = _allowed(space, "recompute", [NONE, SELECTIVE, FULL])
    for tp, cp, pp, vpp, dp in _grids(space):
        sequence_parallel = _allowed(space, "sequence_parallel", [0, 1] if tp > 1 else [0])
        if space.shape.experts is not None and tp > 1 and space.framework == "megatron-lm":
            sequence_parallel = [value for value in sequence_parallel if value == 1]  # Megatron-LM insists on it
        choices = product(
            _expert_groups(space, tp, cp, dp),
            _batches(space, dp, pp, vpp),
            _zero_stages(space, pp),
            recompute,
            sequence_parallel,
        )
        for ep, (size, count), zero, again, split in choices:
            if zero and dp * cp == 1:
                continue  # nothing to divide the states over
            rows.append((tp, pp, vpp, dp, cp, ep, size, count, zero, again, split))
    table: Ints = np.array(rows, dtype=np.int64).reshape(len(rows), 11)
    return Shardings(*(np.ascontiguousarray(column) for column in table.T))
