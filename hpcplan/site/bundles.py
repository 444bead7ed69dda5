"""From the fabric of a site file to its hierarchy: which switches serve the same children, and what leaves each.

Written switches are joined into one :class:`Bundle` where traffic spreads over them: the parents of one switch, and
leaves that share at least half of their nodes (rails). A node under several bundles, which only irregular rails have,
counts for the one that has most of its links.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from hpcplan.hostlist import expand
from hpcplan.site.fabric import Fabric, Switch, level_names
from hpcplan.site.hierarchy import Bundle

__all__ = ["Joined", "bundles_of"]

_MAX_RAILS = 64
_SHARED = 0.5  # of the smaller leaf's nodes
INTERCONNECT = "interconnect"


class Joined:
    """Names that became one, as a union-find; the first in order stands for all."""

    def __init__(self, names: Iterable[str]) -> None:
        self._same = {name: name for name in names}
        self._order = {name: index for index, name in enumerate(self._same)}

    def root(self, name: str) -> str:
        """Return the name that stands for the switch that ``name`` is part of."""
        while self._same[name] != name:
            self._same[name] = self._same[self._same[name]]
            name = self._same[name]
        return name

    def join(self, names: Iterable[str]) -> None:
        """Make one of several."""
        roots = sorted({self.root(name) for name in names}, key=self._order.__getitem__)
        for other in roots[1:]:
            self._same[other] = roots[0]

    def join_leaves(self, members: Mapping[str, frozenset[str]], share: float) -> None:
        """Join leaves of which ``share`` of the smaller's nodes are under the other as well."""
        equal: dict[frozenset[str], list[str]] = defaultdict(list)
        for name, nodes in members.items():
            if nodes:
                equal[nodes].append(name)
        for names in equal.values():
            self.join(names)
        if share < 1:
            self._join_overlapping(members, [names[0] for names in equal.values()], share)

    def _join_overlapping(self, members: Mapping[str, frozenset[str]], leaves: Sequence[str], share: float) -> None:
        leaves_of: dict[str, list[str]] = defaultdict(list)
        for name in leaves:
            for node in members[name]:
                leaves_of[node].append(name)
        shared: Counter[tuple[str, str]] = Counter()
        for several in leaves_of.values():
            near = several[:_MAX_RAILS]  # no node has more interfaces; what does is not worth the square of it
            shared.update((a, b) for index, a in enumerate(near) for b in near[index + 1 :])
        for (a, b), count in shared.items():
            if count >= share * min(len(members[a]), len(members[b])):
                self.join((a, b))

    def join_parents(self, children: Mapping[str, Iterable[str]]) -> None:
        """Join the parents of one switch, until each has one."""
        changed = True
        while changed:
            parents: dict[str, set[str]] = defaultdict(set)
            for name, below in children.items():
                for child in below:
                    if self.root(child) != self.root(name):
                        parents[self.root(child)].add(self.root(name))
            several = [group for group in parents.values() if len(group) > 1]
            changed = bool(several)
            for group in several:
                self.join(group)


def bundles_of(fabric: Fabric, nic_bytes_per_s: Mapping[str, float]) -> list[Bundle]:
    """Return the bundles of a valid fabric, children before parents; hosts are the keys of ``nic_bytes_per_s``."""
    if fabric.toruses:
        return _of_toruses(fabric)
    bundles = _regular(fabric, list(nic_bytes_per_s)) if fabric.levels else _written(fabric)
    _resolve_oversubscription(fabric, bundles, nic_bytes_per_s)
    if fabric.kind == "dragonfly":
        level = _depths(bundles)
        for bundle in bundles:
            if level[bundle.name] > 1:  # groups and the system are no switches
                bundle.switches, bundle.physical = (), False
    return bundles


def _regular(fabric: Fabric, hosts: Sequence[str]) -> list[Bundle]:
    bundles: list[Bundle] = []
    members = list(hosts)
    for depth, (level, names) in enumerate(zip(fabric.levels, level_names(fabric.levels, len(hosts)), strict=True)):
        top = depth == len(fabric.levels) - 1
        above = 1 if top else fabric.levels[depth + 1].parallel
        here: list[Bundle] = []
        for number, name in enumerate(names):
            planes = [f"{name}.{plane}" for plane in range(1, level.parallel + 1)] if level.parallel > 1 else [name]
            below = members[number * level.size : (number + 1) * level.size]
            bundle = Bundle(name, tuple(planes), latency_s=level.latency_s)
            bundle.hosts, bundle.children = ([], below) if depth else (below, [])
            if not top:
                bundle.up_bytes_per_s = level.uplink_bytes_per_s
                bundle.up_links = level.links or level.parallel * above
            here.append(bundle)
        bundles += here
        members = [bundle.name for bundle in here]
    return bundles


def _written(fabric: Fabric) -> list[Bundle]:
    switches = {switch.name: switch for switch in fabric.switches}
    children = children_of(fabric)
    members = {
        name: frozenset(expand(switch.nodes)) if switch.nodes else frozenset() for name, switch in switches.items()
    }
    joined = Joined(switches)
    if fabric.kind in ("rails", "clos"):
        joined.join_leaves(members, _SHARED)
        joined.join_parents(children)
    bundles: dict[str, Bundle] = {}
    for name, switch in switches.items():
        bundle = bundles.setdefault(joined.root(name), Bundle(joined.root(name), (), latency_s=switch.latency_s))
        bundle.switches = (*bundle.switches, name)
    parents = {joined.root(child) for below in children.values() for child in below}
    for name, below in children.items():
        bundle = bundles[joined.root(name)]
        known = set(bundle.children)
        for child in dict.fromkeys(joined.root(child) for child in below):
            if child not in known and child != bundle.name:
                bundle.children.append(child)
    _add_uplinks(bundles, switches, joined, parents)
    _add_hosts(bundles, switches, joined)
    depth = _depths(list(bundles.values()))
    return sorted(bundles.values(), key=lambda bundle: depth[bundle.name])


def children_of(fabric: Fabric) -> dict[str, list[str]]:
    """Return the switches right below each switch, by whichever end the file names them."""
    children: dict[str, list[str]] = {switch.name: switch.children() for switch in fabric.switches}
    for switch in fabric.switches:
        for parent in switch.parents():
            children[parent].append(switch.name)
    return children


def _add_uplinks(
    bundles: Mapping[str, Bundle], switches: Mapping[str, Switch], joined: Joined, below: set[str]
) -> None:
    for bundle in bundles.values():
        if bundle.name not in below:
            continue
        own = [switches[name] for name in bundle.switches]
        cables = [c for switch in own for name, c in switch.parents().items() if joined.root(name) != bundle.name]
        rates = [switch.uplink_bytes_per_s for switch in own if switch.uplink_bytes_per_s is not None]
        if rates or cables:
            bundle.up_bytes_per_s = sum(rates) + sum(cable.total_bytes_per_s for cable in cables)
        counted = sum(switch.links or 0 for switch in own) + sum(cable.links for cable in cables)
        bundle.up_links = counted or len(bundle.switches)


def _add_hosts(bundles: Mapping[str, Bundle], switches: Mapping[str, Switch], joined: Joined) -> None:
    votes: dict[str, Counter[str]] = defaultdict(Counter)
    for name, switch in switches.items():
        for host in expand(switch.nodes) if switch.nodes else []:
            votes[host][joined.root(name)] += 1
    for host, leaves in votes.items():
        bundles[leaves.most_common(1)[0][0]].hosts.append(host)


def _resolve_oversubscription(fabric: Fabric, bundles: Sequence[Bundle], nic_bytes_per_s: Mapping[str, float]) -> None:
    """Turn ratios into rates, from the leaves up."""
    if fabric.levels:
        depth = _depths(bundles)
        ratio = {b.name: fabric.levels[depth[b.name] - 1].oversubscription for b in bundles}
    else:
        ratio = {switch.name: switch.oversubscription for switch in fabric.switches}
    below: dict[str, float] = {}
    for bundle in bundles:
        enters = sum(nic_bytes_per_s[host] for host in bundle.hosts) + sum(below[child] for child in bundle.children)
        asked = ratio.get(bundle.name)
        if asked is not None and bundle.up_bytes_per_s is None:
            bundle.up_bytes_per_s = enters / asked
        below[bundle.name] = bundle.up_bytes_per_s or 0.0


def _depths(bundles: Sequence[Bundle]) -> dict[str, int]:
    by_name = {bundle.name: bundle for bundle in bundles}
    depth: dict[str, int] = {}
    for start in by_name:
        stack = [start]
        while stack:
            name = stack[-1]
            missing = [child for child in by_name[name].children if child not in depth]
            if missing:
                stack += missing
            else:
                depth[name] = 1 + max((depth[child] for child in by_name[name].children), default=0)
                stack.pop()
    return depth


def _of_toruses(fabric: Fabric) -> list[Bundle]:
    bundles = [
        Bundle(torus.name, (), hosts=expand(torus.nodes), up_bytes_per_s=torus.uplink_bytes_per_s,
               up_links=torus.cells, latency_s=torus.latency_s, physical=False)
        for torus in fabric.toruses
    ]  # fmt: skip
    joined = [bundle.name for bundle in bundles if bundle.up_bytes_per_s is not None]
    if len(joined) > 1:
        name = INTERCONNECT
        while any(bundle.name == name for bundle in bundles):
            name += "-"
        bundles.append(Bundle(name, (name,), children=joined))
    else:
        for bundle in bundles:
            bundle.up_bytes_per_s = None
    return bundles
