"""What the authors of large training runs used, beside what the search finds for the same model, batch and machine.

``python docs/published_systems.py`` prints the table; the docs include it at each build. Reported step times follow
from the reported FLOP/s an accelerator: of Narayanan et al. 2021 with their equation 3 (recomputation counted), of
Grattafiori et al. 2024 with model FLOPs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from hpcplan.cost.shape import Shape
from hpcplan.cost.shardings import Shardings
from hpcplan.partition.found import describe
from hpcplan.partition.kinds import Kind, kinds_of
from hpcplan.partition.search import search
from hpcplan.schedule.planner import constants_on
from hpcplan.site import load_site
from hpcplan.site.topology import build_topology
from hpcplan.units import format_bytes
from hpcplan.workload import Workload, load_workload

__all__ = ["PUBLISHED", "Published", "published_page", "table"]


@dataclass(frozen=True)
class Published:
    """One run: our names for it, what its authors used, and what they report."""

    name: str
    workload: str
    site: str
    nodes: int
    batch: int
    sharding: dict[str, int]
    flash: bool
    tflops: float
    counts_recomputation: bool
    source: str


_SC21 = "[Narayanan et al. 2021](https://arxiv.org/abs/2104.04473)"
PUBLISHED = (
    Published(
        "GPT-3 175B, 1,024 A100", "gpt3-175b", "selene", 128, 1536,
        {"tp": 8, "pp": 16, "dp": 8, "micro_batch": 1, "micro_batches": 192, "recompute": 2}, False, 140.0, True,
        f"{_SC21}, section 5.1; sharding of Megatron-LM's examples/pretrain_gpt3_175B.sh",
    ),
    Published(
        "Megatron 1T, 3,072 A100", "megatron-1t", "selene", 384, 3072,
        {"tp": 8, "pp": 64, "dp": 6, "micro_batch": 1, "micro_batches": 512, "recompute": 2}, False, 163.0, True,
        f"{_SC21}, table 1",
    ),
    Published(
        "Llama 3 405B, 16,384 H100", "llama3-405b", "grand-teton-h100-700w", 2048, 2048,
        {"tp": 8, "pp": 16, "vpp": 8, "dp": 128, "micro_batch": 1, "micro_batches": 16, "zero": 2, "last_layers": 7,
         "sequence_parallel": 1},
        True, 400.0, False, "[Grattafiori et al. 2024](https://arxiv.org/abs/2407.21783), table 4 and section 3.3.2",
    ),
)  # fmt: skip


def _workload(run: Published) -> Workload:
    data = load_workload(run.workload).workload.model_dump()
    data["training"] |= {"global_batch": run.batch}
    data["request"] |= {"framework": "megatron-lm"}
    return Workload.model_validate(data)


def _kind(run: Published, workload: Workload) -> Kind:
    site = load_site(run.site).site
    group = site.partitions[site.default_partition()].nodes[0]
    constants = partial(constants_on, workload, site, None)
    return kinds_of(workload, site, build_topology(site), (group,), constants)[0]


def _reported_s(run: Published, workload: Workload) -> float:
    """Return the step that the reported FLOP/s make."""
    shape, length = workload.model, workload.training.sequence_length
    if run.counts_recomputation:
        h, layers = shape.hidden, shape.layers
        flops = 96 * run.batch * length * layers * h**2 * (1 + length / (6 * h) + shape.vocab / (16 * layers * h))
    else:
        flops = float(np.asarray(Shape.of(shape).model_flops_per_token(length))) * run.batch * length
    return flops / (run.nodes * 8 * run.tflops * 1e12)


def table() -> Iterator[str]:
    """Yield the rows of the table."""
    yield "| run | what its authors used | reported | we predict for that | the search finds | predicted | memory |"
    yield "|---|---|--:|--:|---|--:|--:|"
    for run in PUBLISHED:
        workload = _workload(run)
        kind = _kind(run, workload)
        theirs = Shardings.of(**run.sharding)
        then = dataclasses.replace(kind, recipe=dataclasses.replace(kind.recipe, flash=float(run.flash)))
        predicted = float(then.price(workload, theirs).step_s[0])
        fused = float(kind.price(workload, theirs).step_s[0])
        now = "" if run.flash else f" ({fused:.1f} s with fused attention)"
        outcome = search(workload, [kind], nodes=(run.nodes, run.nodes), keep=1)
        memory = f"{format_bytes(float(outcome.costs.memory_bytes[0]))}"
        yield (
            f"| {run.name} | {describe(theirs, 0)}; {run.source} | {_reported_s(run, workload):.1f} s "
            f"| {predicted:.1f} s{now} | {describe(outcome.best, 0)} | {float(outcome.costs.step_s[0]):.1f} s "
            f"| {memory} |"
        )


def published_page() -> str:
    """Return the table as a page to include."""
    return "\n".join(table()) + "\n"


if __name__ == "__main__":
    print(published_page(), end="")
