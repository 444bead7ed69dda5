"""Writing a draft as a site file, every figure with a comment that says where it came from."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from hpcplan.hostlist import compress
from hpcplan.site.importers.findings import ASSUMED, Figure
from hpcplan.site.load import read_site
from hpcplan.site.merge import Draft
from hpcplan.site.merge_fabric import TreeSwitch
from hpcplan.site.merge_groups import Group
from hpcplan.site.model import Site
from hpcplan.units import format_slurm_time

__all__ = ["read_back", "write_draft"]

_PLAIN: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_./+-]*")
_WORDS: Final = frozenset(["y", "n", "yes", "no", "on", "off", "true", "false", "null"])  # words to YAML 1.1 readers
_COLUMN: Final = 60
_SHORT: Final = 12  # names that stand one by one


def write_draft(draft: Draft) -> str:
    """Return the text of the site file."""
    return "\n".join(_lines(draft)) + "\n"


def read_back(text: str) -> Site:
    """Return the site that the text says, read as any site file is.

    Raises:
        InputError: it is not a valid site file.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "site.yaml"
        path.write_text(text, encoding="utf-8")
        return read_site(path)


def _lines(draft: Draft) -> Iterator[str]:
    yield "# Made by `hpcplan site import`. Comments say where figures came from; look at those marked 'assumed'."
    yield f"name: {_word(draft.name)}"
    nodes = sum(len(group.nodes) for group in draft.groups)
    yield f"description: {_word(f'{nodes} nodes, imported from ' + ', '.join(draft.sources))}"
    yield "sources:"
    for source in draft.sources:
        yield f"  - {_word(f'{source} of the site')}"
    yield "  - figures marked 'assumed' in this file's comments are defaults of hpcplan"
    yield ""
    yield "node_groups:"
    for group in draft.groups:
        yield from _group(group)
    yield ""
    yield "partitions:"
    yield from _partitions(draft)
    yield ""
    yield "fabric:"
    yield from _fabric(draft)
    yield ""
    yield "slurm:"
    if draft.cluster is not None:
        yield _line(f"  cluster: {_word(draft.cluster.value)}", draft.cluster.origin)
    asked = "gres" if any(group.accelerators for group in draft.groups) else "none"
    yield _line(f"  gpu_request: {asked}", ASSUMED if asked == "gres" else "")
    yield f"  topology: {'true' if draft.topology_plugin else 'false'}"


def _group(group: Group) -> Iterator[str]:
    yield f"  {_word(group.name)}:"
    yield _line(f"    nodes: {_word(compress(group.nodes))}", group.place)
    yield _line(f"    cpus: {group.cpus.value}", group.cpus.origin)
    yield _line(f"    memory: {_bytes(group.memory_bytes.value)}", group.memory_bytes.origin)
    if group.sockets is not None:
        yield _line(f"    sockets: {group.sockets.value}", group.sockets.origin)
    if group.accelerator is not None and group.accelerators is not None:
        yield "    accelerators:"
        yield _line(f"      type: {_word(group.accelerator.value)}", group.accelerator.origin)
        yield _line(f"      count: {group.accelerators.value}", group.accelerators.origin)
        if group.gres is not None:
            yield f"      gres: {_word(group.gres)}"
        yield from _inside(group)
    yield "    nics:"
    yield _line(f"      count: {group.nics.value}", group.nics.origin)
    speed = group.nic_bytes_per_s
    yield _line(f"      bandwidth: {_link(speed.value)}", speed.origin)
    if group.nic_names:
        yield f"      names: [{', '.join(_word(name) for name in group.nic_names)}]"
    if group.rails:
        yield "      # nearest to GPU 0, 1, ...: " + " ".join("+".join(nics) or "-" for nics in group.rails)
    if group.features is not None:
        yield _line(f"    features: [{', '.join(_word(f) for f in group.features.value)}]", group.features.origin)


def _inside(group: Group) -> Iterator[str]:
    bandwidth = group.inside_bytes_per_s
    if bandwidth is None:
        return
    yield "    intra_node:"
    yield _line(f"      kind: {group.inside_kind}", bandwidth.origin.split(":")[0])
    yield _line(f"      bandwidth: {bandwidth.value / 1e9:.9g} GB/s", bandwidth.origin)
    if group.domain_nodes is not None:
        yield _line(f"      domain_nodes: {group.domain_nodes.value}", group.domain_nodes.origin)


def _partitions(draft: Draft) -> Iterator[str]:
    default = [partition.name for partition, _ in draft.partitions if partition.default][-1:]
    for partition, groups in draft.partitions:
        yield _line(f"  {_word(partition.name)}:", partition.place.origin if partition.place.line else ASSUMED)
        yield f"    nodes: [{', '.join(_word(name) for name in groups)}]"
        if partition.name in default:
            yield "    default: true"
        if partition.max_time_s:
            yield f"    max_time: {format_slurm_time(partition.max_time_s)}"
        if partition.default_time_s:
            yield f"    default_time: {format_slurm_time(partition.default_time_s)}"
        if partition.max_nodes:
            yield f"    max_nodes: {partition.max_nodes}"
        if partition.qos:
            yield f"    qos: [{', '.join(_word(name) for name in partition.qos)}]"
        exclusive = partition.exclusive
        if exclusive is None and draft.shared_nodes is not None:
            exclusive = not draft.shared_nodes
        if exclusive is not None:
            yield f"    exclusive: {'true' if exclusive else 'false'}"


def _fabric(draft: Draft) -> Iterator[str]:
    yield f"  kind: {draft.kind}"
    if draft.block_sizes:
        yield f"  block_sizes: [{', '.join(str(size) for size in draft.block_sizes)}]"
    if draft.toruses:
        yield "  toruses:"
        for torus in draft.toruses:
            block, link = torus.block, torus.link
            dims = ", ".join(str(size) for size in block.dims)
            parts = f"name: {_word(block.name)}, dims: [{dims}], nodes: {_word(compress(block.nodes))}"
            text = f"    - {{{parts}, link: {_link(link.value)}}}"
            yield _line(text, f"{block.place.origin}; link {link.origin}")
        return
    yield "  switches:"
    for switch in draft.tree:
        yield _switch(switch)


def _switch(switch: TreeSwitch) -> str:
    parts = [f"name: {_word(switch.name)}"]
    if switch.nodes:
        parts.append(f"nodes: {_word(compress(switch.nodes))}")
    if switch.children:
        parts.append(f"switches: {_words(switch.children)}")
    comment = switch.place.origin if switch.place.file != ASSUMED else ASSUMED
    if switch.cables:
        parts.append(f"uplinks: {{{', '.join(_cables(switch.cables))}}}")
    elif switch.uplink is not None:
        parts.append(f"uplink: {_link(switch.uplink.value)}")
        if switch.uplink.origin != comment:
            comment += f"; uplink {switch.uplink.origin}"
    return _line(f"    - {{{', '.join(parts)}}}", comment)


def _words(names: list[str]) -> str:
    """Return names as a list of YAML; a long one as a hostlist in it."""
    shown = names if len(names) <= _SHORT else [compress(names)]
    return f"[{', '.join(_word(name) for name in shown)}]"


def _cables(cables: Mapping[str, tuple[int, float]]) -> Iterator[str]:
    """Return parents with equal cables together, as ``"spine[1-4]": 2 x 400 Gb/s``."""
    alike: dict[tuple[int, float], list[str]] = {}
    for parent, (links, rate) in cables.items():
        alike.setdefault((links, rate / links), []).append(parent)
    for (links, rate), parents in alike.items():
        yield f"{json.dumps(compress(sorted(parents)))}: {links} x {_link(rate)}"


def _line(text: str, comment: str | Figure[object]) -> str:
    return f"{text:<{_COLUMN}}  # {_printable(str(comment))}" if comment else text


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text)


def _word(text: str) -> str:
    """Return a scalar that every YAML reader takes for this text."""
    if _PLAIN.fullmatch(text) and text.lower() not in _WORDS:
        return text
    return json.dumps(text, ensure_ascii=not text.isprintable())


def _bytes(count: int) -> str:
    for factor, unit in ((1024**4, "TiB"), (1024**3, "GiB"), (1024**2, "MiB")):
        if count % factor == 0:
            return f"{count // factor} {unit}"
    return f"{count} B"


def _link(bytes_per_s: float) -> str:
    gigabits = bytes_per_s * 8 / 1e9
    return f"{gigabits / 1000:.9g} Tb/s" if gigabits >= 10_000 else f"{gigabits:.9g} Gb/s"
