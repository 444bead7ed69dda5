"""How long importing a site takes and how long questions to its topology do, by number of nodes.

    python -m tests.benchmarks.topology [NODES ...]

The imported files are made up: slurm.conf with topology.conf (leaves of 16 nodes under a spine), and the output of
ibnetdiscover of a rail-optimised fabric (8 interfaces a node, 32 nodes a group of 8 leaves, 8 spines). Importing is all
of it: reading, merging, writing the site file and reading that again. Times are seconds of CPU on one core, the best of
three. `uneven` is the bisection of a tree in which no two leaves are alike, the worst case of its closed form.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from hpcplan.site.bisection import bisection_bytes_per_s
from hpcplan.site.flows import bandwidth_between
from hpcplan.site.importers.read import read_sources
from hpcplan.site.merge import merge
from hpcplan.site.merge_write import read_back, write_draft
from hpcplan.site.model import Site
from hpcplan.site.nearest import best_nodes
from hpcplan.site.topology import Topology, build_topology
from hpcplan.site.traffic import Collective, effective_bandwidths
from tests.site.made_up import site_of

__all__ = ["main"]

_NODES = (100, 1_000, 10_000)
_RAILS, _GROUP, _SPINES, _LEAF = 8, 32, 8, 16
T = TypeVar("T")


def _timed(work: Callable[[], T]) -> tuple[T, float]:
    best = float("inf")
    for _ in range(3):
        began = time.process_time()
        result = work()
        best = min(best, time.process_time() - began)
    return result, best


def _slurm_files(nodes: int, folder: Path) -> dict[str, Path]:
    width = len(str(nodes - 1))
    conf, topology = folder / "slurm.conf", folder / "topology.conf"
    conf.write_text(
        f"ClusterName=big\nNodeName=n[{0:0{width}d}-{nodes - 1}] CPUs=96 RealMemory=1000000 Gres=gpu:h100:8\n"
        "PartitionName=all Nodes=ALL Default=YES\n"
    )
    lines = [
        f"SwitchName=leaf{start // _LEAF} Nodes=n[{start:0{width}d}-{min(start + _LEAF, nodes) - 1:0{width}d}]"
        for start in range(0, nodes, _LEAF)
    ]
    topology.write_text("\n".join([*lines, f"SwitchName=spine Switches=leaf[0-{len(lines) - 1}]"]) + "\n")
    return {"slurm-conf": conf, "topology": topology}


def _cables(nodes: int, folder: Path) -> dict[str, Path]:
    lines: list[str] = []
    ports: dict[str, list[str]] = {f"S-f{spine:07x}": [] for spine in range(_SPINES)}
    for group in range(0, nodes, _GROUP):
        for rail in range(_RAILS):
            leaf = f"S-{group:06x}{rail:x}"
            name = f"MF0;g{group // _GROUP}leaf{rail}:MQM9700/U1"
            lines.append(f'Switch\t65 "{leaf}"\t\t# "{name}" enhanced port 0 lid 1 lmc 0')
            for port, node in enumerate(range(group, min(group + _GROUP, nodes)), start=1):
                lines.append(f'[{port}]\t"H-{node:06x}{rail:x}"[1](1)\t\t# "n{node} mlx5_{rail}" lid 1 4xNDR')
            for spine, wires in enumerate(ports):
                lines.append(
                    f'[{40 + spine}]\t"{wires}"[{len(ports[wires]) + 1}]\t\t# "MF0;spine{spine}:Q/U1" lid 1 4xNDR'
                )
                ports[wires].append(f'[{len(ports[wires]) + 1}]\t"{leaf}"[{40 + spine}]\t\t# "{name}" lid 1 4xNDR')
            lines.append("")
    for spine, (wires, wired) in enumerate(ports.items()):
        lines += [f'Switch\t65 "{wires}"\t\t# "MF0;spine{spine}:Q/U1" enhanced port 0 lid 1 lmc 0', *wired, ""]
    for node in range(nodes):
        for rail in range(_RAILS):
            lines.append(f'Ca\t1 "H-{node:06x}{rail:x}"\t\t# "n{node} mlx5_{rail}"')
            leaf = f"S-{node // _GROUP * _GROUP:06x}{rail:x}"
            lines += [f'[1](1)\t"{leaf}"[{node % _GROUP + 1}]\t\t# lid 2 lmc 0 "leaf" lid 1 4xNDR', ""]
    path = folder / "ibnetdiscover.out"
    path.write_text("\n".join(lines) + "\n")
    return {"ibnetdiscover": path}


def _imported(paths: dict[str, Path]) -> Site:
    return read_back(write_draft(merge(read_sources(paths))))


def _uneven(nodes: int) -> Topology:
    """Return a tree in which every leaf has another up-link, so that no cut is computed for two of them."""
    starts = range(0, nodes, _LEAF)
    leaves: list[dict[str, object]] = [
        {"name": f"leaf{start}", "nodes": f"n[{start}-{min(start + _LEAF, nodes) - 1}]", "uplink": f"{20 + start} GB/s"}
        for start in starts
    ]
    top: dict[str, object] = {"name": "top", "switches": [str(leaf["name"]) for leaf in leaves]}
    return build_topology(site_of({"switches": [*leaves, top]}, f"n[0-{nodes - 1}]"))


def _line(nodes: int, folder: Path) -> list[float]:
    _, slurm_s = _timed(lambda: _imported(_slurm_files(nodes, folder)))
    site, cables_s = _timed(lambda: _imported(_cables(nodes, folder)))
    topology, build_s = _timed(lambda: build_topology(site))
    hosts = topology.nodes()
    _, bisection_s = _timed(lambda: bisection_bytes_per_s(topology))
    uneven = _uneven(nodes)
    _, uneven_s = _timed(lambda: bisection_bytes_per_s(uneven))
    _, nearest_s = _timed(lambda: best_nodes(topology, nodes // 4, busy=hosts[::3]))
    _, flow_s = _timed(lambda: bandwidth_between(topology, hosts[: nodes // 2], hosts[nodes // 2 :]))
    jobs = [Collective(tuple(hosts[start::10])) for start in range(10)]
    _, shared_s = _timed(lambda: effective_bandwidths(topology, jobs))
    return [slurm_s, cables_s, build_s, bisection_s, uneven_s, nearest_s, flow_s, shared_s]


def main(words: Sequence[str]) -> None:
    """Print a line for each number of nodes."""
    columns = ("slurm.conf", "ibnetdisc.", "graph", "bisection", "uneven", "best 1/4", "halves", "10 jobs")
    print(f"{'nodes':>7} " + " ".join(f"{column:>10}" for column in columns))
    for nodes in [int(word) for word in words] or list(_NODES):
        with tempfile.TemporaryDirectory() as folder:
            times = _line(nodes, Path(folder))
        print(f"{nodes:>7,} " + " ".join(f"{took:>10.3f}" for took in times), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
