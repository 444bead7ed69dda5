"""Putting findings together: node groups, partitions and a tree, each figure with its origin, and what contradicts.

The node names of the first source that has any count: slurm.conf, then the topology file, the cluster model, gres.conf,
ibnetdiscover. What no file says is assumed, and says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from hpcplan.errors import InputError, Problem
from hpcplan.site.catalogue import accelerators
from hpcplan.site.importers.findings import (
    ASSUMED,
    EVERY_NODE,
    BlockFound,
    Figure,
    Findings,
    PartitionFound,
    Place,
    SchedulerFound,
    few,
)
from hpcplan.site.merge_defaults import unknown_accelerator
from hpcplan.site.merge_fabric import TreeSwitch
from hpcplan.site.merge_groups import Group, GroupMaker, NodeFacts, is_interface
from hpcplan.site.merge_topology import FabricMaker, TorusFound

__all__ = ["SOURCES", "Draft", "merge"]

# Options of `hpcplan site import`, in the order in which their word counts.
SOURCES: Final = (
    "slurm-conf", "scontrol", "topology", "cluster-model", "gres", "ibnetdiscover", "nvidia-smi-topo", "nccl-xml",
)  # fmt: skip


@dataclass(slots=True)
class Draft:
    """A site as put together, ready to be written; ``problems`` are the warnings."""

    name: str
    sources: list[str]
    groups: list[Group]
    partitions: list[tuple[PartitionFound, list[str]]]
    kind: str
    tree: list[TreeSwitch]
    toruses: list[TorusFound]
    block_sizes: tuple[int, ...] = ()
    cluster: Figure[str] | None = None
    shared_nodes: bool | None = None
    topology_plugin: bool = False
    version: Figure[str] | None = None
    scheduler: SchedulerFound | None = None
    drained: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def merge(
    found: Mapping[str, Findings], *, name: str | None = None, accelerator: str | None = None, gpus: int | None = None
) -> Draft:
    """Put findings together.

    Args:
        found: by the names of ``SOURCES``.
        name: of the site; the cluster's, or that of the first file, if not given.
        accelerator: a name of the catalogue, for GPUs whose kind no file tells.
        gpus: how many accelerators a node has, for nodes of which no file tells the number.

    Raises:
        InputError: no such accelerator, or a switch above itself.
    """
    if accelerator is not None and accelerator not in accelerators():
        raise InputError(unknown_accelerator(accelerator, list(accelerators())))
    return _Merger(found, accelerator, gpus).draft(name)


class _Merger:
    def __init__(self, found: Mapping[str, Findings], accelerator: str | None, gpus: int | None) -> None:
        self.found = {source: found[source] for source in SOURCES if source in found}
        self.accelerator, self.gpus = accelerator, gpus
        self.problems = [problem for findings in self.found.values() for problem in findings.problems]
        self.authority, names = self._node_names()
        named_by = f"from {self.found[self.authority].label}" if self.authority else ASSUMED
        self.facts: dict[str, NodeFacts] = {name: NodeFacts(named_by) for name in names}

    def _warn(self, place: Place, message: str, field: str | None = None) -> None:
        self.problems.append(place.problem(message, field))

    def _note(self, place: Place, message: str, field: str | None = None) -> None:
        self.problems.append(place.note(message, field))

    def _node_names(self) -> tuple[str | None, list[str]]:
        """Return the source whose names count, and the names."""
        for source, findings in self.found.items():
            names = dict.fromkeys(n for nodes in findings.nodes for n in nodes.names if n != EVERY_NODE)
            names |= dict.fromkeys(n for switch in findings.switches for n in switch.nodes)
            names |= dict.fromkeys(n for block in findings.blocks for n in block.nodes)
            if names:
                return source, [*names]
        for source, findings in self.found.items():  # a file of partitions alone names nodes as well
            names = dict.fromkeys(n for partition in findings.partitions for n in partition.nodes or ())
            if names:
                self.problems.append(self._place().note("no file describes the nodes; partitions name them"))
                return source, [*names]
        message = "no file names a node; one node called 'node1' is assumed"
        self.problems.append(self._place().note(message))
        return None, ["node1"]

    def draft(self, name: str | None) -> Draft:
        """Return everything put together."""
        for source, findings in self.found.items():
            self._node_facts(source, findings)
        self._insides()
        domains = self._domains()
        partitions = self._partitions()
        maker = GroupMaker(self.facts, self.accelerator, self.gpus, self.problems, self._place())
        groups = maker.groups({found.name: members for found, members in partitions}, domains)
        bandwidth = {host: group.node_bytes_per_s for group in groups for host in group.nodes}
        fabric = FabricMaker(self.found, {host: bandwidth[host] for host in self.facts}, self.problems, self._place())
        fabric.make()
        first = next(iter(self.found.values()))
        cluster = next((findings.cluster for findings in self.found.values() if findings.cluster), None)
        shared = next((f.shared_nodes for f in self.found.values() if f.shared_nodes is not None), None)
        return Draft(
            name or (cluster.value if cluster else first.label.split(".")[0]) or "site",
            [findings.label for findings in self.found.values()],
            groups,
            [(found, _covering(groups, members)) for found, members in partitions],
            fabric.kind,
            fabric.switches,
            fabric.toruses,
            fabric.block_sizes,
            cluster,
            shared,
            any(findings.topology_plugin for findings in self.found.values()),
            next((findings.version for findings in self.found.values() if findings.version), None),
            next((findings.scheduler for findings in self.found.values() if findings.scheduler), None),
            self._drained(),
            self.problems,
        )

    def _drained(self) -> list[str]:
        """Return the nodes that take no jobs: what a running Slurm says counts, not what its files say."""
        told = self.found.get("scontrol")
        sources = [told] if told is not None else list(self.found.values())
        out = {name for findings in sources for name in findings.drained}
        return [name for name in self.facts if name in out]

    def _place(self) -> Place:
        return Place(", ".join(findings.label for findings in self.found.values()))

    def _node_facts(self, source: str, findings: Findings) -> None:
        """Take in what one file says of nodes: the first word on a figure counts, later ones may contradict."""
        general = [found for found in findings.nodes if EVERY_NODE in found.names]
        for found in [*(f for f in findings.nodes if EVERY_NODE not in f.names), *general]:
            everywhere = found in general
            names = list(self.facts) if everywhere else [n for n in found.names if n in self.facts]
            if not everywhere and len(names) < len(found.names) and source != self.authority:
                unknown = [name for name in found.names if name not in self.facts]
                self._warn(found.place, f"nodes that {self._authority()} does not name: {few(unknown)}")
            contradicting: dict[str, list[str]] = {}
            for name in names:
                for message in self.facts[name].take(found, source, everywhere=everywhere):
                    contradicting.setdefault(message, []).append(name)
            for message, nodes in contradicting.items():
                self._warn(found.place, f"{few(nodes)}: {message}")
        if source != self.authority:
            self._missing(source, findings)

    def _authority(self) -> str:
        return self.found[self.authority].label if self.authority else "no file"

    def _missing(self, source: str, findings: Findings) -> None:
        """Warn of nodes that a file about the whole fabric leaves out."""
        if source not in ("topology", "ibnetdiscover", "cluster-model"):
            return
        named = {n for switch in findings.switches for n in switch.nodes}
        named |= {n for block in findings.blocks for n in block.nodes}
        left_out = [name for name in self.facts if name not in named]
        if named and left_out:
            place = Place(findings.source)
            self._warn(place, f"nodes of {self._authority()} that are not in it: {few(left_out)}")

    def _insides(self) -> None:
        """Give what one node's inside looks like to the nodes that have that many GPUs, or to all if none is told."""
        for source in ("nvidia-smi-topo", "nccl-xml"):
            findings = self.found.get(source)
            if findings is None or findings.inside is None:
                continue
            inside = findings.inside
            told = {name: facts.gpus.value.count for name, facts in self.facts.items() if facts.gpus is not None}
            counted = {name: count for name, count in told.items() if count}
            fitting = [name for name, count in counted.items() if count == inside.gpus]
            if counted and not fitting:
                counts = ", ".join(str(count) for count in sorted(set(counted.values())))
                message = f"it shows {inside.gpus} GPUs, but nodes have {counts}; its links are left out"
                self._warn(Place(findings.source), message)
            elif not counted and len(self.facts) > 1:
                message = f"no file says which nodes have GPUs; all {len(self.facts)} are taken to look like this one"
                self._note(Place(findings.source), message)
            self._compare_names(findings, fitting if counted else list(self.facts))
            for name in fitting if counted else self.facts:
                self.facts[name].take_inside(inside, findings.nics)
            self._compare_nics(findings, fitting if counted else list(self.facts))

    def _compare_nics(self, findings: Findings, names: Sequence[str]) -> None:
        if findings.nics is None:
            return
        here = findings.nics.count.value
        differing: dict[tuple[int, str], list[str]] = {}
        for name in names:
            nics = self.facts[name].nics
            if nics is not None and nics.count.value != here:
                differing.setdefault((nics.count.value, nics.count.origin), []).append(name)
        for (count, origin), nodes in differing.items():
            message = f"shows {here} interfaces to the fabric, but {few(nodes)} have {count} {origin}, which counts"
            self._warn(Place(findings.source), message)

    def _compare_names(self, findings: Findings, names: Sequence[str]) -> None:
        """Warn of interfaces that are called otherwise on the node than in the file whose word counts."""
        here = set(findings.nics.names) if findings.nics else set()
        first = next((nics for name in names if (nics := self.facts[name].nics) is not None), None)
        if first is None or not here or len(first.names) != len(here) or here == set(first.names):
            return
        if all(is_interface(name) for name in (*here, *first.names)):
            message = f"interfaces are called {few(sorted(here))}, but {few(sorted(first.names))} {first.count.origin}"
            self._warn(Place(findings.source), message)

    def _domains(self) -> dict[str, BlockFound]:
        """Return the accelerator fabric or block of each node; of a node in two, the first counts."""
        of: dict[str, BlockFound] = {}
        for findings in self.found.values():
            for block in findings.blocks:
                twice = [name for name in block.nodes if name in of and of[name].place.file == block.place.file]
                if twice:
                    other = of[twice[0]].name
                    message = f"{few(twice)} already in {block.kind} {other!r}, which counts"
                    self._warn(block.place, message, "Nodes")
                of |= {name: block for name in block.nodes if name in self.facts and name not in of}
        return of

    def _partitions(self) -> list[tuple[PartitionFound, dict[str, None]]]:
        every = [partition for findings in self.found.values() for partition in findings.partitions]
        found = list({partition.name: partition for partition in reversed(every)}.values())[::-1]
        result: list[tuple[PartitionFound, dict[str, None]]] = []
        for partition in found:
            members = dict.fromkeys(self.facts) if partition.nodes is None else dict.fromkeys(partition.nodes)
            unknown = [name for name in members if name not in self.facts]
            if unknown:
                message = f"partition {partition.name!r} names unknown nodes: {few(unknown)}"
                self._warn(partition.place, message, "Nodes")
            members = {name: None for name in members if name in self.facts}
            if members:
                result.append((partition, members))
            else:
                self._warn(partition.place, f"partition {partition.name!r} has no known node; it is left out", "Nodes")
        if not result:
            result.append((PartitionFound("all", Place(ASSUMED), None, default=True), dict.fromkeys(self.facts)))
        defaults = [partition for partition, _ in result if partition.default]
        for partition in defaults[1:]:
            self._warn(partition.place, f"{partition.name!r} is a second default partition; the last counts", "Default")
        return result


def _covering(groups: Sequence[Group], members: Mapping[str, None]) -> list[str]:
    return [group.name for group in groups if group.nodes[0] in members]
