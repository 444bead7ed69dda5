"""The command backend against a real slurmctld and slurmdbd, beyond what every backend has to do."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hpcplan.errors import SlurmError, SlurmUnreachableError
from hpcplan.slurm import Backend, JobRecord, JobState, Submission
from hpcplan.slurm.command import CommandBackend
from tests.slurm.cluster import SlurmCluster

Script = Callable[..., Submission]


@pytest.fixture
def script(slurm: SlurmCluster) -> Script:
    """Return a function that writes a job script and describes its submission."""
    folder = slurm.job_folder()

    def write(body: str = "true", *directives: str, name: str = "job", **options: object) -> Submission:
        path = folder / f"{name}.sbatch"
        lines = ["#!/bin/bash", *(f"#SBATCH {directive}" for directive in directives), body]
        path.write_text("\n".join(lines) + "\n")
        return Submission(script=str(path), work_dir=str(folder), **options)  # type: ignore[arg-type]

    return write


def only(backend: Backend, job_id: int) -> JobRecord:
    (record,) = backend.jobs([job_id])
    return record


def wait_for(slurm: SlurmCluster, backend: Backend, job_id: int, *states: JobState) -> JobRecord:
    slurm.wait_until(lambda: only(backend, job_id).state in states, f"job {job_id} is {' or '.join(states)}")
    return only(backend, job_id)


def test_ping_names_cluster_version_and_accounting(slurm: SlurmCluster, backend: CommandBackend) -> None:
    info = backend.ping()
    assert (info.backend, info.cluster, info.accounting) == ("command", slurm.name, True)
    assert info.version is not None
    assert info.version in slurm.run("sinfo", "--version").stdout


def test_a_job_over_all_64_gpus_runs_and_is_recorded_to_its_end(
    slurm: SlurmCluster, backend: CommandBackend, script: Script
) -> None:
    before = backend.now()
    job_id = backend.submit(
        script(
            "srun bash -c 'echo $SLURM_PROCID $CUDA_VISIBLE_DEVICES' > ranks.txt; exit 3",
            "--nodes=8", "--gpus-per-node=8", "--ntasks-per-node=1", "--time=5", name="whole", comment="token-1",
        )
    )  # fmt: skip
    record = wait_for(slurm, backend, job_id, JobState.FAILED)
    assert (record.name, record.comment, record.cluster) == ("whole.sbatch", "token-1", slurm.name)
    assert (record.user, record.partition, record.nodes, record.gpus) == ("root", "batch", 8, 64)
    assert (record.exit_code, record.signal, record.time_limit_s) == (3, 0, 300)
    assert record.node_list == "n[0-7]"
    assert record.submit_time is not None
    assert record.start_time is not None
    assert record.end_time is not None
    assert before - 1 <= record.submit_time <= record.start_time <= record.end_time <= backend.now()
    assert record.work_dir is not None
    ranks = (Path(record.work_dir) / "ranks.txt").read_text().split("\n")
    assert sorted(rank for rank in ranks if rank) == [f"{rank} 0,1,2,3,4,5,6,7" for rank in range(8)]


def test_accounting_adds_cpu_time_and_peak_memory_to_a_finished_job(
    slurm: SlurmCluster, backend: CommandBackend, script: Script
) -> None:
    job_id = backend.submit(script("x=$(head -c 30000000 /dev/zero | tr '\\0' a); sleep 2", "--time=5"))
    slurm.wait_until(lambda: only(backend, job_id).max_rss_bytes is not None, "accounting knows the job's memory")
    record = only(backend, job_id)
    assert record.state is JobState.COMPLETED
    assert record.max_rss_bytes is not None
    assert record.max_rss_bytes >= 30_000_000
    assert record.total_cpu_s is not None
    assert 0 < record.total_cpu_s < 60


def test_names_and_comments_of_any_characters_come_back_as_they_were(
    slurm: SlurmCluster, backend: CommandBackend, script: Script
) -> None:
    name, comment = "one\ntwo|three ☃", 'a|b,c\nd=e %i @f@ \x1f g "h" ☃'
    submission = script("true")
    command = ("sbatch", "--parsable", f"--job-name={name}", f"--comment={comment}", "--chdir", submission.work_dir)
    job_id = int(slurm.run(*command, submission.script).stdout)
    assert (only(backend, job_id).name, only(backend, job_id).comment) == (name, comment)

    def stored() -> list[tuple[str, str | None]]:
        records = backend.accounting(backend.now() - 60, backend.now() + 1)
        return [(record.name, record.comment) for record in records if record.job_id == job_id and record.state.final]

    slurm.wait_until(lambda: stored() == [(name, comment)], "accounting has both as they were")


def test_the_users_environment_changes_neither_answers_nor_submissions(
    slurm: SlurmCluster, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    hostile = {
        "SQUEUE_FORMAT": "%i", "SQUEUE_FORMAT2": "jobid:3", "SQUEUE_STATES": "RUNNING", "SQUEUE_USERS": "nobody",
        "SACCT_FORMAT": "jobid", "SLURM_TIME_FORMAT": "relative", "TZ": "Australia/Lord_Howe", "LC_ALL": "de_DE.UTF-8",
        "SBATCH_PARTITION": "debug", "SBATCH_TIMELIMIT": "1", "SBATCH_HOLD": "1", "SLURM_CLUSTERS": slurm.name,
    }  # fmt: skip
    for name, value in hostile.items():
        monkeypatch.setenv(name, value)
    backend = CommandBackend()
    job_id = backend.submit(script("true", "--time=7"))
    record = wait_for(slurm, backend, job_id, JobState.COMPLETED)
    assert (record.partition, record.time_limit_s) == ("batch", 420)
    assert record.start_time is not None
    assert abs(record.start_time - time.time()) < 120


def test_a_requeued_job_is_one_job_of_two_attempts(
    slurm: SlurmCluster, backend: CommandBackend, script: Script
) -> None:
    start = backend.now()
    job_id = backend.submit(script("sleep 600"))
    wait_for(slurm, backend, job_id, JobState.RUNNING)
    slurm.wait_until(lambda: "batch" in slurm.run("squeue", "--steps", "--noheader").stdout, "its script runs")
    backend.requeue([job_id])
    assert wait_for(slurm, backend, job_id, JobState.PENDING).restarts == 1
    record = wait_for(slurm, backend, job_id, JobState.RUNNING)
    assert record.restarts == 1
    backend.cancel([job_id])
    wait_for(slurm, backend, job_id, JobState.CANCELLED)

    def attempts() -> list[JobRecord]:
        return [record for record in backend.accounting(start, backend.now() + 1) if record.job_id == job_id]

    slurm.wait_until(lambda: all(record.end_time for record in attempts()), "accounting has seen both attempts end")
    assert [record.state for record in attempts()] == [JobState.REQUEUED, JobState.CANCELLED]
    assert [record.job_id for record in backend.jobs([job_id])] == [job_id]


def test_requeuing_a_job_that_still_waits_is_refused_in_slurms_words(backend: CommandBackend, script: Script) -> None:
    job_id = backend.submit(script("true", hold=True))
    with pytest.raises(SlurmError, match="pending"):
        backend.requeue([job_id])


def test_jobs_without_ids_are_the_users_own(slurm: SlurmCluster, backend: CommandBackend, script: Script) -> None:
    mine = backend.submit(script("true", hold=True))
    command = ("sbatch", "--parsable", "--hold", "--chdir=/", "--wrap=true")
    theirs = int(slurm.run(*command, user="nobody").stdout)
    own = {record.job_id for record in backend.jobs()}
    assert mine in own
    # root's squeue --me asks for user id 0, which Slurm's client takes for no filter; ours must not
    assert theirs not in own
    assert {record.job_id for record in backend.jobs([mine, theirs])} == {mine, theirs}


def test_array_tasks_are_jobs_that_name_their_array(
    slurm: SlurmCluster, backend: CommandBackend, script: Script
) -> None:
    array = backend.submit(script("sleep 1", "--array=3-4"))

    def tasks() -> list[JobRecord]:
        return [record for record in backend.jobs() if record.array_job_id == array]

    slurm.wait_until(lambda: len(tasks()) == 2 and all(task.state.final for task in tasks()), "both tasks have ended")
    assert sorted(task.array_task_id or 0 for task in tasks()) == [3, 4]


def test_a_job_killed_by_its_limit_is_a_timeout(slurm: SlurmCluster, backend: CommandBackend, script: Script) -> None:
    job_id = backend.submit(script("sleep 600", "--time=1"))
    wait_for(slurm, backend, job_id, JobState.RUNNING)
    slurm.run("scontrol", "update", f"JobId={job_id}", "EndTime=now+5")  # or it would take its minute
    slurm.wait_until(lambda: only(backend, job_id).state.final, "its time is over", patience_s=150)
    record = only(backend, job_id)
    assert (record.state, record.time_limit_s) == (JobState.TIMEOUT, 60)
    elapsed_s = record.elapsed_s()
    assert elapsed_s is not None
    assert 5 <= elapsed_s < 150


def test_nodes_are_all_there_with_their_gpus(slurm: SlurmCluster, backend: CommandBackend) -> None:
    nodes = backend.nodes()
    assert [node.name for node in nodes] == list(slurm.nodes)
    assert {(node.state, node.gpus, node.cpus) for node in nodes} == {("idle", 8, 16)}
    assert {node.memory_bytes for node in nodes} == {2000 * 1024**2}
    assert all(node.usable for node in nodes)
    assert nodes[0].partitions == ("batch", "debug", "long")
    assert nodes[0].features == ("h100", "sim")


def test_a_drained_node_is_not_usable_and_says_why(slurm: SlurmCluster, backend: CommandBackend) -> None:
    slurm.run("scontrol", "update", "NodeName=n5", "State=DRAIN", "Reason=bad GPU State=IDLE Gres=none")
    try:
        node = next(node for node in backend.nodes() if node.name == "n5")
    finally:
        slurm.run("scontrol", "update", "NodeName=n5", "State=RESUME")
    assert not node.usable
    assert "drain" in node.flags
    assert (node.partitions, node.gpus) == (("batch", "long"), 8)
    assert node.reason is not None
    assert node.reason.startswith("bad GPU")


def test_partitions_with_their_limits(backend: CommandBackend) -> None:
    batch, debug, long = backend.partitions()
    assert (batch.name, batch.default, batch.max_time_s, batch.default_time_s) == ("batch", True, 86400, 3600)
    assert (batch.nodes, batch.total_nodes, batch.max_nodes, batch.state) == ("n[0-7]", 8, None, "up")
    assert (debug.max_time_s, debug.max_nodes, debug.default) == (600, 2, False)
    assert (long.max_time_s, long.default_time_s) == (None, None)


def test_accounting_is_what_sacct_says(slurm: SlurmCluster, backend: CommandBackend, script: Script) -> None:
    start = backend.now()
    ids = [backend.submit(script(f"sleep {n}; exit {n}", "--nodes=2", "--gpus-per-node=4")) for n in range(3)]
    command = ("sbatch", "--parsable", "--chdir=/", "--output=/dev/null", "--wrap=true")
    theirs = int(slurm.run(*command, user="nobody").stdout)
    slurm.wait_until(lambda: all(record.state.final for record in backend.jobs([*ids, theirs])), "all have ended")
    wanted = ",".join(map(str, [*ids, theirs]))

    def ended() -> bool:
        answer = slurm.run("sacct", "--allusers", "-X", "-n", "-P", "-o", "State", "-j", wanted).stdout.split()
        return len(answer) == 4 and set(answer) <= {"COMPLETED", "FAILED"}

    slurm.wait_until(ended, "accounting knows it")  # slurmdbd hears of each a moment later
    # A question about a time leaves out what slurmctld has not told the eligible time of, which takes it five seconds.
    records = {record.job_id: record for record in backend.accounting(start, backend.now() + 1)}
    columns = "JobIDRaw,User,State,Submit,Start,End,ExitCode,NNodes,NodeList"
    question = ("sacct", "--allusers", "--duplicates", "--allocations", "--parsable2", "--noheader",
               f"--format={columns}", f"--jobs={wanted}")  # fmt: skip
    rows = [row.split("|") for row in slurm.run(*question, SLURM_TIME_FORMAT="%s").stdout.splitlines()]
    by_sacct = {int(row[0]): row[1:] for row in rows}
    for job_id in (*ids, theirs):
        record = records[job_id]
        ours = [
            record.user, record.state.value, str(record.submit_time), str(record.start_time), str(record.end_time),
            f"{record.exit_code}:{record.signal}", str(record.nodes), record.node_list,
        ]  # fmt: skip
        assert ours == by_sacct[job_id]
    assert [records[job_id].gpus for job_id in ids] == [8, 8, 8]


def test_a_job_whose_eligible_time_slurmdbd_was_never_told_is_not_lost(
    slurm: SlurmCluster, backend: CommandBackend, script: Script
) -> None:
    start = backend.now()
    job_id = backend.submit(script("true", comment="hpcplan:t:train:1"))

    def eligible() -> str:
        question = ("sacct", "--noheader", "--allocations", "--parsable2", "--format=State,Eligible")
        state, _, time = slurm.run(*question, f"--jobs={job_id}").stdout.strip().partition("|")
        return time if state == "COMPLETED" else "Unknown"

    slurm.wait_until(lambda: eligible() != "Unknown", "the controller has told accounting everything")
    slurm.sql(f"UPDATE {slurm.name}_job_table SET time_eligible = 0 WHERE id_job = {job_id}")
    assert eligible() == "Unknown", "as a controller leaves it that is killed within five seconds of a job's end"
    records = [record for record in backend.accounting(start, backend.now() + 1) if record.job_id == job_id]
    assert [(record.state, record.exit_code) for record in records] == [(JobState.COMPLETED, 0)]
    assert backend.history(None, start)[job_id].comment == "hpcplan:t:train:1"


def test_accounting_leaves_out_what_ended_before(slurm: SlurmCluster, backend: CommandBackend, script: Script) -> None:
    job_id = backend.submit(script("true"))
    end = wait_for(slurm, backend, job_id, JobState.COMPLETED).end_time
    assert end is not None

    def ids(start: int, stop: int) -> set[int]:
        return {record.job_id for record in backend.accounting(start, stop)}

    slurm.wait_until(lambda: job_id in ids(end - 60, end + 1), "accounting knows the job")
    slurm.wait_until(lambda: job_id not in ids(end + 2, end + 60), "accounting knows that it has ended")


def test_an_estimate_of_the_start_names_nodes(slurm: SlurmCluster, backend: CommandBackend, script: Script) -> None:
    before = {record.job_id for record in backend.jobs()}
    estimate = backend.estimate_start(script("true", "--nodes=8", "--gpus-per-node=8"))
    assert estimate is not None
    assert estimate.nodes == "n[0-7]"
    assert abs(estimate.start_time - backend.now()) < 300
    assert {record.job_id for record in backend.jobs()} == before, "nothing was submitted"


def test_one_leaf_switch_gives_nodes_under_one_leaf(backend: CommandBackend, script: Script) -> None:
    estimate = backend.estimate_start(script("true", "--nodes=4", "--switches=1", "--exclusive"))
    assert estimate is not None
    assert estimate.nodes in ("n[0-3]", "n[4-7]")


def test_a_script_that_slurm_refuses_is_an_error_in_its_words(backend: CommandBackend, script: Script) -> None:
    with pytest.raises(SlurmError, match="invalid partition specified: nowhere") as refused:
        backend.submit(script("true", "--partition=nowhere"))
    assert not isinstance(refused.value, SlurmUnreachableError)
    with pytest.raises(SlurmError, match="Invalid partition"):
        backend.estimate_start(script("true", "--partition=nowhere"))
    with pytest.raises(SlurmError, match="Unable to open file"):
        backend.submit(Submission(script="/nowhere/job.sbatch", work_dir="/"))


def test_without_slurmdbd_the_queue_is_still_known(
    slurm: SlurmCluster, backend: CommandBackend, script: Script
) -> None:
    running, over = backend.submit(script("sleep 600")), backend.submit(script("true", name="short"))
    wait_for(slurm, backend, over, JobState.COMPLETED)
    slurm.stop_daemon("slurmdbd")
    try:
        states = {record.job_id: record.state for record in backend.jobs([running, over])}
        assert states == {running: JobState.RUNNING, over: JobState.COMPLETED}
        assert not backend.ping().accounting
        with pytest.raises(SlurmUnreachableError):
            backend.accounting(0, backend.now())
        late = backend.submit(script("true", name="late"))
    finally:
        slurm.start_daemon("slurmdbd")
    slurm.wait_until(
        lambda: late in {record.job_id for record in backend.accounting(backend.now() - 600, backend.now() + 1)},
        "accounting has caught up",
    )


def test_finished_jobs_are_known_after_the_controller_has_forgotten_them(
    slurm: SlurmCluster, backend: CommandBackend, script: Script
) -> None:
    job_id = backend.submit(script("exit 7", comment="token-2"))
    wait_for(slurm, backend, job_id, JobState.FAILED)
    slurm.forget(job_id)
    record = only(backend, job_id)
    assert (record.state, record.exit_code, record.comment) == (JobState.FAILED, 7, "token-2")
