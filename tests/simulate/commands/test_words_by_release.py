"""Fields, columns and words of the release that the cluster pretends to be, as a real 25.11.7 has them."""

from __future__ import annotations

import re

import pytest

from tests.simulate.commands.conftest import MockSlurm
from tests.simulate.commands.test_json_by_release import pretend


@pytest.fixture
def newest(mock_cluster: MockSlurm) -> MockSlurm:
    """The cluster as one of 25.11.7."""
    pretend(mock_cluster, "25.11.7")
    return mock_cluster


def keys(text: str) -> set[str]:
    return set(re.findall(r"(?:^|\s)([A-Za-z:/]+)=", text))


def test_fields_come_and_go(mock_cluster: MockSlurm) -> None:
    job = mock_cluster.submit("-H", "--gres=gpu:1", "-c2", "true")
    found = {}
    for release in ("22.05.8", "23.11.5", "25.11.7"):
        pretend(mock_cluster, release)
        found[release] = keys(mock_cluster.out("scontrol", "show", "job", job))
    mock_cluster.out("scancel", job)
    assert found["23.11.5"] - found["22.05.8"] == {"ReqTRES", "AllocTRES"}
    assert found["22.05.8"] - found["23.11.5"] == {"TRES"}
    assert found["25.11.7"] - found["23.11.5"] == {"SubmitLine", "LicensesAlloc", "TresPerTask"}
    assert found["23.11.5"] - found["25.11.7"] == {"Power"}


def test_columns_come_and_go(newest: MockSlurm) -> None:
    assert "AllocNodes|AllocTRES" in newest.out("sacct", "-P", "-o", "ALL")
    header = newest.out("sacct", "-P", "-o", "ALL").splitlines()[0].split("|")
    assert header[header.index("Partition") + 1] == "Planned"
    assert {"StdOut", "Restarts", "SegmentSize", "QOSREQ"} < set(header)
    assert "Reserved" not in header
    assert newest.out("sinfo", "-l").splitlines()[1].split()[-2:] == ["RESERVATION", "NODELIST"]
    assert "MaxTRESRunMinsPA|MaxTRESRunMinsPU" in newest.out("sacctmgr", "-P", "show", "qos")
    pretend(newest, "22.05.8")
    assert newest.run("sacct", "-o", "Planned").stderr == 'sacct: error: Invalid field requested: "Planned"\n'


def test_gpus_are_written_as_the_release_does(newest: MockSlurm) -> None:
    job = newest.submit("-H", "--gres=gpu:1", "true")
    assert newest.out("squeue", "-h", "-j", job, "-o", "%b") == "gres/gpu:1"
    pretend(newest, "23.02.7")
    assert newest.out("squeue", "-h", "-j", job, "-o", "%b") == "gres:gpu:1"
    newest.out("scancel", job)


def test_errors_are_worded_as_the_release_does(newest: MockSlurm) -> None:
    assert newest.run("scontrol", "show", "nosuch").stderr == "invalid entity:nosuch for keyword:show\n"
    assert "include: pending,running," in newest.run("squeue", "-t", "nosuch").stderr
    pretend(newest, "22.05.8")
    assert newest.run("scontrol", "show", "nosuch").stderr == "invalid entity:nosuch for keyword:show \n"


def test_the_folder_of_an_output_is_made_from_23_02_on(newest: MockSlurm) -> None:
    job = newest.submit("-o", "new/folder/out", "echo here; env | grep SLURM_JOB_START_TIME")
    newest.wait_for(job, "COMPLETED")
    assert newest.read("new/folder/out").startswith("here\nSLURM_JOB_START_TIME=")
    pretend(newest, "22.05.8")
    job = newest.submit("-o", "other/folder/out", "true")
    assert newest.wait_for(job, "FAILED") == "FAILED"


def test_its_own_name_is_a_cluster(newest: MockSlurm) -> None:
    name = newest.out("sacctmgr", "-nP", "show", "cluster", "format=cluster")
    answer = newest.out("sbatch", "-M", name, "-H", "--wrap", "true")
    job = answer.removeprefix("Submitted batch job ").removesuffix(f" on cluster {name}")
    assert job.isdecimal()
    assert newest.out("squeue", "-M", name, "-h", "-j", job, "-o", "%i").splitlines() == [f"CLUSTER: {name}", job]
    newest.out("scancel", job)
    assert newest.run("sbatch", "-M", "nosuch", "--wrap", "true").returncode != 0


def test_options_that_exclude_each_other_are_refused(newest: MockSlurm) -> None:
    for command in ("squeue", "sinfo"):
        answer = newest.run(command, "-l", "-o", "%P")
        assert (answer.returncode, answer.stdout) == (1, "")
        assert "-o(--format) and -l(--long) are mutually exclusive" in answer.stderr
    answer = newest.run("sbatch", "--gpus-per-task=1", "--wrap", "true")
    assert "--gpus-per-task used without either --gpus or -n/--ntasks is not allowed" in answer.stderr
    assert "did not request any GPU" in newest.run("sbatch", "--mem-per-gpu=10", "--wrap", "true").stderr


def test_sacct_counts_cpus_and_nodes(mock_cluster: MockSlurm) -> None:
    pretend(mock_cluster, "22.05.8")
    job = mock_cluster.submit("-N2", "--exclusive", "true")
    mock_cluster.wait_for(job, "COMPLETED")
    assert mock_cluster.out("sacct", "-nXP", "-j", job, "-i", "2", "-o", "jobid") == job
    assert mock_cluster.out("sacct", "-nXP", "-j", job, "-i", "3-4", "-o", "jobid") == ""
    assert "-j' option" in mock_cluster.run("sacct", "-B").stderr


def test_a_job_without_the_reservation_is_not_cancelled(mock_cluster: MockSlurm) -> None:
    job = mock_cluster.submit("-H", "true")
    mock_cluster.run("scancel", "--reservation=nosuch", job)
    assert mock_cluster.out("squeue", "-h", "-j", job, "-o", "%t") == "PD"
    mock_cluster.out("scancel", job)
