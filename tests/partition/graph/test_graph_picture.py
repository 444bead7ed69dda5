"""The picture of a split: well-formed SVG with every node, device and load in it."""

from __future__ import annotations

import dataclasses
from xml.etree import ElementTree

from hpcplan.partition.graph import draw_split, partition_graph
from tests.partition.graph.layer_graphs import chain, node, training_of, transformer

SVG = "{http://www.w3.org/2000/svg}"


def drawn(graph, title="g"):
    split = partition_graph(graph)
    return split, ElementTree.fromstring(draw_split(graph, split, title))


def test_every_node_is_a_dot_in_its_devices_colour() -> None:
    graph = training_of(transformer(3, accelerators=4))
    split, root = drawn(graph)
    dots = root.findall(f".//{SVG}circle")
    assert len(dots) == len(graph.nodes)
    fills = {}
    for dot in dots:
        title = dot.find(f"{SVG}title").text
        fills.setdefault(title.rpartition(" on ")[2], set()).add(dot.get("fill"))
    assert {device: len(colors) for device, colors in fills.items()} == dict.fromkeys(split.loads, 1)
    assert len(set.union(*fills.values())) == len(split.loads)


def test_bars_are_as_long_as_loads() -> None:
    split, root = drawn(chain([1.0, 2.0, 4.0], accelerators=3))
    widths = [float(bar.get("width")) for bar in root.findall(f".//{SVG}rect") if bar.find(f"{SVG}title") is not None]
    assert [round(width / max(widths), 3) for width in widths] == [load / 4 for load in split.loads.values()]


def test_names_are_escaped() -> None:
    graph = chain([1.0])
    graph = dataclasses.replace(graph, nodes=(dataclasses.replace(node(0), name="<a & b>"),))
    _, root = drawn(graph, title="<g>")
    assert "<g>" in root.find(f"{SVG}title").text
    assert root.find(f".//{SVG}circle/{SVG}title").text == "0 <a & b> on acc0"


def test_everything_lies_inside_the_picture() -> None:
    _, root = drawn(chain([1.0] * 300, accelerators=5, cpus=1))
    _, _, width, height = map(float, root.get("viewBox").split())
    for dot in root.findall(f".//{SVG}circle"):
        assert 0 <= float(dot.get("cx")) <= width
        assert 0 <= float(dot.get("cy")) <= height
