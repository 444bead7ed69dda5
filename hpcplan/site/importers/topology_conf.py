"""topology.conf: trees, blocks and rings (topology.conf(5)); also what ``scontrol show topology`` prints of a tree.

``LinkSpeed`` is documented as unused and of arbitrary meaning, so it is never taken for a bandwidth.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from hpcplan.errors import Problem, nearest
from hpcplan.site.importers.blocks import block_size_problem, ring_problem
from hpcplan.site.importers.findings import BlockFound, Findings, SwitchFound
from hpcplan.site.importers.slurm_lines import ConfLine, Reader

__all__ = ["TopologyParser", "read_topology_conf"]

_KEYS: Final[Mapping[str, frozenset[str]]] = {
    "switchname": frozenset({"switchname", "nodes", "switches", "linkspeed", "level"}),
    "blockname": frozenset({"blockname", "nodes", "blockindex", "blocksize"}),
    "ringname": frozenset({"ringname", "nodes"}),
    "blocksizes": frozenset({"blocksizes"}),
}


def read_topology_conf(path: Path) -> Findings:
    """Read topology.conf and the files that it includes.

    Raises:
        InputError: a line that Slurm could not read either, block sizes that are not the smallest times a power of
            two, or a ring of more than 16 nodes.
    """
    reader = Reader()
    parser = TopologyParser(reader.problems)
    for line in reader.read(path):
        parser.take(line)
    return parser.findings(str(path))


class TopologyParser:
    """Gathers what the lines of topology.conf, or of ``scontrol show topology``, say."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        self.switches: dict[str, SwitchFound] = {}
        self.blocks: dict[str, BlockFound] = {}
        self.block_sizes: tuple[int, ...] = ()

    def take(self, line: ConfLine) -> None:
        """Take one line in."""
        kind = next((key for key in _KEYS if key in line.pairs), None)
        if kind is None:
            known = {key for keys in _KEYS.values() for key in keys}
            shown = line.spelling[line.first]
            raise line.error(line.first, f"{shown!r} begins no line of topology.conf" + nearest(line.first, known))
        for key in line.pairs.keys() - _KEYS[kind]:
            message = "unknown key; it is ignored" + nearest(key, _KEYS[kind])
            self.problems.append(line.place.problem(message, line.spelling[key]))
        match kind:
            case "switchname":
                self._switch(line)
            case "blocksizes":
                self._sizes(line)
            case _:
                self._block(line, kind.removesuffix("name"))

    def _sizes(self, line: ConfLine) -> None:
        words = [word for word in re.split(r"[,\s]+", line.pairs["blocksizes"]) if word]
        if not all(re.fullmatch("[0-9]{1,9}", word) for word in words):
            raise line.error("blocksizes", f"{line.pairs['blocksizes']!r} is not a list of whole numbers")
        self.block_sizes = tuple(int(word) for word in words)
        if (wrong := block_size_problem(self.block_sizes)) is not None:
            raise line.error("blocksizes", wrong)

    def _block(self, line: ConfLine, kind: str) -> None:
        name = line.pairs[f"{kind}name"]
        nodes = line.place.hosts(line.pairs["nodes"], "Nodes") if line.get("nodes") else ()
        if kind == "ring" and (wrong := ring_problem(name, len(nodes))) is not None:
            raise line.error("nodes", wrong)
        if not nodes:
            self.problems.append(line.place.problem(f"{kind} {name!r} has no Nodes; it is left out"))
        elif name in self.blocks:
            first = self.blocks[name].place.line
            self.problems.append(line.place.problem(f"{kind} {name!r} is defined again; first on line {first}"))
        else:
            self.blocks[name] = BlockFound(name, line.place, nodes, kind, (len(nodes),) if kind == "ring" else ())

    def _switch(self, line: ConfLine) -> None:
        place = line.place
        name = line.pairs["switchname"]
        nodes = place.hosts(line.pairs["nodes"], "Nodes") if line.get("nodes") else ()
        children = place.hosts(line.pairs["switches"], "Switches") if line.get("switches") else ()
        if children and nodes:
            if "level" not in line.pairs:  # scontrol shows all nodes below; a file may name children of one kind only
                message = f"switch {name!r} has both Nodes and Switches; its Nodes are left out"
                self.problems.append(place.problem(message, "Nodes"))
            nodes = ()
        if name in self.switches:
            first = self.switches[name].place.line
            self.problems.append(
                place.problem(f"switch {name!r} is defined again; first on line {first}, which counts")
            )
        elif not nodes and not children:
            self.problems.append(place.problem(f"switch {name!r} has neither Nodes nor Switches; it is left out"))
        else:
            self.switches[name] = SwitchFound(name, place, nodes, children)

    def findings(self, source: str) -> Findings:
        """Return everything."""
        if self.switches and self.blocks:
            block = next(iter(self.blocks.values()))
            message = "switches and blocks stand in one file; the switches make the tree"
            self.problems.append(block.place.problem(message))
        return Findings(
            source,
            switches=tuple(self.switches.values()),
            blocks=tuple(self.blocks.values()),
            topology_plugin=bool(self.switches or self.blocks),
            block_sizes=self.block_sizes if self.blocks else (),
            problems=tuple(self.problems),
        )
