"""Reading graph files: the published format, and each thing that can be wrong named with its line and field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcplan.errors import InputError
from hpcplan.partition.graph import LayerGraph, Node, parse_graph, read_graph


def document() -> dict[str, Any]:
    return {
        "maxSizePerFPGA": 16e9,
        "maxFPGAs": 2,
        "maxCPUs": 1,
        "nodes": [
            {"id": 5, "name": "embed", "supportedOnFpga": 1, "cpuLatency": 10.0, "fpgaLatency": 1, "isBackwardNode": 0,
             "colorClass": 3, "size": 100.0},
            {"id": 7, "supportedOnFpga": False, "cpuLatency": 4, "fpgaLatency": 0, "isBackwardNode": False, "size": 0},
        ],
        "edges": [{"sourceId": 5, "destId": 7, "cost": 0.25, "size": 4096}],
    }  # fmt: skip


def text(change=None) -> str:
    data = document()
    if change is not None:
        change(data)
    return json.dumps(data, indent=1)


def test_the_published_format_is_read() -> None:
    assert parse_graph(text(), "g.json") == LayerGraph(
        nodes=(
            Node(5, "embed", True, 10.0, 1.0, 100.0, False, 3, 0.25),
            Node(7, "", False, 4.0, 0.0, 0.0, False, None),
        ),
        edges=((0, 1),),
        accelerators=2,
        cpus=1,
        memory_bytes=16e9,
    )


def test_an_edge_given_twice_counts_once() -> None:
    graph = parse_graph(text(lambda d: d["edges"].append(d["edges"][0])), "g.json")
    assert graph.edges == ((0, 1),)


def at(*path: Any, value: Any):
    def change(data: Any) -> None:
        for part in path[:-1]:
            data = data[part]
        if value is ...:
            del data[path[-1]]
        else:
            data[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (at("maxFPGAs", value=...), "maxFPGAs: is missing"),
        (at("maxFPGAs", value=1.5), "g.json:3: maxFPGAs: is 1.5; a whole number"),
        (at("maxFPGAs", value=-1), "g.json:3: maxFPGAs: is -1: how many accelerators there are cannot be negative"),
        (at("maxSizePerFPGA", value="16 GB"), "maxSizePerFPGA: must be a number (bytes of memory"),
        (at("nodes", value={}), "nodes: must be a list"),
        (at("nodes", value=[]), "nodes: is empty"),
        (at("nodes", 0, value=3), "nodes[0]: must be an object"),
        (at("nodes", 0, "fpgaLatency", value=-2), "nodes[0].fpgaLatency: is -2: the time on an accelerator cannot be"),
        (at("nodes", 0, "fpgaLatency", value=...), "nodes[0].fpgaLatency: is missing"),
        (at("nodes", 0, "cpuLatency", value=True), "nodes[0].cpuLatency: must be a number"),
        (at("nodes", 0, "cpuLatency", value=10**400), "nodes[0].cpuLatency: is too large"),
        (at("nodes", 0, "size", value=None), "nodes[0].size: is missing"),
        (at("nodes", 0, "supportedOnFpga", value="yes"), "nodes[0].supportedOnFpga: must be true, false, 1 or 0"),
        (at("nodes", 0, "supportedOnFpga", value=...), "nodes[0].supportedOnFpga: is missing"),
        (at("nodes", 0, "colorClass", value=1.5), "nodes[0].colorClass: must be a whole number"),
        (at("nodes", 1, "id", value=5), "nodes[1].id: 5 is given twice; first at nodes[0]"),
        (at("nodes", 1, "id", value="7"), "nodes[1].id: must be a whole number, not '7'"),
        (at("edges", 0, "destId", value=8), "edges[0].destId: 8 is not the id of any node"),
        (at("edges", 0, "destId", value=5), "edges[0]: runs from node 5 to itself"),
        (at("edges", 0, "cost", value=...), "edges[0].cost: is missing"),
        (at("nodes", 0, "isBackwardNode", value=1), "edges[0]: runs from a backward node to a forward node"),
        (lambda d: d["edges"].append({"sourceId": 7, "destId": 5, "cost": 0}), "edges: form a cycle: 5 -> 7 -> 5"),
        (lambda d: d["edges"].append({"sourceId": 5, "destId": 7, "cost": 1}), "edges[1].cost: is 1, but an earlier"),
    ],
)
def test_what_is_wrong_is_named_with_its_field(change, message: str) -> None:
    with pytest.raises(InputError) as refused:
        parse_graph(text(change), "g.json")
    assert message in str(refused.value)
    assert str(refused.value).startswith("g.json")


def test_the_line_of_a_wrong_value_is_given() -> None:
    lines = text(at("edges", 0, "destId", value=8)).splitlines()
    with pytest.raises(InputError) as refused:
        parse_graph("\n".join(lines), "g.json")
    line = next(i for i, words in enumerate(lines, start=1) if '"destId": 8' in words)
    assert f"g.json:{line}:" in str(refused.value)


def test_many_problems_are_counted_after_the_first_twenty() -> None:
    with pytest.raises(InputError) as refused:
        parse_graph(text(at("nodes", value=[{"id": i} for i in range(30)])), "g.json")
    assert "and 70 more problems" in str(refused.value)  # three for each node


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "g.json:1: not valid JSON"),
        ("{", "g.json:1: not valid JSON"),
        ("[1]", "must be a JSON object"),
        ('{"a": NaN}', "NaN is not a number"),
        ('{"a": 1, "a": 2}', "'a' is given twice"),
        ("[" * 100_000, "nested too deep"),
        ('{"a": ' + "9" * 5000 + "}", "g.json"),
    ],
)
def test_what_is_no_graph_is_refused(content: str, message: str) -> None:
    with pytest.raises(InputError) as refused:
        parse_graph(content, "g.json")
    assert message in str(refused.value)


def test_a_graph_with_too_many_nodes_is_refused() -> None:
    with pytest.raises(InputError, match=r"nodes: has 20,001 items; at most 20,000"):
        parse_graph(text(at("nodes", value=[{}] * 20_001)), "g.json")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_graph(tmp_path / "none.json")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
PLACES = [("nodes",), ("edges",), ("nodes", 0), ("edges", 0), ("maxCPUs",), ("maxSizePerFPGA",)] + [
    (kind, 0, key) for kind in ("nodes", "edges") for key in document()[kind][0]
]


@given(st.sampled_from(PLACES), JSON)
def test_nothing_but_an_input_error_comes_of_any_value(path, value) -> None:
    try:
        graph = parse_graph(text(at(*path, value=value)), "g.json")
    except InputError:
        return
    assert graph.nodes
