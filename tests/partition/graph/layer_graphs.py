"""Layer graphs of our own for tests: chains, transformers with skip connections, their training, random small ones."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator

from hypothesis import strategies as st

from hpcplan.partition.graph import LayerGraph, Node, check_split, device_loads


def node(
    i: int, time: float = 1.0, *, size: float = 1.0, transfer: float = 0.0, backward: bool = False,
    color: int | None = None, cpu: float | None = None, on_accelerator: bool = True,
) -> Node:  # fmt: skip
    return Node(i, f"n{i}", on_accelerator, 10 * time if cpu is None else cpu, time, size, backward, color, transfer)


def graph_of(nodes, edges, *, accelerators: int = 2, cpus: int = 0, memory: float = 1e9) -> LayerGraph:
    return LayerGraph(tuple(nodes), tuple(edges), accelerators, cpus, memory)


def chain(times, *, transfer: float = 0.0, **devices) -> LayerGraph:
    nodes = [node(i, time, transfer=transfer) for i, time in enumerate(times)]
    return graph_of(nodes, [(i, i + 1) for i in range(len(nodes) - 1)], **devices)


def transformer(blocks: int, **devices) -> LayerGraph:
    """Blocks of attention and feed-forward, each with a skip connection around it and three projections in parallel."""
    nodes: list[Node] = [node(0, 1.0, transfer=0.1)]
    edges: list[tuple[int, int]] = []
    stream = 0
    for _ in range(blocks):
        q, k, v, attention, add, up, down, out = range(len(nodes), len(nodes) + 8)
        times = (0.5, 0.5, 0.5, 2.0, 0.1, 1.5, 1.5, 0.1)
        nodes += [node(q + i, time, transfer=0.1) for i, time in enumerate(times)]
        edges += [(stream, q), (stream, k), (stream, v), (q, attention), (k, attention), (v, attention)]
        edges += [(attention, add), (stream, add), (add, up), (up, down), (down, out), (add, out)]
        stream = out
    return graph_of(nodes, edges, **devices)


def training_of(graph: LayerGraph) -> LayerGraph:
    """Add the mirrored backward pass: twice the time, every edge reversed, each pair of one colour."""
    n = len(graph.nodes)
    forward = [dataclasses.replace(v, color=i) for i, v in enumerate(graph.nodes)]
    backward = [
        dataclasses.replace(
            v, id=n + i, color=i, backward=True, accelerator_time=2 * v.accelerator_time, cpu_time=2 * v.cpu_time
        )
        for i, v in enumerate(graph.nodes)
    ]
    edges = [*graph.edges, *((n + b, n + a) for a, b in graph.edges)]
    sinks = set(range(n)) - {a for a, _ in graph.edges}
    edges += [(i, n + i) for i in sorted(sinks)]
    return graph_of(
        forward + backward, edges, accelerators=graph.accelerators, cpus=graph.cpus, memory=graph.memory_bytes
    )


def assignments(graph: LayerGraph) -> Iterator[dict[int, str]]:
    """Yield every assignment, one for each way of naming equal devices."""
    devices = [f"acc{i}" for i in range(graph.accelerators)] + [f"cpu{i}" for i in range(graph.cpus)]
    for choice in itertools.product(devices, repeat=len(graph.nodes)):
        first = list(dict.fromkeys(choice))
        named = [d for d in first if d.startswith("acc")] + [d for d in first if d.startswith("cpu")]
        if named == sorted(named) and all(d[3:] == "0" or d[:3] + str(int(d[3:]) - 1) in named for d in named):
            yield {v.id: device for v, device in zip(graph.nodes, choice, strict=True)}


def best_by_trying_all(graph: LayerGraph) -> float | None:
    loads = (
        max(device_loads(graph, assignment).values())
        for assignment in assignments(graph)
        if not check_split(graph, assignment)
    )
    return min(loads, default=None)


@st.composite
def small_graphs(draw, most: int = 6) -> LayerGraph:
    """Draw a small graph with colours, nodes for CPUs only and tight memory, of a forward pass or of training."""
    training = draw(st.booleans())
    n = draw(st.integers(1, max(2, most // 2) if training else most))
    times = st.sampled_from([0.0, 0.5, 1.0, 2.0, 3.25, 7.0])
    pairs = [(a, b) for a in range(n) for b in range(a + 1, n)]
    edges = draw(st.lists(st.sampled_from(pairs), unique=True)) if pairs else []
    nodes = [
        node(
            i,
            draw(times),
            size=float(draw(st.integers(0, 3))),
            transfer=draw(times) if any(a == i for a, _ in edges) else 0.0,
            color=draw(st.none() | st.integers(0, 2)),
            cpu=draw(times),
            on_accelerator=draw(st.integers(0, 5)) > 0,
        )
        for i in range(n)
    ]
    accelerators, cpus = draw(st.sampled_from([(1, 0), (2, 0), (3, 0), (2, 1), (1, 2), (0, 2), (0, 1)]))
    memory = float(draw(st.integers(1, 8)))
    if not training:
        return graph_of(nodes, edges, accelerators=accelerators, cpus=cpus, memory=memory)
    forward = [node(i, v.accelerator_time, size=v.size_bytes, transfer=draw(times), color=i, cpu=v.cpu_time,
                    on_accelerator=v.on_accelerator) for i, v in enumerate(nodes)]  # fmt: skip
    backward = [node(n + i, draw(times), size=0.0, transfer=draw(times), color=i, cpu=v.cpu_time, backward=True)
                for i, v in enumerate(nodes)]  # fmt: skip
    back = draw(st.lists(st.sampled_from(pairs), unique=True)) if pairs else []
    both = [*edges, *((n + b, n + a) for a, b in back), *((i, n + i) for i in range(n) if draw(st.booleans()))]
    return graph_of(forward + backward, both, accelerators=accelerators, cpus=cpus, memory=memory)
