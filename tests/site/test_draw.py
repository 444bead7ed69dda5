"""Pictures: each kind of fabric, small and large, and what they say of bandwidth and of drained nodes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hpcplan.errors import InputError
from hpcplan.site.draw import draw_topology
from hpcplan.site.draw_style import LINK, link_width, ratios, tightness
from hpcplan.site.topology import build_topology
from tests.site.made_up import site_of


def levels(*several: dict[str, object], kind: str = "tree") -> dict[str, object]:
    return {"kind": kind, "levels": list(several)}


def torus(*dims: int, nodes: str) -> dict[str, object]:
    return {"kind": "torus", "toruses": [{"name": "t", "dims": list(dims), "nodes": nodes, "link": "1 GB/s"}]}


LEAF: dict[str, object] = {"name": "leaf", "size": 4, "uplink": "20 GB/s"}
SMALL: dict[str, dict[str, object]] = {
    "tree": levels(LEAF, {"name": "top", "size": 2}),
    "clos": levels(LEAF, {"name": "top", "size": 2, "parallel": 2}, kind="clos"),
    "rails": levels({**LEAF, "parallel": 2}, {"name": "top", "size": 2, "parallel": 2}, kind="rails"),
    "dragonfly": levels(
        {"name": "r", "size": 2, "uplink": "20 GB/s"}, {"name": "g", "size": 2, "uplink": "10 GB/s"},
        {"name": "all", "size": 2}, kind="dragonfly",
    ),
    "ring": torus(8, nodes="n[0-7]"),
    "torus": torus(2, 2, 2, nodes="n[0-7]"),
    "forest": {"switches": [{"name": "x", "nodes": "n[0-3]"}, {"name": "y", "nodes": "n[4-7]"}]},
}  # fmt: skip
LARGE: dict[str, dict[str, object]] = {
    "tree": levels(
        {**LEAF, "size": 25}, {"name": "mid", "size": 20, "uplink": "100 GB/s"}, {"name": "top", "size": 20}
    ),
    "dragonfly": levels(
        {"name": "r", "size": 10, "uplink": "20 GB/s"}, {"name": "g", "size": 25, "uplink": "10 GB/s"},
        {"name": "all", "size": 40}, kind="dragonfly",
    ),
    "torus": torus(20, 25, 20, nodes="n[0-9999]"),
}  # fmt: skip


def svg(fabric: dict[str, object], nodes: str, path: Path, drained: str | None = None) -> str:
    site = site_of(fabric, nodes).model_copy(update={"drained": drained})
    draw_topology(site, build_topology(site), path / "site.svg")
    return re.sub(r"<!--\s*(.*?)\s*-->", r"\1", (path / "site.svg").read_text())  # matplotlib's texts are in comments


@pytest.mark.parametrize("kind", SMALL)
def test_a_small_fabric_is_drawn_whole(tmp_path: Path, kind: str) -> None:
    text = svg(SMALL[kind], "n[0-7]", tmp_path, drained="n3")
    assert "8 nodes" in text
    assert "drained: 1 node" in text
    if kind in ("tree", "clos", "rails", "ring", "forest"):
        assert all(f"n{number}" in text for number in range(8))


@pytest.mark.parametrize("kind", LARGE)
def test_ten_thousand_nodes_fit_a_page(tmp_path: Path, kind: str) -> None:
    text = svg(LARGE[kind], "n[0-9999]", tmp_path, drained="n[100-104]")
    assert "10,000 nodes" in text
    assert "drained: 5 nodes" in text
    assert len(text) < 2_000_000


def test_oversubscription_is_said_and_coloured(tmp_path: Path) -> None:
    tight = svg(levels({**LEAF, "uplink": "5 GB/s"}, {"name": "top", "size": 2}), "n[0-7]", tmp_path)
    assert "oversubscribed 8 : 1" in tight
    assert "oversubscribed more than 2 : 1" in tight
    wide = svg(levels({**LEAF, "uplink": "40 GB/s"}, {"name": "top", "size": 2}), "n[0-7]", tmp_path)
    assert "full bisection" in wide
    assert "oversubscribed" not in wide


def test_wider_links_are_drawn_wider_and_tighter_ones_in_colour() -> None:
    assert link_width(4e9, 1e9) > link_width(2e9, 1e9) > link_width(1e9, 1e9)
    assert tightness(None) == tightness(1.0) == LINK
    assert len({tightness(1.0), tightness(1.5), tightness(4.0)}) == 3
    topology = build_topology(site_of(SMALL["tree"], "n[0-7]"))
    assert ratios(topology)["leaf1"] == pytest.approx(2.0)


@pytest.mark.parametrize("form", ["png", "pdf"])
def test_other_formats_are_written(tmp_path: Path, form: str) -> None:
    site = site_of(SMALL["tree"], "n[0-7]")
    draw_topology(site, build_topology(site), tmp_path / f"site.{form}")
    assert (tmp_path / f"site.{form}").read_bytes()[:4] in (b"\x89PNG", b"%PDF")


def test_a_name_without_a_format_is_refused(tmp_path: Path) -> None:
    site = site_of(SMALL["tree"], "n[0-7]")
    with pytest.raises(InputError, match="must end with"):
        draw_topology(site, build_topology(site), tmp_path / "site.gif")
