"""From a benchmark to factors on the cost model's constants: what the site reaches over what others do.

Only accelerators tell about accelerators: a benchmark on CPUs measures the hosts and gives no factors.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import get_args

import numpy as np

from hpcplan.calibrate.bench import Bench
from hpcplan.calibrate.collectives import LinkRuns, fit_links
from hpcplan.cost.compute import attention_rate, product_s
from hpcplan.cost.constants import constants_for
from hpcplan.cost.machine import Machine, make_machine
from hpcplan.errors import InputError
from hpcplan.plan import Precision
from hpcplan.site.load import accelerator_of
from hpcplan.site.model import Accelerator, Site
from hpcplan.site.topology import Tier

__all__ = ["BenchFactors", "factors_of"]

_LEAST, _MOST = 0.2, 2.5  # a factor beyond is a wrong measurement or a wrong site file, and is not used
_LARGE = 2048  # rows from which a product counts as large
_ENOUGH = 4  # message sizes that a fit needs
_COPY = 0.90  # of the bandwidth, which copies reach where all is well: an H100 and an H200 SXM, measured (0.89, 0.91)


@dataclass(frozen=True, slots=True)
class BenchFactors:
    """Factors by constant with what they were measured from, and what could not be used and why."""

    factors: Mapping[str, tuple[float, str]]
    notes: tuple[str, ...]


def factors_of(bench: Bench, site: Site, group: str) -> BenchFactors:
    """Return the factors that a benchmark on nodes of one group gives.

    That on ``matmul_efficiency`` is the rate of the largest product in bf16 (else in fp16, else the median over
    precisions) over the model's for that shape, that on ``attention_efficiency`` the median over heads of the rate at
    the longest sequence over the model's. That on
    ``memory_efficiency`` is the better of copy and triad over what copies reach on chips that are well: the constant
    itself is of the kernels of training, which do less well than a copy. ``link_efficiency``, ``link_half_bytes``,
    ``network_efficiency`` and ``network_half_bytes`` are fitted to all-reduces (:func:`fit_links`) and divided by the
    constant. The model's are those without the site's own factors.

    Raises:
        InputError: the group has no accelerators.
    """
    chip, node = accelerator_of(site, group), site.node_groups[group]
    if chip is None or node.accelerators is None:
        raise InputError(f"node group {group!r} of site {site.name!r} has no accelerators")
    if bench.device != "cuda":
        return BenchFactors({}, ("measured on CPUs, which says nothing of the accelerators: no constants",))
    base = constants_for(accelerator=node.accelerators.type, family=chip.family).coefficients
    found = dict(_arithmetic(bench, chip, node.accelerators.type))
    memory = [figure.rate for figure in bench.memory()]
    if memory:
        share = max(memory) / chip.memory_bandwidth_bytes_per_s
        found["memory_efficiency"] = (share / _COPY, f"memory reaches {share:.0%} of its bandwidth")
    measured: dict[str, tuple[float, str]] = {}
    if node.intra_node is not None:
        measured |= _links(bench, "node", "link", node.intra_node.bandwidth_bytes_per_s)
    # One process a node takes part: it has the interface of one accelerator, or its share of them.
    interfaces = max(1.0, node.nics.count / node.accelerators.count)
    measured |= _links(bench, "network", "network", interfaces * node.nics.bandwidth_bytes_per_s)
    found |= {
        name: (value / float(np.asarray(getattr(base, name))), source) for name, (value, source) in measured.items()
    }
    factors: dict[str, tuple[float, str]] = {}
    notes: list[str] = []
    for name, (factor, source) in found.items():
        if _LEAST <= factor <= _MOST or name.endswith("_half_bytes"):
            factors[name] = (factor, source)
        else:
            notes.append(f"{name}: {source} is {factor:.2g} times what is usual; is the site file right? Not used")
    return BenchFactors(factors, tuple(notes))


def _arithmetic(bench: Bench, chip: Accelerator, name: str) -> Iterator[tuple[str, tuple[float, str]]]:
    """Yield the factors on products and attention: rates measured over those of the model for the same shapes."""
    shares, ratios = {}, {}
    for precision, (size, rate) in _best_products(bench, chip.peak_flops).items():
        machine, c = _alone(chip, precision), constants_for(accelerator=name, family=chip.family, precision=precision)
        shares[precision] = rate / machine.peak_flops
        ratios[precision] = rate * float(product_s(*size, machine, c.coefficients)) / (2 * math.prod(size))
    if ratios:
        words = ", ".join(f"{precision} {share:.0%}" for precision, share in shares.items())
        # what nearly all training uses; the others would bring in how the model errs between precisions
        usual = ratios.get("bf16") or ratios.get("fp16") or float(np.median([*ratios.values()]))
        yield "matmul_efficiency", (usual, f"large products reach {words} of peak")
    machine, c = _alone(chip, "bf16"), constants_for(accelerator=name, family=chip.family, precision="bf16")
    longest: dict[float, tuple[float, float]] = {}
    for figure in bench.attentions():  # in ascending order of sequences: the longest stays
        sequence, width = (float(word) for word in figure.what.split()[:3:2])
        longest[width] = (sequence, figure.rate)
    if longest:
        modelled = [float(attention_rate(w, sequence, machine, c.coefficients)) for w, (sequence, _) in longest.items()]
        ratio = np.median([rate / each for each, (_, rate) in zip(modelled, longest.values(), strict=True)])
        words = ", ".join(
            f"{rate / 1e12:.0f} TFLOP/s with heads of {width:.0f}" for width, (_, rate) in longest.items()
        )
        yield "attention_efficiency", (float(ratio), f"attention reaches {words}")


def _alone(chip: Accelerator, precision: Precision) -> Machine:
    """Return a machine of one accelerator."""
    return make_machine(chip, precision, gpus_per_node=1, link_bytes_per_s=0.0, link_latency_s=0.0,
                        tiers=[Tier("node", 1, 0.0, 0.0)])  # fmt: skip


def _best_products(bench: Bench, peaks: Iterable[str]) -> dict[Precision, tuple[tuple[int, int, int], float]]:
    """Return the shape and rate of the largest product of each precision; fp32 products are not used."""
    best: dict[Precision, tuple[tuple[int, int, int], float]] = {}
    for figure in bench.gemms():
        match = re.fullmatch(r"(\w+) (\d+)x(\d+)x(\d+)", figure.what)
        assert match is not None
        kind: Precision | None = next(
            (name for name in get_args(Precision) if name == match[1] and name in peaks), None
        )
        if kind is None or kind == "fp32" or int(match[2]) < _LARGE:
            continue
        if kind not in best or int(match[2]) > best[kind][0][0]:
            best[kind] = ((int(match[2]), int(match[3]), int(match[4])), figure.rate)
    return best


def _links(bench: Bench, where: str, name: str, rate: float) -> dict[str, tuple[float, str]]:
    ranks, sizes, seconds = bench.all_reduces(where)
    if len(np.unique(sizes)) < _ENOUGH:
        return {}
    large = sizes >= np.median(sizes)  # small ones are latency, which the site file gives
    fitted = fit_links(where, LinkRuns(ranks[large], sizes[large], seconds[large]), rate)
    source = f"{int(large.sum())} all-reduces, mean error {fitted.mean_abs_error:.0%}"
    return {
        f"{name}_efficiency": (fitted.link_efficiency, source),
        f"{name}_half_bytes": (fitted.link_half_bytes, source),
    }
