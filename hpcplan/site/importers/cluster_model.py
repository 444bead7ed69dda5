"""Topograph's cluster models: switches by name, blocks of nodes under them, and the accelerator fabric of each block.

Three layouts are read, as they followed each other (https://github.com/NVIDIA/topograph, tests/models): lists of
``switches`` and ``capacity_blocks`` that have nodes; ``switches`` that have nodes, with a mapping of ``nodes`` and what
is said of each; ``switches`` as a mapping with ``blocks``. A block's accelerator domain stands in its labels or
annotations under a key that begins with ``accelerat`` after its dots and slashes, or in ``nvlink``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from hpcplan.documents import parse_document, read_text
from hpcplan.errors import Problem
from hpcplan.site.importers.findings import BlockFound, Devices, Figure, Findings, NodesFound, Place, SwitchFound, few
from hpcplan.site.importers.yaml_fields import At

__all__ = ["read_cluster_model"]

_DOMAIN: Final = re.compile(r"(?:^|[./])accelerat(?:or|ed)[^/]*(?:/(?:domain|level-0))?$")


@dataclass(slots=True)
class _Block:
    name: str
    place: Place
    nodes: tuple[str, ...]
    switch: str | None = None
    domain: str | None = None
    type: str | None = None
    gpus: int = 0


@dataclass(slots=True)
class _Switch:
    place: Place
    children: tuple[str, ...] = ()
    blocks: list[str] = field(default_factory=list)
    nodes: tuple[str, ...] = ()


def read_cluster_model(path: Path) -> Findings:
    """Read a cluster model.

    Raises:
        InputError: not YAML, no switches and no blocks, a value of the wrong kind, or a hostlist that is none.
    """
    text = read_text(path)
    document = parse_document(text, str(path))
    root = At(document, document.value).mapping()
    problems: list[Problem] = []
    switches = _switches(root["switches"]) if root.get("switches") and root["switches"].value else {}
    key = "blocks" if "blocks" in root else "capacity_blocks"
    blocks = _blocks(root[key]) if key in root and root[key].value is not None else []
    alone = [_node(name, item) for name, item in root["nodes"].mapping().items()] if "nodes" in root else []
    if not switches and not blocks and not alone:
        raise At(document, document.value).error("has neither 'switches' nor 'blocks'; is it a cluster model?")
    owner = {block: name for name, switch in switches.items() for block in switch.blocks}
    for block in blocks:
        block.switch = block.switch or owner.get(block.name)
    described = [*alone, *blocks]  # what is said of a node by itself comes before what is said of its block
    return Findings(
        str(path),
        nodes=_nodes(described),
        switches=tuple(_found(switches, blocks, alone, problems)),
        blocks=tuple(_domains(described)),
        problems=tuple(problems),
    )


def _switches(at: At) -> dict[str, _Switch]:
    found: dict[str, _Switch] = {}
    if isinstance(at.value, dict):
        for name, item in at.mapping().items():
            fields = item.mapping() if item.value is not None else {}
            found[name] = _switch(item, fields)
        return found
    for item in at.items("switches"):
        fields = item.mapping()
        if "name" not in fields:
            raise item.error("'name' is missing")
        name = fields["name"].word()
        if name in found:
            raise item.error(f"switch {name!r} is defined twice")
        found[name] = _switch(item, fields)
    return found


def _switch(item: At, fields: dict[str, At]) -> _Switch:
    children = fields["switches"].hosts() if "switches" in fields else ()
    blocks = fields["capacity_blocks"].words() if "capacity_blocks" in fields else []
    nodes = fields["nodes"].hosts() if "nodes" in fields else ()
    return _Switch(item.place, children, blocks, nodes)


def _blocks(at: At) -> list[_Block]:
    """Return blocks, whether they are a list, a mapping by name, or names alone, which say nothing of nodes."""
    if isinstance(at.value, dict) and "nodes" not in at.value:
        return [_block(name, item, item.mapping()) for name, item in at.mapping().items() if item.value]
    found = []
    for number, item in enumerate(at.items("blocks")):
        if isinstance(item.value, str):
            continue
        fields = item.mapping()
        if "nodes" not in fields:
            raise item.error("'nodes' is missing")
        found.append(_block(f"block{number + 1}", item, fields))
    return found


def _block(name: str, item: At, fields: dict[str, At]) -> _Block:
    switch = _word(fields, "switch")
    nodes = fields["nodes"].hosts() if "nodes" in fields else ()
    return _Block(_word(fields, "name") or switch or name, item.place, nodes, switch, _domain(fields), _type(fields))


def _node(name: str, item: At) -> _Block:
    """Return what is said of one node; its GPUs stand one by one among its attributes, if at all."""
    fields = item.mapping() if item.value is not None else {}
    found = _Block(name, item.place, (name,), None, _domain(fields), _type(fields))
    attributes = fields["attributes"].mapping() if "attributes" in fields and fields["attributes"].value else {}
    if "gpus" in attributes and attributes["gpus"].value:
        gpus = [gpu.mapping() for gpu in attributes["gpus"].items("GPUs")]
        found.gpus = len(gpus)
        found.type = _word(gpus[0], "model") or found.type
    return found


def _word(fields: dict[str, At], key: str) -> str | None:
    return fields[key].word() if key in fields and fields[key].value not in (None, "") else None


def _type(fields: dict[str, At]) -> str | None:
    return _word(fields, "type")


def _domain(fields: dict[str, At]) -> str | None:
    domain = _word(fields, "nvlink")
    for key in ("attributes", "labels", "annotations"):
        for label, value in (fields[key].mapping() if key in fields and fields[key].value else {}).items():
            if (label == "nvlink" or _DOMAIN.search(label)) and value.value not in (None, ""):
                domain = value.word()
    return domain


def _found(
    switches: dict[str, _Switch], blocks: list[_Block], alone: list[_Block], problems: list[Problem]
) -> list[SwitchFound]:
    members: dict[str, dict[str, None]] = {name: dict.fromkeys(switch.nodes) for name, switch in switches.items()}
    places = {name: switch.place for name, switch in switches.items()}
    joined = {node for switch in switches.values() for node in switch.nodes}
    for block in blocks:
        if block.switch is not None:
            members.setdefault(block.switch, {}).update(dict.fromkeys(block.nodes))
            places.setdefault(block.switch, block.place)
            joined.update(block.nodes)
        elif not joined.issuperset(block.nodes):
            problems.append(block.place.note(f"block {block.name!r} is under no switch"))
            joined.update(block.nodes)
    loose = [node.name for node in alone if node.name not in joined]
    if loose:
        problems.append(alone[0].place.note(f"nodes under no switch: {few(loose)}"))
    for switch in switches.values():  # leaves without nodes may be named as children alone
        for child in switch.children:
            places.setdefault(child, switch.place)
    found: list[SwitchFound] = []
    for name, place in places.items():
        children = switches[name].children if name in switches else ()
        nodes = tuple(members.get(name, ()))
        if children and nodes:
            problems.append(place.note(f"switch {name!r} joins nodes and switches; its nodes get a leaf of their own"))
            found.append(SwitchFound(f"{name}-nodes", place, nodes))
            children, nodes = (*children, f"{name}-nodes"), ()
        if not children and not nodes:
            problems.append(place.note(f"switch {name!r} joins nothing; it is left out"))
        found.append(SwitchFound(name, place, nodes, children))
    return found


def _domains(blocks: list[_Block]) -> list[BlockFound]:
    members: dict[str, tuple[Place, dict[str, None]]] = {}
    for block in blocks:
        if block.domain is not None:
            members.setdefault(block.domain, (block.place, {}))[1].update(dict.fromkeys(block.nodes))
    return [BlockFound(name, place, tuple(nodes), "domain") for name, (place, nodes) in members.items()]


def _nodes(blocks: list[_Block]) -> tuple[NodesFound, ...]:
    """Return the nodes, those of equal accelerators together where they are described one by one."""
    alike: dict[tuple[str | None, int, str], tuple[Place, dict[str, None]]] = {}
    for block in blocks:
        one = block.nodes == (block.name,)
        key = block.type, block.gpus, "" if one else block.name
        alike.setdefault(key, (block.place, {}))[1].update(dict.fromkeys(block.nodes))
    found: list[NodesFound] = []
    for (kind, count, _), (place, nodes) in alike.items():
        gpus = Figure(Devices(count, re.sub(r"\s+", "_", kind).lower() if kind else None), place.origin)
        if nodes:
            found.append(NodesFound(tuple(nodes), place, gpus=gpus if kind or count else None))
    return tuple(found)
