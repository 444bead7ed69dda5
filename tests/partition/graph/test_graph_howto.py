"""The how-to page: what it shows is what comes out."""

from __future__ import annotations

import json
import re
from pathlib import Path

from hpcplan.partition.graph import partition_graph, read_graph

HOWTO = Path(__file__).resolve().parents[3] / "docs" / "howto"
PAGE = (HOWTO / "partition-a-graph.md").read_text()


def block(language: str) -> str:
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return found


def test_the_split_on_the_page_is_that_of_its_graph() -> None:
    assert partition_graph(read_graph(HOWTO / "two-branches.json")).as_dict() == json.loads(block("json"))
