"""Reading a layer graph from JSON in the format of the published throughput-partitioning benchmark."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any, Final

from hpcplan.documents import Document, Loc, parse_document, read_text
from hpcplan.errors import InputError, Problem, nearest
from hpcplan.partition.graph.model import LayerGraph, Node

__all__ = ["MAX_DEVICES", "MAX_NODES", "parse_graph", "read_graph"]

MAX_NODES: Final = 20_000
MAX_EDGES: Final = 200_000
MAX_DEVICES: Final = 100_000
MAX_NUMBER: Final = 1e100  # sums of squares of these stay finite
SAME_COST: Final = 1e-6
SHOWN: Final = 20  # problems listed before the rest is only counted

TOP: Final = ("maxSizePerFPGA", "maxFPGAs", "maxCPUs", "nodes", "edges")
NODE: Final = (
    "id", "name", "supportedOnFpga", "cpuLatency", "fpgaLatency", "isBackwardNode", "colorClass", "size", "layerId",
)  # fmt: skip
EDGE: Final = ("sourceId", "destId", "cost", "size")


def read_graph(path: Path | str) -> LayerGraph:
    """Read a graph file.

    Raises:
        InputError: not a file of at most 32 MiB, not JSON, or not such a graph; names file, line and field.
    """
    return parse_graph(read_text(Path(path)), str(path))


def parse_graph(text: str, source: str) -> LayerGraph:
    """Build the graph that a JSON text describes; see :func:`read_graph`."""
    reader = _Reader()
    graph = reader.graph(_load(text, source))
    if graph is not None and not reader.problems:
        return graph
    raise InputError(_located(reader.problems, text, source))


def _load(text: str, source: str) -> Any:
    def refuse(word: str) -> Any:
        raise ValueError(f"{word} is not a number that a graph can have")

    try:
        return json.loads(text, parse_constant=refuse, object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        raise InputError(Problem(f"not valid JSON: {error.msg}", file=source, line=error.lineno)) from None
    except RecursionError:
        raise InputError(Problem("nested too deep for a graph", file=source)) from None
    except ValueError as error:
        raise InputError(Problem(str(error).split(";")[0], file=source)) from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"{twice!r} is given twice in one object")
    return result


def _located(problems: list[tuple[Loc, str]], text: str, source: str) -> list[Problem]:
    try:
        document = parse_document(text, source)  # slower, but it knows every line
    except InputError:
        document = Document(None, source)
    shown = [document.problem(loc, message) for loc, message in problems[:SHOWN]]
    if len(problems) > SHOWN:
        shown.append(Problem(f"and {len(problems) - SHOWN:,} more problems", file=source))
    return shown


class _Reader:
    """Collects every problem of a document, each with its place, while building the graph."""

    def __init__(self) -> None:
        self.problems: list[tuple[Loc, str]] = []

    def wrong(self, loc: Loc, message: str) -> None:
        self.problems.append((loc, message))

    def graph(self, data: Any) -> LayerGraph | None:
        if not isinstance(data, dict):
            self.wrong((), "must be a JSON object with " + ", ".join(TOP))
            return None
        missing = [key for key in TOP if key not in data]
        for key in missing:
            guess = nearest(key, [name for name in data if name not in TOP]) if len(data) < 50 else ""
            self.wrong((key,), "is missing" + (guess if "did you mean" in guess else ""))
        if missing:
            return None
        memory = self.number(data, ("maxSizePerFPGA",), "bytes of memory of one accelerator")
        accelerators = self.count(data, ("maxFPGAs",), "how many accelerators there are")
        cpus = self.count(data, ("maxCPUs",), "how many CPUs there are")
        for key, limit in (("nodes", MAX_NODES), ("edges", MAX_EDGES)):
            if not isinstance(data[key], list):
                self.wrong((key,), "must be a list")
            elif len(data[key]) > limit:
                self.wrong((key,), f"has {len(data[key]):,} items; at most {limit:,} are read")
        if self.problems:
            return None
        nodes = [self.node(item, ("nodes", i)) for i, item in enumerate(data["nodes"])]
        if not nodes:
            self.wrong(("nodes",), "is empty; there is nothing to split")
        index = self.index(nodes)
        edges, transfer = self.edges(data["edges"], index, nodes)
        if self.problems:
            return None
        self.acyclic(nodes, edges)
        whole = tuple(dataclasses.replace(node, transfer=transfer.get(i, 0.0)) for i, node in enumerate(nodes))
        return LayerGraph(whole, tuple(edges), accelerators, cpus, memory)

    def node(self, item: Any, loc: Loc) -> Node:
        if not isinstance(item, dict):
            self.wrong(loc, "must be an object with " + ", ".join(NODE[:-1]))
            item = {"id": loc[-1], "supportedOnFpga": True, "cpuLatency": 0, "fpgaLatency": 0}
        color = item.get("colorClass")
        if color is not None and (isinstance(color, bool) or not isinstance(color, int)):
            self.wrong((*loc, "colorClass"), f"must be a whole number or absent, not {_short(color)}")
            color = None
        return Node(
            id=self.identity(item, (*loc, "id")),
            name=_short(item.get("name", ""), quote=False),
            on_accelerator=self.truth(item, (*loc, "supportedOnFpga"), default=None),
            cpu_time=self.number(item, (*loc, "cpuLatency"), "the time on a CPU"),
            accelerator_time=self.number(item, (*loc, "fpgaLatency"), "the time on an accelerator"),
            size_bytes=self.number(item, (*loc, "size"), "bytes of memory") if "size" in item else 0.0,
            backward=self.truth(item, (*loc, "isBackwardNode"), default=False),
            color=color,
        )

    def index(self, nodes: list[Node]) -> dict[int, int]:
        index: dict[int, int] = {}
        for i, node in enumerate(nodes):
            if index.setdefault(node.id, i) != i:
                self.wrong(("nodes", i, "id"), f"{node.id} is given twice; first at nodes[{index[node.id]}]")
        return index

    def edges(
        self, items: list[Any], index: dict[int, int], nodes: list[Node]
    ) -> tuple[list[tuple[int, int]], dict[int, float]]:
        edges: dict[tuple[int, int], None] = {}
        transfer: dict[int, float] = {}
        for i, item in enumerate(items):
            if not isinstance(item, dict):
                self.wrong(("edges", i), "must be an object with " + ", ".join(EDGE))
                continue
            ends = [self.end(item, ("edges", i, key), index) for key in ("sourceId", "destId")]
            cost = self.number(item, ("edges", i, "cost"), "the time to transfer the output of the source")
            if ends[0] is None or ends[1] is None:
                continue
            source, target = ends[0], ends[1]
            if source == target:
                self.wrong(("edges", i), f"runs from node {nodes[source].id} to itself")
            if nodes[source].backward and not nodes[target].backward:
                self.wrong(("edges", i), "runs from a backward node to a forward node")
            first = transfer.setdefault(source, cost)
            if abs(first - cost) > SAME_COST * max(1.0, abs(first)):
                message = f"is {cost:g}, but an earlier edge from node {nodes[source].id} has {first:g}"
                self.wrong(("edges", i, "cost"), message + "; all edges from one node carry the same output")
            edges[source, target] = None
        return list(edges), transfer

    def end(self, item: dict[str, Any], loc: Loc, index: dict[int, int]) -> int | None:
        before = len(self.problems)
        identity = self.identity(item, loc)
        if len(self.problems) > before:
            return None
        if identity not in index:
            self.wrong(loc, f"{identity} is not the id of any node")
        return index.get(identity)

    def acyclic(self, nodes: list[Node], edges: list[tuple[int, int]]) -> None:
        waiting = [0] * len(nodes)
        after: list[list[int]] = [[] for _ in nodes]
        for source, target in edges:
            after[source].append(target)
            waiting[target] += 1
        ready = [i for i, count in enumerate(waiting) if not count]
        for i in ready:  # grows while it is walked
            for target in after[i]:
                waiting[target] -= 1
                if not waiting[target]:
                    ready.append(target)
        if len(ready) < len(nodes):
            self.wrong(("edges",), "form a cycle: " + " -> ".join(map(str, _cycle(nodes, after, set(ready)))))

    def identity(self, item: dict[str, Any], loc: Loc) -> int:
        value = item.get(str(loc[-1]))
        if isinstance(value, bool) or not isinstance(value, int) or abs(value) > 2**63:
            self.wrong(loc, "is missing" if value is None else f"must be a whole number, not {_short(value)}")
            return 0
        return value

    def number(self, item: dict[str, Any], loc: Loc, what: str) -> float:
        value = item.get(str(loc[-1]))
        if isinstance(value, bool) or not isinstance(value, int | float):
            wrong = f"is missing: {what}" if value is None else f"must be a number ({what}), not {_short(value)}"
            self.wrong(loc, wrong)
        elif value < 0:
            self.wrong(loc, f"is {value:g}: {what} cannot be negative")
        elif value > MAX_NUMBER or not math.isfinite(value):
            self.wrong(loc, f"is too large; at most {MAX_NUMBER:g}")
        else:
            return float(value)
        return 0.0

    def count(self, item: dict[str, Any], loc: Loc, what: str) -> int:
        value = self.number(item, loc, what)
        if value != int(value) or value > MAX_DEVICES:
            self.wrong(loc, f"is {value:g}; a whole number of at most {MAX_DEVICES:,} is needed")
        return int(value)

    def truth(self, item: dict[str, Any], loc: Loc, *, default: bool | None) -> bool:
        value: Any = item.get(str(loc[-1]), default)
        if value is None or value not in (0, 1) or isinstance(value, float):
            self.wrong(loc, "is missing" if value is None else f"must be true, false, 1 or 0, not {_short(value)}")
        return bool(value)


def _short(value: Any, *, quote: bool = True) -> str:
    text = repr(value) if quote else str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _cycle(nodes: list[Node], after: list[list[int]], done: set[int]) -> list[int]:
    """Return the ids along one cycle, shortened in the middle; every node outside ``done`` can reach one."""
    before: dict[int, int] = {}
    for source, targets in enumerate(after):
        if source not in done:
            before.update({target: source for target in targets if target not in done})
    here = min(before)
    seen: list[int] = []
    while here not in seen:  # each that is not done has a predecessor that is not done
        seen.append(here)
        here = before[here]
    loop = [nodes[i].id for i in [here, *reversed(seen[seen.index(here) :])]]
    return loop if len(loop) <= 12 else [*loop[:6], *loop[-6:]]
