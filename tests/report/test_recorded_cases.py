"""Real accounting rows, against what other tools printed for them. Where we differ, the test says why."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from hpcplan.report import jobs_of, read_sacct
from hpcplan.report.sacct_cells import duration_s, memory_bytes

JOBINFO_COLUMNS = (
    "JobID,JobName,User,Partition,NodeList,NNodes,NCPUS,NTasks,State,Submit,Start,End,Timelimit,Elapsed,TotalCPU,CPUTime,"
    "UserCPU,SystemCPU,ReqMem,MaxRSS,MaxVMSize,ReqTRES,AllocTRES,TRESUsageInMax,TRESUsageInTot,TRESUsageOutTot,MaxDiskRead,"
    "MaxDiskWrite,MaxRSSNode,MaxRSSTask,MaxVMSizeNode,MaxVMSizeTask,MaxDiskReadNode,MaxDiskReadTask,MaxDiskWriteNode,"
    "MaxDiskWriteTask,Comment"
)


@pytest.fixture(scope="module")
def jobinfo(shared_data: Path) -> list[tuple[dict[str, Any], dict[str, str]]]:
    folder = shared_data / "sacct" / "hb-jobinfo"
    table, faults = read_sacct([folder / "sacct.txt"], columns=JOBINFO_COLUMNS)
    assert faults.total == 0
    expected = json.loads((folder / "expected.json").read_text())
    jobs = jobs_of(table)
    assert {job["job_id"] for job in jobs} == set(expected)
    return [(job, expected[job["job_id"]]) for job in jobs]


STEP_FAILED = {"7971484"}  # one step failed and the job completed: sacct says so, the tool shows the step's state

Pairs = list[tuple[dict[str, Any], dict[str, str]]]


def test_jobinfo_names_sizes_and_states_agree(jobinfo: Pairs) -> None:
    for job, expected in jobinfo:
        assert job["user"] == expected["User"]
        assert job["partition"] == expected["Partition"]
        if job["job_id"] in STEP_FAILED:
            assert (job["state"], expected["State"]) == ("COMPLETED", "FAILED")
        else:
            assert job["state"] in re.split("[ ,]", expected["State"])  # it adds the states of the steps
        assert job["time_limit_s"] == duration_s(expected["Reserved walltime"])
        assert job["memory_bytes"] == memory_bytes(expected["Total memory reserved"])
        if (
            job["start_time"] is not None
        ):  # for the others it prints the CPUs allocated, which are 0; ours were asked for
            assert job["cpus"] == int(expected["Cores"])


def test_jobinfo_elapsed_time_agrees_but_for_its_stragglers(jobinfo: Pairs) -> None:
    """It takes the largest elapsed time of any step; Slurm charges for the job's own, up to 4 s less."""
    for job, expected in jobinfo:
        printed = duration_s(expected["Used walltime"].replace("--", ""))
        assert (printed is None) == (not job["elapsed_s"])
        if printed is not None:
            assert 0 <= printed - job["elapsed_s"] <= 4


def test_jobinfo_cpu_efficiency_agrees(jobinfo: Pairs) -> None:
    compared = 0
    for job, expected in jobinfo:
        match = re.search(r"Efficiency:\s*([\d.]+)%", expected["Used CPU time"])
        assert (match is None) == (job["cpu_efficiency"] is None)
        if match is not None:
            compared += 1
            printed = duration_s(expected["Used walltime"])
            assert printed is not None
            same_time = job["cpu_efficiency"] * job["elapsed_s"] / printed  # see the test above
            assert same_time == pytest.approx(float(match[1]) / 100, abs=2e-4)
            assert job["cpu_efficiency"] == pytest.approx(float(match[1]) / 100, rel=0.05)
    assert compared == 36


def test_jobinfo_memory_agrees_but_for_a_job_that_was_never_sampled(jobinfo: Pairs) -> None:
    compared = 0
    for job, expected in jobinfo:
        printed = memory_bytes(expected["Maximum memory used"].replace("--", ""))
        if job["job_id"] == "7939708":
            # Four seconds: its batch step was never sampled (0 bytes); the 12 KiB printed are the extern step's.
            assert printed == 12 * 1024
            assert job["memory_used_bytes"] is None
        elif printed is None:
            assert job["memory_used_bytes"] is None
        else:
            compared += 1
            assert job["memory_used_bytes"] == pytest.approx(printed, rel=0.005)
            assert job["memory_efficiency"] == pytest.approx(job["memory_used_bytes"] / job["memory_bytes"])
    assert compared == 35


def test_jobinfo_gpu_utilisation_agrees_but_for_a_job_that_was_never_sampled(jobinfo: Pairs) -> None:
    found = {job["job_id"]: (job["gpu_efficiency"], expected["Max GPU utilization"]) for job, expected in jobinfo}
    measured = {name: pair for name, pair in found.items() if pair[1] != "--"}
    assert measured.pop("7939708") == (None, "0%")  # as above: 0 is what an unsampled step shows
    assert measured == {"8069225": (0.12, "12%"), "7971484": (0.0, "0%"), "7961058": (0.0, "0%")}


@pytest.fixture(scope="module")
def reportseff(shared_data: Path) -> list[dict[str, Any]]:
    cases: list[dict[str, Any]] = json.loads((shared_data / "sacct" / "reportseff_cases.json").read_text())
    return [case for case in cases if case["sacct_calls"] and case["exit_code"] == 0 and case["sacct_stdout"].strip()]


def fraction(cell: str) -> float | None:
    return None if cell == "---" else float(cell.rstrip("%")) / 100


# job, figure: why what the tool printed is not what is known
WRONG = {
    ("23000381", "MemEff"): "only the extern step has a MaxRSS; the batch step has none, so 0.0 % is not known",
    ("23000233", "MemEff"): "cancelled before it started: it used no memory because it never ran",
    ("23000233", "TimeEff"): "cancelled before it started: 0 % of its limit says nothing about the limit",
}


def test_reportseff_efficiencies_agree_or_are_explained(reportseff: list[dict[str, Any]], tmp_path: Path) -> None:
    compared: dict[str, int] = {"CPUEff": 0, "MemEff": 0, "TimeEff": 0}
    explained = set()
    for number, case in enumerate(reportseff):
        columns = next(word for word in case["sacct_calls"][0] if word.startswith("--format=")).removeprefix(
            "--format="
        )
        path = tmp_path / f"{number}.txt"
        path.write_text("^|^".join([*columns.split(","), ""]) + "\n" + case["sacct_stdout"].lstrip("\n"))
        if len(case["sacct_stdout"].strip().split("\n")[0].split("^|^")) != len(columns.split(",")) + 1:
            continue  # recorded with other columns than the call says
        jobs = {job["job_id"]: job for job in jobs_of(read_sacct([path])[0])}
        lines = [re.split(r"\s+|\|", line.strip()) for line in case["output"].splitlines() if line.strip()]
        header = next((line for line in lines if line[0] == "JobID"), None)
        for line in lines[lines.index(header) + 1 :] if header else []:
            printed = dict(zip(header, line, strict=False)) if header else {}
            job = jobs[printed["JobID"]]
            for name, key in (("CPUEff", "cpu"), ("MemEff", "memory"), ("TimeEff", "time")):
                if name not in printed:
                    continue
                ours, theirs = job[f"{key}_efficiency"], fraction(printed[name])
                if (job["job_id"], name) in WRONG:
                    explained.add((job["job_id"], name))
                    assert ours is None
                elif theirs is None:
                    assert ours is None
                else:
                    compared[name] += 1
                    assert ours == pytest.approx(theirs, abs=0.0011), (job["job_id"], name)
    assert explained == set(WRONG)
    assert compared["CPUEff"] >= 10
    assert compared["MemEff"] >= 10
    assert compared["TimeEff"] >= 4


def test_slurm2sql_files_are_read_whole(shared_data: Path) -> None:
    folder = shared_data / "sacct" / "slurm2sql"
    for name in ("test-data1.csv", "test-data2.csv"):
        table, faults = read_sacct([folder / name])
        assert faults.total == 0
        first, second = jobs_of(table)
        assert first["job_id"] == "43974388"
        assert first["cpu_efficiency"] == pytest.approx(15.057 / (12_805 * 2))
        assert first["memory_efficiency"] == pytest.approx(231_092 / 2_252_800)
        assert second["elapsed_s"] == 17  # its End is Unknown although it was cancelled
        assert second["gpu_efficiency"] is None or second["gpu_efficiency"] == pytest.approx(0.531)
    (job,) = jobs_of(read_sacct([folder / "test-data3.csv"])[0])
    assert (job["job_id"], job["state"], job["cpus"]) == ("1", "UNKNOWN", 1)
