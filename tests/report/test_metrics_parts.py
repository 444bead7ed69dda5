"""How full each part of the cluster was, against sums written out."""

from __future__ import annotations

import dataclasses

import pytest

from hpcplan.report import build_report, render
from hpcplan.report.rows import Part
from hpcplan.report.site_facts import SiteFacts
from hpcplan.slurm.records import JobRecord, JobState, NodeRecord

START, HOUR = 1_714_521_600, 3600
JOB = JobRecord(
    job_id=1, state=JobState.COMPLETED, name="a", user="alice", account="physics", partition="batch", submit_time=START,
    eligible_time=START, start_time=START + HOUR, end_time=START + 3 * HOUR, time_limit_s=4 * HOUR, nodes=1,
    node_list="c1", cpus=8, gpus=0, memory_bytes=16 * 2**30,
)  # fmt: skip
ON_GPUS = dataclasses.replace(
    JOB, job_id=2, partition="gpu", node_list="g1", gpus=2, tres={"cpu": 8, "gres/gpu": 2, "gres/gpu:a100": 2}
)
NODES = [
    NodeRecord("c1", "idle", partitions=("batch", "all"), cpus=16, gpus=0),
    NodeRecord("c2", "idle", partitions=("batch", "all"), cpus=16, gpus=0),
    NodeRecord("g1", "idle", partitions=("gpu", "all"), cpus=32, gpus=4, gres="gpu:a100:4(S:0-1)"),
]


def parts(records: list[JobRecord], nodes: list[NodeRecord] | None) -> dict[tuple[str, str], Part]:
    report = build_report(records, start=START, end=START + 4 * HOUR, nodes=nodes)
    return {(part.kind, part.name): part for part in report.parts}


def test_each_part_is_measured_against_its_own_size() -> None:
    found = parts([JOB, ON_GPUS], NODES)
    batch, gpu, idle = found["partition", "batch"], found["partition", "gpu"], found["partition", "all"]
    assert (batch.nodes, batch.cpus, batch.cpus_in_use, batch.cpu_utilisation) == (2, 32, 4.0, 4 / 32)
    assert (batch.gpus, batch.gpu_utilisation, batch.node_utilisation) == (0, None, 0.25)
    assert (gpu.gpus, gpu.gpus_in_use, gpu.gpu_utilisation, gpu.node_utilisation) == (4, 1.0, 0.25, 0.5)
    assert (idle.cpus_in_use, idle.cpu_utilisation) == (0.0, 0.0)  # no jobs of its own, though its nodes were busy
    assert idle.node_utilisation == pytest.approx(1 / 3)
    assert found["node group", "c"].cpus == 32
    kind = found["GPU kind", "a100"]
    assert (kind.nodes, kind.gpus, kind.gpu_utilisation, kind.cpu_utilisation) == (1, 4, 0.25, None)


def test_use_over_time_is_told_bin_by_bin_and_its_mean_is_the_utilisation() -> None:
    part = parts([JOB, ON_GPUS], NODES)["partition", "batch"]
    assert part.over_time is not None
    assert len(part.over_time) == 24
    assert part.over_time[:6] == (0.0,) * 6
    assert part.over_time[6:18] == (0.25,) * 12
    assert sum(part.over_time) / 24 == pytest.approx(part.cpu_utilisation)


def test_without_nodes_on_record_utilisation_is_unknown_and_what_was_in_use_is_not() -> None:
    part = parts([JOB], None)["partition", "batch"]
    assert (part.nodes, part.cpus, part.cpu_utilisation, part.over_time) == (None, None, None, None)
    assert part.cpus_in_use == 4.0


def test_a_run_of_unknown_size_makes_its_parts_use_unknown() -> None:
    part = parts([JOB, dataclasses.replace(JOB, job_id=3, cpus=None)], NODES)["partition", "batch"]
    assert (part.cpus_in_use, part.cpu_utilisation, part.over_time) == (None, None, None)


def test_groups_are_the_sites_where_it_names_them() -> None:
    facts = SiteFacts(group_of_node={"c1": "thin", "c2": "thin", "g1": "fat"})
    report = build_report([JOB, ON_GPUS], start=START, end=START + 4 * HOUR, nodes=NODES, known=facts)
    assert {part.name for part in report.parts if part.kind == "node group"} == {"thin", "fat"}


def test_the_pages_show_them() -> None:
    report = build_report([JOB, ON_GPUS], start=START, end=START + 4 * HOUR, nodes=NODES)
    page = render(report, "html")
    assert "How full each part was" in page
    assert "Use by part of the cluster" in page
    assert "| batch | partition | 2 | 32 |" in render(report, "md")
