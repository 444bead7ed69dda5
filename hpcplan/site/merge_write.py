"""Writing a draft as a site file, every figure with a comment that says where it came from."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from hpcplan.hostlist import compress
from hpcplan.site.importers.findings import ASSUMED, Figure, PartitionFound
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
_RELEASE: Final = re.compile(r"\d{2}\.\d{2}(\.\d+)?")
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
    yield from _state(draft)
    yield "slurm:"
    if draft.version is not None and (release := _RELEASE.match(draft.version.value)):
        yield _line(f"  version: {json.dumps(release[0])}", draft.version.origin)
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
        if group.mig:
            yield f"      mig: {{{', '.join(f'{_word(profile)}: {count}' for profile, count in group.mig)}}}"
        yield from _inside(group)
    yield "    nics:"
    yield _line(f"      count: {group.nics.value}", group.nics.origin)
    speed = group.nic_bytes_per_s
    yield _line(f"      bandwidth: {_link(speed.value)}", speed.origin)
    if group.nic_names:
        yield f"      names: [{', '.join(_word(name) for name in group.nic_names)}]"
    if group.rails:
        near = ", ".join(f"[{', '.join(_word(nic) for nic in nics)}]" for nics in group.rails)
        yield _line(f"      nearest: [{near}]", group.inside_found.origin if group.inside_found else "")
    if group.other_gres is not None:
        counts = ", ".join(f"{_word(name)}: {count}" for name, count in group.other_gres.value)
        yield _line(f"    gres: {{{counts}}}", group.other_gres.origin)
    if group.weight is not None and group.weight.value != 1:
        yield _line(f"    weight: {group.weight.value}", group.weight.origin)
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
    found = group.inside_found
    if found is None or group.accelerators is None or found.gpus != group.accelerators.value:
        return
    if found.links and group.inside_kind == found.kind:
        yield _line(f"      links: {found.links}", found.origin)
    if found.mesh and group.inside_kind == found.kind:
        rows = ", ".join(f"[{', '.join(str(links) for links in row)}]" for row in found.mesh)
        yield _line(f"      mesh: [{rows}]", found.origin)
    if len(found.numa) > 1 and max((nic for near in found.numa for nic in near.nics), default=-1) < group.nics.value:
        yield _line("      numa:", found.origin)
        for near in found.numa:
            cpus = f", cpus: {json.dumps(near.cpus)}" if near.cpus else ""
            yield f"        - {{accelerators: {[*near.gpus]}, nics: {[*near.nics]}{cpus}}}"


def _partitions(draft: Draft) -> Iterator[str]:
    default = [partition.name for partition, _ in draft.partitions if partition.default][-1:]
    for partition, groups in draft.partitions:
        yield _line(
            f"  {_word(partition.name)}:", partition.place.origin if partition.place.file != ASSUMED else ASSUMED
        )
        yield f"    nodes: [{', '.join(_word(name) for name in groups)}]"
        if partition.name in default:
            yield "    default: true"
        if partition.max_time_s:
            yield f"    max_time: {format_slurm_time(partition.max_time_s)}"
        if partition.default_time_s:
            yield f"    default_time: {format_slurm_time(partition.default_time_s)}"
        if partition.max_nodes:
            yield f"    max_nodes: {partition.max_nodes}"
        usual = draft.scheduler.preempt_mode if draft.scheduler else None
        yield from _limits(partition, usual or "off")
        exclusive = partition.exclusive
        if exclusive is None and draft.shared_nodes is not None:
            exclusive = not draft.shared_nodes
        if exclusive is not None:
            yield f"    exclusive: {'true' if exclusive else 'false'}"


def _limits(partition: PartitionFound, usual_mode: str) -> Iterator[str]:
    if partition.state != "up":
        yield f"    state: {partition.state}"
    if partition.min_nodes is not None and partition.min_nodes > 1:
        yield f"    min_nodes: {partition.min_nodes}"
    for key, names in (("qos", partition.qos), ("accounts", partition.accounts)):
        if names:
            yield f"    {key}: [{', '.join(_word(name) for name in names)}]"
    if partition.partition_qos:
        yield f"    partition_qos: {_word(partition.partition_qos)}"
    for key, size in (
        ("cpu", partition.default_memory_per_cpu_bytes),
        ("node", partition.default_memory_per_node_bytes),
    ):
        if size:
            yield f"    default_memory_per_{key}: {_bytes(size)}"
    if partition.default_cpus_per_gpu:
        yield f"    default_cpus_per_gpu: {partition.default_cpus_per_gpu}"
    if partition.priority_tier is not None and partition.priority_tier != 1:
        yield f"    priority_tier: {partition.priority_tier}"
    if partition.preempt_mode and partition.preempt_mode != usual_mode:
        yield f"    preempt_mode: {_word(partition.preempt_mode)}"
    if partition.grace_time_s:
        yield f"    grace_time_s: {partition.grace_time_s:g}"


def _state(draft: Draft) -> Iterator[str]:
    """Yield what is drained and how the controller decides, where files say so."""
    if draft.drained:
        yield f"drained: {_word(compress(draft.drained))}"
        yield ""
    told = draft.scheduler
    if told is None:
        return
    yield _line("scheduler:", told.origin)
    for key, word in (("scheduler", told.scheduler), ("priority", told.priority), ("preempt_type", told.preempt_type),
                      ("preempt_mode", told.preempt_mode)):  # fmt: skip
        if word:
            yield f"  {key}: {_word(word)}"
    if told.parameters:
        told_once = dict(told.parameters)
        pairs = ", ".join(f"{_word(name)}: {json.dumps(value)}" for name, value in told_once.items())
        yield f"  parameters: {{{pairs}}}"
    if told.weights:
        yield f"  weights: {{{', '.join(f'{_word(name)}: {weight}' for name, weight in told.weights)}}}"
    yield ""


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
