"""``sacct --json`` of any release gives the same jobs as its text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hpcplan.errors import InputError
from hpcplan.report import jobs_of, read_sacct
from tests.report.conftest import Read


def number(value: int | None, *, old: bool) -> Any:
    if old:
        return value or 0
    return {"set": value is not None, "infinite": False, "number": value or 0}


def job(*, old: bool, **changes: Any) -> dict[str, Any]:
    total = {"seconds": 7200, "microseconds": 500_000}
    usage = [{"type": "cpu", "name": "", "id": 1, "count": 7_200_000}, {"type": "mem", "name": "",
        "id": 2, "count": 2**30},
             {"type": "gres", "name": "gpuutil", "id": 9, "count": 150}]  # fmt: skip
    step = {
        "time": {"elapsed": 3600, "total": total}, "tasks": {"count": 2},
        "state": "COMPLETED" if old else ["COMPLETED"],
        "step": {"id": {"job_id": 7, "step_id": "0"} if old else "7.0", "name": "x"},
        "tres": {"requested": {"total": usage}, "consumed": {"total": []}},
    }  # fmt: skip
    held = [{"type": "cpu", "name": "", "count": 4}, {"type": "mem", "name": "", "count": 4096},
        {"type": "node", "name": "",
            "count": 1}, {"type": "gres", "name": "gpu", "count": 2}, {"type": "energy",
            "name": "", "count": -2}]  # fmt: skip
    made: dict[str, Any] = {
        "job_id": 7, "name": "train", "user": "alice", "account": "physics", "cluster": "c",
        "partition": "gpu", "nodes": "n1",
        "array": {"job_id": 0, "task_id": number(None, old=old), "task": ""},
        "het": {"job_id": 0, "job_offset": number(None, old=old)},
        "state": {"current": "COMPLETED" if old else ["COMPLETED"], "reason": "None"}, "flags": ["STARTED_ON_BACKFILL"],
        "exit_code": {"status": "SUCCESS", "return_code": number(0, old=old)}, "allocation_nodes": 1,
        "comment": {"administrator": "", "job": "hpcplan:c1:train:1", "system": ""},
        "required": {"CPUs": 4, "memory_per_cpu": number(1024, old=old), "memory_per_node": number(None, old=old)},
        "time": {"submission": 1_000_000, "eligible": 1_000_000, "start": 1_000_600, "end": 1_004_200, "elapsed": 3600,
                 "limit": number(120, old=old), "total": total},
        "tres": {"allocated": held, "requested": held}, "steps": [step],
    }  # fmt: skip
    return made | changes


@pytest.mark.parametrize("old", [True, False])
def test_a_job_and_its_steps(read_text: Read, old: bool) -> None:
    table, faults = read_text(json.dumps({"meta": {}, "jobs": [job(old=old)], "errors": []}))
    (found,) = jobs_of(table)
    assert faults.total == 0
    expected = {
        "job_id": "7", "user": "alice", "state": "COMPLETED", "wait_s": 600, "elapsed_s": 3600, "time_limit_s": 7200,
        "cpus": 4, "gpus": 2, "nodes": 1, "memory_bytes": 4 * 2**30, "cpu_used_s": 7200.5, "memory_used_bytes": 2**30,
        "backfilled": True, "exit_code": 0, "gpu_efficiency": 0.75,
    }  # fmt: skip
    assert {key: found[key] for key in expected} == expected
    assert found["cpu_efficiency"] == pytest.approx(0.5, rel=1e-3)
    assert table["comment"].to_list() == ["hpcplan:c1:train:1"]
    assert table["energy_j"].to_list() == [None]


@pytest.mark.parametrize("name", [0, "batch", "7.0", {"job_id": 7, "step_id": "0"}, {"job_id": 7, "step_id": 0}])
def test_a_steps_id_has_several_shapes(read_text: Read, name: object) -> None:
    record = job(old=False)
    record["steps"][0]["step"] = {"job_id": 7, "id": name, "name": "x"}
    table, faults = read_text(json.dumps({"jobs": [record]}))
    assert faults.total == 0
    assert jobs_of(table)[0]["memory_used_bytes"] == 2**30


def test_arrays_and_heterogeneous_jobs_have_their_labels(read_text: Read) -> None:
    task = {"job_id": 5, "task_id": number(0, old=False), "task": ""}
    waiting = {"job_id": 5, "task_id": number(None, old=False), "task": "3-9"}
    part = {"job_id": 6, "job_offset": number(1, old=False)}
    jobs = [job(old=False, array=task), job(old=False, job_id=8, array=waiting), job(old=False, job_id=9, het=part)]
    assert {one["job_id"] for one in jobs_of(read_text(json.dumps({"jobs": jobs}))[0])} == {"5_0", "5_[3-9]", "6+1"}


def test_an_unlimited_job_has_no_limit_and_a_pending_one_no_start(read_text: Read) -> None:
    time = {
        "submission": 1_000_000,
        "start": 0,
        "end": 0,
        "elapsed": 0,
        "limit": {"set": False, "infinite": True, "number": 0},
    }
    table, _ = read_text(json.dumps({"jobs": [job(old=False, time=time, state={"current": ["PENDING"]}, steps=[])]}))
    (found,) = jobs_of(table)
    assert (found["state"], found["start_time"], found["time_limit_s"]) == ("PENDING", None, None)


def test_several_documents_and_damaged_jobs(read_text: Read) -> None:
    text = (
        json.dumps({"jobs": [job(old=True), 3, {"job_id": "x"}]})
        + "\n"
        + json.dumps({"jobs": [job(old=False, job_id=8)]})
    )
    table, faults = read_text(text)
    assert {one["job_id"] for one in jobs_of(table)} == {"7", "8"}
    assert faults.counts["row skipped"] == 2


@pytest.mark.parametrize(
    ("changes", "gpus"),
    [
        ({"gres_detail": ["gpu:h100:4(IDX:0-3)", "gpu:h100:2(IDX:0,2)"]}, 6),
        ({"tres_per_job": "gres/gpu:8"}, 8),
        ({"tres_per_node": "gres:gpu:h100:2"}, 4),
        ({"tres_per_task": "gres/gpu=1"}, 3),
        ({"tres_per_socket": "gres/gpu:2"}, None),
        ({}, None),
    ],
)
def test_squeue_tells_gpus_of_a_site_that_does_not_account_for_them(
    read_text: Read, changes: dict[str, object], gpus: int | None
) -> None:
    running = {
        "job_id": 7, "job_state": ["RUNNING"], "submit_time": number(1000, old=False), "gres_detail": [],
        "start_time": number(1060, old=False), "end_time": number(4660, old=False), "node_count": number(2, old=False),
        "tasks": number(3, old=False), "tres_alloc_str": "cpu=6,mem=6G,node=2", **changes,
    }  # fmt: skip
    table, faults = read_text(json.dumps({"jobs": [running], "last_update": number(1100, old=False)}))
    assert faults.total == 0
    (found,) = jobs_of(table)
    assert (found["gpus"], found["elapsed_s"], found["wait_s"], found["cpus"]) == (gpus, 40, 60, 6)


def test_an_error_that_slurm_reports_is_counted_and_stops_nothing(read_text: Read) -> None:
    refused = {"errors": [{"description": "Unable to query JobId=306", "error": "Invalid job id specified"}]}
    text = json.dumps(refused) + json.dumps({"jobs": [job(old=True)], "errors": []})
    table, faults = read_text(text)
    assert len(table) == 1
    assert faults.counts == {"Slurm reports an error": 1}
    assert "306: Invalid job id" in faults.quoted[0].message


@pytest.mark.parametrize("text", ['{"jobs": ', '{"nodes": []}', "[1, 2"])
def test_json_that_holds_no_jobs_is_refused(read_text: Read, text: str) -> None:
    with pytest.raises(InputError):
        read_text(text)


def test_recorded_answers_of_three_releases(shared_data: Path) -> None:
    read = 0
    for path in sorted((shared_data / "slurmrestd_json").glob("*/slurm*-job*.json")):
        document = json.loads(path.read_text())
        if not document.get("jobs"):
            continue
        table, faults = read_sacct([path])
        assert faults.total == 0, (path, faults.quoted)
        assert len(table) == len(document["jobs"])
        read += 1
        if path.name in ("slurmdb-job-completed.json", "slurmdb-job-timeout.json"):
            (found,) = jobs_of(table)
            time = document["jobs"][0]["time"]
            assert (found["start_time"], found["end_time"]) == (time["start"], time["end"])
            assert found["time_limit_s"] == time["limit"]["number"] * 60
            assert found["elapsed_s"] == time["elapsed"]
            assert found["nodes"] == document["jobs"][0]["allocation_nodes"]
    assert read > 60
