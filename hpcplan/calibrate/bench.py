"""What a benchmark of a site measured: figures over all processes, and which nodes and links are slow.

``templates/bench/site_bench.py`` measures, one file a process; this reads the files of one run. Slow is what lies far
below the others in robust units (median and median absolute deviation; Iglewicz & Hoaglin 1993, section 3.3: beyond
3.5) and by more than a tenth as well, since machines that are very much alike have a very small deviation. A link is
judged by what is left when each node's own speed is taken out (median polish; Tukey 1977, chapter 11), so that one slow
node is not taken for many slow links; and by all the times that it was measured, since others use the machine too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hpcplan.calibrate.targets import Array
from hpcplan.documents import read_text
from hpcplan.errors import InputError, Problem

__all__ = ["Bench", "Figure", "Slow", "polish", "read_bench", "slow_of", "slow_ones"]

_SCHEMA = "hpcplan-bench/1"
_FAR = 3.5  # robust standard deviations
_MUCH = 0.10  # share below the median
_MAD = 0.6745  # median absolute deviation of a normal distribution, in standard deviations
_CHANCE = 0.05  # that any link would be named without cause
_FEW = 4  # values, below which nothing can be said to be an outlier


@dataclass(frozen=True, slots=True)
class Figure:
    """One thing measured, ``rate`` in FLOP/s or bytes/s: the median over all that measured it, least and most."""

    what: str
    rate: float
    least: float
    most: float
    count: int


@dataclass(frozen=True, slots=True)
class Slow:
    """A node or a link (two nodes) that lies far below the others at something: by which share, and how far."""

    where: str
    what: str
    rate: float
    share: float
    deviations: float


@dataclass(frozen=True, slots=True)
class Bench:
    """One run: when, where and with what; ``ranks`` are the files of the processes, in order."""

    time: int
    device: str
    device_name: str
    hosts: tuple[str, ...]  # of each rank
    ranks: tuple[Mapping[str, Any], ...]

    @property
    def nodes(self) -> tuple[str, ...]:
        """The nodes, in the order of ranks."""
        return tuple(dict.fromkeys(self.hosts))

    def gemms(self) -> list[Figure]:
        """Return the rate of each product: precision and shape."""
        return _figures((f"{g['precision']} {g['m']}x{g['k']}x{g['n']}", g["flops_per_s"]) for g in self._all("gemm"))

    def attentions(self) -> list[Figure]:
        """Return the rate of fused attention, forward and backward, by sequence and width of heads."""
        return _figures((f"{a['sequence']} x {a['width']} wide", a["flops_per_s"]) for a in self._all("attention"))

    def memory(self) -> list[Figure]:
        """Return the bandwidth of memory."""
        return _figures((m["what"], m["bytes_per_s"]) for m in self._all("memory"))

    def collectives(self) -> list[Figure]:
        """Return the bus bandwidth of each collective and size; of a group its slowest member counts."""
        slowest: dict[tuple[str, str, int, int, str], float] = {}
        for rank in self.ranks:
            for c in rank["collectives"]:
                group = rank["host"] if c["where"] == "node" else ""
                key = (c["where"], c["what"], c["ranks"], c["bytes"], group)
                slowest[key] = max(slowest.get(key, 0.0), c["best_s"])
        return _figures(
            (f"{where} {what} {ranks} ranks {size} B", _bus(what, ranks) * size / best_s)
            for (where, what, ranks, size, _), best_s in slowest.items()
        )

    def all_reduces(self, where: str) -> tuple[Array, Array, Array]:
        """Return ranks, bytes and seconds of the all-reduces inside nodes or between them; of a group its slowest."""
        slowest: dict[tuple[int, int, str], float] = {}
        for rank in self.ranks:
            for c in rank["collectives"]:
                if c["where"] == where and c["what"] == "all_reduce":
                    key = (c["ranks"], c["bytes"], rank["host"] if where == "node" else "")
                    slowest[key] = max(slowest.get(key, 0.0), c["best_s"])
        keys = list(slowest)
        columns = [[float(key[0]) for key in keys], [float(key[1]) for key in keys], [slowest[key] for key in keys]]
        return np.array(columns[0]), np.array(columns[1]), np.array(columns[2])

    def pairs(self) -> Array:
        """Return the bandwidth between every two ranks, bytes/s, NaN on the diagonal and where nothing was measured."""
        rates = np.full((len(self.ranks), len(self.ranks)), np.nan)
        for rank in self.ranks:
            for pair in rank["pairs"]:
                rates[rank["rank"], pair["other"]] = pair["bytes"] / pair["best_s"]
        return np.asarray(np.fmin(rates, rates.T))  # the slower direction; NaN only where neither was measured

    def sweeps(self) -> list[Array]:
        """Return the same of each time that all pairs were gone through; earlier releases did so once."""
        count = min((len(pair.get("sweeps_s", ())) for rank in self.ranks for pair in rank["pairs"]), default=0)
        found = [np.full((len(self.ranks), len(self.ranks)), np.nan) for _ in range(count)]
        for rank in self.ranks:
            for pair in rank["pairs"]:
                for rates, taken_s in zip(found, pair.get("sweeps_s", ()), strict=False):
                    rates[rank["rank"], pair["other"]] = pair["bytes"] / taken_s
        return [np.asarray(np.fmin(rates, rates.T)) for rates in found] or [self.pairs()]

    def storage(self) -> dict[str, float]:
        """Return what all nodes together wrote and read, bytes/s; empty where that was not measured."""
        found = [rank["storage"] for rank in self.ranks if rank.get("storage")]
        keys = ("write_bytes_per_s", "read_bytes_per_s")
        return {key: float(sum(each[key] for each in found)) for key in keys} if found else {}

    def _all(self, key: str) -> list[Mapping[str, Any]]:
        return [entry for rank in self.ranks for entry in rank.get(key, ())]  # earlier releases had no attention

    def as_dict(self) -> dict[str, Any]:
        """Return plain data."""
        import dataclasses

        matrix = self.pairs()
        return {
            "time": self.time,
            "device": self.device,
            "device_name": self.device_name,
            "nodes": list(self.nodes),
            "hosts": list(self.hosts),
            "gemm": [dataclasses.asdict(each) for each in self.gemms()],
            "attention": [dataclasses.asdict(each) for each in self.attentions()],
            "memory": [dataclasses.asdict(each) for each in self.memory()],
            "collectives": [dataclasses.asdict(each) for each in self.collectives()],
            "pairs": [[None if np.isnan(rate) else float(rate) for rate in row] for row in matrix],
            "storage": self.storage(),
            "slow": [dataclasses.asdict(each) for each in slow_ones(self)],
        }


def _bus(what: str, ranks: int) -> float:
    """Return bus over algorithm bandwidth, as NCCL's tests define it."""
    return 2 * (ranks - 1) / ranks if what == "all_reduce" else (ranks - 1) / ranks


def _figures(pairs: Any) -> list[Figure]:
    rates: dict[str, list[float]] = {}
    for what, rate in pairs:
        rates.setdefault(what, []).append(float(rate))
    return [Figure(w, float(np.median(r)), min(r), max(r), len(r)) for w, r in rates.items()]


def read_bench(folder: Path) -> Bench:
    """Read the files that the processes of one run wrote.

    Raises:
        InputError: there are none, one is missing, or one is not such a file.
    """
    paths = sorted(folder.glob("bench-*.json"))
    if not paths:
        raise InputError(Problem("holds no bench-*.json of a benchmark", file=str(folder)))
    ranks = sorted((_rank(path) for path in paths), key=lambda rank: int(rank["rank"]))
    expected = ranks[0]["ranks"]
    missing = sorted(set(range(expected)) - {rank["rank"] for rank in ranks})
    if missing or len(ranks) != expected:
        what = f"bench-{missing[0]}.json is missing" if missing else f"{len(ranks)} files of {expected} processes"
        raise InputError(Problem(f"{what}: did a process fail?", file=str(folder)))
    first = ranks[0]
    return Bench(max(rank["time"] for rank in ranks), first["device"], first["device_name"], tuple(first["hosts"]),
                 tuple(ranks))  # fmt: skip


def _rank(path: Path) -> Mapping[str, Any]:
    try:
        data = json.loads(read_text(path))
        needed = ("rank", "ranks", "host", "hosts", "time", "device", "device_name", "gemm", "memory", "collectives",
                  "pairs")  # fmt: skip
        lacking = [key for key in needed if key not in data]
        if data.get("schema") != _SCHEMA or lacking:
            raise ValueError(f"{lacking[0]!r} is missing" if lacking else f"its schema is not {_SCHEMA!r}")
        _check(data)
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise InputError(Problem(f"is no result of the benchmark: {error}", file=str(path))) from None
    result: Mapping[str, Any] = data
    return result


def _check(data: Mapping[str, Any]) -> None:
    """Refuse figures that are no positive numbers."""
    needed = {
        "gemm": ("flops_per_s", "m"), "attention": ("flops_per_s", "width"), "memory": ("bytes_per_s",),
        "collectives": ("bytes", "best_s", "ranks"), "pairs": ("bytes", "best_s"),
    }  # fmt: skip
    for key, fields in needed.items():
        for entry in data.get(key, ()):
            for name in fields:
                if not (isinstance(entry[name], int | float) and 0 < entry[name] < float("inf")):
                    raise ValueError(f"{key}: {name} must be a positive number")


def slow_ones(bench: Bench) -> list[Slow]:
    """Return the nodes and links that are slow, the worst first."""
    found: list[Slow] = []
    for what, rates in _by_node(bench).items():
        found += slow_of(list(rates), list(rates.values()), what)
    matrix = bench.pairs()
    if len(bench.ranks) >= _FEW:
        found += _slow_links(bench, matrix, bench.sweeps())
    return sorted(found, key=lambda each: each.share)


def _by_node(bench: Bench) -> dict[str, dict[str, float]]:
    """Return the median of each node at the largest product of each precision, and at memory."""
    values: dict[str, dict[str, list[float]]] = {}
    largest: dict[str, int] = {}
    for rank in bench.ranks:
        for g in rank["gemm"]:
            largest[g["precision"]] = max(largest.get(g["precision"], 0), g["m"])
    for rank in bench.ranks:
        for g in rank["gemm"]:
            if g["m"] == largest[g["precision"]]:
                values.setdefault(f"{g['precision']} products", {}).setdefault(rank["host"], []).append(
                    g["flops_per_s"]
                )
        for m in rank["memory"]:
            values.setdefault(f"memory {m['what']}", {}).setdefault(rank["host"], []).append(m["bytes_per_s"])
        if rank.get("storage"):
            for key in ("write_bytes_per_s", "read_bytes_per_s"):
                values.setdefault(f"storage {key.split('_')[0]}", {})[rank["host"]] = [rank["storage"][key]]
    return {what: {host: float(np.median(r)) for host, r in hosts.items()} for what, hosts in values.items()}


def slow_of(names: Sequence[str], rates: Sequence[float], what: str) -> list[Slow]:
    """Return those whose rate is far below the others'; none among fewer than four."""
    logs = np.log(np.array(rates, dtype=float))
    if len(logs) < _FEW:
        return []
    below = np.median(logs) - logs
    spread = float(np.median(np.abs(below)))
    result = []
    for name, rate, gap in zip(names, rates, below, strict=True):
        deviations = _MAD * gap / max(spread, 1e-3)
        if deviations > _FAR and gap > -np.log(1 - _MUCH):
            result.append(Slow(name, what, float(rate), float(np.exp(-gap)), float(min(deviations, 999.0))))
    return result


def polish(matrix: Array, rounds: int = 10) -> tuple[Array, Array]:
    """Return each row's own level, and what is left of every entry without the two levels: a symmetric median polish.

    Args:
        matrix: logarithms, symmetric, NaN where there is no value.
        rounds: how often to go over it.
    """
    level = np.zeros(len(matrix))
    middle = float(np.nanmedian(matrix))
    for _ in range(rounds):
        left = matrix - middle - level[:, None] - level[None, :]
        level = level + 0.5 * np.nanmedian(left, axis=1)  # half: both ends see the change
    return level, matrix - middle - level[:, None] - level[None, :]


def _luck(sweeps: Sequence[Array], here: Sequence[int], other: Array) -> Array:
    """Return how likely some link would by chance be as slow in its best sweep as each one is.

    If all links were alike, one sweep would be as low as that as often as the sweeps of all links are, and all of them
    by the power of their number; of all links the lowest one is looked at (Bonferroni's bound).
    """
    pairs = np.nonzero(np.tri(len(here), k=-1))
    left = np.array([polish(np.log(np.where(other, np.nan, rates))[np.ix_(here, here)])[1] for rates in sweeps])
    known = left[:, pairs[0], pairs[1]].ravel()
    known = np.sort(known[~np.isnan(known)])
    below = (1 + np.searchsorted(known, left.max(axis=0), side="right")) / (1 + len(known))
    return np.asarray(len(known) / len(sweeps) * below ** len(sweeps))


def _slow_links(bench: Bench, rates: Array, sweeps: Sequence[Array]) -> list[Slow]:
    """Return slow nodes by all of their links, and slow links by themselves; links inside nodes are another kind.

    ``rates`` are the best of all sweeps. A link is slow if it is by those, and would hardly be as slow in every sweep
    by chance: what disturbs it for a while is not the link.
    """
    hosts = np.array(bench.hosts)
    inside = hosts[:, None] == hosts[None, :]
    found: list[Slow] = []
    for what, other in (("links between nodes", inside), ("links inside nodes", ~inside)):
        logs = np.log(np.where(other, np.nan, rates))
        use = ~np.isnan(logs).all(axis=1)
        if use.sum() < _FEW:
            continue
        here = np.flatnonzero(use)
        level, left = polish(logs[np.ix_(here, here)])
        middle = float(np.nanmedian(logs))
        found += slow_of([bench.hosts[i] for i in here], list(np.exp(middle + level)), f"all {what}")
        pairs = [(a, b) for a in range(len(here)) for b in range(a) if not np.isnan(left[a, b])]
        luck = _luck(sweeps, here.tolist(), other) if len(sweeps) > 1 else None
        names = [f"{bench.hosts[here[b]]} - {bench.hosts[here[a]]}" for a, b in pairs]
        for each in slow_of(names, [float(np.exp(left[a, b])) for a, b in pairs], what):
            a, b = pairs[names.index(each.where)]
            if luck is not None and luck[a, b] > _CHANCE:
                continue
            found.append(Slow(each.where, what, float(rates[here[a], here[b]]), each.share, each.deviations))
    unique: dict[tuple[str, str], Slow] = {}
    for each in found:  # of several ranks on a node, the worst
        key = (each.where, each.what)
        unique[key] = min(each, unique.get(key, each), key=lambda slow: slow.share)
    return list(unique.values())
