"""How often a slow link is found, and how often one is named that is not slow, on made measurements.

    python -m tests.benchmarks.slow_links [--seeds 400] [--nodes 8]

Every pair of nodes is measured in ten sweeps. A measurement is the link's time, with each node 5 % faster or slower,
times log-normal noise, and now and then (a share of all transfers) disturbed: it takes 1.2 to 4 times as long. One link
is slower by a factor, or none is. "One sweep" is what is found by the first sweep alone.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np

from hpcplan.calibrate.bench import Bench, slow_ones

SWEEPS = 10
BYTES = 1 << 20


@dataclass(frozen=True)
class Case:
    """How noisy measurements are, and how often one is disturbed."""

    name: str
    noise: float
    disturbed: float


CASES = (Case("quiet", 0.02, 0.0), Case("usual", 0.05, 0.05), Case("busy", 0.15, 0.3), Case("very busy", 0.4, 0.5))


def measured(case: Case, nodes: int, factor: float, seed: int) -> np.ndarray:
    """Return seconds by sweep and pair; the link between nodes 1 and 2 is slower by a factor."""
    random = np.random.default_rng(seed)
    own = np.exp(0.05 * random.standard_normal(nodes))
    times = (
        BYTES / 1e10 * own[:, None] * own[None, :] * np.exp(case.noise * random.standard_normal((SWEEPS, nodes, nodes)))
    )
    hit = random.random(times.shape) < case.disturbed
    times = np.where(hit, times * random.uniform(1.2, 4.0, times.shape), times)
    times = np.triu(times, 1) + np.triu(times, 1).transpose(0, 2, 1)
    times[:, 1, 2] *= factor
    times[:, 2, 1] *= factor
    return np.asarray(times)


def bench(times: np.ndarray) -> Bench:
    """Return the run that measured this."""
    nodes = times.shape[1]
    ranks = tuple(
        {
            "rank": a, "host": f"n{a}", "gemm": [], "memory": [], "collectives": [],
            "pairs": [
                {"other": b, "bytes": BYTES, "best_s": times[:, a, b].min(), "sweeps_s": times[:, a, b].tolist()}
                for b in range(nodes) if b != a
            ],
        }
        for a in range(nodes)
    )  # fmt: skip
    return Bench(0, "cpu", "made", tuple(f"n{a}" for a in range(nodes)), ranks)


def links(times: np.ndarray) -> set[str]:
    """Return the links that are named."""
    return {each.where for each in slow_ones(bench(times)) if " - " in each.where}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=400)
    parser.add_argument("--nodes", type=int, default=8)
    options = parser.parse_args()
    print(f"{'measurements':14}{'link slower':>12}{'found':>9}{'one sweep':>11}{'wrong links a run':>19}"
          f"{'one sweep':>11}{'runs with one':>15}{'one sweep':>11}")  # fmt: skip
    for case in CASES:
        for factor in (1.0, 1.25, 1.5, 2.0):
            rows = []
            for seed in range(options.seeds):
                times = measured(case, options.nodes, factor, seed)
                for named in (links(times), links(times[:1])):
                    true = "n1 - n2" in named and factor > 1
                    rows.append((true, len(named) - true))
            found = np.array(rows, dtype=float).reshape(-1, 2, 2)
            right, wrong, any_wrong = found[:, :, 0].mean(0), found[:, :, 1].mean(0), (found[:, :, 1] > 0).mean(0)
            told = [f"{x:.0%}" if factor > 1 else "" for x in right]
            print(f"{case.name:14}{factor:12.2f}{told[0]:>9}{told[1]:>11}{wrong[0]:19.3f}{wrong[1]:11.3f}"
                  f"{any_wrong[0]:15.1%}{any_wrong[1]:11.1%}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
