"""The network between nodes, as a site file describes it: trees, rails, Clos networks, dragonflies, toruses, blocks."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from hpcplan.documents import Loc
from hpcplan.errors import nearest
from hpcplan.hostlist import expand
from hpcplan.quantities import Bandwidth, Duration, PositiveInt
from hpcplan.site.fields import Hostlist, Words
from hpcplan.validation import Value

__all__ = ["Cables", "Fabric", "FabricLevel", "Switch", "Torus", "level_names"]

_CABLES = re.compile(r"\s*(\d{1,6})\s*[x×]\s*(.+)")
Ratio = Annotated[float, Field(gt=0)]


class FabricLevel(Value):
    """One level of switches of a regular fabric, from the leaves up.

    ``size`` is how many children (nodes under a leaf, switches above) one switch joins. ``parallel`` switches may serve
    the same children: the rails of a leaf, the roots of a Clos network. ``uplink`` is the bandwidth of all links
    together from one switch, or from all the parallel ones together, to the level above, one way.
    """

    name: str = Field(description="switches are called by it and a number")
    size: PositiveInt = Field(description="children of one switch")
    parallel: PositiveInt = Field(1, description="switches that serve the same children: rails, or roots of a Clos")
    uplink_bytes_per_s: Bandwidth | None = Field(None, alias="uplink", description="absent at the top level")
    oversubscription: Ratio | None = Field(
        None, description="instead of `uplink`: what enters from below, divided by the up-link"
    )
    links: PositiveInt | None = Field(None, description="how many cables the up-link is; at least one a parallel pair")
    latency_s: Duration = Field(3e-7, alias="latency", description="one switch, port to port")


class Cables(Value):
    """Parallel cables between two switches, as in ``4 x 400 Gb/s``."""

    links: PositiveInt = Field(1, description="how many")
    bandwidth_bytes_per_s: Bandwidth = Field(alias="bandwidth", description="of each, one way")

    @model_validator(mode="before")
    @classmethod
    def _written(cls, value: Any) -> Any:
        if isinstance(value, str):
            match = _CABLES.fullmatch(value)
            return {"links": int(match[1]), "bandwidth": match[2]} if match else {"links": 1, "bandwidth": value}
        return value

    @property
    def total_bytes_per_s(self) -> float:
        """All cables together, one way."""
        return self.links * self.bandwidth_bytes_per_s


class Switch(Value):
    """One switch: it joins ``nodes`` or other ``switches``.

    What is above it stands in the ``switches`` of its parents, with ``uplink`` for all links to all of them together,
    or in its own ``uplinks``, with the cables to each.
    """

    name: str
    nodes: Hostlist | None = None
    switches: Words = Field((), description="names or hostlists of the switches right below")
    uplink_bytes_per_s: Bandwidth | None = Field(None, alias="uplink", description="to all parents together, one way")
    oversubscription: Ratio | None = Field(
        None, description="instead of `uplink`: what enters from below, divided by the up-link"
    )
    links: PositiveInt | None = Field(None, description="how many cables the up-link is")
    uplinks: dict[Hostlist, Cables] = Field(
        default_factory=dict, description="parents (a hostlist) to the cables to each, as in `4 x 400 Gb/s`"
    )
    latency_s: Duration = Field(3e-7, alias="latency")

    def children(self) -> list[str]:
        """Return the switches named right below, hostlists expanded."""
        return [name for written in self.switches for name in expand(written)]

    def parents(self) -> dict[str, Cables]:
        """Return the switches that its own ``uplinks`` name, each with the cables to it."""
        return {name: cables for written, cables in self.uplinks.items() for name in expand(written)}


class Torus(Value):
    """Nodes on a ring, or on a torus of several dimensions, each linked to its neighbours.

    The first dimension varies slowest along ``nodes``, the last fastest.
    """

    name: str
    dims: tuple[PositiveInt, ...] = Field(min_length=1, max_length=6, description="as in `[4, 4, 2]`; one is a ring")
    nodes: Hostlist
    link_bytes_per_s: Bandwidth = Field(alias="link", description="to one neighbour, one way")
    latency_s: Duration = Field(5e-7, alias="latency", description="one hop")
    uplink_bytes_per_s: Bandwidth | None = Field(
        None, alias="uplink", description="all its nodes together to other toruses; without it nothing joins them"
    )

    @property
    def cells(self) -> int:
        """How many nodes fit."""
        return math.prod(self.dims)


class Fabric(Value):
    """The network between nodes: regular (``levels``), switch by switch (``switches``), or of ``toruses``.

    A ``tree`` may be a forest. In ``rails`` the interfaces of one node go to different leaf switches; in a ``clos``
    network one switch has several parents. The levels of a ``dragonfly`` are its routers, whose up-links are those to
    the routers of the same group together; its groups, whose up-links are those to all other groups together; and the
    system. The leaves of ``blocks`` are what Slurm's topology/block takes for blocks.
    """

    kind: Literal["tree", "rails", "clos", "dragonfly", "torus", "blocks"] = "tree"
    technology: str | None = None
    levels: tuple[FabricLevel, ...] = ()
    switches: tuple[Switch, ...] = ()
    toruses: tuple[Torus, ...] = ()
    block_sizes: tuple[PositiveInt, ...] = Field((), description="of Slurm's topology/block, in nodes")
    switch_mtbf_s: Duration | None = Field(
        None, alias="switch_mtbf", description="mean time between failures of one switch"
    )

    def inconsistencies(self) -> Iterator[tuple[Loc, str]]:
        """Yield what is wrong with the fabric."""
        yield from self._kind_problems()
        yield from self._level_problems()
        names: set[str] = set()
        for key, several in (
            ("switches", [s.name for s in self.switches]),
            ("toruses", [t.name for t in self.toruses]),
        ):
            for index, name in enumerate(several):
                if name in names:
                    yield (key, index, "name"), f"{key.removesuffix('es')} {name!r} is defined twice"
                names.add(name)
        yield from self._switch_problems({switch.name for switch in self.switches})
        for index, torus in enumerate(self.toruses):
            if len(expand(torus.nodes)) != torus.cells:
                yield (
                    ("toruses", index, "nodes"),
                    f"{torus.cells} nodes fit into {list(torus.dims)}, not " + str(len(expand(torus.nodes))),
                )

    def _kind_problems(self) -> Iterator[tuple[Loc, str]]:
        if self.kind == "torus":
            if not self.toruses or self.levels or self.switches:
                yield (), "a torus is described by 'toruses' alone"
        elif self.toruses:
            yield ("toruses",), f"are for 'kind: torus', not for {self.kind!r}"
        elif bool(self.levels) == bool(self.switches):
            yield (), "give either 'levels' (a regular fabric) or 'switches' (one by one)"
        if self.block_sizes and self.kind != "blocks":
            yield ("block_sizes",), f"are for 'kind: blocks', not for {self.kind!r}"
        if self.kind == "dragonfly" and self.levels and len(self.levels) != 3:
            yield ("levels",), "a dragonfly has three: routers, groups, and the system that joins the groups"

    def _level_problems(self) -> Iterator[tuple[Loc, str]]:
        for index, level in enumerate(self.levels):
            top = index == len(self.levels) - 1
            given = (level.uplink_bytes_per_s is not None) + (level.oversubscription is not None)
            if not top and given != 1:
                missing = "'uplink' is missing; only the top level has none"
                yield ("levels", index), missing if not given else "give 'uplink' or 'oversubscription', not both"
            allowed = self.kind == "rails" or (self.kind == "clos" and index > 0)
            if level.parallel > 1 and not allowed:
                kinds = "'kind: rails'" if not index else "'kind: rails' or 'kind: clos'"
                yield ("levels", index, "parallel"), f"several parallel switches here are for {kinds}"

    def _switch_problems(self, names: set[str]) -> Iterator[tuple[Loc, str]]:
        parents: dict[str, list[str]] = {}
        joins: set[str] = {parent for switch in self.switches for parent in switch.parents()}
        for index, switch in enumerate(self.switches):
            if (switch.nodes is not None) + (bool(switch.switches) or switch.name in joins) != 1:
                yield ("switches", index), "give either 'nodes' (a leaf) or 'switches' (above leaves)"
            for child in switch.children():
                if child not in names:
                    yield ("switches", index, "switches"), f"no switch is called {child!r}" + nearest(child, names)
                elif child in parents and self.kind not in ("rails", "clos"):
                    several = "; several parents are for 'kind: clos' or 'kind: rails'"
                    yield ("switches", index, "switches"), f"{child!r} is already under {parents[child][0]!r}{several}"
                parents.setdefault(child, []).append(switch.name)
            for parent in switch.parents():
                if parent not in names:
                    yield ("switches", index, "uplinks"), f"no switch is called {parent!r}" + nearest(parent, names)
                parents.setdefault(switch.name, []).append(parent)
        cyclic = _cyclic(parents)
        if cyclic is not None:
            index = next(index for index, switch in enumerate(self.switches) if switch.name == cyclic)
            yield ("switches", index), f"{cyclic!r} is above itself"
            return
        for index, switch in enumerate(self.switches):
            yield from self._uplink_problems(index, switch, parents.get(switch.name, []))

    def _uplink_problems(self, index: int, switch: Switch, parents: list[str]) -> Iterator[tuple[Loc, str]]:
        ways = {
            "uplink": switch.uplink_bytes_per_s is not None,
            "oversubscription": switch.oversubscription is not None,
            "uplinks": bool(switch.uplinks),
        }
        given = [name for name, there in ways.items() if there]
        if len(given) > 1:
            yield ("switches", index), f"give {given[0]!r} or {given[1]!r}, not both"
        elif parents and not given:
            yield ("switches", index), f"'uplink' is missing: {switch.name!r} is under {parents[0]!r}"
        elif len(set(parents)) > 1 and self.kind not in ("rails", "clos"):
            yield ("switches", index), f"{switch.name!r} has several parents; that is 'kind: clos' or 'kind: rails'"


def level_names(levels: Sequence[FabricLevel], nodes: int) -> list[list[str]]:
    """Return the names of the switches of a regular fabric over so many nodes, level by level from the leaves up."""
    names: list[list[str]] = []
    for level in levels:
        nodes = math.ceil(nodes / level.size)
        width = len(str(nodes))
        names.append([f"{level.name}{number:0{width}d}" for number in range(1, nodes + 1)])
    return names


def _cyclic(parents: dict[str, list[str]]) -> str | None:
    """Return a switch that is above itself, if there is one."""
    done: set[str] = set()
    for start in parents:
        stack: list[tuple[str, Iterator[str]]] = [(start, iter(parents.get(start, ())))]
        on_way = {start}
        while stack:
            name, above = stack[-1]
            following = next((parent for parent in above if parent not in done), None)
            if following is None:
                done.add(name)
                on_way.discard(name)
                stack.pop()
            elif following in on_way:
                return following
            else:
                on_way.add(following)
                stack.append((following, iter(parents.get(following, ()))))
    return None
