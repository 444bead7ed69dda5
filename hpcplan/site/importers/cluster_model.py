"""Topograph's cluster models: switches by name, blocks of nodes under them, and the accelerator fabric of each block.

Two layouts are read: ``switches`` as a mapping with ``blocks`` (since 2025), and the older lists of ``switches`` and
``capacity_blocks`` (https://github.com/NVIDIA/topograph, tests/models). A block's accelerator domain stands in its
labels or annotations under a key that begins with ``accelerat`` after its dots and slashes, or in ``nvlink``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from hpcplan.documents import parse_document, read_text
from hpcplan.errors import Problem
from hpcplan.site.importers.findings import BlockFound, Devices, Figure, Findings, NodesFound, Place, SwitchFound
from hpcplan.site.importers.yaml_fields import At

__all__ = ["read_cluster_model"]

_DOMAIN: Final = re.compile(r"(?:^|[./])accelerat(?:or|ed)[^/]*(?:/(?:domain|level-0))?$")


@dataclass(slots=True)
class _Block:
    name: str
    at: At
    nodes: tuple[str, ...]
    switch: str | None
    domain: str | None
    type: str | None


@dataclass(slots=True)
class _Switch:
    place: Place
    children: tuple[str, ...] = ()
    blocks: list[str] = field(default_factory=list)


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
    blocks = [_block(item, n) for n, item in enumerate(root[key].items("blocks"))] if key in root else []
    if not switches and not blocks:
        raise At(document, document.value).error("has neither 'switches' nor 'blocks'; is it a cluster model?")
    owner = {block: name for name, switch in switches.items() for block in switch.blocks}
    for block in blocks:
        block.switch = block.switch or owner.get(block.name)
    return Findings(
        str(path),
        nodes=_nodes(blocks),
        switches=tuple(_found(switches, blocks, problems)),
        blocks=tuple(_domains(blocks)),
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
    return _Switch(item.place, children, blocks)


def _block(item: At, number: int) -> _Block:
    fields = item.mapping()
    if "nodes" not in fields:
        raise item.error("'nodes' is missing")
    domain: str | None = fields["nvlink"].word() if "nvlink" in fields and fields["nvlink"].value else None
    for key in ("labels", "annotations"):
        for label, value in (fields[key].mapping() if key in fields and fields[key].value else {}).items():
            if _DOMAIN.search(label) and value.value is not None:
                domain = value.word()
    switch = fields["switch"].word() if "switch" in fields and fields["switch"].value else None
    name = fields["name"].word() if "name" in fields else switch or f"block{number + 1}"
    kind = fields["type"].word() if "type" in fields and fields["type"].value else None
    return _Block(name, item, fields["nodes"].hosts(), switch, domain, kind)


def _found(switches: dict[str, _Switch], blocks: list[_Block], problems: list[Problem]) -> list[SwitchFound]:
    members: dict[str, list[str]] = {}
    places = {name: switch.place for name, switch in switches.items()}
    for block in blocks:
        if block.switch is None:
            problems.append(block.at.place.note(f"block {block.name!r} is under no switch"))
            continue
        members.setdefault(block.switch, []).extend(block.nodes)
        places.setdefault(block.switch, block.at.place)
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
    members: dict[str, tuple[Place, list[str]]] = {}
    for block in blocks:
        if block.domain is not None:
            members.setdefault(block.domain, (block.at.place, []))[1].extend(block.nodes)
    return [BlockFound(name, place, tuple(nodes), "domain") for name, (place, nodes) in members.items()]


def _nodes(blocks: list[_Block]) -> tuple[NodesFound, ...]:
    found: list[NodesFound] = []
    for block in blocks:
        place = block.at.place
        gpus = Figure(Devices(0, block.type.lower()), place.origin) if block.type else None
        if block.nodes:
            found.append(NodesFound(block.nodes, place, gpus=gpus))
    return tuple(found)
