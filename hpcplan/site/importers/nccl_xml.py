"""NCCL's topology file (``NCCL_TOPO_FILE``, ``NCCL_TOPO_DUMP_FILE``): the PCI tree, NVLinks and interfaces of a node.

Read with expat; a document type, and with it every entity, is refused, so that nothing can expand or be fetched.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final
from xml.parsers import expat

from hpcplan.documents import MAX_DEPTH, read_text
from hpcplan.errors import InputError, Problem
from hpcplan.site.importers.findings import Figure, Findings, InsideFound, NicsFound, NumaFound, Place
from hpcplan.site.importers.inside import (
    GPU_OF_CAPABILITY,
    GPU_OF_PCI_ID,
    nvlink_bytes_per_s,
    pcie_bytes_per_s,
    usual_links,
)

__all__ = ["read_nccl_xml"]

_GPU_CLASSES: Final = ("0x0300", "0x0302", "0x1200")  # VGA, 3D controller, processing accelerator (PCI Code and ID)
_NIC_CLASSES: Final = ("0x0200", "0x0207")  # Ethernet, InfiniBand


@dataclass(slots=True)
class _Element:
    name: str
    attributes: dict[str, str]
    line: int
    cpu: int | None = None
    children: list[_Element] = field(default_factory=list)

    def every(self, name: str) -> list[_Element]:
        """Return the elements of that name at any depth, in the order of the file."""
        found: list[_Element] = []
        stack = [self]
        while stack:
            element = stack.pop()
            if element.name == name:
                found.append(element)
            stack.extend(reversed(element.children))
        return found


def read_nccl_xml(path: Path) -> Findings:
    """Read an NCCL topology file.

    Raises:
        InputError: not XML, a document type or entity in it, nested too deep, a graph file (``NCCL_GRAPH_DUMP_FILE``,
            which holds rings and trees that NCCL chose, not what the node has), or no GPU.
    """
    return parse_nccl_xml(read_text(path), path)


def parse_nccl_xml(text: str, path: Path) -> Findings:
    """As :func:`read_nccl_xml`, for a text that came from ``path``."""
    root = _parse(text, path)
    if root.name != "system":
        what = "not an NCCL topology, whose root is <system>"
        if root.name == "graphs":
            what = "a graph that NCCL chose, not a topology; give the file of NCCL_TOPO_DUMP_FILE"
        raise InputError(Problem(f"<{root.name}> is {what}", file=str(path), line=root.line))
    problems: list[Problem] = []
    _keep_first_host(root, path, problems)
    gpus = [pci for pci in root.every("pci") if _is(pci, _GPU_CLASSES) or any(c.name == "gpu" for c in pci.children)]
    if not gpus:
        raise InputError(Problem("no GPU is in it (a <pci> of class 0x0300, 0x0302 or 0x1200)", file=str(path)))
    inside = replace(_inside(root, gpus, path, problems), nics_of_gpu=_rails(root, gpus))
    return Findings(str(path), inside=inside, nics=_nics(root, path), problems=tuple(problems))


def _keep_first_host(root: _Element, path: Path, problems: list[Problem]) -> None:
    """Drop the processors of other nodes: where NVLink joins nodes, NCCL's dump holds all of them."""
    hosts = list(dict.fromkeys(cpu.attributes.get("host_hash") for cpu in root.children if cpu.name == "cpu"))
    if len(hosts) > 1:
        problems.append(Place(str(path)).note(f"{len(hosts)} nodes are in it; the first is taken for all"))
        root.children = [cpu for cpu in root.children if cpu.attributes.get("host_hash") == hosts[0]]


def _is(pci: _Element, classes: tuple[str, ...]) -> bool:
    return pci.attributes.get("class", "").lower().startswith(classes)


def _parse(text: str, path: Path) -> _Element:
    parser = expat.ParserCreate()
    stack: list[_Element] = []
    roots: list[_Element] = []

    def refuse(*_: object) -> None:
        message = "a document type or entity is in it; NCCL writes none, and none is read"
        raise InputError(Problem(message, file=str(path), line=parser.CurrentLineNumber))

    def start(name: str, attributes: dict[str, str]) -> None:
        if len(stack) >= MAX_DEPTH:
            message = f"nested more than {MAX_DEPTH} deep"
            raise InputError(Problem(message, file=str(path), line=parser.CurrentLineNumber))
        element = _Element(name, attributes, parser.CurrentLineNumber)
        (stack[-1].children if stack else roots).append(element)
        stack.append(element)

    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    parser.StartElementHandler = start
    parser.EndElementHandler = lambda _name: stack.pop()
    try:
        parser.Parse(text.encode(), True)
    except expat.ExpatError as error:
        reason = expat.errors.messages.get(error.code, "cannot be read")
        raise InputError(Problem(f"not valid XML: {reason}", file=str(path), line=error.lineno)) from None
    return roots[0]


def _inside(root: _Element, gpus: list[_Element], path: Path, problems: list[Problem]) -> InsideFound:
    origin = f"from {path.name}"
    gpu_type = _gpu_type(root, gpus, path, problems)
    links = [_nvlinks(gpu, path, problems) for gpu in gpus]
    direct = "xgmi" if any(gpu.every("xgmi") for gpu in gpus) else "nvlink"
    usual, others = usual_links([("nvswitch" if switched else direct, count) for count, switched in links])
    if others:
        names = ", ".join(gpus[number].attributes.get("busid", "one GPU") for number in others)
        message = f"GPUs differ in their NVLinks: {names} from the others; what most have, {usual[1]}, counts for all"
        problems.append(Problem(message, file=str(path)))
    kind, count_each = usual
    sockets = len(root.every("cpu")) or None
    numa = _numa(root, gpus)
    if not count_each and not root.every("gpu"):  # a file made beforehand: NCCL looks for NVLinks itself when it starts
        return InsideFound(len(gpus), "unknown", origin, gpu_type=gpu_type, sockets=sockets, numa=numa)
    if not count_each:
        lanes = [pcie_bytes_per_s(g.attributes.get("link_speed", ""), g.attributes.get("link_width", "")) for g in gpus]
        known = [lane for lane in lanes if lane is not None]
        slowest = min(known) if known else None
        return InsideFound(
            len(gpus), "pcie", origin, bandwidth_bytes_per_s=slowest, gpu_type=gpu_type, sockets=sockets, numa=numa
        )
    bandwidth = count_each * nvlink_bytes_per_s(gpu_type)
    mesh = _mesh(gpus) if kind in ("nvlink", "xgmi") else ()
    return InsideFound(len(gpus), kind, origin, count_each, bandwidth, gpu_type, sockets=sockets, mesh=mesh, numa=numa)


def _rails(root: _Element, gpus: list[_Element]) -> tuple[tuple[str, ...], ...]:
    """Return the interfaces below the nearest PCIe switch above each GPU that has any; nothing where none has."""
    parent = {id(child): above for above in root.every("pci") for child in above.children}
    rails: list[tuple[str, ...]] = []
    for gpu in gpus:
        above = parent.get(id(gpu))
        names: list[str] = []
        while above is not None and not names:
            names = [net.attributes["name"] for net in above.every("net") if net.attributes.get("name")]
            above = parent.get(id(above))
        rails.append(tuple(dict.fromkeys(names)))
    return tuple(rails) if any(rails) else ()


def _gpu_type(root: _Element, gpus: list[_Element], path: Path, problems: list[Problem]) -> str | None:
    """Return the accelerator's name: by its PCI id, else by its compute capability and the kind of processor."""
    types = {GPU_OF_PCI_ID.get(_pci_id(gpu)) for gpu in gpus}
    if types != {None}:
        return next(iter(types)) if len(types) == 1 else None
    arm = any(cpu.attributes.get("arch", "").startswith(("arm", "aarch")) for cpu in root.every("cpu"))
    words = {element.attributes.get("sm", "") for gpu in gpus for element in gpu.every("gpu")}
    capability = next(iter(words)) if len(words) == 1 else ""
    found = GPU_OF_CAPABILITY.get((int(capability), arm)) if re.fullmatch(r"[0-9]{2,3}", capability) else None
    if found is not None:
        ids = ":".join(_pci_id(gpus[0]))
        message = f"GPUs of PCI id {ids}, which is not known, have compute capability {capability}; taken for {found}"
        problems.append(Place(str(path)).note(message, "sm"))
    return found


def _mesh(gpus: list[_Element]) -> tuple[tuple[int, ...], ...]:
    """Return the NVLinks between each two GPUs; nothing where a link leads elsewhere or is told at one end alone."""
    place = {gpu.attributes.get("busid"): index for index, gpu in enumerate(gpus)}
    table = [[0] * len(gpus) for _ in gpus]
    for a, gpu in enumerate(gpus):
        for link in [*gpu.every("nvlink"), *gpu.every("xgmi")]:
            b = place.get(link.attributes.get("target"))
            if b is not None and a != b:
                table[a][b] += int(link.attributes["count"])
    symmetric = all(table[a][b] == table[b][a] for a in range(len(gpus)) for b in range(a))
    return tuple(tuple(row) for row in table) if symmetric else ()


def _numa(root: _Element, gpus: list[_Element]) -> tuple[NumaFound, ...]:
    """Return what hangs on each processor; only where every GPU hangs on one."""
    nics = list({net.attributes["name"]: None for net in root.every("net") if net.attributes.get("name")})
    cards = [id(pci) for pci in root.every("pci") if _is(pci, _NIC_CLASSES)]
    number = {id(gpu): index for index, gpu in enumerate(gpus)}
    taken: set[str] = set()
    found: list[NumaFound] = []
    for cpu in root.every("cpu"):
        below = cpu.every("pci")
        names = [n.attributes["name"] for pci in below for n in pci.every("net") if n.attributes.get("name")]
        own = [name for name in dict.fromkeys(names) if name not in taken]
        taken.update(own)
        near = [nics.index(name) for name in own] if nics else [cards.index(id(p)) for p in below if id(p) in cards]
        found.append(NumaFound(tuple(number[id(p)] for p in below if id(p) in number), tuple(near)))
    return tuple(found) if sum(len(numa.gpus) for numa in found) == len(gpus) else ()


def _pci_id(pci: _Element) -> tuple[str, str]:
    vendor, device = (pci.attributes.get(key, "").lower().removeprefix("0x") for key in ("vendor", "device"))
    return vendor, device


def _nvlinks(gpu: _Element, path: Path, problems: list[Problem]) -> tuple[int, bool]:
    """Return the NVLinks of one GPU, and whether they go to switches (bridges of class 0x0680)."""
    total, switched = 0, False
    for link in [*gpu.every("nvlink"), *gpu.every("xgmi")]:  # RCCL writes the latter, of Infinity Fabric
        count = link.attributes.get("count", "")
        target = link.attributes.get("target", "")
        place = Place(str(path), link.line)
        if not count.isascii() or not count.isdigit() or len(count) > 3:
            raise InputError(place.problem(f"{count!r} is not a number of NVLinks", "count"))
        if target == gpu.attributes.get("busid"):
            if not any(problem.field == "target" for problem in problems):
                message = f"an NVLink of {target} leads to itself; such links are left out"
                problems.append(place.problem(message, "target"))
            continue
        total += int(count)
        switched |= link.attributes.get("tclass", "").startswith("0x0680")
    return total, switched


def _nics(root: _Element, path: Path) -> NicsFound | None:
    origin = f"from {path.name}"
    named = {net.attributes["name"]: net for net in root.every("net") if net.attributes.get("name")}
    nets = list(named.values())  # an interface of the system stands under every processor
    if nets:
        speeds = [speed for net in nets if (speed := _mbit(net.attributes)) is not None]
        bandwidth = Figure(min(speeds), origin) if speeds else None
        return NicsFound(Figure(len(nets), origin), bandwidth, tuple(net.attributes["name"] for net in nets))
    cards = [pci for pci in root.every("pci") if _is(pci, _NIC_CLASSES)]
    return NicsFound(Figure(len(cards), origin)) if cards else None


def _mbit(attributes: Mapping[str, str]) -> float | None:
    """Return bytes/s of ``speed``, which NCCL gives in Mb/s."""
    speed = attributes.get("speed", "")
    return int(speed) * 1e6 / 8 if speed.isascii() and speed.isdigit() and int(speed[:9]) > 0 else None
