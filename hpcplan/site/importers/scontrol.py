"""What a running Slurm says: ``scontrol show config``, ``node``, ``partition`` and ``topology``, or ``sinfo``.

Text (one line a record or several) and ``--json`` of any release from 20.11 to 26.05 are told apart by their content;
one file may hold several answers after each other. Everything becomes lines of slurm.conf(5), whose keys
``scontrol show`` prints, and is read by that importer.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from hpcplan.documents import read_text
from hpcplan.errors import InputError, Problem
from hpcplan.hostlist import compress
from hpcplan.site.importers.findings import Budget, Figure, Findings, Place
from hpcplan.site.importers.scontrol_json import json_lines, looks_like_json
from hpcplan.site.importers.sinfo import is_sinfo_header, sinfo_lines
from hpcplan.site.importers.slurm_conf import PARTITION_KEYS, SlurmConfParser
from hpcplan.site.importers.slurm_lines import ConfLine
from hpcplan.site.importers.topology_conf import TopologyParser

__all__ = ["parse_scontrol", "read_scontrol"]

_MAX_BYTES: Final = 128 * 1024**2  # ten thousand nodes take 25 MB in JSON
_KEY: Final = re.compile(r"(?:^|\s)([A-Za-z][A-Za-z0-9_/:]*)=")
_RECORD: Final = re.compile(r"(NodeName|PartitionName|SwitchName|BlockName|RingName|AggregatedBlock|TorusName)=")
_SETTING: Final = re.compile(r"([A-Za-z][A-Za-z0-9_/]*(?:\[\d+\])?)\s*=\s?(.*)")
_NOTHING: Final = frozenset({"(null)", "n/a", "none", "unlimited", "infinite", "unknown", "not set", "n/s", ""})
_TOPOLOGY: Final = ("switchname", "blockname", "ringname")
# What scontrol calls otherwise than slurm.conf; sockets are those of all boards together.
_NODE: Final = {
    "nodename": "nodename", "cputot": "cpus", "realmemory": "realmemory", "sockets": "sockets", "gres": "gres",
    "corespersocket": "corespersocket", "threadspercore": "threadspercore", "availablefeatures": "features",
    "features": "features", "weight": "weight", "state": "state", "partitions": "partitions", "version": "version",
}  # fmt: skip
_HOSTLISTS: Final = ("nodes", "switches")


def read_scontrol(paths: Sequence[Path]) -> Findings:
    """Read files that hold what ``scontrol show`` or ``sinfo`` printed, all of one cluster.

    Raises:
        InputError: a file that cannot be read, or nothing in it that these commands print.
    """
    return parse_scontrol([(str(path), read_text(path, max_bytes=_MAX_BYTES)) for path in paths])


def parse_scontrol(texts: Sequence[tuple[str, str]]) -> Findings:
    """As :func:`read_scontrol`, for texts with what to call each of them.

    Raises:
        InputError: see :func:`read_scontrol`.
    """
    answer = _Answer()
    for label, text in texts:
        answer.take(label, text)
    return answer.findings(texts[0][0] if len(texts) == 1 else "scontrol")


class _Answer:
    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.conf = SlurmConfParser(self.problems)
        self.topology = TopologyParser(self.problems)
        self.nodes: dict[tuple[tuple[str, str], ...], tuple[ConfLine, list[str]]] = {}
        self.states: dict[str, tuple[ConfLine, list[str]]] = {}
        self.seen: set[str] = set()
        self.members: dict[str, tuple[ConfLine, list[str]]] = {}
        self.named_by_nodes: dict[str, tuple[ConfLine, list[str]]] = {}
        self.versions: dict[str, tuple[ConfLine, list[str]]] = {}
        self.sizes: set[int] = set()
        self.places = 0

    def take(self, label: str, text: str) -> None:
        """Take in one text, whatever it holds.

        Raises:
            InputError: nothing in it is what these commands print.
        """
        before = self.places
        lines = json_lines(text, label) if looks_like_json(text) else _lines(text, label)
        for line in lines:
            self.places += line.first != "slurm_version" or not looks_like_json(text)  # JSON of other things has it too
            self._line(line)
        if self.places == before:
            message = "holds nothing that scontrol show or sinfo print"
            raise InputError(Problem(message, file=label), hint="try: scontrol show config; scontrol --all show node")

    def _line(self, line: ConfLine) -> None:
        match line.first:
            case "nodename":
                self._node(line)
            case "partitionname":
                self.members.setdefault(line.pairs["partitionname"], (line, []))[1].append(line.get("nodes") or "")
            case "aggregatedblock":
                self.sizes |= {int(size) for size in [line.get("blocksize") or ""] if size.isdecimal()}
            case "switchname" | "blockname" | "ringname":
                if line.first == "blockname":
                    self.sizes |= {int(size) for size in [line.get("blocksize") or ""] if size.isdecimal()}
                self.topology.take(line)
            case "torusname":
                self.problems.append(
                    line.place.note("a torus is not read from here; give its topology.yaml", "TorusName")
                )
            case _:
                self.conf.take(line)

    def _node(self, line: ConfLine) -> None:
        """Gather nodes that are described alike, so that thousands of them are few lines."""
        name = line.pairs["nodename"]
        if name in self.seen:
            return  # sinfo has a line for each partition of a node
        self.seen.add(name)
        state = (line.get("state") or "UNKNOWN").upper()
        if state.startswith("FUTURE"):
            return
        self.states.setdefault(state, (line, []))[1].append(name)
        for partition in (line.get("partitions") or "").split(","):
            if partition:
                self.named_by_nodes.setdefault(partition, (line, []))[1].append(name)
        if (release := line.get("version")) is not None:
            self.versions.setdefault(release, (line, []))[1].append(name)
        pairs = {key: value for key, value in line.pairs.items() if key not in ("state", "partitions", "version")}
        key = tuple(sorted(item for item in pairs.items() if item[0] != "nodename"))
        self.nodes.setdefault(key, (ConfLine(line.place, pairs, line.spelling), []))[1].append(name)

    def findings(self, source: str) -> Findings:
        """Return everything."""
        for line, names in self.nodes.values():
            self.conf.take_nodes(line, names)
        for state, (line, names) in self.states.items():
            self.conf.take_state(line, names, state)
        for name, (line, names) in self.named_by_nodes.items() if not self.members else ():
            self.conf.take(ConfLine(line.place, {"partitionname": name, "nodes": compress(names)}, {}))
        for line, lists in self.members.values():  # sinfo has a line for each state that nodes are in
            nodes = ",".join(dict.fromkeys(each for each in lists if each))
            self.conf.take(ConfLine(line.place, line.pairs | ({"nodes": nodes} if nodes else {}), line.spelling))
        if self.sizes and not self.topology.block_sizes:
            self.topology.block_sizes = tuple(sorted(size for size in self.sizes if size))
        found = self.conf.findings(source)
        tree = self.topology.findings(source)
        return Findings(
            source,
            cluster=found.cluster,
            version=self._version(),
            nodes=found.nodes,
            partitions=found.partitions,
            switches=tree.switches,
            blocks=tree.blocks,
            block_sizes=tree.block_sizes,
            shared_nodes=found.shared_nodes,
            topology_plugin=found.topology_plugin or tree.topology_plugin,
            dragonfly=found.dragonfly,
            scheduler=found.scheduler,
            drained=found.drained,
            problems=tuple(dict.fromkeys(self.problems)),
        )

    def _version(self) -> Figure[str] | None:
        """Return the controller's release; where only nodes are shown, that of most of them."""
        told = self.conf.settings.get("slurm_version")
        if told is not None:
            return Figure(told[0], told[1].place.origin)
        if not self.versions:
            return None
        release, (line, _) = max(self.versions.items(), key=lambda item: len(item[1][1]))
        return Figure(release, line.place.origin)


def _lines(text: str, label: str) -> Iterator[ConfLine]:
    """Yield what a text says, record by record; a record goes on while lines are indented."""
    budget = Budget()
    record: list[str] = []
    start, header = 0, None
    for number, raw in enumerate(io.StringIO(text), start=1):
        line = raw.rstrip()
        if record and line[:1].isspace() and line.strip():
            record.append(line.strip())
            continue
        yield from _record(record, Place(label, start, budget))
        record = []
        if not line.strip():
            header = None
        elif _RECORD.match(line.strip()) is not None:
            record, start, header = [line.strip()], number, None
        elif is_sinfo_header(line):
            header = line
        elif header is not None:
            yield from sinfo_lines(header, line, Place(label, number, budget))
        elif (match := _SETTING.fullmatch(line.strip())) is not None:
            yield from _setting(match[1], match[2].strip(), Place(label, number, budget))
    yield from _record(record, Place(label, start, budget))


def _setting(key: str, value: str, place: Place) -> Iterator[ConfLine]:
    if value.lower() not in _NOTHING or key.lower() in ("preempttype", "prioritytype"):
        yield ConfLine(place, {key.lower(): value}, {key.lower(): key})


def _record(parts: Iterable[str], place: Place) -> Iterator[ConfLine]:
    text = " ".join(parts)
    if not text:
        return
    pairs: dict[str, str] = {}
    spelling: dict[str, str] = {}
    keys = list(_KEY.finditer(text))
    for key, following in zip(keys, [*keys[1:], None], strict=True):
        value = text[key.end() : following.start() if following else len(text)].strip()
        name = key[1].lower()
        if value.lower() not in _NOTHING and name not in pairs:  # what people write stands last, so the first is true
            pairs[name], spelling[name] = value, key[1]
    first = keys[0][1].lower()
    if first == "nodename":
        pairs = {_NODE[name]: value for name, value in pairs.items() if name in _NODE}
    if first == "partitionname":
        pairs = {name: value for name, value in pairs.items() if name in PARTITION_KEYS}
    if first in _TOPOLOGY:
        pairs = {name: "".join(value.split()) if name in _HOSTLISTS else value for name, value in pairs.items()}
    if first in pairs:
        yield ConfLine(place, pairs, spelling)
