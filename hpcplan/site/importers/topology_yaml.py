"""topology.yaml: one or more topologies, each tree, block, ring, torus or flat (topology.yaml(5), Slurm 25.05 on)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from hpcplan.documents import parse_document, read_text
from hpcplan.errors import Problem, nearest
from hpcplan.site.importers.blocks import block_size_problem, ring_problem
from hpcplan.site.importers.findings import BlockFound, Findings, SwitchFound
from hpcplan.site.importers.yaml_fields import At

__all__ = ["looks_like_yaml", "parse_topology_yaml", "read_topology_yaml"]

_PLUGINS: Final = ("block", "flat", "ring", "torus3d", "tree")
_AXES: Final = ("x", "y", "z")


@dataclass(slots=True)
class _Topology:
    """One topology of the file."""

    name: str
    kind: str
    default: bool
    at: At
    switches: list[SwitchFound] = field(default_factory=list)
    blocks: list[BlockFound] = field(default_factory=list)
    block_sizes: tuple[int, ...] = ()


def read_topology_yaml(path: Path, *, topology: str | None = None) -> Findings:
    """Read topology.yaml and report one topology: the one called ``topology``, else the cluster's default or first.

    Raises:
        InputError: not as topology.yaml(5) has it: a value of the wrong kind, two kinds in one topology, block sizes
            that are not the smallest times a power of two, more than 16 nodes in a ring, a torus with cells empty.
    """
    return parse_topology_yaml(read_text(path), path, topology=topology)


def parse_topology_yaml(text: str, path: Path, *, topology: str | None = None) -> Findings:
    """As :func:`read_topology_yaml`, for a text that came from ``path``."""
    document = parse_document(text, str(path))
    root = At(document, document.value)
    if not isinstance(root.value, list | dict):
        raise root.error("must be a list of topologies, or one topology")
    found = [_read(item) for item in root.items("topologies")]
    if not found:
        raise root.error("names no topology")
    by_name: dict[str, _Topology] = {}
    for one in found:
        if one.name in by_name:
            raise one.at.error(f"topology {one.name!r} is defined twice")
        by_name[one.name] = one
    if topology is not None and topology not in by_name:
        raise root.error(f"no topology is called {topology!r}" + nearest(topology, by_name))
    defaults = [one for one in found if one.default]
    chosen = by_name[topology] if topology is not None else (defaults or found)[0]
    return Findings(
        str(path),
        switches=tuple(chosen.switches),
        blocks=tuple(chosen.blocks),
        topology_plugin=chosen.kind in ("tree", "block"),
        block_sizes=chosen.block_sizes,
        problems=tuple(_choice(found, chosen, defaults)),
    )


def _choice(found: list[_Topology], chosen: _Topology, defaults: list[_Topology]) -> list[Problem]:
    problems: list[Problem] = []
    if len(defaults) > 1:
        problems.append(defaults[1].at.place.problem("more than one topology is the default; the first counts"))
    others = [f"{one.name} ({one.kind})" for one in found if one is not chosen]
    if others:
        message = f"{chosen.name!r} ({chosen.kind}) is imported; not imported: " + ", ".join(others)
        problems.append(chosen.at.place.note(message))
    return problems


def _read(item: At) -> _Topology:
    fields = item.mapping(("topology", "cluster_default", *_PLUGINS))
    if "topology" not in fields:
        raise item.error("'topology' is missing: the name of the topology")
    present = [name for name in _PLUGINS if name in fields and not _is_off(name, fields[name])]
    if len(present) > 1:
        raise fields[present[1]].error(f"excludes {present[0]!r}: a topology is of one kind")
    if not present:
        raise item.error("says no kind; give one of " + ", ".join(_PLUGINS))
    kind = present[0]
    default = "cluster_default" in fields and fields["cluster_default"].flag()
    result = _Topology(fields["topology"].word(), kind, default, item)
    _READERS[kind](fields[kind], result)
    return result


def _is_off(name: str, at: At) -> bool:
    return name == "flat" and not isinstance(at.value, dict) and not at.flag()


def _needed(fields: dict[str, At], key: str, at: At) -> At:
    if key not in fields:
        raise at.error(f"{key!r} is missing")
    return fields[key]


def _tree(at: At, result: _Topology) -> None:
    fields = at.mapping(("switches",), "switches")
    seen: set[str] = set()
    for item in _needed(fields, "switches", at).items("switches"):
        switch = item.mapping(("switch", "nodes", "children"))
        name = _needed(switch, "switch", item).word()
        nodes = switch["nodes"].hosts() if "nodes" in switch else ()
        children = switch["children"].hosts() if "children" in switch else ()
        if bool(nodes) == bool(children):
            raise item.error(f"switch {name!r} must have either 'nodes' or 'children'")
        if name in seen:
            raise item.error(f"switch {name!r} is defined twice")
        seen.add(name)
        result.switches.append(SwitchFound(name, item.place, nodes, children))


def _block(at: At, result: _Topology) -> None:
    fields = at.mapping(("block_sizes", "blocks"), "block_sizes and blocks")
    seen: set[str] = set()
    for item in _needed(fields, "blocks", at).items("blocks"):
        block = item.mapping(("block", "nodes"))
        name = _needed(block, "block", item).word()
        if name in seen:
            raise item.error(f"block {name!r} is defined twice")
        seen.add(name)
        result.blocks.append(BlockFound(name, item.place, _needed(block, "nodes", item).hosts()))
    if "block_sizes" in fields:
        at_sizes = fields["block_sizes"]
        listed = at_sizes.items("whole numbers") if isinstance(at_sizes.value, list) else [at_sizes]
        sizes = [size.whole() for size in listed]
        if (wrong := block_size_problem(sizes)) is not None:
            raise at_sizes.error(wrong)
        result.block_sizes = tuple(sizes)


def _ring(at: At, result: _Topology) -> None:
    fields = at.mapping(("rings",), "rings")
    for item in _needed(fields, "rings", at).items("rings"):
        ring = item.mapping(("ring", "nodes"))
        name = _needed(ring, "ring", item).word()
        nodes = _needed(ring, "nodes", item).hosts()
        if (wrong := ring_problem(name, len(nodes))) is not None:
            raise ring["nodes"].error(wrong)
        result.blocks.append(BlockFound(name, item.place, nodes, "ring", (len(nodes),)))


def _torus(at: At, result: _Topology) -> None:
    fields = at.mapping(("toruses",), "toruses")
    for item in _needed(fields, "toruses", at).items("toruses"):
        torus = item.mapping(("name", "dims", "nodes", "placements", "regions"))
        name = _needed(torus, "name", item).word()
        dims = _dims(_needed(torus, "dims", item))
        for placement in torus["placements"].items("placements") if "placements" in torus else []:
            sizes = _dims(_needed(placement.mapping(("dims",)), "dims", placement))
            if any(size > most for size, most in zip(sizes, dims, strict=True)):
                raise placement.error(f"is larger than the torus, {_product(dims)}")
        nodes, from_regions = _torus_nodes(torus, item)
        cells = math.prod(dims)
        if len(nodes) != cells and not (from_regions and len(nodes) < cells):
            message = f"torus {name!r} is {_product(dims)} = {cells} cells, but {len(nodes)} nodes are listed"
            raise (torus.get("nodes") or item).error(message)
        whole = dims if len(nodes) == cells and not from_regions else ()
        result.blocks.append(BlockFound(name, item.place, nodes, "torus", whole))


def _torus_nodes(torus: dict[str, At], item: At) -> tuple[tuple[str, ...], bool]:
    if "regions" in torus and "nodes" in torus:
        raise torus["regions"].error("excludes 'nodes': a torus has one or the other")
    if "nodes" in torus:
        return torus["nodes"].hosts(), False
    names: list[str] = []
    for region in _needed(torus, "regions", item).items("regions"):
        fields = region.mapping()
        names += _needed(fields, "nodes", region).hosts()
    return tuple(names), True


def _dims(at: At) -> tuple[int, int, int]:
    fields = at.mapping(_AXES, "x, y and z")
    x, y, z = (_needed(fields, axis, at).whole() for axis in _AXES)
    return x, y, z


def _product(dims: tuple[int, int, int]) -> str:
    return "x".join(str(size) for size in dims)


def _flat(at: At, result: _Topology) -> None:
    if isinstance(at.value, dict):
        for option in at.mapping(("alpha_step_rank",)).values():
            option.flag()


_READERS: Final = {"tree": _tree, "block": _block, "ring": _ring, "torus3d": _torus, "flat": _flat}


def looks_like_yaml(text: str) -> bool:
    """Return whether a topology file is YAML rather than lines of ``Key=Value``."""
    for raw in text.splitlines():
        line = raw.strip()
        if line and not line.startswith("#"):
            return line.startswith(("---", "- ", "{", "[", "topology:"))
    return False
