"""How long a placement takes and what it is worth, by fabric and number of nodes, beside Slurm's order and random ones.

    python -m tests.benchmarks.placement [NODES ...]

Traffic is that of a training step in which data parallelism is heavy and the pipeline light, and up-links carry an
eighth of what enters from below. The free nodes are nine tenths of the machine, at random. Times are seconds of CPU on
one core; steps are predictions, in seconds of communication above the arithmetic.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Sequence

from hpcplan.partition.placement import Machinery, Placed, best_placement
from tests.partition.placement.made_up import exchange, machinery, sharding, site, traffic

__all__ = ["main"]

_NODES = (128, 512, 1024, 2048)
_TRAFFIC = traffic(exchange("tp", "ring", 40e9), exchange("dp", "ring", 5e9), exchange("pp", "chain", 5e8))


def _fabric(kind: str, nodes: int) -> dict[str, object]:
    if kind == "torus":
        side = round(nodes ** (1 / 3))
        while nodes % side:
            side -= 1
        rest = nodes // side
        other = next(k for k in range(round(rest**0.5), 0, -1) if rest % k == 0)
        return {"kind": "torus", "toruses": [{"name": "t", "dims": [side, other, rest // other],
                                              "nodes": f"n[0-{nodes - 1}]", "link": "10 GB/s"}]}  # fmt: skip
    if kind == "dragonfly":
        return {"kind": "dragonfly", "levels": [
            {"name": "router", "size": 8, "uplink": "80 GB/s"}, {"name": "group", "size": 8, "uplink": "160 GB/s"},
            {"name": "system", "size": -(-nodes // 64)}]}  # fmt: skip
    return {"levels": [{"name": "leaf", "size": 32, "uplink": "40 GB/s"}, {"name": "spine", "size": -(-nodes // 32)}]}


def _case(kind: str, nodes: int) -> tuple[Machinery, list[str]]:
    used = nodes // 2
    ranks = sharding(tp=2, dp=16, pp=used // 16)
    hosts = [f"n{number}" for number in range(nodes)]
    free = random.Random(nodes).sample(hosts, nodes * 9 // 10)
    return machinery(site(_fabric(kind, nodes), nodes), ranks, _TRAFFIC, "torchtitan"), free


def _timed(made: Machinery, free: Sequence[str]) -> tuple[Placed, float]:
    began = time.process_time()
    placed = best_placement(made, free)
    return placed, time.process_time() - began


def main(words: Sequence[str]) -> None:
    """Print a line for each fabric and number of nodes."""
    counts = [int(word) for word in words] or list(_NODES)
    print(f"{'fabric':<10} {'nodes':>6} {'used':>6} {'seconds':>8} {'this':>8} {'Slurm':>8} {'random':>8} {'bound':>8}")
    for kind in ("tree", "dragonfly", "torus"):
        for nodes in counts:
            made, free = _case(kind, nodes)
            placed, took_s = _timed(made, free)
            fixed = made.traffic.fixed_s
            steps = (placed.step_s, placed.slurm_step_s, placed.random_step_s, placed.bound_step_s)
            shown = " ".join(f"{step - fixed:8.3f}" for step in steps)
            print(f"{kind:<10} {nodes:>6} {made.sharding.nodes:>6} {took_s:>8.2f} {shown}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
