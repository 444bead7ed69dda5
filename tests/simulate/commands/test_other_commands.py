"""sreport, sbcast and sattach on the mock cluster, in the words of Slurm 22.05."""

from __future__ import annotations

import pytest

from hpcplan.simulate.commands.dispatch import COMMANDS
from tests.simulate.commands.conftest import MockSlurm

RULE = "-" * 80


def test_sreport_says_who_used_how_much(slurm: MockSlurm) -> None:
    job = slurm.submit("-N1", "-A", "project7", "sleep 1.2")
    slurm.wait_for(job, "COMPLETED")
    cpus, elapsed = slurm.out("sacct", "-X", "-n", "-P", "-j", job, "-o", "AllocCPUS,ElapsedRaw").split("|")
    asked = ("start=today", "end=tomorrow", "accounts=project7", "-t", "seconds")
    lines = slurm.out("sreport", "user", "top", *asked).splitlines()
    assert lines[0] == RULE
    assert lines[1].startswith("Top 10 Users ")
    assert lines[2:6] == [
        "Usage reported in CPU Seconds", RULE,
        "  Cluster     Login     Proper Name         Account     Used   Energy ",
        "--------- --------- --------------- --------------- -------- -------- ",
    ]  # fmt: skip
    assert lines[6].split()[-3:] == ["project7", str(int(cpus) * int(elapsed)), "0"]
    by_account = slurm.out("sreport", "-nP", "cluster", "AccountUtilizationByUser", *asked, "-T", "gres/gpu")
    used = [line.split("|")[1::4] for line in by_account.splitlines()]
    assert used == [[name, str(8 * int(elapsed))] for name in ("root", "project7", "project7")]


def test_sreport_says_how_much_there_was(slurm: MockSlurm) -> None:
    header, row = slurm.out(
        "sreport", "-P", "-t", "sec", "cluster", "utilization", "start=today", "end=tomorrow"
    ).splitlines()[-2:]
    assert header == "Cluster|Allocated|Down|PLND Down|Idle|Planned|Reported"
    allocated, down, planned_down, idle, planned, reported = map(int, row.split("|")[1:])
    assert abs(allocated + down + planned_down + idle + planned - reported) <= 2


def test_sreport_refuses_what_it_does_not_know(slurm: MockSlurm) -> None:
    assert slurm.run("sreport", "nosuch").stderr == "invalid keyword: nosuch\n"
    answer = slurm.run("sreport", "user", "nosuch")
    assert (answer.returncode, answer.stderr) == (1, 'Not valid report nosuch\nValid user reports are, "Top"\n')


def test_sbcast_copies_a_file_and_does_not_overwrite_one(slurm: MockSlurm) -> None:
    (slurm.folder / "data").write_text("some\n")
    script = "#!/bin/bash\n#SBATCH -N2 -o out\nfor f in '' '' -f; do sbcast $f data $PWD/copy; echo $?; done 2>&1\n"
    slurm.wait_for(slurm.submit(script=script), "COMPLETED")
    exists = [f"sbcast: error: REQUEST_FILE_BCAST(b{node}): File exists" for node in (1, 2)]
    assert slurm.read("out").splitlines() == ["0", *exists, "17", "0"]
    assert slurm.read("copy") == "some\n"
    assert slurm.run("sbcast", "data", "/tmp/x").stderr == (
        "sbcast: error: Need a job id to run this command.  Run from within a Slurm job or use the --jobid option.\n"
    )


def test_sattach_follows_a_step_to_its_end(slurm: MockSlurm) -> None:
    task = "until [ -e go ]; do sleep 0.05; done; echo said $SLURM_PROCID; exit $SLURM_PROCID"
    job = slurm.submit("-n2", f"srun sh -c '{task}'")
    slurm.until(lambda: slurm.out("squeue", "-h", "-s").partition(f"{job}.0")[1])
    assert slurm.out("sattach", "--layout", f"{job}.0").splitlines()[-1] == "\tNode 0 (b1), 2 task(s): 0 1 "
    answer = slurm.run("sh", "-c", f"(sleep 0.5; touch go) & sattach {job}.0")
    assert answer.returncode == 1
    assert sorted(line for line in answer.stdout.splitlines() if line.startswith("said")) == ["said 0", "said 1"]
    assert answer.stderr == "sattach: error: task 1 exited with exit code 1\n"
    assert slurm.run("sattach", "99999.0").stderr == (
        "sattach: error: Could not get job step info: Invalid job id specified\n"
    )


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_help_says_how_a_command_is_called_and_what_it_takes(slurm: MockSlurm, command: str) -> None:
    text = slurm.out(command, "--help")
    assert text.startswith(f"Usage: {command} [OPTIONS]")
    assert "  -h, --help" in text or "      --help" in text or "  -H, --help" in text


def test_nodes_are_completing_while_processes_of_an_ended_job_are_there(slurm: MockSlurm) -> None:
    job = slurm.submit("-w", "b1", "-J", "stubborn", "trap '' TERM; echo > up; while true; do sleep 0.1; done")
    slurm.until(lambda: slurm.read("up"))
    slurm.out("scancel", job)
    shown = slurm.out("squeue", "-h", "-j", job, "-o", "%t %N")
    assert shown == "CG b1"
    assert slurm.out("sinfo", "-h", "-n", "b1", "-o", "%t %T %C") == "comp completing 0/64/0/64"
    assert "State=IDLE+COMPLETING" in slurm.out("scontrol", "show", "node", "b1")
    assert "Nodes(COMPLETING)=b1" in slurm.out("scontrol", "completing")
    slurm.until(lambda: "gone" if not slurm.out("squeue", "-h", "-j", job) else "")
    assert slurm.out("sinfo", "-h", "-n", "b1", "-o", "%t") == "idle"
