"""The pyslurm backend over a module of the shape that pyslurm 22.5.3 had on a real Slurm 22.05.8."""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hpcplan.errors import InputError, SlurmError, SlurmUnreachableError
from hpcplan.slurm import Backend, JobState, Submission
from hpcplan.slurm.choose import available, open_backend
from hpcplan.slurm.command import CommandBackend
from hpcplan.slurm.pyslurm import PyslurmBackend, connect, probe

MADE_UP = Path(__file__).parent / "made_up"
Install = Callable[..., Any]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Install]:
    """Return a function that puts the made-up pyslurm on sys.path, with this state."""
    before = sys.modules.pop("pyslurm", None)

    def put(**state: Any) -> None:
        path = tmp_path / "pyslurm.json"
        path.write_text(json.dumps(state))
        monkeypatch.setenv("MADE_UP_PYSLURM", str(path))
        monkeypatch.syspath_prepend(str(MADE_UP))
        sys.modules.pop("pyslurm", None)

    yield put
    sys.modules.pop("pyslurm", None)
    if before is not None:
        sys.modules["pyslurm"] = before


@pytest.fixture
def backend_with(install: Install, made_up: Any) -> Callable[..., PyslurmBackend]:
    """Return a function that opens the backend over a state; sacct is installed unless it is taken away."""

    def opened(**state: Any) -> PyslurmBackend:
        install(**state)
        return PyslurmBackend(importlib.import_module("pyslurm"), CommandBackend())

    return opened


def test_a_pyslurm_that_works_is_found(install: Install) -> None:
    install()
    found = probe()
    assert (found.works, found.detail) == (True, "pyslurm 22.5.3, cluster lab")


def test_a_pyslurm_that_is_not_installed_is_said_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    found = probe()
    assert not found.works
    assert "pip install" in found.detail
    with pytest.raises(SlurmUnreachableError, match="not installed") as caught:
        connect()
    assert caught.value.hint is not None


def test_an_import_that_ends_its_process_ends_a_child_and_not_us(install: Install) -> None:
    install(import_exits=1)
    found = probe()
    assert (found.works, "configuration source" in found.detail) == (False, True)
    assert "pyslurm" not in sys.modules


def test_an_import_that_hangs_is_given_up(install: Install) -> None:
    install(import_sleeps_s=60)
    found = probe(limit_s=1)
    assert (found.works, found.detail) == (False, "installed, but gives no answer within 1 s")


def test_an_import_that_fails_says_why(install: Install) -> None:
    install(import_raises="libslurmfull.so: cannot open shared object file")
    assert "libslurmfull.so" in probe().detail


def test_a_controller_that_does_not_answer_says_so(install: Install) -> None:
    install(fail={"config": "Unable to contact slurm controller (connect failure)"})
    assert "Unable to contact slurm controller" in probe().detail


def test_a_pyslurm_of_the_old_api_is_not_used(install: Install) -> None:
    install(as_of="before 22.5")
    found = probe()
    assert not found.works
    assert "older than 22.5" in found.detail


def test_it_is_a_backend(backend_with: Callable[..., PyslurmBackend]) -> None:
    backend = backend_with()
    assert isinstance(backend, Backend)
    info = backend.ping()
    assert (info.backend, info.cluster, info.version, info.accounting) == ("pyslurm", "lab", "22.05", True)


def test_ping_without_slurmdbd(backend_with: Callable[..., PyslurmBackend]) -> None:
    assert not backend_with(fail={"connection": "Connection refused"}).ping().accounting


def test_a_running_job_in_our_units(backend_with: Callable[..., PyslurmBackend]) -> None:
    (record,) = backend_with(jobs=[{"id": 31, "memory": 4000, "requeue_count": 2}]).jobs([31])
    assert (record.job_id, record.state, record.name, record.comment) == (31, JobState.RUNNING, "wrap", "token-1")
    assert (record.submit_time, record.start_time, record.end_time, record.time_limit_s) == (1000, 1010, None, 3600)
    assert (record.nodes, record.node_list, record.cpus, record.gpus) == (2, "n[0-1]", 32, 8)
    assert (record.memory_bytes, record.restarts, record.reason) == (4000 * 1024**2, 2, None)
    assert (record.exit_code, record.signal) == (None, None)
    assert record.tres == {"cpu": 32, "mem": 4000 * 1024**2, "node": 2, "gres/gpu": 8}


def test_a_waiting_job_has_no_start_and_keeps_its_dependency(backend_with: Callable[..., PyslurmBackend]) -> None:
    dependencies = {"after": [], "afterany": ["31(unfulfilled)"], "afterok": ["32(unfulfilled)"], "singleton": True,
                    "satisfy": "all"}  # fmt: skip
    (record,) = backend_with(
        jobs=[{"id": 33, "state": "PENDING", "state_reason": "Dependency", "allocated_nodes": None,
               "start_time": 99999, "time_limit": None, "dependencies": dependencies}]
    ).jobs([33])  # fmt: skip
    assert (record.state, record.reason, record.start_time, record.node_list) == (
        JobState.PENDING, "Dependency", None, None,
    )  # fmt: skip
    assert record.dependency == "afterany:31(unfulfilled),afterok:32(unfulfilled),singleton"
    assert (record.time_limit_s, record.gpus) == (None, 8)


def test_gpus_as_25_11_counts_them(backend_with: Callable[..., PyslurmBackend]) -> None:
    jobs = [{"id": 1, "gpus": {"gpu": 16, "gpu:h100": 16}}, {"id": 2, "gpus": {"gpu:h100": 4, "gpu:a100": 2}}]
    assert [record.gpus for record in backend_with(jobs=jobs).jobs([1, 2])] == [16, 6]


def test_array_tasks_name_their_array(backend_with: Callable[..., PyslurmBackend]) -> None:
    jobs = [
        {"id": 35, "array_id": 34, "array_task_id": 1},
        {"id": 34, "array_id": 34, "array_tasks_waiting": "2-3", "state": "PENDING", "allocated_nodes": None},
    ]
    waiting, task = backend_with(jobs=jobs).jobs([34, 35])
    assert (task.array_job_id, task.array_task_id) == (34, 1)
    assert (waiting.array_job_id, waiting.array_task_id) == (34, None)
    assert (task.array_tasks_waiting, waiting.array_tasks_waiting) == (None, "2-3")


@pytest.mark.parametrize("word", ["hetjob", "heterogeneous"])
def test_components_of_a_heterogeneous_job_come_with_its_id(
    word: str, backend_with: Callable[..., PyslurmBackend]
) -> None:
    jobs = [{"id": 18 + place, f"{word}_id": 18, f"{word}_offset": place} for place in range(2)]
    found = backend_with(jobs=[*jobs, {"id": 20, f"{word}_id": 0, f"{word}_offset": 0}]).jobs([18])
    assert [(one.job_id, one.het_job_id, one.het_offset) for one in found] == [(18, 18, 0), (19, 18, 1)]


def test_without_ids_only_the_users_own_jobs_come(backend_with: Callable[..., PyslurmBackend]) -> None:
    backend = backend_with(jobs=[{"id": 1}, {"id": 2, "user_id": os.getuid() + 1}])
    assert [record.job_id for record in backend.jobs()] == [1]
    assert [record.job_id for record in backend.jobs([1, 2])] == [1, 2]
    assert backend.jobs([]) == []


def test_history_comes_from_sacct_where_that_is_installed(
    made_up: Any, backend_with: Callable[..., PyslurmBackend]
) -> None:
    row = {"JobIDRaw": "6", "JobID": "6", "State": "COMPLETED", "Submit": "900", "End": "990", "NodeList": "n0"}
    made_up.answer("sacct", rows=[row])
    backend = backend_with(jobs=[{"id": 7}], stored=[{"id": 6}])
    assert [(record.job_id, record.state) for record in backend.jobs([6, 7], since=0)] == [
        (6, JobState.COMPLETED),
        (7, JobState.RUNNING),
    ]
    assert [record.state for record in backend.accounting(0, 10)] == [JobState.COMPLETED]


def test_history_comes_from_slurmdbd_where_sacct_is_missing(
    made_up: Any, backend_with: Callable[..., PyslurmBackend]
) -> None:
    made_up.remove("sacct")
    backend = backend_with(stored=[{"id": 6}, {"id": 8, "nodelist": "None assigned", "start_time": None}])
    record, never_started = backend.jobs([6, 8], since=0)
    assert (record.state, record.exit_code, record.signal, record.end_time) == (JobState.FAILED, 3, 0, 1110)
    assert (record.total_cpu_s, record.max_rss_bytes, record.gpus) == (40.0, 4096, None)
    assert (never_started.start_time, never_started.node_list) == (None, None)
    assert [record.job_id for record in backend.accounting(0, 2000)] == [6, 8]


def test_without_accounting_the_queue_alone_is_told(made_up: Any, backend_with: Callable[..., PyslurmBackend]) -> None:
    made_up.remove("sacct")
    backend = backend_with(jobs=[{"id": 7}], fail={"stored": "Connection refused"})
    assert [record.job_id for record in backend.jobs([6, 7])] == [7]
    with pytest.raises(SlurmUnreachableError):
        backend.accounting(0, 10)


def test_errors_are_unreachable_or_slurms_words(backend_with: Callable[..., PyslurmBackend]) -> None:
    backend = backend_with(
        fail={"jobs": "Unable to contact slurm controller (connect failure)", "nodes": "Access/permission denied"}
    )
    with pytest.raises(SlurmUnreachableError):
        backend.jobs([1])
    with pytest.raises(SlurmError, match="pyslurm: nodes: Access/permission denied") as caught:
        backend.nodes()
    assert not isinstance(caught.value, SlurmUnreachableError)


def test_scripts_are_submitted_as_rendered_with_sbatch(
    made_up: Any, backend_with: Callable[..., PyslurmBackend]
) -> None:
    made_up.answer("sbatch", stdout="42\n")
    backend = backend_with()
    submission = Submission(script="/s/a.sbatch", work_dir="/w", comment="token")
    assert backend.submit(submission) == 42
    assert backend.estimate_start(submission) is None
    assert [call["argv"][0] for call in made_up.calls("sbatch")] == ["--parsable", "--test-only"]


def test_actions_reach_every_job_though_one_fails(backend_with: Callable[..., PyslurmBackend]) -> None:
    backend = backend_with(fail={"requeue 2": "Job is pending execution"})
    with pytest.raises(SlurmError, match="requeue 2: Job is pending execution"):
        backend.requeue([1, 2, 3])
    backend.release([4])
    assert sys.modules["pyslurm"].CALLS == ["requeue 1", "requeue 2", "requeue 3", "release 4"]


def test_holding_is_left_to_scontrol(made_up: Any, backend_with: Callable[..., PyslurmBackend]) -> None:
    backend_with().hold([1, 2])
    assert made_up.calls()[0]["argv"] == ["uhold", "1,2"]


def test_a_cancellation_that_pyslurm_says_failed_is_left_to_scancel(
    made_up: Any, backend_with: Callable[..., PyslurmBackend]
) -> None:
    backend_with(fail={"cancel 2": "an error of an earlier call"}).cancel([1, 2])
    assert [call["argv"] for call in made_up.calls("scancel")] == [["2"]]


def test_nodes_and_partitions(backend_with: Callable[..., PyslurmBackend]) -> None:
    backend = backend_with(
        nodes=[{"name": "n10", "state": "IDLE+DRAIN", "reason": "bad"}, {"name": "n2", "state": "ALLOCATED",
               "allocated_cpus": 8}, {"name": "n1", "state": "ALLOCATED", "allocated_cpus": 16}],
        partitions=[{"name": "long"}, {"name": "batch", "is_default": True, "max_time": 1440, "default_time": 60,
                    "max_nodes": 4}],
    )  # fmt: skip
    full, part, drained = backend.nodes()
    assert [(node.name, node.state) for node in (full, part, drained)] == [
        ("n1", "allocated"),
        ("n2", "mixed"),
        ("n10", "idle"),
    ]
    assert (drained.usable, drained.reason, full.gpus, full.memory_bytes) == (False, "bad", 8, 2000 * 1024**2)
    batch, long = backend.partitions()
    assert (batch.default, batch.max_time_s, batch.default_time_s, batch.max_nodes) == (True, 86400, 3600, 4)
    assert (long.default, long.max_time_s, long.default_time_s, long.max_nodes) == (False, None, None, None)


def test_auto_takes_pyslurm_where_it_works_and_the_commands_where_it_does_not(install: Install, made_up: Any) -> None:
    install()
    assert open_backend("auto").name == "pyslurm"
    install(import_exits=1)
    assert open_backend("auto").name == "command"


def test_pyslurm_that_was_asked_for_and_does_not_work_is_an_error(install: Install, made_up: Any) -> None:
    install(import_exits=1)
    with pytest.raises(SlurmUnreachableError):
        open_backend("pyslurm")
    assert open_backend("command").name == "command"


def test_a_backend_of_no_such_kind_is_bad_input() -> None:
    with pytest.raises(InputError, match="did you mean 'command'"):
        open_backend("comand")


def test_the_doctor_is_told_how_each_backend_stands(install: Install, made_up: Any) -> None:
    install()
    made_up.answer("scontrol", stdout="ClusterName = lab\nSLURM_VERSION = 24.05.1\nAccountingStorageType = (null)\n")
    pyslurm, command, rest = available()
    assert (pyslurm.name, pyslurm.ok) == ("pyslurm", True)
    assert (command.name, command.ok) == ("command", True)
    assert (rest.name, rest.ok) == ("rest", False)
    assert "HPCPLAN_SLURMRESTD" in rest.detail
    assert command.detail.startswith("Slurm 24.05.1, cluster lab, without accounting")
    made_up.answer("scontrol", rc=1, stderr="slurm_load_ctl_conf error: Unable to contact slurm controller\n")
    assert "Unable to contact slurm controller" in available()[1].detail
    made_up.remove("sbatch")
    assert (available()[1].ok, available()[1].detail) == (False, "Slurm's commands are not installed here: no sbatch")


def test_the_doctor_survives_an_environment_that_names_several_clusters(
    made_up: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_CLUSTERS", "a,b")
    assert not available()[1].ok
