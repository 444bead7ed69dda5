"""The controller's door: what a request comes to, and what it is refused with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hpcplan.errors import SlurmError
from hpcplan.simulate.admission import resolve
from hpcplan.simulate.jobs import UNLIMITED_S, JobSpec
from hpcplan.simulate.machine import Machine
from hpcplan.site.load import load_site
from tests.simulate.clusters import GIB, SITE, machine, write_site

FAILED = "sbatch: error: Batch job submission failed: "
UNAVAILABLE = FAILED + "Requested node configuration is not available"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """Six nodes with 64 CPUs and 8 GPUs, two with 16 CPUs; see clusters.SITE."""
    return Machine.from_site(load_site(write_site(tmp_path_factory.mktemp("site"))).site)


@pytest.mark.parametrize(
    ("options", "nodes"),
    [
        ({}, (1, 1)),
        ({"nodes_min": 3, "nodes_max": 3}, (3, 3)),
        ({"nodes_min": 2, "nodes_max": 5}, (2, 5)),
        ({"nodes_min": 2, "nodes_max": 50}, (2, 6)),
        ({"ntasks": 64}, (1, 1)),
        ({"ntasks": 65}, (2, 2)),
        ({"ntasks": 20, "cpus_per_task": 8}, (3, 3)),
        ({"ntasks": 20, "ntasks_per_node": 4}, (5, 5)),
        ({"gpus": 20}, (3, 3)),
        ({"ntasks": 40, "gpus_per_task": 1}, (5, 5)),
        ({"gpus_per_node": 4}, (1, 1)),
        ({"nodes_min": 2, "nodes_max": 2, "ntasks": 1}, (1, 1)),
        ({"nodelist": "b[2,5]"}, (2, 2)),
        ({"nodelist": "b[2,5]", "nodes_min": 4, "nodes_max": 4}, (4, 4)),
    ],
)
def test_a_request_comes_to_so_many_whole_nodes(site: Machine, options: dict[str, Any], nodes: tuple[int, int]) -> None:
    request = resolve(JobSpec(**options), site)
    assert (request.minimum, request.maximum) == nodes


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({}, "b[1-6]"),
        ({"partition": "debug"}, "b[1-6],s[1-2]"),
        ({"partition": "debug", "gpus_per_node": 1}, "b[1-6]"),
        ({"partition": "debug", "cpus_per_task": 17}, "b[1-6]"),
        ({"partition": "debug", "memory_per_node_bytes": 65 * GIB}, "b[1-6]"),
        ({"partition": "debug", "memory_per_node_bytes": 64 * GIB}, "b[1-6],s[1-2]"),
        ({"partition": "debug", "constraint": "h100&nvme"}, "b[1-6]"),
        ({"partition": "debug", "constraint": "h100|nvme", "exclude": "b[1-4]"}, "b[5-6]"),
        ({"gpus_per_node": 8, "gpu_type": "h100"}, "b[1-6]"),
    ],
)
def test_only_nodes_that_have_what_is_asked_for_may_serve(site: Machine, options: dict[str, Any], names: str) -> None:
    assert site.node_list(resolve(JobSpec(**options), site).eligible) == names


def test_the_limit_is_what_was_asked_for_else_the_partitions_default_else_its_maximum(site: Machine) -> None:
    assert resolve(JobSpec(time_limit_s=120), site).limit_s == 120
    assert resolve(JobSpec(), site).limit_s == 3600
    assert resolve(JobSpec(partition="debug"), site).limit_s == 1800
    assert resolve(JobSpec(), machine()).limit_s == UNLIMITED_S
    assert resolve(JobSpec(time_limit_s=0), machine()).limit_s == UNLIMITED_S


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"time_limit_s": 86400}, None),
        ({"time_limit_s": 86460}, "PartitionTimeLimit"),
        ({"time_limit_s": 0}, "PartitionTimeLimit"),
        ({"nodes_min": 7, "nodes_max": 7}, "PartitionNodeLimit"),
        ({"partition": "debug", "nodes_min": 3, "nodes_max": 3}, "PartitionNodeLimit"),
        ({"partition": "debug", "nodes_min": 2, "nodes_max": 2}, None),
    ],
)
def test_a_limit_of_the_partition_lets_a_job_in_to_wait_for_ever(
    site: Machine, options: dict[str, Any], reason: str | None
) -> None:
    assert resolve(JobSpec(**options), site).limit_reason == reason


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"partition": "gpu"},
            f"sbatch: error: invalid partition specified: gpu\n{FAILED}Invalid partition name specified",
        ),
        ({"nodes_min": 0, "nodes_max": 0}, FAILED + "Node count specification invalid"),
        ({"gpus_per_node": 9}, UNAVAILABLE),
        ({"gpus_per_node": 8, "gpu_type": "a100"}, UNAVAILABLE),
        ({"ntasks_per_node": 65}, f"sbatch: error: CPU count per node can not be satisfied\n{UNAVAILABLE}"),
        (
            {"memory_per_node_bytes": 513 * GIB},
            f"sbatch: error: Memory specification can not be satisfied\n{UNAVAILABLE}",
        ),
        ({"nodelist": "b9"}, FAILED + "Invalid node name specified"),
        ({"exclude": "b9"}, FAILED + "Invalid node name specified"),
        ({"nodelist": "s1"}, UNAVAILABLE),
        ({"constraint": "h200"}, FAILED + "Invalid feature specification"),
        ({"nodes_min": 5, "nodes_max": 5, "exclude": "b[1-2]"}, UNAVAILABLE),
        ({"nodes_min": 1, "nodes_max": 1, "gpus": 16}, UNAVAILABLE),
    ],
)
def test_what_cannot_be_is_refused_in_the_controllers_words(
    site: Machine, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(SlurmError) as caught:
        resolve(JobSpec(**options), site)
    assert caught.value.message == message


def test_a_refusal_says_what_there_is(site: Machine) -> None:
    with pytest.raises(SlurmError) as caught:
        resolve(JobSpec(gpus_per_node=8, gpu_type="a100"), site)
    assert caught.value.hint == "these nodes have gpu:h100:8"
    with pytest.raises(SlurmError) as caught:
        resolve(JobSpec(partition="bath"), site)
    assert caught.value.hint == "did you mean 'batch'?"


def test_a_qos_that_the_partition_does_not_allow_is_refused(tmp_path: Path) -> None:
    text = SITE.replace("default: true,", "default: true, qos: [normal],")
    cluster = Machine.from_site(load_site(write_site(tmp_path, text)).site)
    assert resolve(JobSpec(qos="normal"), cluster).partition == "batch"
    with pytest.raises(SlurmError, match="Invalid qos specification"):
        resolve(JobSpec(qos="high"), cluster)
