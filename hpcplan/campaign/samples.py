"""What the sampler of rendered jobs measured: ``usage/JOBID/NODE.csv`` in a campaign's directory, added up by job.

The files are written by ``templates/node/sample.sh``, a line for each GPU (use in %, memory in MiB, power in W) and one
for the node (CPU in %, memory in MiB), while jobs run and die: a line may be torn, a GPU may be missing, and a figure
that a GPU does not tell is written as ``[N/A]``. What cannot be read is left out, and never counts as zero.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

__all__ = ["FOLDER", "JobSamples", "read_samples", "samples_of_job"]

FOLDER: Final = "usage"
_COLUMNS: Final = 8
_MIB: Final = 2**20
_IDLE_PERCENT: Final = 1.0  # a GPU that was never busier than this did nothing
_MOST_TIME: Final = 2**35


@dataclass(frozen=True, slots=True)
class JobSamples:
    """What one job used on all its nodes, between the unix seconds ``first`` and ``last``; ``None`` where not measured.

    ``gpu_used`` and ``cpu_used`` are means from 0 to 1, of GPUs and of whole nodes; ``gpu_memory_bytes`` is the largest
    of any one GPU, ``memory_bytes`` the largest of any one node (all its processes); ``gpu_power_w`` is the mean of all
    GPUs together. ``idle_gpus`` of the ``gpus`` seen never did anything. ``times`` is at how many moments the node
    with the fewest was looked at.
    """

    job_id: int
    nodes: int
    times: int
    first: int
    last: int
    gpus: int
    idle_gpus: int
    gpu_used: float | None
    gpu_memory_bytes: int | None
    gpu_power_w: float | None
    cpu_used: float | None
    memory_bytes: int | None

    @property
    def span_s(self) -> int:
        """Seconds from the first sample to the last."""
        return self.last - self.first


@dataclass(slots=True)
class _Gpu:
    percents: list[float] = field(default_factory=list)
    powers_w: list[float] = field(default_factory=list)
    memory_mib: float | None = None


@dataclass(slots=True)
class _Node:
    times: set[int] = field(default_factory=set)
    gpus: dict[str, _Gpu] = field(default_factory=dict)
    cpu_percents: list[float] = field(default_factory=list)
    memory_mib: float | None = None


def read_samples(directory: Path) -> dict[int, JobSamples]:
    """Return the samples of a campaign's jobs by Slurm's job id; jobs without any are not in it."""
    found = {}
    for folder in _folders(directory / FOLDER):
        samples = samples_of_job(directory, int(folder.name))
        if samples is not None:
            found[samples.job_id] = samples
    return found


def samples_of_job(directory: Path, job_id: int) -> JobSamples | None:
    """Return what was sampled of one job, ``None`` if nothing was."""
    nodes = []
    for path in sorted((directory / FOLDER / str(job_id)).glob("*.csv")):
        try:
            lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
        except OSError:
            continue  # gone meanwhile, or another's
        node = _Node()
        for cells in _rows(lines[:-1]):  # behind the last newline is a line that is still being written
            _add(node, cells)
        if node.times:
            nodes.append(node)
    return _job(job_id, nodes) if nodes else None


def _folders(parent: Path) -> list[Path]:
    try:
        return sorted(one for one in parent.iterdir() if one.name.isascii() and one.name.isdigit() and one.is_dir())
    except OSError:
        return []


def _rows(lines: Iterable[str]) -> Iterator[list[str]]:
    for line in lines:
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) == _COLUMNS and cells[0] != "time":
            yield cells


def _figure(text: str, most: float) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and 0 <= value <= most else None


def _add(node: _Node, cells: list[str]) -> None:
    moment = _figure(cells[0], _MOST_TIME)
    if not moment:
        return
    if not cells[2]:
        _add_node(node, int(moment), _figure(cells[6], 100.5), _figure(cells[7], 2**40))
        return
    percent, memory, power = _figure(cells[3], 100.5), _figure(cells[4], 2**30), _figure(cells[5], 1e5)
    if percent is None and memory is None and power is None:
        return
    node.times.add(int(moment))
    gpu = node.gpus.setdefault(cells[2], _Gpu())
    gpu.percents += [] if percent is None else [min(percent, 100.0)]
    gpu.powers_w += [] if power is None else [power]
    gpu.memory_mib = _larger(gpu.memory_mib, memory)


def _add_node(node: _Node, moment: int, percent: float | None, memory: float | None) -> None:
    if percent is None and memory is None:
        return
    node.times.add(moment)
    node.cpu_percents += [] if percent is None else [min(percent, 100.0)]
    node.memory_mib = _larger(node.memory_mib, memory)


def _larger(one: float | None, other: float | None) -> float | None:
    return other if one is None else one if other is None else max(one, other)


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _job(job_id: int, nodes: list[_Node]) -> JobSamples:
    gpus = [gpu for node in nodes for gpu in node.gpus.values()]
    used = [mean for gpu in gpus if (mean := _mean(gpu.percents)) is not None]
    powers = [mean for gpu in gpus if (mean := _mean(gpu.powers_w)) is not None]
    cpus = [mean for node in nodes if (mean := _mean(node.cpu_percents)) is not None]
    gpu_memory = [gpu.memory_mib for gpu in gpus if gpu.memory_mib is not None]
    memory = [node.memory_mib for node in nodes if node.memory_mib is not None]
    busy, cpu = _mean(used), _mean(cpus)
    return JobSamples(
        job_id=job_id,
        nodes=len(nodes),
        times=min(len(node.times) for node in nodes),
        first=max(min(node.times) for node in nodes),
        last=min(max(node.times) for node in nodes),
        gpus=len(gpus),
        idle_gpus=sum(bool(gpu.percents) and max(gpu.percents) <= _IDLE_PERCENT for gpu in gpus),
        gpu_used=busy / 100 if busy is not None and len(used) == len(gpus) else None,
        gpu_memory_bytes=round(max(gpu_memory) * _MIB) if gpu_memory else None,
        gpu_power_w=sum(powers) if powers and len(powers) == len(gpus) else None,
        cpu_used=None if cpu is None else cpu / 100,
        memory_bytes=round(max(memory) * _MIB) if memory else None,
    )
