"""Every switch of an imported fabric on its own, and the kind of fabric that they make."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from hpcplan.site.importers.findings import Figure
from hpcplan.site.merge_fabric import Tree, TreeSwitch

__all__ = ["kind_of", "rename", "written_switches"]


def kind_of(tree: Tree, *, dragonfly: bool, blocks: bool) -> str:
    """Return the ``kind`` of a site file's fabric for a tree as merged."""
    many = [switch for switch in tree.switches if len(switch.stands_for) > 1]
    if any(switch.nodes for switch in many):
        return "rails"
    if many:
        return "clos"
    if dragonfly and _depth(tree.switches) in (2, 3):
        return "dragonfly"
    return "blocks" if blocks else "tree"


def _depth(switches: Sequence[TreeSwitch]) -> int:
    depth: dict[str, int] = {}
    for switch in switches:  # children stand before parents
        depth[switch.name] = 1 + max((depth[child] for child in switch.children), default=0)
    return max(depth.values(), default=0)


def written_switches(tree: Tree) -> list[TreeSwitch]:
    """Return the switches as they are written: joined ones each on its own again, with its share of the up-links."""
    if all(len(switch.stands_for) <= 1 for switch in tree.switches):
        return tree.switches
    members = {switch.name: _members(tree, switch) for switch in tree.switches}
    parents = _parents(tree, members)
    cables = {(link.low, link.high): (link.links, link.bandwidth_bytes_per_s) for link in tree.links}
    by_name: dict[str, TreeSwitch] = {}
    for switch in tree.switches:
        for name in members[switch.name]:
            by_name[name] = _one(tree, switch, name, len(members[switch.name]))
    for child, above in parents.items():
        known = {parent: cables[child, parent] for parent in above if (child, parent) in cables}
        if len(known) == len(above) and all(rate > 0 for _, rate in known.values()):
            by_name[child].cables = known
        else:
            for parent in above:
                by_name[parent].children.append(child)
    joins = {parent for switch in by_name.values() for parent in switch.cables}
    return [one for one in by_name.values() if one.nodes or one.children or one.name in joins]


def _members(tree: Tree, switch: TreeSwitch) -> list[str]:
    """Return the switches that one stands for, without those that join nothing known."""
    if len(switch.stands_for) <= 1:
        return [switch.name]
    return [name for name in switch.stands_for if tree.found[name].nodes or tree.found[name].children] or [switch.name]


def _parents(tree: Tree, members: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Return the switches right above each: those that the files name, all of the parent's where none does."""
    above: dict[str, list[str]] = defaultdict(list)
    for switch in tree.switches:
        for below in switch.children:
            said = [
                (child, parent)
                for parent in members[switch.name]
                if parent in tree.found
                for child in (set(tree.found[parent].children) & set(members[below]))
            ]
            pairs = said or [(child, parent) for child in members[below] for parent in members[switch.name]]
            told = {child for child, _ in pairs}
            pairs += [(child, switch.name) for child in members[below] if child not in told]
            order = {name: number for number, name in enumerate(members[below])}
            for child, parent in sorted(pairs, key=lambda pair: order[pair[0]]):
                above[child].append(parent)
    return above


def _one(tree: Tree, switch: TreeSwitch, name: str, count: int) -> TreeSwitch:
    found = tree.found.get(name)
    nodes = switch.nodes
    if found is not None and count > 1:
        own = set(found.nodes)
        nodes = [node for node in switch.nodes if node in own]
    share = None if switch.uplink is None else Figure(switch.uplink.value / count, switch.uplink.origin)
    return TreeSwitch(name, found.place if found else switch.place, [name], nodes, [], share)


def rename(switches: Sequence[TreeSwitch], fresh: Mapping[str, str]) -> None:
    """Give switches other names, wherever they stand."""
    for switch in switches:
        switch.name = fresh.get(switch.name, switch.name)
        switch.children = [fresh.get(child, child) for child in switch.children]
        switch.cables = {fresh.get(parent, parent): cables for parent, cables in switch.cables.items()}
