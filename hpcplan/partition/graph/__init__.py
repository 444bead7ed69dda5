"""Splitting any graph of layers or operators over devices so that the busiest one is least busy."""

from __future__ import annotations

from hpcplan.partition.graph.check import check_split, device_loads
from hpcplan.partition.graph.model import LayerGraph, Node, Split
from hpcplan.partition.graph.picture import draw_split
from hpcplan.partition.graph.read import parse_graph, read_graph
from hpcplan.partition.graph.search import partition_graph

__all__ = [
    "LayerGraph",
    "Node",
    "Split",
    "check_split",
    "device_loads",
    "draw_split",
    "parse_graph",
    "partition_graph",
    "read_graph",
]
