"""How often to write a checkpoint, and how long that takes."""

from __future__ import annotations

import math

from hpcplan.site.model import Site
from hpcplan.workload.arithmetic import parameters
from hpcplan.workload.model import ModelShape

__all__ = ["checkpoint_bytes", "checkpoint_interval_s", "write_time_s"]

_BYTES_PER_PARAMETER = 14  # 16-bit weights, fp32 master weights and two fp32 moments
_DEFAULT_WRITE_BYTES_PER_S = 2e9  # one NFS server; used, and said, where the site names no storage
_LONGEST_INTERVAL_S = 3600.0  # people want an hour back at most, also on machines that never fail,
_LONGEST_WRITES = 100  # unless writing would then take more than a hundredth of the time


def checkpoint_bytes(shape: ModelShape) -> int:
    """Return the size of a resumable checkpoint in bytes."""
    return _BYTES_PER_PARAMETER * parameters(shape)


def write_time_s(site: Site, shape: ModelShape) -> float:
    """Return how long all ranks together take to write one checkpoint, in seconds."""
    bandwidth = site.storage.write_bytes_per_s if site.storage else _DEFAULT_WRITE_BYTES_PER_S
    return checkpoint_bytes(shape) / bandwidth


def checkpoint_interval_s(write_s: float, mtbf_s: float | None, nodes: int) -> float:
    """Return the interval in seconds that wastes least (Young 1974; Daly 2006, equation 20).

    It is an hour at most, or a hundred times the write where that is longer: what is lost to a shorter interval than
    the best is then less than a hundredth. The job's mean time between failures is that of a node over the number of
    nodes. Daly's higher-order form is used while the write is shorter than twice that time; beyond, the interval is
    that time.
    """
    longest = max(_LONGEST_INTERVAL_S, _LONGEST_WRITES * write_s)
    if mtbf_s is None:
        return longest
    mean = mtbf_s / nodes
    if write_s >= 2 * mean:
        return min(mean, longest)
    ratio = math.sqrt(write_s / (2 * mean))
    optimum = math.sqrt(2 * write_s * mean) * (1 + ratio / 3 + ratio**2 / 9) - write_s
    return min(max(optimum, write_s), longest)
