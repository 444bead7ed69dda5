"""Node groups: nodes alike in what the files say of them and in which partitions they are."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from hpcplan.errors import Problem
from hpcplan.site.catalogue import accelerators
from hpcplan.site.importers.findings import (
    ASSUMED,
    BlockFound,
    Devices,
    Figure,
    InsideFound,
    NicsFound,
    NodesFound,
    Place,
)
from hpcplan.site.importers.inside import nvlink_bytes_per_s
from hpcplan.site.merge_defaults import DEFAULT_ACCELERATOR, NodeDefaults, catalogue_name, defaults_of

__all__ = ["Group", "GroupMaker", "NodeFacts", "is_interface"]

_GIB: Final = 1024**3
_CPUS_PER_GPU: Final = 12
_MEMORY_PER_GPU: Final = 128 * _GIB
_CPUS: Final = 64
_MEMORY: Final = 256 * _GIB
_SLURM: Final = ("slurm-conf", "scontrol")  # sources that know every GPU that Slurm gives
_HCA: Final = re.compile(r"(mlx|bnxt|efa|hfi|roce|ibp|ib|irdma|cxi|rdmap)\w*\d\w*")


@dataclass(slots=True)
class NodeFacts:
    """What is known of one node; ``named`` is the origin of its name."""

    named: str
    cpus: Figure[int] | None = None
    memory_bytes: Figure[int] | None = None
    sockets: Figure[int] | None = None
    gpus: Figure[Devices] | None = None
    features: Figure[tuple[str, ...]] | None = None
    nics: NicsFound | None = None
    inside: InsideFound | None = None
    weight: Figure[int] | None = None
    gres: Figure[tuple[tuple[str, int], ...]] | None = None
    chip: Figure[str] | None = None
    from_slurm: bool = False

    def take(self, found: NodesFound, source: str, *, everywhere: bool) -> Iterator[str]:
        """Take in what a line says; yield what contradicts what is known."""
        if source in _SLURM and not self.from_slurm:
            self.from_slurm = True
            self.named = found.place.origin
        self.cpus = self.cpus or found.cpus
        self.memory_bytes = self.memory_bytes or found.memory_bytes
        self.sockets = self.sockets or found.sockets
        self.features = self.features or found.features
        self.nics = self.nics or found.nics
        self.weight = self.weight or found.weight
        self.gres = self.gres or found.gres
        if found.gpus is not None:
            yield from self._take_gpus(found.gpus, everywhere, self.from_slurm and source not in _SLURM)

    def _take_gpus(self, here: Figure[Devices], everywhere: bool, slurm_gives_none: bool) -> Iterator[str]:
        """Take in GPUs; lines for every node say nothing of nodes that slurm.conf gives none."""
        if self.gpus is None:
            if slurm_gives_none and everywhere:
                return
            if slurm_gives_none and here.value.count:
                yield f"{here.value.count} GPUs, but slurm.conf gives these nodes none (no Gres)"
            self.gpus = here
            return
        known = self.gpus.value
        if known.count and here.value.count and known.count != here.value.count:
            yield f"{here.value.count} GPUs, but {known.count} {self.gpus.origin}, which counts"
        if known.type and here.value.type and known.type != here.value.type:
            yield f"GPUs of type {here.value.type!r}, but {known.type!r} {self.gpus.origin}, which counts"
        if not known.count or not known.type:
            count, kind = known.count or here.value.count, known.type or here.value.type
            origin = self.gpus.origin if known.count else here.origin
            self.gpus = Figure(Devices(count, kind, known.mig or here.value.mig), origin)

    def take_inside(self, inside: InsideFound, nics: NicsFound | None) -> None:
        """Take in what the inside of such a node looks like; of two files the one that tells NVLinks counts."""
        old = self.inside
        if old is None or (old.kind == "unknown" and inside.kind != "unknown"):
            self.inside = inside
        if inside.gpu_type is not None and self.chip is None:
            self.chip = Figure(inside.gpu_type, inside.origin)
        if self.nics is None:
            self.nics = nics
        elif nics is not None and nics.count.value == self.nics.count.value:
            bandwidth = self.nics.bandwidth_bytes_per_s or nics.bandwidth_bytes_per_s
            ours, theirs = self.nics.names, nics.names  # a node knows better than the cables how its own are called
            self.nics = NicsFound(self.nics.count, bandwidth, (theirs or ours) if old is None else (ours or theirs))
        if self.gpus is None or not self.gpus.value.count:
            kind = self.gpus.value.type if self.gpus else None
            self.gpus = Figure(Devices(inside.gpus, kind), inside.origin)
        if self.sockets is None and inside.sockets:
            self.sockets = Figure(inside.sockets, inside.origin)


@dataclass(slots=True)
class Group:
    """A node group as it will be written."""

    name: str
    nodes: list[str]
    place: str
    cpus: Figure[int]
    memory_bytes: Figure[int]
    sockets: Figure[int] | None
    accelerator: Figure[str] | None
    accelerators: Figure[int] | None
    gres: str | None
    inside_kind: str
    inside_bytes_per_s: Figure[float] | None
    domain_nodes: Figure[int] | None
    nics: Figure[int]
    nic_bytes_per_s: Figure[float]
    nic_names: tuple[str, ...]
    features: Figure[tuple[str, ...]] | None
    rails: tuple[tuple[str, ...], ...] = ()
    weight: Figure[int] | None = None
    other_gres: Figure[tuple[tuple[str, int], ...]] | None = None
    mig: tuple[tuple[str, int], ...] = ()
    inside_found: InsideFound | None = None

    @property
    def node_bytes_per_s(self) -> float:
        """What one node sends into the fabric, one way."""
        return self.nics.value * self.nic_bytes_per_s.value


class GroupMaker:
    """Makes the groups; ``accelerator`` and ``gpus`` are the user's words on what no file tells."""

    def __init__(
        self,
        facts: Mapping[str, NodeFacts],
        accelerator: str | None,
        gpus: int | None,
        problems: list[Problem],
        place: Place,
    ) -> None:
        self.facts, self.accelerator, self.gpus = facts, accelerator, gpus
        self.problems, self.place = problems, place
        self.said: set[str] = set()
        self.any_gpus = any(known.gpus is not None for known in facts.values())

    def _note_once(self, message: str) -> None:
        if message not in self.said:
            self.said.add(message)
            self.problems.append(self.place.note(message))

    def _warn_once(self, message: str) -> None:
        if message not in self.said:
            self.said.add(message)
            self.problems.append(self.place.problem(message))

    def groups(self, partitions: Mapping[str, Mapping[str, None]], domains: Mapping[str, BlockFound]) -> list[Group]:
        """Return the groups in the order of their first nodes."""
        members: dict[tuple[object, ...], list[str]] = {}
        sizes: dict[str, int] = {}
        for block in domains.values():
            sizes[block.name] = sizes.get(block.name, 0) + 1
        inside: dict[str, list[str]] = {name: [] for name in self.facts}
        for partition, hosts in partitions.items():
            for host in hosts:
                inside[host].append(partition)
        for name, facts in self.facts.items():
            size = sizes[domains[name].name] if name in domains else 0
            members.setdefault((*_key(facts), tuple(inside[name]), size), []).append(name)
        taken: set[str] = set()
        return [self._group(names, domains, taken) for names in members.values()]

    def _group(self, names: list[str], domains: Mapping[str, BlockFound], taken: set[str]) -> Group:
        facts = self.facts[names[0]]
        count, kind = self._accelerators(facts)
        defaults = defaults_of(kind.value if kind else None)
        if count is None and kind is not None:
            count = Figure(self.gpus or defaults.gpus, ASSUMED)
            self._note_once(f"no file counts the GPUs of a node; {count.value} are assumed")
        number = count.value if count else 0
        nics, speed = self._nics(facts, number, defaults)
        gres = facts.gpus.value.type if facts.gpus else None
        inside_kind, inside = self._inside(facts, kind, defaults)
        domain = self._domain(names, domains, defaults) if number else None
        if not number and names[0] in domains and domains[names[0]].kind == "domain":
            self._note_once("accelerator fabrics are told, but no accelerators; say them with --accelerator NAME:COUNT")
        if domain is not None and domain.value > 1:
            order = {name: index for index, name in enumerate(dict.fromkeys(domains[n].name for n in names))}
            names = sorted(names, key=lambda name: order[domains[name].name])
        return Group(
            _name(names[0], gres, taken),
            names,
            facts.named,
            facts.cpus or Figure(number * _CPUS_PER_GPU or _CPUS, ASSUMED),
            facts.memory_bytes or Figure(number * _MEMORY_PER_GPU or _MEMORY, ASSUMED),
            facts.sockets,
            kind,
            count,
            gres,
            inside_kind,
            inside,
            domain,
            nics,
            speed,
            tuple(name for name in facts.nics.names if is_interface(name)) if facts.nics else (),
            facts.features,
            _rails(facts, nics.value),
            facts.weight,
            facts.gres,
            facts.gpus.value.mig if facts.gpus else (),
            facts.inside if number else None,
        )

    def _accelerators(self, facts: NodeFacts) -> tuple[Figure[int] | None, Figure[str] | None]:
        """Return how many accelerators, and which; both ``None`` for a node without any."""
        known = facts.gpus
        if known is None and not (self.gpus and not self.any_gpus):
            return None, None
        count = Figure(known.value.count, known.origin) if known is not None and known.value.count else None
        if known is None:
            count = Figure(self.gpus or 1, "as asked")
        return count, self._accelerator(facts)

    def _accelerator(self, facts: NodeFacts) -> Figure[str]:
        gres = facts.gpus.value.type if facts.gpus else None
        catalogue = list(accelerators())
        if gres is not None and (chip := catalogue_name(gres, catalogue)) is not None:
            assert facts.gpus is not None
            same = [name for name in catalogue if name.split("-")[0] == chip.split("-")[0]]
            if facts.chip is not None and facts.chip.value not in same:
                message = f"{facts.chip.value} {facts.chip.origin}, but {gres!r} {facts.gpus.origin}, which counts"
                self._warn_once(message)
            exact = len(same) == 1 or chip.split("-")[-1].upper() in gres.upper()
            if self.accelerator in same:
                return Figure(self.accelerator, "as asked")
            if facts.chip is not None and facts.chip.value in same and not exact:
                return facts.chip
            return Figure(chip, facts.gpus.origin if exact else f"{facts.gpus.origin}; its memory size is {ASSUMED}")
        if facts.chip is not None and facts.chip.value in catalogue:
            return facts.chip
        if self.accelerator is not None:
            return Figure(self.accelerator, "as asked")
        what = f"GPU type {gres!r} is not in the catalogue" if gres else "no file tells the kind of GPU"
        guess = _by_links(facts.inside)
        self._note_once(f"{what}; {guess} is assumed (say another with --accelerator)")
        return Figure(guess, ASSUMED)

    def _nics(self, facts: NodeFacts, gpus: int, defaults: NodeDefaults) -> tuple[Figure[int], Figure[float]]:
        assumed_speed = Figure(defaults.nic_gb_per_s * 1e9 / 8, ASSUMED)
        if facts.nics is None:
            return Figure(max(1, round(defaults.nics * gpus)), ASSUMED), assumed_speed
        return facts.nics.count, facts.nics.bandwidth_bytes_per_s or assumed_speed

    def _inside(
        self, facts: NodeFacts, kind: Figure[str] | None, defaults: NodeDefaults
    ) -> tuple[str, Figure[float] | None]:
        if kind is None:
            return "none", None
        inside = facts.inside
        if inside is None or inside.kind == "unknown":
            return defaults.kind, Figure(defaults.inside_bytes_per_s, ASSUMED)
        if inside.links:
            rate = inside.links * nvlink_bytes_per_s(kind.value)
            what = "Infinity Fabric links" if inside.kind == "xgmi" else "NVLinks"
            return inside.kind, Figure(rate, f"{inside.origin}: {inside.links} {what}")
        if inside.bandwidth_bytes_per_s is not None:
            return inside.kind, Figure(inside.bandwidth_bytes_per_s, f"{inside.origin}: the PCIe link")
        return inside.kind, Figure(defaults_of("").inside_bytes_per_s, ASSUMED)

    def _domain(
        self, names: Sequence[str], domains: Mapping[str, BlockFound], defaults: NodeDefaults
    ) -> Figure[int] | None:
        """Return how many nodes one accelerator fabric joins, where blocks are such fabrics."""
        sizes: dict[str, int] = {}
        for name in names:
            if name in domains:
                sizes[domains[name].name] = sizes.get(domains[name].name, 0) + 1
        first = domains.get(names[0])
        if first is None and defaults.rack_scale:
            self._note_once(
                "no file says which nodes share one NVLink fabric, as those of a rack do; "
                "import a cluster model or blocks, or set intra_node.domain_nodes"
            )
        if first is None or not (first.kind == "domain" or (first.kind == "block" and defaults.rack_scale)):
            return None
        if len(set(sizes.values())) > 1:
            self._note_once("accelerator domains of one node group differ in size; they are left out of it")
            return None
        size = next(iter(sizes.values()))
        return Figure(size, first.place.origin) if size > 1 else None


def is_interface(name: str) -> bool:
    """Return whether a word is the name of a network interface as NCCL_IB_HCA wants it."""
    return _HCA.fullmatch(name) is not None


def _key(facts: NodeFacts) -> tuple[object, ...]:
    nics = facts.nics
    return (
        facts.cpus and facts.cpus.value,
        facts.memory_bytes and facts.memory_bytes.value,
        facts.sockets and facts.sockets.value,
        facts.gpus and facts.gpus.value,
        facts.features and facts.features.value,
        nics and (nics.count.value, nics.bandwidth_bytes_per_s and nics.bandwidth_bytes_per_s.value, nics.names),
        id(facts.inside) if facts.inside else None,
        facts.chip and facts.chip.value,
        facts.weight and facts.weight.value,
        facts.gres and facts.gres.value,
    )


def _rails(facts: NodeFacts, nics: int) -> tuple[tuple[str, ...], ...]:
    """Return each GPU's nearest interfaces, unless other files count another number of interfaces."""
    rails = facts.inside.nics_of_gpu if facts.inside else ()
    return rails if len({name for near in rails for name in near}) == nics else ()


def _by_links(inside: InsideFound | None) -> str:
    """Return the chip that has so many NVLinks: 18 Hopper, 12 A100, 6 V100 (data sheets)."""
    by_links = {18: "H100-SXM5-80GB", 12: "A100-SXM4-80GB", 6: "V100-SXM2-32GB"}
    return by_links.get(inside.links if inside else 0, DEFAULT_ACCELERATOR)


def _name(host: str, gres: str | None, taken: set[str]) -> str:
    stem = re.sub(r"[^A-Za-z0-9_-]", "-", gres) if gres else re.sub(r"[\d._-]+$", "", host)
    base = stem.strip("-") or "nodes"
    name, number = base, 1
    while name in taken:
        number += 1
        name = f"{base}-{number}"
    taken.add(name)
    return name
