"""What is exported for Slurm comes back the same through the importer."""

from __future__ import annotations

import json
from pathlib import Path

import networkx as nx
import pytest
from click.testing import CliRunner

from hpcplan.cli.site_export import command
from hpcplan.cli.site_graph import command as graph_command
from hpcplan.errors import InputError
from hpcplan.site import list_sites, load_site
from hpcplan.site.export import SLURM_FORMATS, topology_conf
from hpcplan.site.importers.read import read_sources
from hpcplan.site.merge import merge
from hpcplan.site.merge_write import read_back, write_draft
from hpcplan.site.model import Site
from hpcplan.site.topology import build_topology
from tests.site.made_up import site_of


def shape(site: Site) -> dict[str, list[str]]:
    """Return what is above each node and switch (rails as one leaf): the tree, whatever the bandwidths."""
    topology = build_topology(site)
    return {name: topology.ancestors(name) for name in topology.hierarchy.names}


@pytest.mark.parametrize("name", sorted(list_sites()))
@pytest.mark.parametrize("kind", sorted(SLURM_FORMATS))
def test_a_shipped_site_keeps_its_tree_on_the_way_to_slurm_and_back(tmp_path: Path, name: str, kind: str) -> None:
    site = load_site(name).site
    path = tmp_path / kind
    path.write_text(SLURM_FORMATS[kind](site, "tree"))
    draft = merge(read_sources({"topology": path}))
    assert not draft.problems
    assert shape(read_back(write_draft(draft))) == shape(site)


def back(tmp_path: Path, kind: str, site: Site, **more: str) -> Site:
    """Export a site and import it again, with the text of other files."""
    path = tmp_path / kind
    path.write_text(SLURM_FORMATS[kind](site, "auto"))
    paths = {"topology": path}
    for option, text in more.items():
        paths[option.replace("_", "-")] = tmp_path / option
        (tmp_path / option).write_text(text)
    return read_back(write_draft(merge(read_sources(paths))))


@pytest.mark.parametrize("kind", sorted(SLURM_FORMATS))
@pytest.mark.parametrize("name", ["gb200-nvl72", "gb300-nvl72"])
def test_blocks_keep_their_nodes_and_sizes(tmp_path: Path, name: str, kind: str) -> None:
    site = load_site(name).site
    again = back(tmp_path, kind, site)
    assert (again.fabric.kind, again.fabric.block_sizes) == ("blocks", site.fabric.block_sizes)
    leaves = [{bundle.name: bundle.hosts for bundle in build_topology(each).bundles(1)} for each in (site, again)]
    assert leaves[0] == leaves[1]


CLOS: dict[str, object] = {"kind": "clos", "switches": [
    {"name": "l1", "nodes": "n[0-3]", "uplink": "20 GB/s"}, {"name": "l2", "nodes": "n[4-7]", "uplink": "20 GB/s"},
    {"name": "s1", "switches": "l[1-2]"}, {"name": "s2", "switches": ["l1", "l2"]},
]}  # fmt: skip
DRAGONFLY: dict[str, object] = {"kind": "dragonfly", "levels": [
    {"name": "r", "size": 2, "uplink": "40 GB/s"}, {"name": "g", "size": 2, "uplink": "40 GB/s"},
    {"name": "all", "size": 2},
]}  # fmt: skip


@pytest.mark.parametrize("kind", sorted(SLURM_FORMATS))
def test_the_roots_of_a_clos_network_are_kept(tmp_path: Path, kind: str) -> None:
    site = site_of(CLOS, "n[0-7]")
    again = back(tmp_path, kind, site)
    assert again.fabric.kind == "clos"
    edges = [{frozenset(edge) for edge in build_topology(each).graph.edges} for each in (site, again)]
    assert edges[0] == edges[1]


def test_a_dragonfly_is_one_again_with_its_slurm_conf(tmp_path: Path) -> None:
    site = site_of(DRAGONFLY, "n[0-7]")
    conf = "NodeName=n[0-7] CPUs=4\nTopologyPlugin=topology/tree\nTopologyParam=dragonfly\n"
    again = back(tmp_path, "topology.conf", site, slurm_conf=conf)
    assert again.fabric.kind == "dragonfly"
    assert shape(again) == shape(site)
    edges = [{frozenset(edge) for edge in build_topology(each).graph.edges} for each in (site, again)]
    assert edges[0] == edges[1]


@pytest.mark.parametrize("kind", sorted(SLURM_FORMATS))
def test_rings_come_back(tmp_path: Path, kind: str) -> None:
    rings = [{"name": f"ring{n}", "dims": [8], "nodes": f"n[{8 * n}-{8 * n + 7}]", "link": "5 GB/s"} for n in range(2)]
    again = back(tmp_path, kind, site_of({"kind": "torus", "toruses": rings}))
    assert [(torus.name, torus.dims, torus.nodes) for torus in again.fabric.toruses] == [
        ("ring0", (8,), "n[0-7]"), ("ring1", (8,), "n[8-15]"),
    ]  # fmt: skip


def test_a_torus_comes_back_from_topology_yaml_and_is_refused_elsewhere(tmp_path: Path) -> None:
    torus = {"name": "t", "dims": [2, 4, 2], "nodes": "n[0-15]", "link": "5 GB/s"}
    site = site_of({"kind": "torus", "toruses": [torus]})
    assert back(tmp_path, "topology.yaml", site).fabric.toruses[0].dims == (2, 4, 2)
    with pytest.raises(InputError, match="write topology"):
        topology_conf(site)
    with pytest.raises(InputError, match="torus"):
        topology_conf(site, "tree")


@pytest.mark.parametrize("inside", [False, True])
def test_graphs_say_the_same_in_graphml_and_json(tmp_path: Path, inside: bool) -> None:
    for form in ("graphml", "json", "dot"):
        options = ["--inside"] if inside else []
        result = CliRunner().invoke(graph_command, ["mixed-lab", *options, "-o", str(tmp_path / f"g.{form}")])
        assert result.exit_code == 0, result.output
    one = nx.read_graphml(tmp_path / "g.graphml")
    two = nx.node_link_graph(json.loads((tmp_path / "g.json").read_text()), edges="edges")
    assert dict(one.nodes(data=True)) == dict(two.nodes(data=True))
    assert one.edges["ib0", "core"] == two.edges["ib0", "core"]
    assert one.edges["ib0", "core"]["bandwidth_bytes_per_s"] == pytest.approx(100e9 / 8)
    kinds = {data["kind"] for _, data in one.nodes(data=True)}
    assert kinds == {"node", "switch"} | ({"gpu", "nic", "socket"} if inside else set())
    dot = (tmp_path / "g.dot").read_text()
    assert dot.count(" -- ") == one.number_of_edges()
    assert '"ib0" -- "core"' in dot


def test_pictures_do_not_show_insides(tmp_path: Path) -> None:
    result = CliRunner().invoke(graph_command, ["mixed-lab", "--inside", "-o", str(tmp_path / "g.svg")])
    assert result.exit_code == 2
    result = CliRunner().invoke(graph_command, ["mixed-lab", "-o", str(tmp_path / "g.gif")])
    assert "graphml" in str(result.exception)


def test_the_command_prints_or_writes(tmp_path: Path) -> None:
    output = tmp_path / "topology.conf"
    written = CliRunner().invoke(command, ["mixed-lab", "-o", str(output)])
    printed = CliRunner().invoke(command, ["mixed-lab"])
    assert written.exit_code == printed.exit_code == 0
    assert output.read_text() == printed.stdout
    assert "SwitchName=ib0 Nodes=h[1-2],a[1-4]\n" in printed.stdout
    assert "LinkSpeed" not in printed.stdout
