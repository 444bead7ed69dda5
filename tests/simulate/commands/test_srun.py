"""srun and salloc: tasks, steps and allocations on the mock cluster."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from hpcplan.simulate.commands.multi_prog import programs_of, read_programs
from hpcplan.simulate.commands.reply import Refusal
from tests.simulate.commands.conftest import MockSlurm


def test_every_task_knows_its_place(slurm: MockSlurm) -> None:
    say = "echo $SLURM_PROCID $SLURM_NODEID $SLURM_LOCALID $SLURMD_NODENAME $SLURM_NTASKS $SLURM_STEP_ID"
    text = slurm.out("srun", "-N2", "-n3", "-l", "bash", "-c", say)
    assert sorted(text.splitlines()) == ["0: 0 0 0 b1 3 0", "1: 1 0 1 b1 3 0", "2: 2 1 0 b2 3 0"]


def test_a_step_takes_its_size_from_the_job(slurm: MockSlurm) -> None:
    job = slurm.submit(
        "-N2", "--ntasks-per-node=2", "srun -l hostname; srun -n1 -N1 -l hostname; srun -l -w b2 -n1 env"
    )
    slurm.wait_for(job, "COMPLETED")
    text = slurm.read(f"slurm-{job}.out")
    plain = [line[:1] for line in text.splitlines() if "=" not in line]
    assert (sorted(plain[:4]), plain[4:]) == (["0", "1", "2", "3"], ["0"])
    assert "0: SLURMD_NODENAME=b2" in text
    steps = slurm.out("sacct", "-n", "-P", "-j", job, "-o", "JobID,NTasks,NodeList,State")
    assert steps.splitlines()[1:] == [
        f"{job}.batch|1|b1|COMPLETED", f"{job}.0|4|b[1-2]|COMPLETED", f"{job}.1|1|b1|COMPLETED",
        f"{job}.2|1|b2|COMPLETED",
    ]  # fmt: skip


@pytest.mark.parametrize(("command", "code", "said"), [
    ("exit $SLURM_PROCID", 1, "srun: error: b1: task 1: Exited with exit code 1\n"),
    ("exit 7", 7, "srun: error: b1: tasks 0-1: Exited with exit code 7\n"),
])  # fmt: skip
def test_the_highest_exit_code_is_sruns(slurm: MockSlurm, command: str, code: int, said: str) -> None:
    answer = slurm.run("srun", "-n2", "bash", "-c", command)
    assert answer.returncode == code
    assert sorted(answer.stderr.split(":")[-1]) == sorted(said.split(":")[-1])


def test_a_task_that_is_killed_counts_as_128_and_the_signal(slurm: MockSlurm) -> None:
    answer = slurm.run("srun", "-n1", "bash", "-c", "kill -9 $$")
    assert answer.returncode == 137
    assert re.search(r"^srun: error: b\d: task 0: Killed$", answer.stderr, re.MULTILINE)


def test_a_program_that_is_not_there(slurm: MockSlurm) -> None:
    answer = slurm.run("srun", "no-such-program")
    assert answer.returncode == 2
    assert "execve(): no-such-program: No such file or directory" in answer.stderr
    assert re.search(r"^srun: error: b\d: task 0: Exited with exit code 2$", answer.stderr, re.MULTILINE)


def test_one_bad_task_ends_the_others_where_that_is_wanted(slurm: MockSlurm) -> None:
    command = "if [ $SLURM_PROCID = 1 ]; then exit 5; fi; exec sleep 60"
    answer = slurm.run("srun", "-n2", "--kill-on-bad-exit", "bash", "-c", command)
    assert answer.returncode == 143
    assert "task 1: Exited with exit code 5" in answer.stderr
    assert "task 0: Terminated" in answer.stderr


def test_output_goes_where_it_should(slurm: MockSlurm) -> None:
    slurm.out("srun", "-n2", "-o", "task-%t.out", "-e", "all.err", "bash", "-c", "echo out $SLURM_PROCID; echo err >&2")
    assert (slurm.read("task-0.out"), slurm.read("task-1.out")) == ("out 0\n", "out 1\n")
    assert slurm.read("all.err") == "err\nerr\n"
    assert slurm.out("srun", "-n3", "-o", "1", "bash", "-c", "echo $SLURM_PROCID") == "1"


def test_stdin_goes_to_every_task_or_to_one(slurm: MockSlurm) -> None:
    assert slurm.run("srun", "-n2", "cat", stdin="in\n").stdout == "in\nin\n"
    assert slurm.run("srun", "-n2", "-i", "0", "cat", stdin="in\n").stdout == "in\n"
    assert slurm.run("srun", "-n2", "-i", "none", "cat", stdin="in\n").stdout == ""


def test_export_says_what_tasks_see(slurm: MockSlurm) -> None:
    assert slurm.out("srun", "--export=ALL,ONE=1", "bash", "-c", "echo $ONE$TWO", TWO="2") == "12"
    assert slurm.out("srun", "--export=ONE=1", "bash", "-c", "echo $ONE$TWO", TWO="2") == "1"


def test_tasks_of_one_gpu_each_see_their_own(slurm: MockSlurm) -> None:
    job = slurm.submit("-N1", "-n4", "--gpus-per-task=2", "srun bash -c 'echo $CUDA_VISIBLE_DEVICES'")
    slurm.wait_for(job, "COMPLETED")
    assert sorted(slurm.read(f"slurm-{job}.out").split()) == ["0,1", "2,3", "4,5", "6,7"]


def test_steps_wait_for_each_other(slurm: MockSlurm) -> None:
    script = r"""#!/bin/bash
srun -n1 bash -c '
  touch first
  until grep -q retrying slurm-$SLURM_JOB_ID.out; do sleep 0.02; done
  [ ! -e second ] && echo alone
  rm first
' &
until [ -e first ]; do sleep 0.02; done
srun -n1 bash -c 'touch second; [ ! -e first ] && echo alone'
wait
"""
    job = slurm.submit("-n2", script=script)
    slurm.wait_for(job, "COMPLETED")
    text = slurm.read(f"slurm-{job}.out")
    assert text.count("alone\n") == 2
    assert f"srun: Job {job} step creation temporarily disabled, retrying (Requested nodes are busy)\n" in text
    assert f"srun: Step created for job {job}\n" in text


@pytest.mark.parametrize("option", ["--overlap", "--exact"])
def test_steps_that_overlap_or_are_exact_run_together(slurm: MockSlurm, option: str) -> None:
    meet = "touch $0; until [ -e $1 ]; do sleep 0.02; done"
    script = f"#!/bin/bash\nsrun {option} -n1 bash -c '{meet}' a b &\nsrun {option} -n1 bash -c '{meet}' b a\nwait\n"
    slurm.wait_for(slurm.submit("-n2", script=script), "COMPLETED")


def test_more_tasks_than_the_job_has_room_for_are_refused(slurm: MockSlurm) -> None:
    job = slurm.submit("-N1", "srun -n 65 true")
    slurm.wait_for(job, "FAILED")
    said = f"srun: error: Unable to create step for job {job}: More processors requested than permitted\n"
    assert slurm.read(f"slurm-{job}.out") == said


def test_srun_waits_for_its_turn(slurm: MockSlurm) -> None:
    job = slurm.submit("-N6", "--exclusive", "until [ -e go ]; do sleep 0.05; done")
    srun = subprocess.Popen(
        ["srun", "-J", "waits", "hostname"], env=slurm.env, cwd=slurm.folder, stderr=subprocess.PIPE, text=True
    )
    slurm.until(lambda: slurm.out("squeue", "-h", "-t", "PD", "-n", "waits"))
    (slurm.folder / "go").touch()
    _, said = srun.communicate(timeout=60)
    assert re.fullmatch(
        r"srun: job (\d+) queued and waiting for resources\nsrun: job \1 has been allocated resources\n", said
    )
    assert slurm.state(job) == "COMPLETED"


def test_a_step_is_cancelled_and_its_job_goes_on(slurm: MockSlurm) -> None:
    job = slurm.submit("srun sleep 60; echo $?")
    slurm.until(
        lambda: slurm.out("squeue", "-h", "-s", "-j", job) if "sleep" in slurm.out("squeue", "-s", "-h") else ""
    )
    slurm.out("scancel", f"{job}.0")
    slurm.wait_for(job, "COMPLETED")
    assert slurm.read(f"slurm-{job}.out").endswith("143\n")
    assert f"{job}.0|CANCELLED|0:15" in slurm.out("sacct", "-n", "-P", "-j", job, "-o", "JobID,State,ExitCode")


def test_an_allocation_holds_its_nodes_while_its_command_runs(slurm: MockSlurm) -> None:
    say = "echo $SLURM_JOB_ID $SLURM_NNODES; srun -l bash -c 'echo $SLURMD_NODENAME'; squeue -h -o '%j %T'; exit 3"
    answer = slurm.run("salloc", "-N2", "bash", "-c", say)
    lines = answer.stdout.splitlines()
    job = lines[0].split()[0]
    assert answer.returncode == 3
    assert lines[0] == f"{job} 2"
    assert sorted(lines[1:3]) == ["0: b1", "1: b2"]
    assert lines[3] == "bash RUNNING"
    assert f"salloc: Granted job allocation {job}\n" in answer.stderr
    assert f"salloc: Relinquishing job allocation {job}\n" in answer.stderr
    slurm.wait_for(job, "FAILED")
    assert slurm.out("sacct", "-X", "-n", "-P", "-j", job, "-o", "ExitCode") == "3:0"


def test_an_allocation_without_a_shell_stays_until_it_is_cancelled(slurm: MockSlurm) -> None:
    answer = slurm.run("salloc", "--no-shell", "-N1")
    found = re.search(r"Granted job allocation (\d+)", answer.stderr)
    assert found
    assert slurm.out("srun", f"--jobid={found[1]}", "bash", "-c", "echo $SLURM_JOB_ID") == found[1]
    slurm.out("scancel", found[1])
    slurm.wait_for(found[1], "CANCELLED")
    answer = slurm.run("srun", f"--jobid={found[1]}", "true")
    assert answer.returncode == 1
    assert "srun: Check SLURM_JOB_ID environment variable." in answer.stderr


def test_a_task_on_a_terminal_stays_in_its_session(slurm: MockSlurm) -> None:
    """Else a shell started so could not have the terminal, and Ctrl-C would end srun."""
    session = "import os; print(os.getsid(0))"
    assert slurm.out("srun", "--pty", "python3", "-c", session) == str(os.getsid(0))
    assert slurm.out("srun", "python3", "-c", session) != str(os.getsid(0))


def test_multi_prog_gives_each_task_its_program(slurm: MockSlurm) -> None:
    (slurm.folder / "programs").write_text(
        '# what runs where\n0 echo head %t\n1-2 sh -c "echo worker %t %o"\n* echo %t\n'
    )
    said = slurm.out("srun", "-n4", "-l", "--multi-prog", "programs").splitlines()
    assert sorted(said) == ["0: head 0", "1: worker 1 0", "2: worker 2 1", "3: 3"]


@pytest.mark.parametrize(("text", "said"), [
    ("0 echo\n", "Configuration file programs invalid, no record for task id 1"),
    ("0-1 echo\n1 date\n", "Duplicate record for task 1\nsrun: error: Line 2 of configuration file programs invalid"),
    ("5 echo\n* date\n", "Invalid task id, 5 >= ntasks\nsrun: error: Line 1 of configuration file programs invalid"),
    ("x echo\n", "Invalid task range specification (x)\nsrun: error: Line 1 of configuration file programs invalid"),
    (None, "Could not open multi_prog config file programs"),
])  # fmt: skip
def test_a_file_of_programs_that_does_not_fit_is_refused_as_srun_does(
    tmp_path: Path, text: str | None, said: str
) -> None:
    if text is not None:
        (tmp_path / "programs").write_text(text)
    with pytest.raises(Refusal) as caught:
        programs_of(read_programs(tmp_path / "programs", "programs"), 2, "programs")
    assert caught.value.message == f"srun: error: {said}"
