"""The switches and blocks of a topology.conf or topology.yaml over the nodes of a machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hpcplan.hostlist import expand
from hpcplan.simulate.placement import SwitchShape
from hpcplan.site.importers.slurm_lines import ConfLine, Reader

if TYPE_CHECKING:
    from hpcplan.simulate.machine import Machine
    from hpcplan.site.importers.findings import Findings
    from hpcplan.site.model import Site

__all__ = ["blocks_of", "read_switches"]


def read_switches(path: Path, machine: Machine) -> tuple[tuple[SwitchShape, ...], tuple[int, ...]]:
    """Return the switches in their order, and the sizes of blocks, if the file has these: blocks are lowest switches.

    Raises:
        InputError: a line that Slurm could not read, or that names what is not there; with file, line and field.
    """
    from hpcplan.documents import read_text
    from hpcplan.site.importers.topology_conf import read_topology_conf
    from hpcplan.site.importers.topology_yaml import looks_like_yaml, read_topology_yaml

    if looks_like_yaml(read_text(path)):
        return _of_findings(read_topology_yaml(path), machine)
    lines = list(Reader().read(path))
    if any(line.first == "blockname" for line in lines):
        return _of_findings(read_topology_conf(path), machine)
    return _tree(lines, machine), ()


def blocks_of(site: Site, machine: Machine) -> tuple[list[SwitchShape], tuple[int, ...]]:
    """Return the blocks of a site whose fabric has them, and their sizes in nodes."""
    from hpcplan.site.export import slurm_blocks

    blocks, sizes = slurm_blocks(site)
    found = [SwitchShape(name, _known(hosts, machine), 0) for name, hosts in blocks]
    return [*found, SwitchShape("all", machine.all_nodes, 1)], tuple(sizes)


def _of_findings(found: Findings, machine: Machine) -> tuple[tuple[SwitchShape, ...], tuple[int, ...]]:
    if found.blocks:
        blocks = [SwitchShape(one.name, _known(one.nodes, machine), 0) for one in found.blocks]
        blocks = [one for one in blocks if one.mask]
        sizes = found.block_sizes or (min((one.mask.bit_count() for one in blocks), default=1),)
        return (*blocks, SwitchShape("all", machine.all_nodes, 1)), sizes
    by_name = {one.name: one for one in found.switches}
    shapes: dict[str, SwitchShape] = {}

    def shape(name: str) -> SwitchShape:
        if name not in shapes:
            one = by_name[name]
            mask, level = _known(one.nodes, machine), 0
            for child in one.children:
                below = shape(child)
                mask, level = mask | below.mask, max(level, below.level + 1)
            shapes[name] = SwitchShape(name, mask, level)
        return shapes[name]

    return tuple(shape(name) for name in by_name), ()


def _known(names: Sequence[str], machine: Machine) -> int:
    """Return the mask of those nodes that the machine has."""
    there = set(machine.names)
    return machine.mask_of([name for name in names if name in there])


def _tree(lines: Sequence[ConfLine], machine: Machine) -> tuple[SwitchShape, ...]:
    written = {line.pairs["switchname"]: line for line in lines if line.first == "switchname"}
    found: dict[str, SwitchShape] = {}

    def shape(name: str, above: tuple[str, ...]) -> SwitchShape:
        if name in found:
            return found[name]
        line = written[name]
        mask, level = 0, 0
        for host in _hosts(line, "nodes") if "nodes" in line.pairs else []:
            try:
                mask |= machine.mask_of([host])
            except KeyError:
                raise line.error("nodes", f"no node is called {host!r}") from None
        for child in _hosts(line, "switches") if "switches" in line.pairs else []:
            if child not in written or child in (*above, name):
                raise line.error("switches", f"{child!r} is no switch below this one")
            below = shape(child, (*above, name))
            mask, level = mask | below.mask, max(level, below.level + 1)
        found[name] = SwitchShape(name, mask, level)
        return found[name]

    return tuple(shape(name, ()) for name in written)


def _hosts(line: ConfLine, key: str) -> list[str]:
    try:
        return expand(line.pairs[key])
    except ValueError as error:
        raise line.error(key, str(error)) from None
