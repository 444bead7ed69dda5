"""Sites on a real Slurm: what is exported is accepted by slurmctld, and ``--live`` reads the same tree from it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from hpcplan.cli.site_import import command
from hpcplan.site.export import topology_conf
from hpcplan.site.load import read_site
from hpcplan.site.model import Site
from hpcplan.site.topology import Topology, build_topology
from tests.site.made_up import site_of
from tests.slurm.cluster import SlurmCluster

UNEVEN: dict[str, object] = {"switches": [
    {"name": "a", "nodes": "n[0-2]", "uplink": "20 GB/s"}, {"name": "b", "nodes": "n[3-4]", "uplink": "20 GB/s"},
    {"name": "c", "nodes": "n[5-7]", "uplink": "10 GB/s"}, {"name": "left", "switches": ["a", "b"], "uplink": "5 GB/s"},
    {"name": "top", "switches": ["left", "c"]},
]}  # fmt: skip
CLOS: dict[str, object] = {"kind": "clos", "switches": [
    {"name": "leaf1", "nodes": "n[0-3]", "uplink": "20 GB/s"},
    {"name": "leaf2", "nodes": "n[4-7]", "uplink": "20 GB/s"},
    {"name": "root1", "switches": ["leaf1", "leaf2"]}, {"name": "root2", "switches": ["leaf1", "leaf2"]},
]}  # fmt: skip
RAILS: dict[str, object] = {"kind": "rails", "levels": [
    {"name": "unit", "size": 4, "parallel": 2, "uplink": "40 GB/s"}, {"name": "spine", "size": 2, "parallel": 2},
]}  # fmt: skip
FOREST: dict[str, object] = {"switches": [{"name": "x", "nodes": "n[0-3]"}, {"name": "y", "nodes": "n[4-7]"}]}


@pytest.fixture
def own_topology(slurm: SlurmCluster) -> Iterator[Path]:
    """The cluster's topology.conf, to be replaced by the test and put back after it."""
    path = slurm.directory / "etc" / "topology.conf"
    before = path.read_text()
    yield path
    path.write_text(before)
    slurm.run("scontrol", "reconfigure")


def live(tmp_path: Path, *more: str) -> tuple[Site, dict[str, object]]:
    """Import the running Slurm with the command."""
    output = tmp_path / "live.yaml"
    result = CliRunner().invoke(
        command,
        ["--live", "--backend", "command", "--format", "json", "-o", str(output), *more],
        catch_exceptions=False,
    )
    assert result.exit_code == 0, result.output
    return read_site(output), json.loads(result.stdout)


def tree(topology: Topology) -> dict[str, list[str]]:
    """What is above each node and switch; rails stand for one leaf, as they do in Slurm."""
    return {name: topology.ancestors(name) for name in topology.hierarchy.names}


@pytest.mark.parametrize("fabric", [UNEVEN, CLOS, RAILS, FOREST], ids=["uneven", "clos", "rails", "forest"])
def test_a_site_is_the_same_after_slurmctld(
    slurm: SlurmCluster, own_topology: Path, tmp_path: Path, fabric: dict[str, object]
) -> None:
    site = site_of(fabric, "n[0-7]")
    own_topology.write_text(topology_conf(site))
    slurm.run("scontrol", "reconfigure")
    again, _ = live(tmp_path)
    before, after = build_topology(site), build_topology(again)
    assert tree(after) == tree(before)
    if site.fabric.kind == "clos":
        edges = [{frozenset(edge) for edge in topology.graph.edges} for topology in (before, after)]
        assert edges[0] == edges[1]


def test_a_running_slurm_tells_its_nodes_partitions_and_scheduling(slurm: SlurmCluster, tmp_path: Path) -> None:
    site, summary = live(tmp_path, "--accelerator", "H100-SXM5-80GB")
    assert summary["warnings"] == []
    nodes = [(group.nodes, group.cpus, group.memory_bytes, group.features) for group in site.node_groups.values()]
    assert nodes == [
        ("n[0-1]", 16, 2000 * 1024**2, ("h100", "sim")), ("n[2-7]", 16, 2000 * 1024**2, ("h100", "sim")),
    ]  # fmt: skip
    assert all(group.accelerators and group.accelerators.count == 8 for group in site.node_groups.values())
    debug = site.partitions["debug"]
    assert (debug.max_time_s, debug.max_nodes, debug.default) == (600, 2, False)
    assert site.default_partition() == "batch"
    assert site.partitions["long"].max_time_s is None
    assert (site.slurm.cluster, site.slurm.topology) == ("hpcplan", True)
    assert site.slurm.version is not None
    assert site.scheduler.parameters["bf_interval"] == "2"


def test_a_drained_node_is_drained_in_the_site(slurm: SlurmCluster, tmp_path: Path) -> None:
    slurm.run("scontrol", "update", "NodeName=n3", "State=DRAIN", "Reason=disk")
    try:
        site, _ = live(tmp_path)
    finally:
        slurm.run("scontrol", "update", "NodeName=n3", "State=RESUME")
    assert site.drained == "n3"


def test_json_and_sinfo_say_the_same_as_scontrol(slurm: SlurmCluster, tmp_path: Path) -> None:
    (tmp_path / "node.txt").write_text(slurm.run("scontrol", "show", "node").stdout)
    (tmp_path / "partition.txt").write_text(slurm.run("scontrol", "show", "partition").stdout)
    (tmp_path / "sinfo.txt").write_text(slurm.run("sinfo", "--Node", "--long").stdout)
    (tmp_path / "sinfo.json").write_text(slurm.run("sinfo", "--json").stdout)
    found = {}
    for name, files in (("text", ("node.txt", "partition.txt")), ("sinfo", ("sinfo.txt",)), ("json", ("sinfo.json",))):
        options = [option for file in files for option in ("--scontrol", str(tmp_path / file))]
        result = CliRunner().invoke(command, [*options, "-o", str(tmp_path / f"{name}.yaml")], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        site = read_site(tmp_path / f"{name}.yaml")
        found[name] = (
            [(group.nodes, group.cpus, group.memory_bytes) for group in site.node_groups.values()],
            {partition: part.nodes for partition, part in site.partitions.items()},
            site.default_partition(),
        )
    assert found["sinfo"] == found["text"]
    assert found["json"][:2] == found["text"][:2]
