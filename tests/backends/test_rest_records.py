"""slurmrestd's answers in every shape: written here, and recorded ones where they are at hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcplan.slurm import JobState
from hpcplan.slurm import rest_records as records
from hpcplan.slurm import rest_values as read

RECORDED = Path(__file__).resolve().parents[3] / "shared" / "data" / "slurmrestd_json"
GIB = 1024**3


def number(value: int | None) -> dict[str, Any]:
    return {"set": value is not None, "infinite": False, "number": value or 0}


INFINITE = {"set": False, "infinite": True, "number": 0}
COMMON = {
    "job_id": 7, "name": "train", "cluster": "lab", "user_name": "ada", "account": "a", "partition": "batch",
    "qos": "normal", "state_reason": "None", "comment": "hpcplan:c:train:1", "dependency": "afterany:6(unfulfilled)",
    "current_working_directory": "/w", "restart_cnt": 1,
}  # fmt: skip
OLD = COMMON | {
    "job_state": "FAILED", "submit_time": 100, "eligible_time": 100, "start_time": 110, "end_time": 200,
    "time_limit": 60, "exit_code": 768, "priority": 5, "node_count": 2, "nodes": "n[1-2]", "cpus": 32,
    "tres_alloc_str": "cpu=32,mem=2G,node=2,gres/gpu=16", "array_job_id": 0, "array_task_id": None,
}  # fmt: skip
NEW = COMMON | {
    "job_state": ["FAILED"], "submit_time": number(100), "eligible_time": number(100), "start_time": number(110),
    "end_time": number(200), "time_limit": number(60), "priority": number(5), "node_count": number(2),
    "exit_code": {"status": ["ERROR"], "return_code": number(3), "signal": {"id": number(None), "name": ""}},
    "nodes": "n[1-2]", "cpus": number(32), "tres_alloc_str": "cpu=32,mem=2G,node=2,gres/gpu=16",
    "array_job_id": number(0), "array_task_id": number(None),
}  # fmt: skip


@pytest.mark.parametrize("job", [OLD, NEW], ids=["0.0.38", "0.0.44"])
def test_the_same_job_is_the_same_record_in_every_version(job: dict[str, Any]) -> None:
    (record,) = records.queued({"jobs": [job]})
    assert (record.job_id, record.state, record.exit_code, record.signal) == (7, JobState.FAILED, 3, 0)
    assert (record.submit_time, record.start_time, record.end_time, record.time_limit_s) == (100, 110, 200, 3600)
    assert (record.nodes, record.node_list, record.cpus, record.gpus) == (2, "n[1-2]", 32, 16)
    assert (record.memory_bytes, record.restarts, record.priority, record.reason) == (2 * GIB, 1, 5, None)
    assert (record.array_job_id, record.comment, record.work_dir) == (None, "hpcplan:c:train:1", "/w")


@pytest.mark.parametrize("wrap", [lambda value: value, number], ids=["0.0.38", "0.0.44"])
def test_components_of_a_heterogeneous_job_name_it_and_their_place(wrap: Any) -> None:
    job = COMMON | {"job_id": 19, "job_state": "RUNNING", "het_job_id": wrap(18), "het_job_offset": wrap(1)}
    (live,) = records.queued({"jobs": [job]})
    past = {"job_id": 19, "name": "train", "state": {"current": "COMPLETED"}, "time": {},
            "het": {"job_id": 18, "job_offset": wrap(1)}}  # fmt: skip
    (stored,) = records.stored({"jobs": [past]})
    for record in (live, stored):
        assert (record.job_id, record.het_job_id, record.het_offset, record.submitted_id) == (19, 18, 1, 18)
    for het in ({"job_id": 0, "job_offset": wrap(0)}, {"job_id": 0, "job_offset": None}, None):
        (alone,) = records.stored({"jobs": [past | {"het": het}]})
        assert (alone.het_job_id, alone.het_offset) == (None, None)
    (alone,) = records.queued({"jobs": [job | {"het_job_id": wrap(0), "het_job_offset": wrap(0)}]})
    assert (alone.het_job_id, alone.het_offset) == (None, None)


@pytest.mark.parametrize(
    ("said", "state"),
    [
        ("RUNNING", JobState.RUNNING), (["RUNNING"], JobState.RUNNING),
        (["COMPLETED", "COMPLETING"], JobState.COMPLETING),
        (["RUNNING", "CONFIGURING"], JobState.CONFIGURING), (["PENDING", "REQUEUE_HOLD"], JobState.REQUEUE_HOLD),
        (["CANCELLED"], JobState.CANCELLED), (["A_STATE_TO_COME"], JobState.UNKNOWN), ([], JobState.UNKNOWN),
        (None, JobState.UNKNOWN),
    ],
)  # fmt: skip
def test_a_state_is_what_slurms_commands_would_show(said: Any, state: JobState) -> None:
    assert read.job_state(said) is state


@pytest.mark.parametrize(
    ("said", "status"),
    [
        (768, (3, 0)), (15, (0, 15)), (number(256), (1, 0)), (None, (None, None)), (number(None), (None, None)),
        ({"status": "SIGNALED", "return_code": None, "signal": {"signal_id": 9, "name": "Killed"}}, (0, 9)),
        ({"status": ["SIGNALED"], "return_code": number(0), "signal": {"id": number(9), "name": "KILL"}}, (0, 9)),
        ({"status": "SUCCESS", "return_code": 0}, (0, 0)),
    ],
)  # fmt: skip
def test_exit_codes_of_every_shape(said: Any, status: tuple[int | None, int | None]) -> None:
    assert read.exit_status(said) == status


def test_a_waiting_job_has_no_start_and_the_gpus_that_it_asks_for() -> None:
    waiting = NEW | {"job_state": ["PENDING"], "nodes": "", "tres_alloc_str": "", "tres_per_node": "gres/gpu:h100:8"}
    (record,) = records.queued({"jobs": [waiting]})
    assert (record.start_time, record.end_time, record.exit_code, record.gpus) == (None, None, None, 16)


def test_a_limit_without_end_is_no_limit() -> None:
    (record,) = records.queued({"jobs": [NEW | {"time_limit": INFINITE}]})
    assert record.time_limit_s is None


STORED = {
    "job_id": 7, "name": "train", "cluster": "lab", "user": "ada", "account": "a", "partition": "batch",
    "qos": "normal", "comment": {"administrator": "", "job": "hpcplan:c:train:1", "system": ""},
    "allocation_nodes": 2, "array": {"job_id": 0, "task_id": None}, "nodes": "n[1-2]", "priority": 5,
    "time": {"eligible": 100, "start": 110, "end": 200, "submission": 100, "limit": number(60),
             "total": {"seconds": 0, "microseconds": 0}},
    "exit_code": {"status": ["ERROR"], "return_code": number(3)}, "state": {"current": ["FAILED"], "reason": "None"},
    "steps": [{"time": {"total": {"seconds": 2, "microseconds": 500000}},
               "tres": {"requested": {"total": [{"type": "mem", "name": "", "count": 4096}]}}}],
    "tres": {"allocated": [{"type": "cpu", "name": "", "count": 32}, {"type": "gres", "name": "gpu", "count": 16},
                           {"type": "mem", "name": "", "count": 2048}, {"type": "energy", "name": "", "count": -2}]},
    "working_directory": "/w", "flags": ["STARTED_ON_BACKFILL"],
}  # fmt: skip


def test_what_accounting_knows() -> None:
    (record,) = records.stored({"jobs": [STORED]})
    assert (record.state, record.exit_code, record.gpus, record.memory_bytes) == (JobState.FAILED, 3, 16, 2 * GIB)
    assert (record.total_cpu_s, record.max_rss_bytes, record.backfilled) == (2.5, 4096, True)
    assert (record.start_time, record.end_time, record.comment) == (110, 200, "hpcplan:c:train:1")
    assert "energy" not in record.tres


def test_a_failure_that_is_called_success_has_no_known_exit_code() -> None:
    (record,) = records.stored({"jobs": [STORED | {"exit_code": {"status": "SUCCESS", "return_code": 0}}]})
    assert (record.state, record.exit_code, record.signal) == (JobState.FAILED, None, None)


@pytest.mark.parametrize("state", [{"state": ["MIXED", "DRAIN"]}, {"state": "mixed", "state_flags": ["DRAIN"]}])
def test_a_node_that_drains_is_not_usable(state: dict[str, Any]) -> None:
    common = {"name": "n1", "cpus": 64, "alloc_cpus": 8, "real_memory": 1024, "gres": "gpu:h100:8(S:0-1)"}
    (node,) = records.nodes({"nodes": [common | state | {"partitions": ["batch"], "reason": "fan"}]})
    assert (node.state, node.flags, node.usable, node.gpus) == ("mixed", ("drain",), False, 8)
    assert (node.memory_bytes, node.partitions, node.reason) == (GIB, ("batch",), "fan")


def test_waiting_tasks_of_an_array_are_named_in_both_shapes() -> None:
    (queued,) = records.queued({"jobs": [NEW | {"array_job_id": number(34), "array_task_string": "2-3%1"}]})
    (stored,) = records.stored({"jobs": [STORED | {"array": {"job_id": 34, "task_id": None, "task": "2-3%1"}}]})
    assert (queued.array_tasks_waiting, stored.array_tasks_waiting) == ("2-3%1", "2-3%1")


def test_partitions_of_both_shapes() -> None:
    flat = {"name": "batch", "nodes": "n[1-8]", "total_nodes": 8, "state": "UP", "flags": ["default"],
            "max_time_limit": 60, "default_time_limit": None, "maximum_nodes_per_job": -1}  # fmt: skip
    deep = {"name": "long", "nodes": {"configured": "n[1-8]", "total": 8}, "partition": {"state": ["UP"]},
            "maximums": {"time": INFINITE, "nodes": number(4)}, "defaults": {"time": number(30)}}  # fmt: skip
    batch, long = records.partitions({"partitions": [flat, deep]})
    assert (batch.default, batch.max_time_s, batch.max_nodes, batch.state) == (True, 3600, None, "up")
    assert (long.max_time_s, long.default_time_s, long.max_nodes, long.total_nodes) == (None, 1800, 4, 8)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*NEW, *STORED]), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from([*NEW, *STORED]), JSON, max_size=8), st.sampled_from([NEW, STORED]))
def test_no_shape_to_come_stops_a_tracker(spoilt: dict[str, Any], base: dict[str, Any]) -> None:
    answer = {"jobs": [base | spoilt], "nodes": [base | spoilt], "partitions": [base | spoilt]}
    for parse in (records.queued, records.stored, records.nodes, records.partitions):
        for record in parse(answer):  # type: ignore[operator]
            assert record is not None


@pytest.mark.skipif(not RECORDED.is_dir(), reason="the recorded answers are not at hand")
def test_every_recorded_answer_is_understood() -> None:
    seen = {"jobs": 0, "nodes": 0, "partitions": 0}
    for path in sorted(RECORDED.glob("*/*.json")):
        answer = json.loads(path.read_text())
        if "jobs" in answer:
            found = (records.stored if path.name.startswith("slurmdb") else records.queued)(answer)
            assert len(found) == len(answer["jobs"]), path
            seen["jobs"] += len(found)
            for record, job in zip(found, answer["jobs"], strict=True):
                assert record.state is not JobState.UNKNOWN, path
                assert record.submit_time is not None, path
                assert record.user, path
                assert record.cluster == "hpc", path
                if not path.name.startswith("slurmdb"):  # which hears of a job's partition and limits a moment later
                    assert None not in (record.partition, record.time_limit_s, record.work_dir), path
                assert (record.start_time is not None) == (record.node_list is not None), path
                if record.state in (JobState.COMPLETED, JobState.FAILED):
                    assert None not in (record.end_time, record.exit_code, record.nodes), path
                if job.get("gres_detail"):
                    assert record.gpus, path
        for node in records.nodes(answer):
            seen["nodes"] += 1
            assert node.state in {"idle", "mixed", "allocated", "down"}, path
            assert node.memory_bytes, path
        for partition in records.partitions(answer):
            seen["partitions"] += 1
            assert partition.nodes, path
            assert partition.total_nodes, path
    assert min(seen.values()) > 5, seen
