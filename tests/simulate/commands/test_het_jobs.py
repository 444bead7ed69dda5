"""Heterogeneous jobs in the commands: as recorded of Slurm 22.05, call by call."""

from __future__ import annotations

from tests.simulate.commands.conftest import MockSlurm

SCRIPT = """#!/bin/bash
#SBATCH -J two -o out -N2 --ntasks-per-node=2 --gres=gpu:2 -t 10
#SBATCH hetjob
#SBATCH -N1 -n3 -c 2 -p debug
"""
TASK = "echo $SLURM_PROCID $SLURM_NODEID $SLURM_LOCALID $SLURM_NTASKS $SLURMD_NODENAME"
UNTIL_GO = "until [ -e go ]; do sleep 0.05; done"


def run(slurm: MockSlurm, body: str) -> str:
    """Run a script of two components to its end and return its id."""
    job = slurm.submit(script=SCRIPT + body)
    slurm.wait_for(job, "COMPLETED", "FAILED")
    return job


def test_the_script_finds_what_each_component_has(slurm: MockSlurm) -> None:
    job = run(slurm, "env > env.txt\n")
    env = dict(line.split("=", 1) for line in slurm.read("env.txt").splitlines() if "=" in line)
    expected = {
        "SLURM_HET_SIZE": "2", "SLURM_JOB_ID": job, "SLURM_JOB_NODELIST": "b[1-2]", "SLURM_NTASKS": "4",
        "SLURM_JOB_ID_HET_GROUP_0": job, "SLURM_JOB_ID_HET_GROUP_1": str(int(job) + 1),
        "SLURM_JOB_NODELIST_HET_GROUP_0": "b[1-2]", "SLURM_JOB_NODELIST_HET_GROUP_1": "b3",
        "SLURM_JOB_PARTITION_HET_GROUP_1": "debug", "SLURM_JOB_NUM_NODES_HET_GROUP_0": "2",
        "SLURM_NTASKS_HET_GROUP_0": "4", "SLURM_NTASKS_HET_GROUP_1": "3", "SLURM_CPUS_PER_TASK_HET_GROUP_1": "2",
        "SLURM_TASKS_PER_NODE_HET_GROUP_0": "2(x2)", "SLURM_NTASKS_PER_NODE_HET_GROUP_0": "2",
    }  # fmt: skip
    assert {name: env.get(name) for name in expected} == expected
    assert "SLURM_NTASKS_PER_NODE" not in env


def test_srun_runs_on_the_first_component_unless_told_otherwise(slurm: MockSlurm) -> None:
    run(slurm, f"srun sh -c '{TASK}'\necho --\nsrun --het-group=1 sh -c '{TASK}'\n")
    first, _, second = slurm.read("out").partition("--\n")
    assert sorted(first.splitlines()) == ["0 0 0 4 b1", "1 0 1 4 b1", "2 1 0 4 b2", "3 1 1 4 b2"]
    assert sorted(second.splitlines()) == ["0 0 0 3 b3", "1 0 1 3 b3", "2 0 2 3 b3"]


def test_a_step_over_several_components_counts_its_tasks_through(slurm: MockSlurm) -> None:
    job = run(slurm, f"srun --het-group=0-1 sh -c '{TASK} ${{CUDA_VISIBLE_DEVICES-none}} $SLURM_JOB_NODELIST'\n")
    assert sorted(slurm.read("out").splitlines()) == [
        "0 0 0 7 b1 0,1 b[1-3]", "1 0 1 7 b1 0,1 b[1-3]", "2 1 0 7 b2 0,1 b[1-3]", "3 1 1 7 b2 0,1 b[1-3]",
        "4 2 0 7 b3 none b[1-3]", "5 2 1 7 b3 none b[1-3]", "6 2 2 7 b3 none b[1-3]",
    ]  # fmt: skip
    other = int(job) + 1
    assert slurm.out("sacct", "-n", "-P", "-j", job, "-o", "JobID,JobIDRaw,State").split() == [
        f"{job}+0|{job}|COMPLETED", f"{job}+0.batch|{job}.batch|COMPLETED", f"{job}+0.0|{job}.0|COMPLETED",
        f"{job}+1|{other}|COMPLETED", f"{job}+1.0|{other}.0|COMPLETED",
    ]  # fmt: skip
    assert slurm.out("sacct", "-X", "-n", "-P", "-j", str(other), "-o", "JobID") == f"{job}+1"
    assert slurm.out("sacct", "-X", "-n", "-P", "-j", job, "--whole-hetjob=no", "-o", "JobID") == f"{job}+0"


def test_components_may_run_different_programs(slurm: MockSlurm) -> None:
    job = run(slurm, "srun -l -N1 -n1 echo a : -n2 echo b\nsrun --het-group=2 true\n")
    lines = slurm.read("out").splitlines()
    assert sorted(lines[:3]) == ["0: a", "1: b", "2: b"]
    assert lines[3:] == ["srun: error: Requested het-group offset exceeds highest hetjob index (2 > 1)"]
    assert slurm.state(job).split() == ["FAILED", "FAILED"]


def test_squeue_and_scontrol_show_components_with_their_offsets(slurm: MockSlurm) -> None:
    job = slurm.submit(script=SCRIPT + UNTIL_GO)
    slurm.wait_for(job, "RUNNING")
    other = str(int(job) + 1)
    both = [f"{job}+0 {job} two batch", f"{job}+1 {other} two debug"]
    for wanted, shown in ((job, both), (f"{job}+1", both), (other, both[1:])):
        assert slurm.out("squeue", "-h", "-j", wanted, "-o", "%i %A %j %P").splitlines() == shown
    columns = slurm.out("squeue", "-h", "-O", "HetJobID:9,HetJobOffset:9,HetJobIDSet:9").split()
    assert columns == [job, "0", f"{job}-{other}", job, "1", f"{job}-{other}"]
    for wanted in (other, f"{job}+1"):
        block = slurm.out("scontrol", "show", "job", wanted).splitlines()
        assert block[:2] == [
            f"JobId={other} HetJobId={job} HetJobOffset=1 JobName=two",
            f"   HetJobIdSet={job}-{other}",
        ]
    assert (
        slurm.run("scontrol", "show", "job", f"{other}+1").stderr == "slurm_load_jobs error: Invalid job id specified\n"
    )


def test_scancel_ends_all_components_or_one_that_runs(slurm: MockSlurm) -> None:
    job = slurm.submit("-N2", ":", "-N1", UNTIL_GO)
    slurm.wait_for(job, "RUNNING")
    slurm.run("scancel", f"{job}+1")
    slurm.until(lambda: "one" if slurm.out("squeue", "-h", "-o", "%i") == f"{job}+0" else "")
    slurm.run("scancel", job)
    slurm.until(lambda: "" if slurm.out("squeue", "-h") else "none")
    held = slurm.submit("-H", "-N2", ":", "-N1", "true")
    answer = slurm.run("scancel", f"{held}+1")
    said = "Operation not permitted on individual component of heterogeneous job"
    assert (answer.returncode, answer.stderr) == (60, f"scancel: error: Kill job error on job id {held}+1: {said}\n")


def test_salloc_and_srun_take_several_components(slurm: MockSlurm) -> None:
    said = slurm.out("salloc", "-Q", "-N2", ":", "-N1", "srun", "--het-group=0,1", "sh", "-c", TASK).splitlines()
    assert sorted(said) == ["0 0 0 3 b1", "1 1 0 3 b2", "2 2 0 3 b3"]
    assert sorted(slurm.out("srun", "-l", "-N1", "echo", "a", ":", "-N2", "echo", "b").splitlines()) == [
        "0: a", "1: b", "2: b",
    ]  # fmt: skip
