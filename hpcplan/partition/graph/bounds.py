"""Lower bounds on the load of the busiest device, and how much work CPUs can take off accelerators."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hpcplan.partition.graph.groups import Groups

__all__ = ["CpuShare", "lower_bound"]

SAFE = 1e-12  # relative; covers the rounding of sums of some thousand terms


class CpuShare:
    """The most accelerator time that CPUs can save within a load: the linear relaxation of a knapsack.

    Groups are put on CPUs in the order of time saved for time spent, the last one in part. No split does better, so
    what remains is a valid bound on what accelerators must do.
    """

    def __init__(self, groups: Groups) -> None:
        saved = np.where(groups.on_accelerator, groups.accelerator_time, 0.0)
        spent = groups.cpu_time
        with np.errstate(divide="ignore", invalid="ignore"):
            value = np.where(saved > 0, saved / spent, -1.0)
        order = np.argsort(-value, kind="stable")
        order = order[saved[order] > 0]
        self.spent = np.concatenate([[0.0], np.cumsum(spent[order])])
        self.saved = np.concatenate([[0.0], np.cumsum(saved[order])])

    def saves(self, time: float) -> float:
        """Return the accelerator time that ``time`` on CPUs can replace at most."""
        at = int(np.searchsorted(self.spent, time, side="right")) - 1
        if at + 1 >= len(self.spent):
            return float(self.saved[-1])
        part = (time - self.spent[at]) / (self.spent[at + 1] - self.spent[at])
        return float(self.saved[at] + part * (self.saved[at + 1] - self.saved[at]))


def lower_bound(groups: Groups) -> float:
    """Return a load that the busiest device of every split reaches, from the work alone, without transfers."""
    graph = groups.graph
    never = np.inf
    on_accelerator = np.where(groups.on_accelerator & (graph.accelerators > 0), groups.accelerator_time, never)
    on_cpu = groups.cpu_time if graph.cpus else np.full(len(groups), never)
    single: NDArray[np.float64] = np.minimum(on_accelerator, on_cpu)
    bound = float(single.max())
    if bound == never:
        return never
    if graph.cpus:
        forced = groups.cpu_time[~groups.on_accelerator].sum() if graph.accelerators else groups.cpu_time.sum()
        bound = max(bound, float(forced) / graph.cpus)
    return max(bound, _shared(groups, bound)) * (1 - SAFE)


def _shared(groups: Groups, low: float) -> float:
    """Return the least load at which accelerators and CPUs together have room for all the work."""
    graph, share = groups.graph, CpuShare(groups)
    total = float(share.saved[-1])

    def fits(load: float) -> bool:
        return graph.accelerators * load + share.saves(graph.cpus * load) >= total

    high = max(low, total / max(1, graph.accelerators), float(groups.cpu_time.sum()) if not graph.accelerators else 0.0)
    for _ in range(200):
        middle = (low + high) / 2
        if not low < middle < high:
            break
        low, high = (low, middle) if fits(middle) else (middle, high)
    return low
