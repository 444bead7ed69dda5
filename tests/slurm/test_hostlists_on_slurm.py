"""Our hostlists against ``scontrol show hostnames`` and ``scontrol show hostlist``."""

from __future__ import annotations

import random

import pytest

from hpcplan.hostlist import compress, expand
from tests.slurm.cluster import SlurmCluster

HOSTLISTS = [
    "login", "a,b", "n[08-10],login", "n[1-3,5]", "n[01-10]", "n[09-11]", "n[9-11]", "n[99-101]", "n[099-101]", "n[1]",
    "n[0-0]", "n[00-00]", "n[1,1,2]", "n[3,1,2]", "n[001-003,5,07]", "n0[1-3]", "n1[0-2]", "n_[1-2]", "[1-3]",
    "n1,n1", "n[1-2],n[1-2]", "n[1-2],[3-4]", "n[1-3],n5,n[7-9],m1", "gpu-a100-[001-004]", "n1-2", "n1-[0-1]",
    "r[1-2]n[0-3]", "n[1-2][3-4]", "n[1-2]-[1-2]", "n[1-2]x[1-2]", "n[1-2]n[1-2]n[1-2]", "a[1-2]b[1-2]c[5]",
    "a[1-2]b[3-4]c[5-6]d[7-8]", "a[1-2]b[01-02]c[1,3],d[1-2]", " n1", "n[1-2] , n3", "{1-2}",
]  # fmt: skip
NAMES = [
    ["n1", "n2", "n3"], ["n3", "n1", "n2"], ["n08", "n09", "n10", "login", "n11"], ["n1", "n01"], ["n9", "n10", "n11"],
    ["n09", "n10", "n11"], ["n099", "n100"], ["n1", "n1"], ["a", "a"], ["n1", "m1", "n2"], ["n5", "n5", "n6"],
    ["r1n1", "r1n2", "r2n1", "r2n2"], ["n1x", "n3x"], ["n1", "n3", "n5"], ["n001", "n002", "n5"], ["1", "2"],
    ["n1", "n2", "n1", "n2"], ["n10", "n9"], ["n99", "n100", "n101"], ["n1", "n2", "n03"], ["n0", "n00"],
]  # fmt: skip
REFUSED = ["n[5-3]", "n[]", "n[a]", "n[-1]", "n[1,]", "n[,1]", "tux[0-4:2]"]


def hostnames(cluster: SlurmCluster, text: str) -> list[str]:
    return cluster.run("scontrol", "show", "hostnames", text).stdout.splitlines()


@pytest.mark.parametrize("text", HOSTLISTS)
def test_a_hostlist_expands_as_slurm_expands_it(slurm_cluster: SlurmCluster, text: str) -> None:
    assert expand(text) == hostnames(slurm_cluster, text)


@pytest.mark.parametrize("names", NAMES, ids=",".join)
def test_names_are_compressed_as_slurm_compresses_them(slurm_cluster: SlurmCluster, names: list[str]) -> None:
    written = slurm_cluster.run("scontrol", "show", "hostlist", ",".join(names)).stdout.strip()
    assert compress(names) == written
    assert hostnames(slurm_cluster, written) == names


@pytest.mark.parametrize("text", REFUSED)
def test_what_slurm_refuses_is_refused(slurm_cluster: SlurmCluster, text: str) -> None:
    assert hostnames(slurm_cluster, text) == []
    with pytest.raises(ValueError, match="range"):
        expand(text)


def test_random_lists_of_names_are_the_same_to_slurm_and_to_us(slurm_cluster: SlurmCluster) -> None:
    generator = random.Random(20240601)
    for _ in range(60):
        stems = generator.choices(["n", "gpu-", "r1n", "x_"], k=3)
        names = [
            f"{generator.choice(stems)}{generator.randrange(130):0{generator.choice([1, 2, 3])}d}"
            for _ in range(generator.randint(1, 12))
        ]
        text = compress(names)
        assert slurm_cluster.run("scontrol", "show", "hostlist", ",".join(names)).stdout.strip() == text
        assert hostnames(slurm_cluster, text) == names
