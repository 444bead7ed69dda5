"""Measured rows that we make ourselves: our own cost model with known constants, and noise."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from hpcplan.cost.constants import constants_for
from hpcplan.cost.machine import machine_of
from hpcplan.cost.shape import Shape
from hpcplan.cost.shardings import Shardings
from hpcplan.cost.step import price
from hpcplan.site import load_site
from hpcplan.site.topology import build_topology
from hpcplan.workload.model import ModelShape

HEADER = (
    "site", "source", "gpus", "model", "layers", "hidden", "heads", "ffn", "vocab", "seq", "global_batch",
    "micro_batch", "tp", "pp", "vpp", "dp", "zero", "recompute", "seq_parallel", "precision", "iter_time_s", "mem_GB",
)  # fmt: skip
SITES = {"selene": 1.0, "superpod-h100": 0.9, "jean-zay-a100": 1.1}  # and how efficient their products are


def write_table(path: Path, *, rows: int = 90, noise: float = 0.02, seed: int = 1) -> Path:
    """Write a table of runs of GPT-like models on three sites, each site a little off the base constants."""
    generator = np.random.default_rng(seed)
    base = constants_for().coefficients
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, HEADER)
        writer.writeheader()
        names = list(SITES)
        for number in range(rows):
            site = names[number % len(names)]
            writer.writerow(_row(site, base.scaled({"matmul_efficiency": SITES[site]}), generator, noise))
    return path


def _row(site: str, constants: object, generator: np.random.Generator, noise: float) -> dict[str, object]:
    hidden = int(generator.choice([2048, 4096, 8192]))
    layers, tp, pp = int(generator.choice([24, 48])), int(generator.choice([1, 2, 8])), int(generator.choice([1, 2, 4]))
    dp, size, again = int(generator.choice([1, 4])), int(generator.choice([1, 2, 4])), int(generator.choice([0, 2]))
    batch = dp * size * 16
    shape = ModelShape(layers=layers, hidden=hidden, heads=hidden // 128, ffn=4 * hidden, vocab=51200, gated=False,
                       bias=True, norm="layernorm", tied_embeddings=True, dropout=True)  # fmt: skip
    loaded = load_site(site).site
    group = next(iter(loaded.node_groups))
    machine = machine_of(loaded, build_topology(loaded), group, "bf16")
    s = Shardings.of(tp=tp, pp=pp, dp=dp, micro_batch=size, micro_batches=16, recompute=again, zero=0)
    costs = price(Shape.of(shape), 2048, batch, machine, constants, s)  # type: ignore[arg-type]
    time = float(costs.step_s[0]) * float(np.exp(generator.normal(0, noise)))
    return {
        "site": site, "source": "made up, megatron", "gpus": tp * pp * dp, "model": "gpt", "layers": layers,
        "hidden": hidden, "heads": hidden // 128, "ffn": 4 * hidden, "vocab": 51200, "seq": 2048,
        "global_batch": batch, "micro_batch": size, "tp": tp, "pp": pp, "vpp": 1, "dp": dp, "zero": 0,
        "recompute": ("none", "", "full")[again],
        "seq_parallel": "False", "precision": "bf16", "iter_time_s": f"{time:.6g}",
        "mem_GB": f"{float(costs.memory_bytes[0]) / 1e9:.4g}",
    }  # fmt: skip
