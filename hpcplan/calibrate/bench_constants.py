"""From a benchmark to factors on the cost model's constants: what the site reaches over what others do.

Only accelerators tell about accelerators: a benchmark on CPUs measures the hosts and gives no factors.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from hpcplan.calibrate.bench import Bench
from hpcplan.calibrate.collectives import LinkRuns, fit_links
from hpcplan.cost.constants import constants_for
from hpcplan.errors import InputError
from hpcplan.site.load import accelerator_of
from hpcplan.site.model import Site

__all__ = ["BenchFactors", "factors_of"]

_LEAST, _MOST = 0.2, 2.5  # a factor beyond is a wrong measurement or a wrong site file, and is not used
_LARGE = 2048  # rows from which a product counts as large
_ENOUGH = 4  # message sizes that a fit needs


@dataclass(frozen=True, slots=True)
class BenchFactors:
    """Factors by constant with what they were measured from, and what could not be used and why."""

    factors: Mapping[str, tuple[float, str]]
    notes: tuple[str, ...]


def factors_of(bench: Bench, site: Site, group: str) -> BenchFactors:
    """Return the factors that a benchmark on nodes of one group gives.

    ``matmul_efficiency`` is the median over precisions of the best large product over the peak, ``memory_efficiency``
    the better of copy and triad over the bandwidth of the data sheet; ``link_efficiency``, ``link_half_bytes``,
    ``network_efficiency`` and ``network_half_bytes`` are fitted to all-reduces (:func:`fit_links`). Each is divided by
    the constant that holds without the site's own factors.

    Raises:
        InputError: the group has no accelerators.
    """
    chip, node = accelerator_of(site, group), site.node_groups[group]
    if chip is None or node.accelerators is None:
        raise InputError(f"node group {group!r} of site {site.name!r} has no accelerators")
    if bench.device != "cuda":
        return BenchFactors({}, ("measured on CPUs, which says nothing of the accelerators: no constants",))
    base = constants_for(accelerator=node.accelerators.type, family=chip.family).coefficients
    measured: dict[str, tuple[float, str]] = {}
    shares = _matmul_shares(bench, chip.peak_flops)
    if shares:
        words = ", ".join(f"{kind} {share:.0%}" for kind, share in shares.items())
        measured["matmul_efficiency"] = (float(np.median([*shares.values()])), f"large products reach {words} of peak")
    memory = [figure.rate for figure in bench.memory()]
    if memory:
        share = max(memory) / chip.memory_bandwidth_bytes_per_s
        measured["memory_efficiency"] = (share, f"memory reaches {share:.0%} of its bandwidth")
    if node.intra_node is not None:
        measured |= _links(bench, "node", "link", node.intra_node.bandwidth_bytes_per_s)
    # One process a node takes part: it has the interface of one accelerator, or its share of them.
    interfaces = max(1.0, node.nics.count / node.accelerators.count)
    measured |= _links(bench, "network", "network", interfaces * node.nics.bandwidth_bytes_per_s)
    factors: dict[str, tuple[float, str]] = {}
    notes: list[str] = []
    for name, (value, source) in measured.items():
        factor = value / float(np.asarray(getattr(base, name)))
        if _LEAST <= factor <= _MOST or name.endswith("_half_bytes"):
            factors[name] = (factor, source)
        else:
            notes.append(f"{name}: {source} is {factor:.2g} times what is usual; is the site file right? Not used")
    return BenchFactors(factors, tuple(notes))


def _matmul_shares(bench: Bench, peaks: Mapping[str, float]) -> dict[str, float]:
    """Return the share of the peak that the best large product of each precision reaches."""
    best: dict[str, float] = {}
    for figure in bench.gemms():
        match = re.fullmatch(r"(\w+) (\d+)x\d+x\d+", figure.what)
        assert match is not None
        if int(match[2]) >= _LARGE and match[1] in peaks:
            best[match[1]] = max(best.get(match[1], 0.0), figure.rate)
    return {kind: rate / peaks[kind] for kind, rate in best.items() if kind != "fp32"}  # fp32 products are not used


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
