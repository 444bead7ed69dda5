"""gres.conf: which devices a node has (gres.conf(5))."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from hpcplan.errors import Problem, nearest
from hpcplan.hostlist import MAX_HOSTS, expand
from hpcplan.site.importers.findings import EVERY_NODE, Devices, Figure, Findings, NodesFound, Place
from hpcplan.site.importers.slurm_lines import ConfLine, Reader

__all__ = ["read_gres_conf"]

_KEYS: Final = frozenset(
    {
        "autodetect", "cores", "count", "cpus", "file", "flags", "ignore", "link", "links", "multiplefiles",
        "name", "nodename", "type",
    }
)  # fmt: skip
_COUNT: Final = re.compile(r"([0-9]{1,12})([kKmMgGtTpP]?)")
_MAX_DEVICES: Final = 4096
_MAX_FILES: Final = 4_000_000  # of all nodes together


def read_gres_conf(path: Path) -> Findings:
    """Read gres.conf and the files that it includes; GPUs alone are reported.

    Lines of one node add up, a device file counts once. Lines without ``NodeName`` hold for every node and are
    reported under the name ``EVERY_NODE``.

    Raises:
        InputError: a line that Slurm could not read either: not ``Key=Value``, a bad hostlist, list or count.
    """
    reader = Reader()
    parser = _Parser(reader.problems)
    for line in reader.read(path):
        parser.take(line)
    return parser.findings(str(path))


@dataclass(slots=True)
class _Gpus:
    """The GPUs of one node as lines add up."""

    place: Place
    files: dict[str, int | None] = field(default_factory=dict)
    counted: int = 0
    types: dict[str | None, int] = field(default_factory=dict)

    def devices(self) -> Devices:
        most = max(self.types, key=lambda kind: (self.types[kind], kind is not None))
        return Devices(len(self.files) + self.counted, most)


class _Parser:
    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        self.gpus: dict[str, _Gpus] = {}
        self.auto: dict[str, ConfLine] = {}
        self.explicit: set[str] = set()
        self.total = self.total_files = 0

    def take(self, line: ConfLine) -> None:
        """Take one line in."""
        for key in line.pairs.keys() - _KEYS:
            message = "unknown key; it is ignored" + nearest(key, _KEYS)
            self.problems.append(line.place.problem(message, line.spelling[key]))
        nodes = line.place.hosts(line.pairs["nodename"], "NodeName") if "nodename" in line.pairs else (EVERY_NODE,)
        self.total += len(nodes)
        if self.total > MAX_HOSTS:
            raise line.error("nodename", f"the file names more than {MAX_HOSTS:,} nodes")
        how = (line.get("autodetect") or "").lower()
        if how and how != "off":
            self.auto |= dict.fromkeys(nodes, line)
        if "name" not in line.pairs:
            if not how:
                self.problems.append(line.place.problem("the line has no Name; it is left out", "Name"))
            return
        if line.pairs["name"].lower() == "gpu" and (line.get("ignore") or "").lower() not in ("true", "yes"):
            self._gpu(line, nodes)

    def _gpu(self, line: ConfLine, nodes: tuple[str, ...]) -> None:
        files = self._files(line)
        count = self._count(line)
        kind = (line.get("type") or "").lower() or None
        if files and count is not None and count != len(files):
            message = f"Count={count}, but File names {len(files)} devices; the files count"
            self.problems.append(line.place.problem(message, "Count"))
        self.total_files += len(files) * len(nodes)
        if self.total_files > _MAX_FILES:
            raise line.error("file", f"the file names more than {_MAX_FILES:,} devices")
        again: str | None = None
        for node in nodes:
            here = self.gpus.setdefault(node, _Gpus(line.place))
            new = [file for file in files if file not in here.files]
            if len(new) < len(files):
                again = next(file for file in files if file in here.files)
            here.files |= dict.fromkeys(new, line.place.line)
            here.counted += 0 if files else 1 if count is None else count
            here.types[kind] = here.types.get(kind, 0) + max(1, len(new))
        if again is not None:
            first = self.gpus[nodes[0]].files.get(again)
            message = f"device {again} is named again, first on line {first}; it counts once"
            self.problems.append(line.place.problem(message, "File"))

    def _files(self, line: ConfLine) -> list[str]:
        key = "file" if "file" in line.pairs else "multiplefiles"
        if key not in line.pairs:
            return []
        try:
            names = expand(line.pairs[key], limit=_MAX_DEVICES)
        except ValueError as error:
            raise line.error(key, str(error)) from None
        if key == "multiplefiles":  # several files of one device
            return [",".join(names)]
        return list(dict.fromkeys(names))

    def _count(self, line: ConfLine) -> int | None:
        if "count" not in line.pairs:
            return None
        match = _COUNT.fullmatch(line.pairs["count"])
        if match is None or int(match[1]) > 10**9:
            raise line.error("count", f"{line.pairs['count']!r} is not a count")
        scale: int = 1024 ** " kmgtp".index(match[2].lower() or " ")
        return int(match[1]) * scale

    def findings(self, source: str) -> Findings:
        """Return everything."""
        found: dict[tuple[Place, Devices | None], list[str]] = {}
        for node, gpus in self.gpus.items():
            found.setdefault((gpus.place, gpus.devices()), []).append(node)
        undetected = {node: line for node, line in self.auto.items() if node not in self.gpus}
        for node, line in undetected.items():
            found.setdefault((line.place, None), []).append(node)
        for line in {id(line): line for line in undetected.values()}.values():
            if EVERY_NODE not in undetected or line is undetected[EVERY_NODE]:
                how = line.pairs["autodetect"]
                message = f"AutoDetect={how} counts GPUs on the node itself; this file says no number"
                self.problems.append(line.place.note(message, "AutoDetect"))
        nodes = tuple(
            NodesFound(
                tuple(names),
                place,
                gpus=Figure(devices, place.origin) if devices is not None and devices.count else None,
            )
            for (place, devices), names in found.items()
        )
        return Findings(source, nodes=nodes, problems=tuple(self.problems))
