"""Which node gets which ranks, for the nodes that Slurm really gave.

This file is part of hpcplan and also runs alone: ``hpcplan render`` copies it into the campaign, and the job script
calls it with whatever Python, 3.6 or later, the first node has. Hence the standard library only, and quoted
annotations::

    python3 rank_map.py rank-map.json n07 n03 n12     prints these nodes, one a line; the first gets the first ranks

Ranks come in blocks, one block a node. What the ranks of a step exchange makes flows between blocks, and the flows of
one kind share the up-links of a tree of switches. Several orders of the nodes, packed by 1, 2, 4, ... under the lowest
switches, are compared with the order in which the nodes are named; the one with the shortest predicted step is
improved by swaps. The result is therefore never worse than the order that came in, by the same prediction.
"""

import json
import math
import sys
from typing import Any, NamedTuple

__all__ = ["Fabric", "Flows", "best_order", "block_flows", "divisors", "main", "packings", "step_seconds"]

_WORK = 300_000  # flows looked at while swapping; about a second
_TIE = 1e-9


def divisors(number: int) -> "list[int]":
    """Return the divisors of a positive number, in order."""
    small = [d for d in range(1, int(number**0.5) + 1) if number % d == 0]
    return small + [number // d for d in reversed(small) if d * d != number]


class Fabric:
    """A tree of switches over hosts; a host that it does not know hangs from the top by itself.

    ``switches`` are mappings with ``name``, ``parent`` (none at the top), ``nodes`` (names, of a leaf),
    ``uplink_bytes_per_s`` (none: no limit), ``latency_s`` and ``domain`` (whether NVLink or the like joins the nodes).
    """

    def __init__(self, switches: "list[dict[str, Any]]", hosts: "list[str]") -> None:
        self.parent: dict[str, str | None] = {s["name"]: s.get("parent") for s in switches}
        self.uplink: dict[str, float] = {s["name"]: s.get("uplink_bytes_per_s") or math.inf for s in switches}
        self.latency: dict[str, float] = {s["name"]: s.get("latency_s") or 0.0 for s in switches}
        self.domains = {s["name"] for s in switches if s.get("domain")}
        wanted = set(hosts)
        self.leaf = {host: s["name"] for s in switches for host in s.get("nodes") or () if host in wanted}
        self._chains: dict[str | None, list[str]] = {None: []}
        self._routes: dict[tuple[str | None, str | None], tuple[int, int, str | None]] = {}

    def chain(self, host: str) -> "list[str]":
        """Return the switches above a host, nearest first."""
        start = self.leaf.get(host)
        if start not in self._chains:
            chain: list[str] = []
            at = start
            while at is not None and at not in chain:
                chain.append(at)
                at = self.parent.get(at)
            self._chains[start] = chain
        return self._chains[start]

    def route(self, a: str, b: str) -> "tuple[list[str], list[str], str | None]":
        """Return the switches whose up-links lead from ``a`` up and down to ``b``, and the one where they meet."""
        key = (self.leaf.get(a), self.leaf.get(b))
        up, down = self.chain(a), self.chain(b)
        if key not in self._routes:
            above = {switch: depth for depth, switch in enumerate(down)}
            i = next((depth for depth, switch in enumerate(up) if switch in above), len(up))
            meeting = up[i] if i < len(up) else None
            self._routes[key] = (i, len(down) if meeting is None else above[meeting], meeting)
        i, j, meeting = self._routes[key]
        return up[:i], down[:j], meeting


class _Place:
    """A switch and what of the given hosts is below: its own, and further switches."""

    def __init__(self) -> None:
        self.hosts: list[str] = []
        self.below: dict[str, _Place] = {}

    def size(self) -> int:
        return len(self.hosts) + sum(place.size() for place in self.below.values())


def _places(fabric: Fabric, hosts: "list[str]") -> _Place:
    top = _Place()
    for host in hosts:
        place = top
        for switch in reversed(fabric.chain(host)):
            if switch not in place.below:
                place.below[switch] = _Place()
            place = place.below[switch]
        place.hosts.append(host)
    return top


class _Units:
    """The hosts of a place in units of so many; units as low in the tree as they can be."""

    def __init__(self, place: _Place, unit: int) -> None:
        self.kids: list[_Units] = [_Units(below, unit) for below in place.below.values()]
        whole = sorted(self.kids, key=lambda kid: -len(kid.units))
        self.units: list[list[str]] = [u for kid in whole for u in kid.units]
        loose: list[str] = [host for kid in whole for host in kid.loose] + place.hosts
        cut = len(loose) // unit * unit
        self.straddling = [loose[i : i + unit] for i in range(0, cut, unit)]
        self.units += self.straddling
        self.loose: list[str] = loose[cut:]
        self.size = place.size()

    def take(self, count: int) -> "list[list[str]]":
        """Return ``count`` units: the fullest places whole, then the tightest one that holds the rest."""
        taken: list[list[str]] = []
        left = [kid for kid in self.kids if kid.units]
        while left and len(taken) < count:
            missing = count - len(taken)
            enough = [kid for kid in left if len(kid.units) >= missing]
            if enough:
                return taken + min(enough, key=lambda kid: (len(kid.units), kid.size)).take(missing)
            fullest = max(left, key=lambda kid: len(kid.units))
            taken += fullest.units
            left.remove(fullest)
        return taken + self.straddling[: count - len(taken)]

    def lowest(self, count: int) -> "_Units":
        """Return the lowest place that has ``count`` units; the smallest of those."""
        enough = [kid for kid in self.kids if len(kid.units) >= count]
        return min(enough, key=lambda kid: kid.size).lowest(count) if enough else self


def packings(fabric: Fabric, hosts: "list[str]", count: int) -> "dict[int, list[str]]":
    """Return, by unit, ``count`` of ``hosts`` in an order that keeps neighbours together.

    Each ``unit`` neighbours, counted from the first, are under the lowest switch that they can be; units are the
    divisors of ``count``. There are none if there are not so many hosts.
    """
    places = _places(fabric, hosts)
    found: dict[int, list[str]] = {}
    for unit in divisors(count):
        top = _Units(places, unit)
        if len(top.units) * unit >= count:
            found[unit] = [host for u in top.lowest(count // unit).take(count // unit) for host in u]
    return found


class Flows(NamedTuple):
    """What an exchange sends: bytes a step between blocks, the share that stays inside one, a group's most blocks."""

    between: "dict[tuple[int, int], float]"
    inside: float
    blocks: int


def _rank_groups(spec: "dict[str, Any]", axis: str) -> "list[list[int]]":
    """Return the groups of ranks that communicate over an axis, each in the order of its ranks.

    Gradients (``dp``) are reduced over the data- and context-parallel ranks together; experts are spread over ``ep``
    consecutive ones of those, and the gradients of experts (``edp``) are reduced over the rest. With hybrid sharding
    that is inside each of ``copies`` groups, which then sum up what they have (``rdp``, ``redp``).
    """
    copies = spec.get("copies", 1)
    names = [name for name, _ in spec["axes"]]
    strides, total = {}, 1
    for name, size in spec["axes"]:
        strides[name] = (total, size)
        total *= size
    over = (axis,) if axis in ("tp", "cp", "pp") else ("dp", "cp")
    fixed = [strides[name] for name in names if name not in over]
    groups: dict[tuple[int, ...], list[int]] = {}
    for rank in range(total):
        groups.setdefault(tuple(rank // stride % size for stride, size in fixed), []).append(rank)
    if axis == "ep":
        return [g[i : i + spec["ep"]] for g in groups.values() for i in range(0, len(g), spec["ep"])]
    found = list(groups.values())
    if axis in ("edp", "redp"):
        found = [g[i :: spec["ep"]] for g in found for i in range(spec["ep"])]
    if axis in ("dp", "edp"):
        return [g[i : i + len(g) // copies] for g in found for i in range(0, len(g), len(g) // copies)]
    if axis in ("rdp", "redp"):
        return [g[i :: len(g) // copies] for g in found for i in range(len(g) // copies)]
    return found


def block_flows(spec: "dict[str, Any]", exchange: "dict[str, Any]") -> "Flows":
    """Return the flows between blocks, the share of ``sent_bytes`` that stays inside one, and a group's most blocks.

    A ring passes ``sent_bytes`` over each of its edges, an all-to-all spreads them over the group, a chain sends them
    to the next stage and as much back; in a loop the last stage is followed by the first.
    """
    sent, pattern = exchange["sent_bytes"], exchange["pattern"]
    flows: dict[tuple[int, int], float] = {}
    inside, most = 0.0, 1
    for group in _rank_groups(spec, exchange["axis"]):
        blocks = [rank // spec["gpus_per_node"] for rank in group]
        counts = {b: blocks.count(b) for b in dict.fromkeys(blocks)}
        most = max(most, len(counts))
        if pattern == "all-to-all":
            inside = max(inside, (max(counts.values()) - 1) / len(group))
            pairs = {(a, b): n * m / len(group) for a, n in counts.items() for b, m in counts.items() if a != b}
        else:
            follow = [(blocks[i - 1], blocks[i]) for i in range(int(pattern == "chain"), len(blocks))]
            if pattern != "ring":
                follow += [(b, a) for a, b in follow]
            inside = max(inside, float(any(a == b for a, b in follow)))
            pairs = {}
            for a, b in follow:
                if a != b:
                    pairs[a, b] = pairs.get((a, b), 0.0) + 1.0
        for pair, share in pairs.items():
            flows[pair] = flows.get(pair, 0.0) + share * sent
    return Flows(flows, inside, most)


def _exchange_seconds(
    spec: "dict[str, Any]", fabric: Fabric, hosts: "list[str]", exchange: "dict[str, Any]", flows: Flows
) -> float:
    """Return how long an exchange of a whole step keeps the busiest link busy, and its messages are under way."""
    loads: dict[tuple[str, str], float] = {}
    farthest = spec["link_latency_s"] if flows.inside else 0.0
    busiest = flows.inside * exchange["sent_bytes"] / spec["link_bytes_per_s"]
    network, domain = spec["node_bytes_per_s"], spec["link_bytes_per_s"] * spec["gpus_per_node"]
    for (a, b), size in flows.between.items():
        up, down, meeting = fabric.route(hosts[a], hosts[b])
        joined = meeting in fabric.domains
        ends = ("domain out", "domain in") if joined else ("out", "in")
        keys = [(ends[0], hosts[a]), (ends[1], hosts[b])]
        keys += [("up", switch) for switch in up] + [("down", switch) for switch in down]
        for key in keys:
            loads[key] = loads.get(key, 0.0) + size
        if joined:
            way = spec["link_latency_s"]
        else:
            passed = up + down + ([meeting] if meeting else [])
            way = 2 * spec["node_latency_s"] + sum(fabric.latency[s] for s in passed if s not in fabric.domains)
        farthest = max(farthest, way)
    for (kind, name), load in loads.items():
        rate = domain if kind.startswith("domain") else network if kind in ("out", "in") else fabric.uplink[name]
        efficiency = 1.0 if kind.startswith("domain") else spec["network_efficiency"]
        busiest = max(busiest, load / (rate * efficiency))
    hops = max(1.0, math.log(flows.blocks, 2)) if exchange["pattern"] in ("ring", "all-to-all") else 1.0
    return float(busiest + exchange["rounds"] * hops * farthest)


def step_seconds(spec: "dict[str, Any]", fabric: Fabric, hosts: "list[str]", flows: "list[list[Flows]]") -> float:
    """Return the predicted step in seconds with these hosts in this order.

    Of each term a share is always waited for, and of the rest what arithmetic (``hidden_s``) does not hide.
    """
    total: float = spec["fixed_s"]
    for term, of_term in zip(spec["terms"], flows):  # noqa: B905 - Python 3.6 has no strict
        takes = [_exchange_seconds(spec, fabric, hosts, e, f) for e, f in zip(term["exchanges"], of_term)]  # noqa: B905
        whole = term["scale"] * sum(takes)
        waited = term["exposed"] * whole + max(0.0, (1 - term["exposed"]) * whole - term["hidden_s"])
        total += term["weight"] * waited
    return total


def best_order(spec: "dict[str, Any]", hosts: "list[str]") -> "tuple[list[str], float, float]":
    """Return the order, its predicted step, and that of the order in which the hosts are named (both in seconds)."""
    fabric = Fabric(spec["switches"], hosts)
    flows = [[block_flows(spec, exchange) for exchange in term["exchanges"]] for term in spec["terms"]]
    given = best_s = step_seconds(spec, fabric, hosts, flows)
    best = hosts
    planned = spec.get("hosts") or []
    if sorted(planned) == sorted(hosts):
        return planned, step_seconds(spec, fabric, planned, flows), given
    for order in packings(fabric, hosts, len(hosts)).values():
        step = step_seconds(spec, fabric, order, flows)
        if step < best_s * (1 - _TIE):
            best, best_s = order, step
    best, best_s = _swap(spec, fabric, best, best_s, flows)
    return best, best_s, given


def _swap(
    spec: "dict[str, Any]", fabric: Fabric, hosts: "list[str]", best_s: float, flows: "list[list[Flows]]"
) -> "tuple[list[str], float]":
    """Return the hosts after swaps that shorten the step, for as long as the work allows."""
    each = 1 + sum(len(f.between) for of_term in flows for f in of_term)
    left = _WORK // each
    better = True
    while better and left > 0:
        better = False
        for i in range(len(hosts)):
            for j in range(i + 1, len(hosts)):
                if fabric.leaf.get(hosts[i]) == fabric.leaf.get(hosts[j]):
                    continue
                if left <= 0:
                    return hosts, best_s
                left -= 1
                trial = list(hosts)
                trial[i], trial[j] = trial[j], trial[i]
                step = step_seconds(spec, fabric, trial, flows)
                if step < best_s * (1 - _TIE):
                    hosts, best_s, better = trial, step, True
    return hosts, best_s


def main(words: "list[str]") -> int:
    """Print the best order of the hosts named on the command line; 0, or 1 with what is wrong on stderr."""
    try:
        with open(words[0], encoding="utf-8") as stream:  # noqa: PTH123 - runs alone
            spec = json.load(stream)
        hosts = words[1:]
        if len(set(hosts)) != spec["nodes"] or len(hosts) != spec["nodes"]:
            raise ValueError(f"the plan is for {spec['nodes']} nodes, not for {' '.join(hosts)}")
        order, step, given = best_order(spec, hosts)
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        print("rank_map.py: the nodes stay in Slurm's order:", error, file=sys.stderr)
        return 1
    print("\n".join(order))
    message = "rank_map.py: {:.4g} s a step predicted, {:.4g} s in Slurm's order of the nodes"
    print(message.format(step, given), file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
