"""Jobs that sbatch submits to the mock cluster really run, and end as they do on Slurm."""

from __future__ import annotations

import re
import time

import pytest

from hpcplan.simulate.backend import MockBackend
from tests.simulate.commands.conftest import MockSlurm

UNTIL_GO = "until [ -e go ]; do sleep 0.05; done"


def go(slurm: MockSlurm) -> None:
    """Let the jobs go on that wait for it."""
    (slurm.folder / "go").touch()


def advance(slurm: MockSlurm, seconds: int) -> None:
    """Move the cluster's clock, as 'hpcplan mock advance' does: time limits count in minutes."""
    MockBackend(slurm.entered.store).advance(seconds)


def test_a_job_finds_the_variables_of_slurm(slurm: MockSlurm) -> None:
    script = "#!/bin/bash\n#SBATCH -N2 --ntasks-per-node=2 -c 2 --gres=gpu:2 -J named -t 10 -A me\nenv > env.txt\npwd\n"
    job = slurm.submit(script=script)
    slurm.wait_for(job, "COMPLETED")
    env = dict(line.split("=", 1) for line in slurm.read("env.txt").splitlines() if "=" in line)
    expected = {
        "SLURM_JOB_ID": job, "SLURM_JOBID": job, "SLURM_JOB_NAME": "named", "SLURM_JOB_NODELIST": "b[1-2]",
        "SLURM_NODELIST": "b[1-2]", "SLURM_JOB_NUM_NODES": "2", "SLURM_NNODES": "2", "SLURM_NTASKS": "4",
        "SLURM_NPROCS": "4", "SLURM_NTASKS_PER_NODE": "2", "SLURM_CPUS_PER_TASK": "2", "SLURM_TASKS_PER_NODE": "2(x2)",
        "SLURM_JOB_PARTITION": "batch", "SLURM_JOB_ACCOUNT": "me", "SLURM_CLUSTER_NAME": "tinycluster",
        "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_GTIDS": "0", "ENVIRONMENT": "BATCH",
        "SLURMD_NODENAME": "b1", "HOSTNAME": "b1", "CUDA_VISIBLE_DEVICES": "0,1", "SLURM_JOB_GPUS": "0,1",
        "SLURM_GPUS_ON_NODE": "2", "SLURM_SUBMIT_DIR": str(slurm.folder),
    }  # fmt: skip
    assert {name: env.get(name) for name in expected} == expected
    assert "SLURM_ARRAY_JOB_ID" not in env
    assert "SLURM_RESTART_COUNT" not in env
    assert slurm.read(f"slurm-{job}.out") == f"{slurm.folder}\n"


def test_names_of_output_files_hold_what_their_codes_stand_for(slurm: MockSlurm) -> None:
    job = slurm.submit("-J", "x y", "-o", "%x_%j.%N.%%.%5j.out", "-e", "%J.err", "echo out; echo err >&2")
    slurm.wait_for(job, "COMPLETED")
    assert slurm.read(f"x y_{job}.b1.%.{int(job):05d}.out") == "out\n"
    assert slurm.read(f"{job}.err") == "err\n"


@pytest.mark.parametrize(("mode", "kept"), [("append", "old\nnew\n"), ("truncate", "new\n")])
def test_open_mode_says_what_becomes_of_a_file_that_is_there(slurm: MockSlurm, mode: str, kept: str) -> None:
    (slurm.folder / "out").write_text("old\n")
    slurm.wait_for(slurm.submit("-o", "out", f"--open-mode={mode}", "echo new"), "COMPLETED")
    assert slurm.read("out") == kept


def test_a_client_that_makes_its_folder_when_sbatch_has_returned_is_in_time(slurm: MockSlurm) -> None:
    """As hydra's submitit launcher does. One of five times will do: how fast this machine is must not count."""
    ends = []
    for name in "abcde":
        job = slurm.submit("-o", f"{name}/out", "true")
        (slurm.folder / name).mkdir()
        ends.append(slurm.wait_for(job, "COMPLETED", "FAILED"))
        if ends[-1] == "COMPLETED":
            return
    raise AssertionError(ends)


def test_a_job_whose_output_cannot_be_opened_fails_with_slurms_code(slurm: MockSlurm) -> None:
    job = slurm.submit("-o", "nowhere/out", "true")
    slurm.wait_for(job, "FAILED")
    assert slurm.out("sacct", "-X", "-n", "-P", "-j", job, "-o", "ExitCode") == "0:53"


@pytest.mark.parametrize(("command", "state", "code"), [
    ("exit 0", "COMPLETED", "0:0"), ("exit 3", "FAILED", "3:0"), ("kill -9 $$", "FAILED", "0:9"),
])  # fmt: skip
def test_the_end_of_the_script_is_the_end_of_the_job(slurm: MockSlurm, command: str, state: str, code: str) -> None:
    job = slurm.submit(command)
    slurm.wait_for(job, state)
    step = state if code.endswith(":0") else "CANCELLED"
    found = slurm.out("sacct", "-n", "-P", "-j", job, "-o", "State,ExitCode").split()
    assert found == [f"{state}|{code}", f"{step}|{code}"]


def test_wait_returns_with_the_job_and_its_exit_code(slurm: MockSlurm) -> None:
    answer = slurm.run("sbatch", "--wait", "--wrap", "exit 4")
    assert re.fullmatch(r"Submitted batch job \d+\n", answer.stdout)
    assert answer.returncode == 4


def test_export_says_which_variables_go_along(slurm: MockSlurm) -> None:
    command = "echo ${FIRST-no} ${SECOND-no} ${THIRD-no}"
    for number, (words, said) in enumerate({
        (): "1 2 no", ("--export=NONE",): "no no no", ("--export=FIRST,THIRD=3",): "1 no 3",
        ("--export=ALL,THIRD=3",): "1 2 3",
    }.items()):  # fmt: skip
        answer = slurm.run("sbatch", *words, "-W", "-o", f"out{number}", "--wrap", command, FIRST="1", SECOND="2")
        assert answer.returncode == 0
        assert slurm.read(f"out{number}") == f"{said}\n"


def test_a_script_comes_on_stdin_or_with_arguments(slurm: MockSlurm) -> None:
    (slurm.folder / "job.sh").write_text('#!/bin/sh\n#SBATCH -o out\necho $0 $# "$2"\n')
    assert slurm.run("sbatch", "-W", "job.sh", "one", "two words").returncode == 0
    assert slurm.read("out").endswith("slurm_script 2 two words\n")
    slurm.wait_for(slurm.submit(script="#!/bin/sh\n#SBATCH -o in\necho from stdin\n"), "COMPLETED")
    assert slurm.read("in") == "from stdin\n"


def test_an_array_runs_as_many_at_once_as_it_may(slurm: MockSlurm) -> None:
    job = slurm.submit("-a", "0-4%2", "-o", "%A-%a", f"{UNTIL_GO}; env | grep SLURM_ARRAY")
    slurm.until(lambda: "two" if len(slurm.out("squeue", "-h", "-t", "R", "-o", "%i").split()) == 2 else "")
    assert slurm.out("squeue", "-h", "-j", job, "-o", "%i").split() == [f"{job}_[2-4%2]", f"{job}_0", f"{job}_1"]
    go(slurm)
    slurm.until(lambda: "" if slurm.out("squeue", "-h", "-o", "%i") else "done")
    assert slurm.state(job).split() == ["COMPLETED"] * 5
    env = dict(line.split("=") for line in slurm.read(f"{job}-3").splitlines())
    assert env == {
        "SLURM_ARRAY_JOB_ID": job, "SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "5",
        "SLURM_ARRAY_TASK_MIN": "0", "SLURM_ARRAY_TASK_MAX": "4", "SLURM_ARRAY_TASK_STEP": "1",
    }  # fmt: skip


def test_dependents_start_when_their_conditions_are_met(slurm: MockSlurm) -> None:
    good, bad = slurm.submit(UNTIL_GO), slurm.submit(f"{UNTIL_GO}; false")
    after_good = slurm.submit("-d", f"afterok:{good}", "date")
    after_bad = slurm.submit("-d", f"afternotok:{bad}", "date")
    never = slurm.submit("-d", f"afterok:{bad}", "date")
    killed = slurm.submit("-d", f"afterok:{bad}", "--kill-on-invalid-dep=yes", "date")
    assert slurm.out("squeue", "-h", "-j", after_good, "-o", "%T %r %E") == (
        f"PENDING Dependency afterok:{good}(unfulfilled)"
    )
    go(slurm)
    slurm.wait_for(after_good, "COMPLETED")
    slurm.wait_for(after_bad, "COMPLETED")
    slurm.wait_for(killed, "CANCELLED")
    assert slurm.out("squeue", "-h", "-j", never, "-o", "%r") == "DependencyNeverSatisfied"


def test_a_held_job_waits_until_it_is_released(slurm: MockSlurm) -> None:
    job = slurm.submit("-H", "true")
    assert slurm.out("squeue", "-h", "-j", job, "-o", "%T %r %Q") == "PENDING JobHeldUser 0"
    slurm.out("scontrol", "release", job)
    slurm.wait_for(job, "COMPLETED")


def test_a_signal_comes_before_the_limit_and_the_end_at_it(slurm: MockSlurm) -> None:
    trap = "trap 'echo warned' USR1; trap 'echo ended' TERM; touch up; while true; do sleep 0.05; done"
    job = slurm.submit("-t", "2", "--signal=B:USR1@60", trap)
    slurm.until(lambda: "up" if (slurm.folder / "up").exists() else "")
    advance(slurm, 70)
    slurm.until(lambda: slurm.read(f"slurm-{job}.out"))
    assert slurm.read(f"slurm-{job}.out") == "warned\n"
    advance(slurm, 70)
    slurm.wait_for(job, "TIMEOUT")
    text = slurm.until(lambda: text if "ended" in (text := slurm.read(f"slurm-{job}.out")) else "")
    assert re.search(rf"slurmstepd: error: \*\*\* JOB {job} ON b1 CANCELLED AT \S+ DUE TO TIME LIMIT \*\*\*", text)
    slurm.until(lambda: "" if slurm.out("squeue", "-h", "-j", job, "-t", "R,CG") else "gone")  # SIGKILL after KillWait
    assert slurm.out("sacct", "-n", "-P", "-j", job, "-o", "State,ExitCode").split() == ["TIMEOUT|0:0", "CANCELLED|0:9"]


def test_without_b_the_signal_goes_to_the_tasks_alone(slurm: MockSlurm) -> None:
    (slurm.folder / "task.sh").write_text("trap 'echo task; exit 0' USR1; touch up; while true; do sleep 0.05; done\n")
    job = slurm.submit("-t", "2", "--signal=USR1@60", "srun bash task.sh; echo script goes on")
    slurm.until(lambda: "up" if (slurm.folder / "up").exists() else "")
    advance(slurm, 70)
    slurm.wait_for(job, "COMPLETED")
    assert slurm.read(f"slurm-{job}.out").endswith("task\nscript goes on\n")


def test_scancel_ends_a_job_politely(slurm: MockSlurm) -> None:
    job = slurm.submit("trap 'echo bye; exit 0' TERM; touch up; while true; do sleep 0.05; done")
    slurm.until(lambda: "up" if (slurm.folder / "up").exists() else "")
    assert slurm.run("scancel", job).returncode == 0
    assert slurm.wait_for(job, "CANCELLED").startswith("CANCELLED by ")
    slurm.until(lambda: "bye" if "bye" in slurm.read(f"slurm-{job}.out") else "")


def test_what_ignores_sigterm_is_killed_after_kill_wait(slurm: MockSlurm) -> None:
    job = slurm.submit("trap '' TERM; touch up; while true; do sleep 0.1; done")
    slurm.until(lambda: "up" if (slurm.folder / "up").exists() else "")
    slurm.out("scancel", job)
    assert slurm.state(job).startswith("CANCELLED by ")  # in accounting at once
    slurm.until(lambda: "" if slurm.out("squeue", "-h", "-n", "wrap") else "gone")


def test_what_a_job_leaves_in_the_background_ends_with_it(slurm: MockSlurm) -> None:
    job = slurm.submit("setsid sleep 321 & echo $! > pid")
    slurm.wait_for(job, "COMPLETED")
    pid = slurm.read("pid").strip()
    slurm.until(lambda: "gone" if slurm.run("kill", "-0", pid).returncode else "")


def test_jobs_are_cancelled_by_name_state_and_array_task(slurm: MockSlurm) -> None:
    running = slurm.submit("-J", "mine", "sleep 60")
    waiting = slurm.submit("-J", "mine", "-H", "sleep 60")
    array = slurm.submit("-a", "0-1", "sleep 60")
    slurm.out("scancel", "-n", "mine", "-t", "PENDING")
    slurm.wait_for(waiting, "CANCELLED")
    slurm.wait_for(running, "RUNNING")
    slurm.out("scancel", f"{array}_1")
    slurm.wait_for(f"{array}_1", "CANCELLED")
    slurm.wait_for(f"{array}_0", "RUNNING")


def test_a_requeued_job_starts_again_and_knows_it(slurm: MockSlurm) -> None:
    job = slurm.submit('echo run ${SLURM_RESTART_COUNT-first}; [ -n "$SLURM_RESTART_COUNT" ] || sleep 60')
    slurm.until(lambda: slurm.read(f"slurm-{job}.out"))
    slurm.out("scontrol", "requeuehold", job)
    assert slurm.out("squeue", "-h", "-j", job, "-o", "%T %r") == "PENDING JobHeldUser"
    slurm.out("scontrol", "release", job)
    slurm.wait_for(job, "COMPLETED")
    text = slurm.read(f"slurm-{job}.out")
    assert text.startswith("run first\n")
    assert "DUE TO JOB REQUEUE" in text
    assert text.endswith("run 1\n")
    assert slurm.out("sacct", "-D", "-X", "-n", "-P", "-j", job, "-o", "State").split() == ["REQUEUED", "COMPLETED"]
    assert "Restarts=1" in slurm.out("scontrol", "show", "job", job)


def test_a_job_that_must_not_be_requeued_is_not(slurm: MockSlurm) -> None:
    job = slurm.submit("--no-requeue", "sleep 60")
    slurm.wait_for(job, "RUNNING")
    answer = slurm.run("scontrol", "requeue", job)
    assert (answer.returncode, answer.stderr) == (1, f"Requested operation is presently disabled for job {job}\n")


def test_a_suspended_job_stands_still(slurm: MockSlurm) -> None:
    job = slurm.submit("for i in $(seq 500); do echo $i; sleep 0.02; done")
    slurm.until(lambda: slurm.read(f"slurm-{job}.out"))
    slurm.out("scontrol", "suspend", job)
    assert slurm.out("squeue", "-h", "-j", job, "-o", "%T") == "SUSPENDED"
    time.sleep(0.1)
    before = slurm.read(f"slurm-{job}.out")
    time.sleep(0.3)
    assert slurm.read(f"slurm-{job}.out") == before
    slurm.out("scontrol", "resume", job)
    slurm.until(lambda: "on" if slurm.read(f"slurm-{job}.out") != before else "")


def test_a_waiting_job_is_changed(slurm: MockSlurm) -> None:
    job = slurm.submit("-H", "-N", "2", "true")
    slurm.out("scontrol", "update", f"jobid={job}", "numnodes=1", "name=other", "timelimit=20", "partition=debug")
    assert slurm.out("squeue", "-h", "-j", job, "-o", "%D %j %l %P") == "1 other 20:00 debug"
    slurm.out("scontrol", "update", f"jobid={job}", "dependency=afterok:999999", "timelimit=+5")
    assert slurm.out("squeue", "-h", "-j", job, "-o", "%l") == "25:00"
    slurm.out("scontrol", "release", job)
    slurm.wait_for(job, "COMPLETED")


def test_a_running_job_gets_another_limit_and_no_other_size(slurm: MockSlurm) -> None:
    job = slurm.submit("-t", "5", "sleep 60")
    slurm.wait_for(job, "RUNNING")
    slurm.out("scontrol", "update", f"jobid={job}", "timelimit=10")
    assert "TimeLimit=00:10:00" in slurm.out("scontrol", "show", "job", job)
    answer = slurm.run("scontrol", "update", f"jobid={job}", "numnodes=3")
    assert answer.stderr == f"Job is no longer pending execution for job {job}\n"


def test_test_only_says_when_and_queues_nothing(slurm: MockSlurm) -> None:
    answer = slurm.run("sbatch", "--test-only", "-N2", "--wrap", "true")
    assert answer.returncode == 0
    said = r"sbatch: Job \d+ to start at [0-9T:-]{19} using 2 processors on nodes b\[1-2\] in partition batch\n"
    assert re.fullmatch(said, answer.stderr)
    assert slurm.out("squeue", "-h") == ""


def test_a_job_whose_node_fails_runs_again_and_is_told_why(slurm: MockSlurm) -> None:
    job = slurm.submit("-w", "b6", 'touch up; [ -n "$SLURM_RESTART_COUNT" ] || sleep 60')
    slurm.until(lambda: "up" if (slurm.folder / "up").exists() else "")
    slurm.out("scontrol", "update", "nodename=b6", "state=down", "reason=test")
    try:
        assert slurm.out("sinfo", "-h", "-n", "b6", "-p", "batch", "-o", "%T %E") == "down test"
        said = f"*** JOB {job} ON b6 CANCELLED AT "
        slurm.until(lambda: "told" if "DUE TO NODE FAILURE" in slurm.read(f"slurm-{job}.out") else "")
        assert said in slurm.read(f"slurm-{job}.out")
    finally:
        slurm.out("scontrol", "update", "nodename=b6", "state=resume")
    slurm.wait_for(job, "COMPLETED")
    assert slurm.out("sacct", "-D", "-X", "-n", "-P", "-j", job, "-o", "State").split() == ["NODE_FAIL", "COMPLETED"]
