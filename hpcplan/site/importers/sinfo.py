"""The tables of ``sinfo``: as it prints them by itself, with ``--long``, ``--Node``, or a format of the user's."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from hpcplan.hostlist import compress
from hpcplan.site.importers.findings import Place
from hpcplan.site.importers.slurm_lines import ConfLine

__all__ = ["is_sinfo_header", "sinfo_lines"]

# The headings of sinfo(1) that say something of a node or partition, as keys of slurm.conf(5).
_COLUMNS: Final = {
    "PARTITION": "partition", "AVAIL": "avail", "TIMELIMIT": "maxtime", "DEFAULTTIME": "defaulttime",
    "NODELIST": "nodelist", "HOSTNAMES": "nodelist", "HOSTNAME": "nodelist", "STATE": "state", "CPUS": "cpus",
    "S:C:T": "sct", "SOCKETS": "sockets", "CORES": "corespersocket", "THREADS": "threadspercore",
    "MEMORY": "realmemory", "WEIGHT": "weight", "GRES": "gres", "AVAIL_FE": "features", "AVAIL_FEATURES": "features",
    "FEATURES": "features", "PRIO_TIER": "prioritytier", "OVERSUBS": "oversubscribe",
}  # fmt: skip
_NOTHING: Final = frozenset({"(null)", "n/a", "none", "infinite", "unlimited"})
_SUFFIX: Final = re.compile(r"[*~#%!$@^+-]+$")


def is_sinfo_header(line: str) -> bool:
    """Return whether a line is the heading of such a table, separated by blanks or ``|``."""
    words = set(_split(line))
    return bool(words & {"NODELIST", "HOSTNAMES", "HOSTNAME"}) and len(words & {"PARTITION", "STATE", "CPUS"}) > 0


def sinfo_lines(header: str, line: str, place: Place) -> Iterator[ConfLine]:
    """Yield the nodes, then the partition, of one row; nothing for a row that is cut."""
    names, values = _split(header), _split(line)
    if "|" not in header and len(values) > len(names):
        values = [*values[: len(names) - 1], " ".join(values[len(names) - 1 :])]  # REASON holds blanks
    if len(values) < len(names):
        return
    row = {_COLUMNS[name]: value for name, value in zip(names, values, strict=True) if name in _COLUMNS}
    row = {key: value for key, value in row.items() if value and value.lower() not in _NOTHING}
    hosts = place.hosts(row["nodelist"], "NODELIST") if "nodelist" in row else ()
    if "sct" in row:
        parts = row["sct"].split(":")
        row |= dict(zip(("sockets", "corespersocket", "threadspercore"), parts, strict=False))
    node: dict[str, str] = {key: _plain(row[key]) for key in _NODE if key in row}
    if "state" in row:
        node["state"] = _SUFFIX.sub("", row["state"]).upper()
    for host in hosts:
        yield ConfLine(place, {"nodename": host, **node}, {})
    if "partition" in row:
        partition: dict[str, str] = {key: row[key] for key in _PARTITION if key in row}
        name = row["partition"]
        pairs = {"partitionname": name.removesuffix("*"), **partition}
        if name.endswith("*"):
            pairs["default"] = "YES"
        if "avail" in row:
            pairs["state"] = row["avail"].upper()
        if hosts:
            pairs["nodes"] = compress(hosts)
        yield ConfLine(place, pairs, {})


_PARTITION: Final = ("maxtime", "defaulttime", "prioritytier", "oversubscribe")
_NODE: Final = ("cpus", "sockets", "corespersocket", "threadspercore", "realmemory", "weight", "gres", "features")


def _plain(value: str) -> str:
    """Return a figure without the ``+`` that sinfo puts where nodes have more."""
    return value.removesuffix("+")


def _split(line: str) -> list[str]:
    return [word.strip() for word in line.split("|")] if "|" in line else line.split()
