"""What ``nvidia-smi topo -m`` prints: how each pair of GPUs and interfaces of one node is joined."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from hpcplan.documents import read_text
from hpcplan.errors import InputError, Problem
from hpcplan.site.importers.findings import Figure, Findings, InsideFound, NicsFound, NumaFound, Place
from hpcplan.site.importers.inside import nvlink_kind, usual_links

__all__ = ["read_nvidia_smi_topo"]

_ANSI: Final = re.compile(r"\x1b\[[0-9;]*m")
_COLUMN: Final = re.compile(r"CPU Affinity|NUMA Affinity|GPU NUMA ID|\S+")
_GPU: Final = re.compile(r"GPU\d+")
_LINK: Final = re.compile(r"X|NV\d+|PIX|PXB|PSB|PHB|NODE|SOC|SYS|N/A")
_RUN: Final = re.compile(r"(?:X|NV\d{1,2}|PIX|PXB|PSB|PHB|NODE|SOC|SYS)+")
_LINK_IN_RUN: Final = re.compile(r"X|NV\d{1,2}|PIX|PXB|PSB|PHB|NODE|SOC|SYS")
_LEGEND: Final = re.compile(r"(NIC\d+):\s*(\S+)")
# How far apart, nearest first (the legend that the command prints); PSB and SOC are words of old versions.
_DISTANCE: Final = {"PIX": 0, "PSB": 1, "PXB": 1, "PHB": 2, "NODE": 3, "SOC": 4, "SYS": 4}
_CPUS: Final = re.compile(r"[0-9,-]{1,200}")
_MAX_DEVICES: Final = 512
_NICS_PER_GPU: Final = 2  # more are virtual functions, or ports that belong together
_NEAR: Final = 1  # through PCIe switches alone: what a rail's interface has to its GPU


def read_nvidia_smi_topo(path: Path) -> Findings:
    """Read the output of ``nvidia-smi topo -m``.

    The interfaces that reach a GPU through PCIe switches alone are taken for those of the fabric, in the order of the
    GPUs, which is not always their own; where there are none such, all interfaces are.

    Raises:
        InputError: no header that names GPUs, no row of a GPU, or an entry that the command does not print.
    """
    return parse_nvidia_smi_topo(read_text(path), path)


def parse_nvidia_smi_topo(text: str, path: Path) -> Findings:
    """As :func:`read_nvidia_smi_topo`, for a text that came from ``path``."""
    matrix = _Matrix(path)
    lines = text.rstrip().split("\n")
    for number, raw in enumerate(lines, start=1):
        matrix.take(_ANSI.sub("", raw).rstrip(), number, last=number == len(lines))
    return matrix.findings()


def _apart(word: str) -> list[str]:
    """Return the entries of a word; where lines are longer than a terminal, blanks between two may be lost."""
    return _LINK_IN_RUN.findall(word) if _RUN.fullmatch(word) else [word]


class _Matrix:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.columns: list[str] = []
        self.index: dict[str, int] = {}
        self.rows: dict[str, list[str]] = {}
        self.numa: dict[str, tuple[str, str]] = {}  # GPU: its NUMA node, its CPUs
        self.legend: dict[str, str] = {}
        self.problems: list[Problem] = []

    def take(self, line: str, number: int, *, last: bool = False) -> None:
        """Take one line in; the last may be cut anywhere."""
        if not line.strip():
            return
        if not self.columns:
            self._header(line, number)
            return
        if (match := _LEGEND.match(line.strip())) is not None:
            self.legend[match[1]] = match[2]
            return
        words = line.split()
        if words[0] in self.index:
            words[1:] = [part for word in words[1:] for part in _apart(word)]
            self._row(words, number, last)

    def _header(self, line: str, number: int) -> None:
        names = _COLUMN.findall(line)
        if not names or not _GPU.fullmatch(names[0]):
            return  # a line before the table, such as the shell's prompt
        self.columns = [name for name in names if not name.endswith((" Affinity", "NUMA ID"))]
        self.index = {name: index for index, name in enumerate(self.columns)}
        place = Place(str(self.path), number)
        if len(self.index) < len(self.columns):
            raise InputError(place.problem("a column stands twice in the header"))
        if len(self.columns) > _MAX_DEVICES:
            raise InputError(place.problem(f"names more than {_MAX_DEVICES} devices of one node"))

    def _row(self, words: list[str], number: int, last: bool) -> None:
        name, entries = words[0], words[1 : 1 + len(self.columns)]
        place = Place(str(self.path), number)
        if name in self.rows:
            self.problems.append(place.problem(f"the row of {name} stands again; the first counts"))
            return
        bad = next((entry for entry in entries if not _LINK.fullmatch(entry)), None)
        if bad is not None and not (last and bad == entries[-1] == words[-1]):
            raise InputError(place.problem(f"{bad!r} is no entry of nvidia-smi topo -m", name))
        if bad is not None:
            entries = entries[:-1]  # the output was cut within a word
        if len(entries) < len(self.columns):
            message = f"the row of {name} has {len(entries)} of {len(self.columns)} entries; the output is cut"
            self.problems.append(place.problem(message))
        self.rows[name] = entries
        rest = words[1 + len(self.columns) :]
        if _GPU.fullmatch(name) and len(rest) > 1 and rest[1].isdigit():
            self.numa[name] = (rest[1], rest[0])

    def findings(self) -> Findings:
        """Return everything."""
        gpus = [name for name in self.columns if _GPU.fullmatch(name)]
        nics = [name for name in self.columns if not _GPU.fullmatch(name)]
        if not gpus:
            raise InputError(Problem("no header that names GPUs; is it from nvidia-smi topo -m?", file=str(self.path)))
        if not any(name in self.rows for name in gpus):
            raise InputError(Problem("the table has no row of a GPU", file=str(self.path)))
        missing = [name for name in self.columns if name not in self.rows]
        if missing:
            message = f"the header names {len(self.columns)} devices, but the rows of {', '.join(missing)} are missing"
            self.problems.append(Problem(message, file=str(self.path)))
        origin = f"from {self.path.name}"
        kind, links = self._nvlinks(gpus)
        rails = tuple(self._nearest(gpu, nics) for gpu in gpus)
        near = list(dict.fromkeys(nic for rail in rails for nic in rail)) or nics
        inside = InsideFound(
            len(gpus),
            kind,
            origin,
            links=links,
            nics_of_gpu=tuple(tuple(self._named(rail)) for rail in rails) if any(rails) else (),
            sockets=len({node for node, _ in self.numa.values()}) or None,
            mesh=self._mesh(gpus) if kind == "nvlink" else (),
            numa=self._near_sockets(gpus, rails, near),
        )
        if len(near) > _NICS_PER_GPU * len(gpus):
            message = (
                f"{len(near)} interfaces near {len(gpus)} GPUs: if several are parts of one port, correct their number"
            )
            self.problems.append(Place(str(self.path)).note(message, "NIC"))
        names = tuple(self._named(near)) if self.legend or not any(nic.startswith("NIC") for nic in near) else ()
        found = NicsFound(Figure(len(near), origin), names=names) if near else None
        return Findings(str(self.path), inside=inside, nics=found, problems=tuple(self.problems))

    def _named(self, nics: Iterable[str]) -> list[str]:
        return [self.legend.get(nic, nic) for nic in nics]

    def _entry(self, row: str, column: str) -> str | None:
        """Return the entry of a pair; the table is symmetric, so the other half helps where it is cut."""
        for one, other in ((row, column), (column, row)):
            index = self.index[other]
            if one in self.rows and index < len(self.rows[one]):
                return self.rows[one][index]
        return None

    def _nvlinks(self, gpus: list[str]) -> tuple[str, int]:
        per_gpu: list[tuple[str, int]] = []
        for gpu in gpus:
            entries = [self._entry(gpu, other) for other in gpus if other != gpu]
            per_gpu.append(nvlink_kind([int(entry[2:]) for entry in entries if entry and entry.startswith("NV")]))
        usual, others = usual_links(per_gpu)
        if others:
            names = ", ".join(gpus[number] for number in others)
            message = (
                f"GPUs differ in their NVLinks: {names} from the others; what most have, {usual[1]}, counts for all"
            )
            self.problems.append(Problem(message, file=str(self.path)))
        return usual

    def _mesh(self, gpus: list[str]) -> tuple[tuple[int, ...], ...]:
        entries = [[self._entry(a, b) or "" for b in gpus] for a in gpus]
        return tuple(tuple(int(entry[2:]) if entry.startswith("NV") else 0 for entry in row) for row in entries)

    def _near_sockets(
        self, gpus: list[str], rails: tuple[tuple[str, ...], ...], near: list[str]
    ) -> tuple[NumaFound, ...]:
        """Return what is near to each NUMA node; interfaces are near to it with the GPU whose rail they are."""
        if not all(gpu in self.numa for gpu in gpus):
            return ()
        found = []
        for node in sorted({node for node, _ in self.numa.values()}, key=int):
            here = [index for index, gpu in enumerate(gpus) if self.numa[gpu][0] == node]
            nics = dict.fromkeys(near.index(nic) for index in here for nic in rails[index])
            cpus = self.numa[gpus[here[0]]][1]
            found.append(NumaFound(tuple(here), tuple(nics), cpus if _CPUS.fullmatch(cpus) else None))
        return tuple(found)

    def _nearest(self, gpu: str, nics: list[str]) -> tuple[str, ...]:
        distance = {nic: _DISTANCE.get(self._entry(gpu, nic) or "", 9) for nic in nics}
        nearest = min(distance.values(), default=9)
        return tuple(nic for nic in nics if distance[nic] == nearest) if nearest <= _NEAR else ()
