"""``--json`` of scontrol and sinfo, and the REST interface's answers of the same shape, as lines of slurm.conf.

The shape changes with every release: numbers stand alone or as ``{set, infinite, number}``, lists as lists or as text
with commas, and fields of partitions moved into groups with 23.02.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from hpcplan.documents import Document, parse_document
from hpcplan.errors import InputError
from hpcplan.hostlist import compress
from hpcplan.site.importers.findings import Budget, Place
from hpcplan.site.importers.slurm_lines import ConfLine

__all__ = ["json_lines", "looks_like_json"]


def looks_like_json(text: str) -> bool:
    """Return whether a text is JSON rather than what scontrol prints by itself."""
    return text.lstrip()[:1] in ("{", "[")


def json_lines(text: str, label: str) -> Iterator[ConfLine]:
    """Yield the version, the nodes and the partitions of an answer.

    Raises:
        InputError: not JSON.
    """
    document = parse_document(text, label)
    value = document.value if isinstance(document.value, dict) else {}
    place = Place(label, None, Budget())
    version = _version(value)
    if version is not None:
        yield _line({"slurm_version": version}, place)
    lines = _rows(document, value, "sinfo", _sinfo, place)
    yield from sorted(lines, key=_order)  # nodes in different states are in different rows
    for kind, make in (("nodes", _node), ("partitions", _partition)):
        yield from _rows(document, value, kind, make, place)


def _rows(
    document: Document, value: Mapping[str, Any], kind: str,
    make: Callable[[Mapping[str, Any], Place], Iterator[ConfLine]], place: Place,
) -> Iterator[ConfLine]:  # fmt: skip
    rows = value.get(kind)
    for number, row in enumerate(rows if isinstance(rows, list) else []):
        if not isinstance(row, dict):
            raise InputError(document.problem((kind, number), "must be a mapping"))
        yield from make(row, Place(place.file, None, place.budget))


def _order(line: ConfLine) -> tuple[bool, list[tuple[int, str]]]:
    """Return a key that puts n2 before n10, and what is no node last, as it came."""
    parts = re.split(r"(\d+)", line.pairs.get("nodename", ""))
    return "nodename" not in line.pairs, [(int(part[:18]) if part.isdecimal() else -1, part) for part in parts]


def _line(pairs: Mapping[str, Any], place: Place) -> ConfLine:
    kept = {key: str(value) for key, value in pairs.items() if value not in (None, "", [], 0)}
    return ConfLine(place, kept, {})


def _version(value: Mapping[str, Any]) -> str | None:
    meta = value.get("meta") if isinstance(value.get("meta"), dict) else {}
    for key in ("slurm", "Slurm"):
        release = _at(meta, key, "release")
        if isinstance(release, str) and release:
            return release
    return None


def _at(value: Any, *keys: str) -> Any:
    for key in keys:
        if not isinstance(value, dict):
            return None
        value = value.get(key)
    return value


def _number(value: Any) -> int | None:
    """Return a whole number however the release writes it; ``None`` where it is not set or infinite."""
    if isinstance(value, dict):
        if value.get("infinite") or not value.get("set", True):
            return None
        value = value.get("number")
    if isinstance(value, str) and value.isdecimal():
        value = int(value[:18])
    return int(value) if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 2**53 else None


def _words(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(str(item) for item in value)
    return str(value) if value else ""


def _state(row: Mapping[str, Any]) -> str:
    flags = row.get("state_flags")
    words = [_words(row.get("state")).replace(",", "+"), _words(flags).replace(",", "+") if flags else ""]
    return "+".join(word for word in words if word).upper()


def _node(row: Mapping[str, Any], place: Place) -> Iterator[ConfLine]:
    name = row.get("name") or row.get("hostname")
    if not name:
        return
    yield _line(
        {
            "nodename": name,
            "cpus": _number(row.get("cpus")),
            "realmemory": _number(row.get("real_memory")),
            "sockets": _number(row.get("sockets")),
            "corespersocket": _number(row.get("cores")),
            "threadspercore": _number(row.get("threads")),
            "gres": _words(row.get("gres")),
            "features": _words(row.get("features")) or _words(row.get("active_features")),
            "weight": _number(row.get("weight")),
            "state": _state(row),
            "partitions": _words(row.get("partitions")),
            "version": _words(row.get("version")),
        },
        place,
    )


def _partition(row: Mapping[str, Any], place: Place) -> Iterator[ConfLine]:
    """Yield a partition, in the groups of 23.02 and later or as 21.08 and 22.05 have it."""
    if not row.get("name"):
        return
    flags = [str(flag).lower() for flag in row.get("flags") or [] if isinstance(row.get("flags"), list)]
    nodes = row.get("nodes")
    listed = _at(row, "nodes", "configured") if isinstance(nodes, dict) else nodes
    yield _line(
        {
            "partitionname": row["name"],
            "nodes": _words(listed),
            "default": "YES" if "default" in flags or "default" in _lower(_at(row, "partition", "flags")) else "",
            "state": (_words(_at(row, "partition", "state")) or _words(row.get("state"))).split(",")[0].upper(),
            "maxtime": _first(row, ("maximums", "time"), ("max_time_limit",)),
            "defaulttime": _first(row, ("defaults", "time"), ("default_time_limit",)),
            "maxnodes": _first(row, ("maximums", "nodes"), ("maximum_nodes_per_job",)),
            "minnodes": _first(row, ("minimums", "nodes"), ("minimum_nodes_per_job", "min_nodes_per_job")),
            "allowqos": _words(_at(row, "qos", "allowed")) or _words(row.get("allowed_qos")),
            "qos": _words(_at(row, "qos", "assigned")) if isinstance(row.get("qos"), dict) else _words(row.get("qos")),
            "allowaccounts": _words(_at(row, "accounts", "allowed")) or _words(row.get("allowed_accounts")),
            "prioritytier": _first(row, ("priority", "tier"), ("priority_tier",)),
            "preemptmode": _words(row.get("preemption_mode") or _at(row, "preempt", "mode")),
            "gracetime": _first(row, ("grace_time",), ("preemption_grace_time",)),
            "defmempercpu": _number(_at(row, "defaults", "partition_memory_per_cpu")),
            "defmempernode": _number(_at(row, "defaults", "partition_memory_per_node")),
            "jobdefaults": _words(_at(row, "defaults", "job")),
        },
        place,
    )


def _lower(value: Any) -> list[str]:
    return [str(item).lower() for item in value] if isinstance(value, list) else []


def _first(row: Mapping[str, Any], *paths: tuple[str, ...]) -> int | None:
    return next((found for path in paths if (found := _number(_at(row, *path))) is not None), None)


def _sinfo(row: Mapping[str, Any], place: Place) -> Iterator[ConfLine]:
    """Yield the nodes, then the partition, of one row of ``sinfo --json``: nodes that are alike."""
    names = [str(name) for name in _at(row, "nodes", "nodes") or []]
    sockets = _at(row, "sockets", "maximum")
    for name in names:
        yield _line(
            {
                "nodename": name,
                "cpus": _number(_at(row, "cpus", "maximum")),
                "realmemory": _number(_at(row, "memory", "maximum")),
                "sockets": _number(sockets),
                "corespersocket": _number(_at(row, "cores", "maximum")),
                "threadspercore": _number(_at(row, "threads", "maximum")),
                "gres": _words(_at(row, "gres", "total")),
                "features": _words(_at(row, "features", "total")),
                "weight": _number(_at(row, "weight", "maximum")),
                "state": _words(_at(row, "node", "state")).replace(",", "+").upper(),
            },
            place,
        )
    partition = row.get("partition")
    if isinstance(partition, dict) and partition.get("name"):
        for line in _partition(partition, place):
            nodes = line.pairs.get("nodes") or compress(names)
            yield ConfLine(place, {**line.pairs, **({"nodes": nodes} if nodes else {})}, {})
