"""What Slurm asks of blocks and rings, in topology.conf and topology.yaml alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

__all__ = ["MAX_RING_NODES", "block_size_problem", "ring_problem"]

MAX_RING_NODES: Final = 16  # MAX_RING_SIZE of Slurm's topology/ring plugin


def block_size_problem(sizes: Sequence[int]) -> str | None:
    """Return what is wrong with block sizes: each must be the smallest times a power of two (topology.conf(5))."""
    if not sizes:
        return None
    base = min(sizes)
    if base < 1:
        return f"a block of {base} nodes is none; sizes begin at 1"
    for size in sizes:
        ratio, rest = divmod(size, base)
        if rest or ratio & (ratio - 1):
            return f"block size {size} is not the base block size {base} times a power of two"
    return None


def ring_problem(name: str, nodes: int) -> str | None:
    """Return what is wrong with a ring of that many nodes."""
    if nodes <= MAX_RING_NODES:
        return None
    return f"ring {name!r} has {nodes} nodes; a ring holds at most {MAX_RING_NODES}"
