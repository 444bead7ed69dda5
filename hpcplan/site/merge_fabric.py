"""From switches as files name them to the levels of a fabric, and back to every switch on its own.

To find out what enters and leaves each level, several roots over the same switches, as in a Clos network, count as one
switch with all their links, and so do leaves that share their nodes, as rails do. What is written has each of them.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from hpcplan.errors import InputError, Problem
from hpcplan.site.bundles import Joined
from hpcplan.site.importers.findings import ASSUMED, Figure, LinkFound, Place, SwitchFound, few

__all__ = ["Tree", "TreeSwitch", "build_tree"]

NON_BLOCKING = f"{ASSUMED}, non-blocking"


@dataclass(slots=True)
class TreeSwitch:
    """A switch of the tree; ``stands_for`` are the names that were joined into it.

    ``cables`` are those to each parent, as (how many, bytes/s one way of all), where they are known one by one.
    """

    name: str
    place: Place
    stands_for: list[str] = field(default_factory=list)
    nodes: list[str] = field(default_factory=list)
    children: list[str] = field(default_factory=list)
    uplink: Figure[float] | None = None
    cables: dict[str, tuple[int, float]] = field(default_factory=dict)


@dataclass(slots=True)
class Tree:
    """Joined switches, children before parents, and what it takes to write each of them on its own again."""

    switches: list[TreeSwitch]
    found: dict[str, SwitchFound] = field(default_factory=dict)
    links: Sequence[LinkFound] = ()
    rails: bool = False


def build_tree(
    switches: Sequence[SwitchFound],
    links: Sequence[LinkFound],
    node_bytes_per_s: Mapping[str, float],
    *,
    rails: bool = False,
) -> tuple[Tree, list[Problem]]:
    """Return the tree over the nodes of ``node_bytes_per_s`` (what each sends into the fabric, one way).

    Args:
        switches: as found; each may have several parents, and nodes may be under several leaves.
        links: cables between them, where known.
        node_bytes_per_s: the site's nodes; others are left out.
        rails: the switches are physical, so leaves that share half their nodes or more are one.

    Raises:
        InputError: a switch is above itself.
    """
    builder = _Builder(switches, node_bytes_per_s)
    builder.check_names()
    builder.join_leaves(0.5 if rails else 1.0)
    builder.join_parents()
    builder.place_nodes()
    tree = builder.tree()
    _set_uplinks(tree, links, builder, node_bytes_per_s)
    return Tree(tree, builder.found, links, rails), builder.problems


class _Builder:
    def __init__(self, switches: Sequence[SwitchFound], nodes: Mapping[str, float]) -> None:
        self.found = {switch.name: switch for switch in switches}
        self.nodes = nodes
        self.problems: list[Problem] = []
        self.children = {name: list(switch.children) for name, switch in self.found.items()}
        self.joined = Joined(self.found)
        self.leaf_of: dict[str, str] = {}

    def root(self, name: str) -> str:
        """Return the name that stands for the switch that ``name`` is part of."""
        return self.joined.root(name)

    def check_names(self) -> None:
        """Drop children and nodes that nothing defines."""
        for name, switch in self.found.items():
            unknown = [child for child in switch.children if child not in self.found]
            if unknown:
                message = f"switch {name!r} joins {few(unknown)}, which nothing defines"
                self.problems.append(switch.place.problem(message, "Switches"))
            self.children[name] = [child for child in switch.children if child in self.found and child != name]
            strangers = [node for node in switch.nodes if node not in self.nodes]
            if strangers:
                message = f"switch {name!r} joins unknown nodes: {few(strangers)}"
                self.problems.append(switch.place.problem(message, "Nodes"))

    def join_leaves(self, share: float) -> None:
        """Join leaves of which ``share`` of the smaller's nodes are under the other as well."""
        members = {name: frozenset(n for n in switch.nodes if n in self.nodes) for name, switch in self.found.items()}
        self.joined.join_leaves(members, share)

    def join_parents(self) -> None:
        """Join the parents of one switch, until each has one."""
        self.joined.join_parents(self.children)

    def place_nodes(self) -> None:
        """Give each node one leaf; of several, the one that has most of its links."""
        votes: dict[str, Counter[str]] = defaultdict(Counter)
        for name, switch in self.found.items():
            for node in switch.nodes:
                if node in self.nodes:
                    votes[node][self.root(name)] += 1
        torn: dict[tuple[str, ...], list[str]] = defaultdict(list)
        for node, leaves in votes.items():
            self.leaf_of[node] = leaves.most_common(1)[0][0]
            if len(leaves) > 1:
                torn[tuple(leaves)].append(node)
        for leaves_of, nodes in torn.items():
            place = self.found[leaves_of[1]].place
            first = self.leaf_of[nodes[0]]
            message = f"{few(nodes)} under {' and '.join(leaves_of)}; taken for {first!r}"
            self.problems.append(place.problem(message, "Nodes"))

    def tree(self) -> list[TreeSwitch]:
        """Return the joined switches, those without any node below them left out."""
        tree: dict[str, TreeSwitch] = {}
        for name, switch in self.found.items():
            joined = tree.setdefault(self.root(name), TreeSwitch(self.root(name), switch.place))
            joined.stands_for.append(name)
        for node in self.nodes:
            if node in self.leaf_of:
                tree[self.leaf_of[node]].nodes.append(node)
        for name in self.found:
            for child in self.children[name]:
                low, high = self.root(child), tree[self.root(name)]
                if low != high.name and low not in high.children:
                    high.children.append(low)
        self._check_cycles(tree)
        return self._pruned(tree)

    def _check_cycles(self, tree: Mapping[str, TreeSwitch]) -> None:
        parent = {child: switch.name for switch in tree.values() for child in switch.children}
        safe: set[str] = set()
        for name in tree:
            chain: dict[str, None] = {}
            above: str | None = name
            while above is not None and above not in safe:
                if above in chain:
                    raise InputError(tree[above].place.problem(f"switch {above!r} is above itself", "Switches"))
                chain[above] = None
                above = parent.get(above)
            safe.update(chain)

    def _pruned(self, tree: dict[str, TreeSwitch]) -> list[TreeSwitch]:
        """Return the switches that have nodes below, children before parents, each with a name no node has."""
        ordered = _children_first(tree)
        kept: dict[str, TreeSwitch] = {}
        for switch in ordered:
            switch.children = [child for child in switch.children if child in kept]
            if switch.nodes and switch.children:  # a site file has nodes or switches under one switch
                name = f"{switch.name}-nodes"
                kept[name] = TreeSwitch(name, switch.place, [name], switch.nodes)
                message = f"switch {switch.name!r} joins nodes and switches; its nodes get a leaf, {name!r}"
                self.problems.append(switch.place.problem(message))
                switch.nodes, switch.children = [], [*switch.children, name]
            if switch.nodes or switch.children:
                kept[switch.name] = switch
            elif not self.found[switch.name].nodes and not self.found[switch.name].children:
                continue  # the importer has said that it joins nothing
            else:
                self.problems.append(
                    switch.place.note(f"no known node is under switch {switch.name!r}; it is left out")
                )
        return list(kept.values())


def _children_first(tree: Mapping[str, TreeSwitch]) -> list[TreeSwitch]:
    ordered: dict[str, TreeSwitch] = {}
    for start in tree.values():
        stack = [(start, False)]
        while stack:
            switch, done = stack.pop()
            if done:
                ordered[switch.name] = switch
            elif switch.name not in ordered:
                stack.append((switch, True))
                stack.extend((tree[child], False) for child in reversed(switch.children) if child not in ordered)
    return list(ordered.values())


def _set_uplinks(
    tree: Sequence[TreeSwitch], links: Sequence[LinkFound], builder: _Builder, node_bytes_per_s: Mapping[str, float]
) -> None:
    """Give every switch that has a parent its up-link: the cables where they are known, else what enters below."""
    parent = {child: switch.name for switch in tree for child in switch.children}
    known: dict[str, float] = defaultdict(float)
    origin: dict[str, str] = {}
    for link in links:
        if link.low not in builder.found or link.high not in builder.found:
            continue
        low, high = builder.root(link.low), builder.root(link.high)
        if parent.get(low) == high:
            known[low] += link.bandwidth_bytes_per_s
            origin[low] = link.origin
    enters: dict[str, float] = {}
    for switch in tree:  # children stand before parents
        below = [enters[child] for child in switch.children]
        enters[switch.name] = sum(below) + sum(node_bytes_per_s[node] for node in switch.nodes)
        if switch.name not in parent:
            continue
        if known[switch.name] > 0:
            switch.uplink = Figure(known[switch.name], origin[switch.name])
        else:
            switch.uplink = Figure(enters[switch.name], NON_BLOCKING)
