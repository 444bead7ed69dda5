"""The fabric of an imported site: which file tells it, of what kind it is, and what is assumed where none does."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from hpcplan.errors import Problem
from hpcplan.site.importers.findings import ASSUMED, BlockFound, Figure, Findings, Place, SwitchFound, few
from hpcplan.site.merge_fabric import TreeSwitch, build_tree
from hpcplan.site.merge_switches import kind_of, rename, written_switches
from hpcplan.site.torus import links_of

__all__ = ["FabricMaker", "TorusFound"]


@dataclass(frozen=True, slots=True)
class TorusFound:
    """A ring or torus, ready to be written."""

    block: BlockFound
    link: Figure[float]


class FabricMaker:
    """Makes the fabric over nodes of which each sends that many bytes/s, one way; ``problems`` are added to."""

    def __init__(
        self, found: Mapping[str, Findings], bandwidth: Mapping[str, float], problems: list[Problem], place: Place
    ) -> None:
        self.found, self.bandwidth, self.problems, self.place = found, bandwidth, problems, place
        self.kind = "tree"
        self.switches: list[TreeSwitch] = []
        self.toruses: list[TorusFound] = []
        self.block_sizes: tuple[int, ...] = ()

    def make(self) -> None:
        """Fill ``kind`` with either ``switches`` or ``toruses``."""
        source, switches, rails = self._switches()
        if self.toruses:
            self.kind = "torus"
            return
        physical = self.found.get("ibnetdiscover")
        links = physical.links if physical is not None and physical is self.found.get(source or "") else ()
        tree, problems = build_tree(switches, links, self.bandwidth, rails=rails)
        self.problems += problems
        if physical is not None and physical.switches and not rails:
            self._borrow(tree.switches, physical)
        below = {child for switch in tree.switches for child in switch.children}
        roots = [switch for switch in tree.switches if switch.name not in below]
        if len(roots) > 1:
            names = few([switch.name for switch in roots])
            self._note(roots[1].place, f"nothing joins the trees under {names}; no job can span two of them")
        self._cover(tree.switches)
        blocks = source is not None and not self.found[source].switches and self._are_blocks(self.found[source])
        dragonfly = any(findings.dragonfly for findings in self.found.values())
        self.kind = kind_of(tree, dragonfly=dragonfly, blocks=blocks)
        if self.kind == "blocks" and source is not None:
            self.block_sizes = self.found[source].block_sizes
        self.switches = written_switches(tree)
        self._rename()

    def _are_blocks(self, findings: Findings) -> bool:
        return bool(findings.blocks) and all(block.kind in ("block", "domain") for block in findings.blocks)

    def _warn(self, place: Place, message: str, field: str | None = None) -> None:
        self.problems.append(place.problem(message, field))

    def _note(self, place: Place, message: str, field: str | None = None) -> None:
        self.problems.append(place.note(message, field))

    def _switches(self) -> tuple[str | None, Sequence[SwitchFound], bool]:
        """Return the switches of the first file that has any, else blocks as leaves, else nothing.

        Rings and toruses that hold all nodes go to ``toruses`` instead.
        """
        for source, findings in self.found.items():
            if findings.switches:
                return source, findings.switches, findings.rails
        for source, findings in self.found.items():
            if findings.blocks:
                if not self._take_toruses(findings.blocks):
                    return source, self._blocks_as_leaves(findings.blocks), False
                return source, (), False
        return None, (), False

    def _take_toruses(self, blocks: Sequence[BlockFound]) -> bool:
        members = [node for block in blocks for node in block.nodes]
        if not all(block.dims for block in blocks) or sorted(members) != sorted(self.bandwidth):
            return False
        for block in blocks:
            links = max(1, links_of(block.dims))
            self.toruses.append(TorusFound(block, Figure(min(self.bandwidth[n] for n in block.nodes) / links, ASSUMED)))
        message = "what a node sends is divided over its links to neighbours"
        if any(len(block.dims) > 1 for block in blocks):
            message += "; the last dimension is taken to vary fastest along Nodes"
        self._note(blocks[0].place, message)
        if len(blocks) > 1:
            kind = f"{blocks[0].kind}s" if blocks[0].kind == "ring" else "toruses"
            names = few([block.name for block in blocks])
            self._note(blocks[1].place, f"nothing joins the {kind} {names}; no job can span two of them")
        return True

    def _blocks_as_leaves(self, blocks: Sequence[BlockFound]) -> list[SwitchFound]:
        kinds = " and ".join(sorted({block.kind for block in blocks}))
        message = f"no switches are known; each {kinds} becomes a leaf switch, and one switch above joins them"
        self._note(blocks[0].place, message)
        leaves = [SwitchFound(block.name, block.place, block.nodes) for block in blocks]
        top = SwitchFound(
            _fresh("spine", {leaf.name for leaf in leaves}), Place(ASSUMED), (), tuple(b.name for b in blocks)
        )
        return [*leaves, top] if len(leaves) > 1 else leaves

    def _borrow(self, tree: list[TreeSwitch], physical: Findings) -> None:
        """Take up-links from the cables of the physical switches that have the same nodes below them."""
        cables = build_tree(physical.switches, physical.links, self.bandwidth, rails=True)[0].switches
        below = {frozenset(nodes): switch for switch, nodes in _nodes_below(cables) if switch.uplink is not None}
        leaf_of = {node: switch.name for switch in cables for node in switch.nodes}
        without: list[str] = []
        for switch, nodes in _nodes_below(tree):
            match = below.get(frozenset(node for node in nodes if node in leaf_of))
            if switch.uplink is not None and match is not None and match.uplink is not None:
                switch.uplink = match.uplink
            elif switch.uplink is not None and leaf_of.keys() & set(nodes):
                without.append(switch.name)
            real = {leaf_of[node] for node in switch.nodes if node in leaf_of}
            if len(real) > 1:
                message = f"the nodes of {switch.name!r} are under {len(real)} leaves in {physical.label}"
                self._warn(switch.place, message, "Nodes")
        if without:
            message = f"it has no switch with the nodes of {few(without)}; up-links there are assumed"
            self._note(Place(physical.source), message)

    def _cover(self, tree: list[TreeSwitch]) -> None:
        """Put nodes that no switch joins under one of their own."""
        covered = {node for switch in tree for node in switch.nodes}
        loose = [name for name in self.bandwidth if name not in covered]
        if not loose:
            return
        taken = {switch.name for switch in tree}
        if not tree:
            tree.append(TreeSwitch(_fresh("switch", taken), Place(ASSUMED), nodes=loose))
            self._note(self.place, "no file tells the fabric; one switch is assumed to join the nodes")
            return
        below = {child for switch in tree for child in switch.children}
        roots = [switch for switch in tree if switch.name not in below]
        leaf = TreeSwitch(_fresh("elsewhere", taken), Place(ASSUMED), nodes=loose)
        message = f"nodes under no switch: {few(loose)}; a leaf {leaf.name!r} is made for them"
        self._warn(roots[0].place, message)
        tree.insert(0, leaf)
        if len(roots) == 1 and roots[0].children:
            roots[0].children.append(leaf.name)
            leaf.uplink = Figure(sum(self.bandwidth[name] for name in loose), ASSUMED)

    def _rename(self) -> None:
        """Give switches that are called like a node another name."""
        taken = {switch.name for switch in self.switches} | set(self.bandwidth)
        fresh: dict[str, str] = {}
        for switch in self.switches:
            if switch.name in self.bandwidth:
                fresh[switch.name] = _fresh(f"{switch.name}-switch", taken)
                taken.add(fresh[switch.name])
                message = f"switch {switch.name!r} is called like a node; it becomes {fresh[switch.name]!r}"
                self._warn(switch.place, message)
        if fresh:
            rename(self.switches, fresh)


def _nodes_below(tree: Sequence[TreeSwitch]) -> list[tuple[TreeSwitch, list[str]]]:
    """Return every switch with all nodes below it; children stand before parents."""
    below: dict[str, list[str]] = {}
    for switch in tree:
        below[switch.name] = [*switch.nodes, *(node for child in switch.children for node in below[child])]
    return [(switch, below[switch.name]) for switch in tree]


def _fresh(name: str, taken: Collection[str]) -> str:
    number, result = 1, name
    while result in taken:
        number += 1
        result = f"{name}{number}"
    return result
