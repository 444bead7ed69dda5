"""An independent check of a split: written from the definition alone, node by node, without groups or ideals."""

from __future__ import annotations

import math
from collections.abc import Mapping

from hpcplan.partition.graph.model import LayerGraph

__all__ = ["check_split", "device_loads"]

ROUNDING = 1e-9


def device_loads(graph: LayerGraph, assignment: Mapping[int, str]) -> dict[str, float]:
    """Return the load of every device that has a node.

    An accelerator's load is the time of its nodes, the transfer time of each of its nodes whose output another device
    uses, and that of each node elsewhere whose output it uses, once each. A CPU's load is the time of its nodes.
    """
    terms: dict[str, list[float]] = {}
    for node in graph.nodes:
        device = assignment[node.id]
        terms.setdefault(device, []).append(node.cpu_time if _is_cpu(device) else node.accelerator_time)
    paid: set[tuple[str, int]] = set()
    for source, target in graph.edges:
        here, there = assignment[graph.nodes[source].id], assignment[graph.nodes[target].id]
        for device in (here, there) if here != there else ():
            if not _is_cpu(device) and (device, source) not in paid:
                paid.add((device, source))
                terms[device].append(graph.nodes[source].transfer)
    return {device: math.fsum(values) for device, values in terms.items()}


def check_split(graph: LayerGraph, assignment: Mapping[int, str]) -> list[str]:
    """Return what is wrong with a split, in words; nothing if it keeps every rule."""
    missing = [node.id for node in graph.nodes if node.id not in assignment]
    if missing:
        return [f"node {missing[0]} is on no device"]
    if len(assignment) > len(graph.nodes):
        return ["it has nodes that the graph does not"]
    wrong = [*_wrong_devices(graph, assignment), *_wrong_memory(graph, assignment)]
    colors: dict[int, str] = {}
    for node in graph.nodes:
        if node.color is not None and colors.setdefault(node.color, assignment[node.id]) != assignment[node.id]:
            wrong.append(f"colour {node.color} is on {colors[node.color]} and on {assignment[node.id]}")
    for backward in (False, True):
        wrong += _gaps(graph, assignment, backward=backward)
    return wrong + _circles(graph, assignment)


def _is_cpu(device: str) -> bool:
    return device.startswith("cpu")


def _wrong_devices(graph: LayerGraph, assignment: Mapping[int, str]) -> list[str]:
    known = {f"acc{i}" for i in range(graph.accelerators)} | {f"cpu{i}" for i in range(graph.cpus)}
    wrong = [f"there is no device {device}" for device in sorted(set(assignment.values()) - known)]
    for node in graph.nodes:
        if not node.on_accelerator and not _is_cpu(assignment[node.id]):
            wrong.append(f"node {node.id} cannot run on {assignment[node.id]}")
    return wrong


def _wrong_memory(graph: LayerGraph, assignment: Mapping[int, str]) -> list[str]:
    sizes: dict[str, list[float]] = {}
    for node in graph.nodes:
        sizes.setdefault(assignment[node.id], []).append(node.size_bytes)
    return [
        f"{device} holds {math.fsum(values):.0f} bytes of {graph.memory_bytes:.0f}"
        for device, values in sizes.items()
        if not _is_cpu(device) and math.fsum(values) > graph.memory_bytes * (1 + ROUNDING)
    ]


def _gaps(graph: LayerGraph, assignment: Mapping[int, str], *, backward: bool) -> list[str]:
    """Return the devices whose part of one pass has a gap: a path that leaves the device and comes back."""
    device = [assignment[node.id] for node in graph.nodes]
    part = [node.backward == backward for node in graph.nodes]
    after: list[list[int]] = [[] for _ in graph.nodes]
    for source, target in graph.edges:
        if part[source] and part[target]:
            after[source].append(target)
    wrong = []
    for name in sorted(set(device)):
        left = [t for v in range(len(device)) if device[v] == name for t in after[v] if device[t] != name]
        seen = set(left)
        for vertex in left:  # grows while it is walked
            for target in after[vertex]:
                if device[target] == name:
                    which = "backward" if backward else "forward"
                    ids = (graph.nodes[vertex].id, graph.nodes[target].id)
                    wrong.append(f"the {which} part of {name} has a gap: {ids[0]} lies outside, before {ids[1]}")
                    return wrong
                if target not in seen:
                    seen.add(target)
                    left.append(target)
    return wrong


def _circles(graph: LayerGraph, assignment: Mapping[int, str]) -> list[str]:
    """Return whether devices wait for each other in a circle in the forward pass."""
    waits: dict[str, set[str]] = {device: set() for device in assignment.values()}
    for source, target in graph.edges:
        here, there = assignment[graph.nodes[source].id], assignment[graph.nodes[target].id]
        if here != there and not graph.nodes[target].backward:
            waits[there].add(here)
    while waits:
        free = [device for device, others in waits.items() if not others & waits.keys()]
        if not free:
            return [f"{', '.join(sorted(waits))} wait for each other in a circle"]
        for device in free:
            del waits[device]
    return []
