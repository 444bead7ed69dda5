"""Node masks and what a site file comes to."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcplan.simulate.controller import Controller
from hpcplan.simulate.jobs import JobSpec
from hpcplan.simulate.machine import Machine, lowest
from hpcplan.simulate.slurm_cluster import SlurmCluster
from hpcplan.simulate.slurm_settings import SlurmSettings
from hpcplan.site.load import load_site
from tests.simulate.clusters import GIB, SITE, machine, write_site


@given(mask=st.integers(0, 2**130 - 1), count=st.integers(0, 140))
def test_the_lowest_bits_are_those_that_counting_from_below_finds(mask: int, count: int) -> None:
    bits = [bit for bit in range(mask.bit_length()) if mask >> bit & 1]
    assert lowest(mask, count) == sum(1 << bit for bit in bits[:count])


@given(mask=st.integers(0, 2**64 - 1))
def test_names_and_masks_are_each_others_inverse(mask: int) -> None:
    cluster = machine(64)
    assert cluster.mask_of(cluster.names_of(mask)) == mask


def test_a_node_list_is_a_hostlist_in_the_order_of_the_nodes() -> None:
    assert machine(8).node_list(0b10010111) == "n[1-3,5,8]"


def test_a_site_file_gives_nodes_in_its_order_with_what_each_has(tmp_path: Path) -> None:
    cluster = Machine.from_site(load_site(write_site(tmp_path)).site)
    assert cluster.names == ("b1", "b2", "b3", "b4", "b5", "b6", "s1", "s2")
    big, small = cluster.groups
    assert (big.cpus, big.memory_bytes, big.gpus, big.gres, big.features) == (
        64,
        512 * GIB,
        8,
        "gpu:h100:8",
        ("h100", "nvme"),
    )
    assert (small.gpus, small.gres) == (0, None)
    assert cluster.total(0b11000001, "gpus") == 8
    assert cluster.total(0b11000001, "cpus") == 96


def test_nodes_of_less_weight_in_a_site_file_are_taken_first(tmp_path: Path) -> None:
    heavy = SITE.replace("    features: [h100, nvme]\n", "    features: [h100, nvme]\n    weight: 5\n")
    cluster = Machine.from_site(load_site(write_site(tmp_path, heavy)).site)
    made = Controller(SlurmCluster(cluster, SlurmSettings()), name="tiny")
    asked = made.resolve(JobSpec(name="a", partition="debug", nodes_min=2, time_limit_s=600))
    assert [group.weight for group in cluster.groups] == [5, 1]
    assert cluster.names_of(made.placement.choose(asked, cluster.all_nodes)) == ["s1", "s2"]


def test_a_site_file_gives_partitions_with_their_limits(tmp_path: Path) -> None:
    cluster = Machine.from_site(load_site(write_site(tmp_path)).site)
    batch, debug = cluster.partitions["batch"], cluster.partitions["debug"]
    assert cluster.default_partition() == "batch"
    assert (batch.mask, batch.max_time_s, batch.default_time_s, batch.max_nodes) == (0b00111111, 86400, 3600, None)
    assert (debug.mask, debug.max_time_s, debug.default_time_s, debug.max_nodes) == (0b11111111, 1800, None, 2)


def test_a_machine_survives_being_written_as_json(tmp_path: Path) -> None:
    cluster = Machine.from_site(load_site(write_site(tmp_path)).site)
    assert Machine.from_dict(cluster.as_dict()) == cluster


def test_a_name_that_no_node_has_is_an_error() -> None:
    with pytest.raises(KeyError, match="n9"):
        machine(4).mask_of(["n1", "n9"])
