"""Files of real sites and of makers' documentation import to the right counts, or are refused for the right reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcplan.errors import InputError
from hpcplan.site.importers.findings import Findings, Note
from hpcplan.site.importers.read import read_sources
from hpcplan.site.merge import merge
from hpcplan.site.merge_write import read_back, write_draft
from hpcplan.site.topology import build_topology

DATA = Path(__file__).resolve().parents[4] / "shared" / "data" / "topology"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="the shared data are not here")

OPTION = {
    "slurm_conf": "slurm-conf", "topology_conf": "topology", "topology_yaml": "topology", "gres_conf": "gres",
    "ibnetdiscover": "ibnetdiscover", "nvidia_smi_topo": "nvidia-smi-topo", "nccl_xml": "nccl-xml",
    "cluster_models": "cluster-model",
}  # fmt: skip

# file: (what is found in it, nodes and switches of the site)
EXPECTED: dict[str, tuple[dict[str, int], int, int]] = {
    "slurm_conf/schedmd-test133-tc1-slurm.conf": ({"nodes": 10000, "partitions": 1}, 10000, 1),
    "slurm_conf/schedmd-test133-tc3-slurm.conf": ({"nodes": 400, "partitions": 1}, 400, 1),
    "topology_conf/dragonfly-3groups.conf": ({"nodes": 96, "switches": 10, "leaf_switches": 6}, 96, 10),
    "topology_conf/schedmd-check-block.conf": ({"nodes": 32, "blocks": 8}, 32, 9),
    "topology_conf/schedmd-doc-multiroot-linkspeed.conf": ({"nodes": 16, "switches": 8, "root_switches": 4}, 16, 8),
    "topology_conf/schedmd-man-ring.conf": ({"nodes": 16, "blocks": 2}, 16, 0),
    "topology_conf/schedmd-test133-tc1.conf": ({"nodes": 10000, "switches": 529, "leaf_switches": 500}, 10000, 529),
    "topology_conf/schedmd-test133-tc3.conf": ({"nodes": 400, "switches": 23}, 400, 23),
    "topology_conf/topograph-oci-sim-tree.conf": ({"nodes": 96, "switches": 19}, 96, 19),
    "topology_conf/topograph-slinky-dra-block.conf": ({"nodes": 96, "blocks": 12}, 96, 13),
    "topology_conf/unsw-abacus.conf": ({"nodes": 13, "switches": 5}, 13, 5),
    "topology_yaml/aws-hyperpod-tree-doc.yaml": ({"nodes": 4, "switches": 3}, 4, 3),
    "topology_yaml/schedmd-man-example-all-kinds.yaml": ({"nodes": 4, "switches": 3}, 4, 3),
    "topology_yaml/slinky-bridge-doc.yaml": ({"nodes": 4, "switches": 3}, 4, 3),
    "gres_conf/schedmd-man-examples.conf": ({"nodes": 16}, 16, 1),
    "gres_conf/shine-cluster.conf": ({"gpus": 10}, 1, 1),
    "gres_conf/vinuni-pernode.conf": ({"nodes": 10, "gpus": 13}, 10, 1),
    "ibnetdiscover/topograph-example.out": (
        {"nodes": 121, "switches": 40, "leaf_switches": 31, "root_switches": 9, "switch_links": 532}, 121, 40,
    ),
    "nvidia_smi_topo/a100-8gpu-nonic.txt": ({"gpus_a_node": 8}, 1, 1),
    "nvidia_smi_topo/dgx-h100-8gpu-12nic-truncated.txt": ({"gpus_a_node": 8, "nics_a_node": 8}, 1, 1),
    "nvidia_smi_topo/dual-gpu-nv2-pcie.txt": ({"gpus_a_node": 2}, 1, 1),
    "nccl_xml/aws-ofi-nccl-p4d-24xl-topo.xml": ({"gpus_a_node": 8, "nics_a_node": 4}, 1, 1),
    "nccl_xml/azhpc-images-ncv4-topo.xml": ({"gpus_a_node": 4, "nics_a_node": 1}, 1, 1),
    "nccl_xml/azhpc-images-ndv4-topo.xml": ({"gpus_a_node": 8, "nics_a_node": 8}, 1, 1),
    "cluster_models/dual-xclr-regular.yaml": ({"nodes": 96, "switches": 19, "blocks": 2}, 96, 19),
    "cluster_models/medium.yaml": ({"nodes": 8, "switches": 7, "blocks": 4}, 8, 7),
    "cluster_models/small-tree.yaml": ({"nodes": 6, "switches": 3, "blocks": 2}, 6, 3),
}  # fmt: skip

REFUSED = {
    "topology_yaml/invalid/block_bad_options.yaml": "12 is not the base block size 4 times a power of two",
    "topology_yaml/invalid/block_not_dict.yaml": "block: must be a mapping",
    "topology_yaml/invalid/flat_bool_mutually_exclusive.yaml": "flat: excludes 'block'",
    "topology_yaml/invalid/ring_bad_options.yaml": "at most 16",
    "topology_yaml/invalid/ring_not_dict.yaml": "ring: must be a mapping",
    "topology_yaml/invalid/root_not_list.yaml": "must be a list of topologies",
    "topology_yaml/invalid/torus3d_not_dict.yaml": "torus3d: must be a mapping",
    "topology_yaml/invalid/torus3d_regions_not_list.yaml": "regions: must be a list",
    "topology_yaml/invalid/torus_bad_options.yaml": "32 cells, but 8 nodes",
    "topology_yaml/invalid/tree_mutually_exclusive.yaml": "tree: excludes 'block'",
    "topology_yaml/invalid/tree_switches_not_list.yaml": "switches: must be a list",
    "ibnetdiscover/topograph-example-bad.out": "no switch is in it",
    "nccl_xml/azhpc-images-ncv4-graph.xml": "graph that NCCL chose",
}


def read(name: str) -> tuple[str, Findings]:
    option = OPTION[name.split("/")[0]]
    return option, read_sources({option: DATA / name})[option]


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_a_file_imports_to_the_right_counts(name: str) -> None:
    counts, nodes, switches = EXPECTED[name]
    option, found = read(name)
    assert {key: found.counts().get(key) for key in counts} == counts
    topology = build_topology(read_back(write_draft(merge({option: found}))))
    assert (len(topology.nodes()), len(topology.switches())) == (nodes, switches)


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_a_file_is_refused_for_the_right_reason(name: str) -> None:
    with pytest.raises(InputError) as caught:
        read(name)
    assert REFUSED[name] in str(caught.value)


def test_no_file_is_left_out() -> None:
    files = {
        str(p.relative_to(DATA)) for p in DATA.rglob("*") if p.is_file() and p.relative_to(DATA).parts[0] in OPTION
    }
    assert files == EXPECTED.keys() | REFUSED.keys()


def test_a_table_that_was_cut_is_a_warning() -> None:
    _, found = read("nvidia_smi_topo/dgx-h100-8gpu-12nic-truncated.txt")
    [warning] = found.problems
    assert not isinstance(warning, Note)
    assert "NIC6" in warning.message
    assert found.inside is not None
    assert found.inside.nics_of_gpu[:3] == (("NIC0",), ("NIC3",), ("NIC4",))


def test_a_slurm_conf_and_its_topology_agree() -> None:
    paths = {
        "slurm-conf": DATA / "slurm_conf/schedmd-test133-tc1-slurm.conf",
        "topology": DATA / "topology_conf/schedmd-test133-tc1.conf",
    }
    draft = merge(read_sources(paths))
    assert not draft.problems
    assert len(draft.tree) == 529
