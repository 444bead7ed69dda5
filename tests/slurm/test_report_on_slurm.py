"""On a real Slurm the report says what sacct and sreport say, and what seff's formulas give, for the same jobs."""

from __future__ import annotations

import re
import subprocess
import time
from collections import Counter
from pathlib import Path
from zoneinfo import ZoneInfo

import polars as pl
import pytest

from hpcplan.report import build_report, job_table, jobs_of, read_sacct
from hpcplan.slurm.command import CommandBackend
from hpcplan.slurm.records import JobRecord
from tests.slurm.cluster import SlurmCluster

pytestmark = pytest.mark.slurm
BUSY = 'timeout 6 sh -c "while :; do :; done"; exit 0'
COLUMNS = (
    "JobID,JobIDRaw,JobName,Cluster,User,Account,Partition,QOS,State,Reason,Submit,Eligible,Start,End,Elapsed,Timelimit,"
    "NNodes,AllocCPUS,NTasks,ReqMem,ReqTRES,AllocTRES,TotalCPU,MaxRSS,TRESUsageInTot,NodeList,ExitCode,Flags"
)


def ask(slurm: SlurmCluster, *words: str) -> str:
    env = {**slurm.env, "TZ": "UTC"}
    return subprocess.run(words, capture_output=True, text=True, check=True, env=env, timeout=60).stdout


@pytest.fixture
def ids(slurm: SlurmCluster, tmp_path: Path) -> list[str]:
    """Jobs that end in several ways; their rows are in accounting when the test begins."""

    def submit(body: str, *options: str) -> str:
        path = tmp_path / "job.sh"
        path.write_text(f"#!/bin/sh\n{body}\n")
        words = ["sbatch", "--parsable", "--output=/dev/null", "--time=5", *options, str(path)]
        return ask(slurm, *words).strip().partition(";")[0]

    found = [
        submit(BUSY, "--ntasks=1", "--job-name=busy"),
        submit("sleep 4", "--nodes=2", "--gres=gpu:2", "--job-name=idle"),
        submit("srun true; exit 3", "--job-name=a|b"),
        submit("sleep 2", "--array=1-2", "--job-name=array"),
    ]
    limit = time.monotonic() + 120
    while time.monotonic() < limit:
        rows = ask(slurm, "sacct", "-aXnP", "--format=JobID,State,End", f"--jobs={','.join(found)}").split()
        if len(rows) >= 5 and not re.search("PENDING|RUNNING|COMPLETING|Unknown", " ".join(rows)):
            break
        time.sleep(1)
    return found


def test_the_dump_the_backend_and_json_give_the_same_jobs(
    slurm: SlurmCluster, backend: CommandBackend, ids: list[str], tmp_path: Path
) -> None:
    """Every attempt there was: a job that could not be launched, as on a busy machine, is begun again.

    A controller that was killed a while ago has given away ids twice; the jobs before these are others.
    """
    now = backend.now()
    asked = ("sacct", "-aD", f"--jobs={','.join(ids)}")
    (tmp_path / "dump.txt").write_text(ask(slurm, *asked, "-P", f"--format={COLUMNS}"))
    dumped, faults = read_sacct([tmp_path / "dump.txt"], zone=ZoneInfo("UTC"))
    assert faults.total == 0
    begun = dumped.filter(pl.col("name") == "busy")["submit_time"].min()
    dumped = dumped.filter(pl.col("submit_time") >= begun)
    live = job_table(backend.accounting(now - 600, now + 1))
    live = live.filter(pl.col("label").is_in(dumped["label"].to_list()), pl.col("submit_time") >= begun)
    same = ["label", "state", "submit_time", "start_time", "end_time", "elapsed_s", "nodes", "cpus", "memory_bytes",
            "cpu_used_s", "name", "user", "partition", "time_limit_s"]  # fmt: skip
    order = ["label", "submit_time"]
    assert dumped["label"].n_unique() == 5
    assert live.select(same).sort(order).equals(dumped.select(same).sort(order))
    (tmp_path / "dump.json").write_text(ask(slurm, *asked, "--json"))
    plain, faults = read_sacct([tmp_path / "dump.json"])
    assert faults.total == 0
    plain = plain.filter(pl.col("submit_time") >= begun)
    known = ["label", "state", "submit_time", "start_time", "end_time", "elapsed_s", "nodes", "cpus", "name", "user"]
    assert plain.select(known).sort(order).equals(dumped.select(known).sort(order))
    both = plain.join(dumped, on=order)
    assert (both["cpu_used_s"].fill_null(0) - both["cpu_used_s_right"].fill_null(0)).abs().max() < 0.01


def test_figures_are_sacct_s_and_seff_s(slurm: SlurmCluster, ids: list[str], tmp_path: Path) -> None:
    (tmp_path / "dump.txt").write_text(ask(slurm, "sacct", "-aP", f"--format={COLUMNS}", f"--jobs={','.join(ids)}"))
    table, _ = read_sacct([tmp_path / "dump.txt"], zone=ZoneInfo("UTC"))
    compared = 0
    for job in jobs_of(table):
        # seff: efficiency = TotalCPU / (elapsed x CPUs); sacct's CPUTimeRAW is the denominator
        raw = ask(slurm, "sacct", "-XnP", "--format=ElapsedRaw,CPUTimeRAW,AllocCPUS", f"--jobs={job['job_id']}")
        elapsed, held, cpus = (int(cell) for cell in raw.strip().split("|"))
        assert (job["elapsed_s"], job["cpus"]) == (elapsed, cpus)
        rows = ask(slurm, "sacct", "-nP", "--format=TotalCPU", f"--jobs={job['job_id']}").splitlines()
        used = sum(float(part) * 60**power for power, part in enumerate(reversed(re.split("[:-]", rows[0]))))
        if used and held:
            compared += 1
            assert job["cpu_efficiency"] == pytest.approx(used / held, rel=1e-6)
        else:
            assert job["cpu_efficiency"] is None
    assert compared >= 2
    assert {job["name"] for job in jobs_of(table)} >= {"busy", "idle", "a|b", "array"}


_ATTEMPTS = "JobID,JobIDRaw,JobName,Account,State,Submit,Start,End,ElapsedRaw,Suspended,AllocCPUS,CPUTimeRAW,AllocTRES"


def test_core_hours_are_sreport_s(slurm: SlurmCluster, backend: CommandBackend, ids: list[str]) -> None:
    """sreport's jobs by size, which it adds up from the jobs themselves; its windows are whole hours.

    The hours are asked for one by one: sreport leaves out the present one where a window begins before it. What is
    compared was read while nothing changed in accounting: it was the same before and after sreport was asked.
    """
    now = backend.now()
    begun = min(one.submit_time or now for one in backend.accounting(now - 600, now + 1))
    start = begun - begun % 3600
    for _ in range(5):
        now = backend.now()
        jobs = backend.accounting(start, now + 1)
        theirs = _by_size(slurm, start, now)
        if _times(jobs) == _times(backend.accounting(start, now + 1)):
            break
    else:
        pytest.fail("accounting does not come to rest")
    report = build_report(jobs, start=start, end=now + 1)
    held = sum(one.cpus or 0 for one in jobs if one.state.active)
    assert sum(theirs.values()) > 0
    every = ask(slurm, "sacct", "-aXDnP", f"--format={_ATTEMPTS}", "-S", time.strftime("%F", time.gmtime(start)))
    for row in report.by_account:
        if row.core_hours and row.name:  # Slurm 25.11 gives jobs of nobody no account, and sreport leaves them out
            near = pytest.approx(theirs[row.name or ""], abs=1 + 2 * held)  # still running
            assert row.core_hours * 3600 == near, f"of these, one is not counted alike, at {now}:\n{every}"


def _times(jobs: list[JobRecord]) -> list[tuple[object, ...]]:
    return [(one.job_id, one.state, one.submit_time, one.start_time, one.end_time) for one in jobs]


def _by_size(slurm: SlurmCluster, start: int, end: int) -> Counter[str]:
    """Return the CPU seconds by account of sreport's hours from the one that begins at ``start``."""
    found: Counter[str] = Counter()
    for hour in range(start, end + 1, 3600):
        first, last = (time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(moment)) for moment in (hour, hour + 3600))
        asked = ["job", "SizesByAccount", "FlatView", "grouping=2,8", f"start={first}", f"end={last}"]
        rows = [line.split("|") for line in ask(slurm, "sreport", "-P", "-t", "seconds", *asked).splitlines() if line]
        sizes = [
            place for row in rows if row[0] == "Cluster" for place, name in enumerate(row) if name.endswith("CPUs")
        ]
        found += Counter({row[1]: sum(int(row[place]) for place in sizes) for row in rows if row[0] == slurm.name})
    return found


def test_use_by_user_account_and_cluster_is_sreport_s(
    slurm: SlurmCluster, backend: CommandBackend, ids: list[str]
) -> None:
    """What slurmdbd adds up of each hour: the jobs are moved onto the end of an hour that is over."""
    middle = _moved_into_the_past(slurm, backend, ids)
    cpus, compared = 0, 0
    for start in (middle - 3600, middle):
        report = build_report(
            backend.accounting(start, start + 3600), start=start, end=start + 3600, nodes=backend.nodes()
        )
        users = _sreport(slurm, "user", "TopUsage", "Login", start)
        accounts = _sreport(slurm, "cluster", "AccountUtilizationByUser", "Account", start)
        for theirs, ours in ((users, report.by_user), (accounts, report.by_account)):
            for row in ours:
                for resource, hours in (("cpu", row.core_hours), ("gres/gpu", row.gpu_hours)):
                    used = theirs.get((row.name or "", resource), 0)
                    assert (hours or 0.0) * 3600 == pytest.approx(used, abs=1e-6), (row.name, resource)
                    compared += used > 0
        cluster = _sreport(slurm, "cluster", "Utilization", "Cluster", start, column="Allocated")
        reported = _sreport(slurm, "cluster", "Utilization", "Cluster", start, column="Reported")
        allocated = cluster[slurm.name, "cpu"]
        assert (report.core_hours.value or 0.0) * 3600 == pytest.approx(allocated, abs=1e-6)
        assert report.cpu_utilisation.value == pytest.approx(allocated / reported[slurm.name, "cpu"], abs=1e-9)
        cpus += allocated
    assert compared >= 4
    assert cpus > 0


def _moved_into_the_past(slurm: SlurmCluster, backend: CommandBackend, ids: list[str]) -> int:
    """Move jobs in accounting so that one of them runs over the end of an hour, have it rolled up, return that hour."""
    name, listed = slurm.name, ",".join(ids)
    chosen = f"id_job IN ({listed}) OR id_array_job IN ({listed})"
    first = slurm.sql(f"SELECT time_start, time_end FROM {name}_job_table WHERE id_job = {ids[0]}").split()[-2:]
    now = backend.now()
    middle = now - now % 3600 - 2 * 3600
    by = (int(first[0]) + int(first[1])) // 2 - middle
    moved = ", ".join(f"time_{word} = time_{word} - {by}" for word in ("submit", "eligible", "start", "end"))
    slurm.sql(
        f"UPDATE {name}_step_table SET time_start = time_start - {by}, time_end = time_end - {by} WHERE job_db_inx IN "
        f"(SELECT job_db_inx FROM {name}_job_table WHERE {chosen}); UPDATE {name}_job_table SET {moved} WHERE {chosen}"
    )
    before = middle - 3 * 3600
    slurm.sql(f"UPDATE {name}_event_table SET time_start = {before} WHERE node_name = '' ORDER BY time_start LIMIT 1")
    slurm.sql(
        f"UPDATE {name}_last_ran_table SET hourly_rollup = {before}, daily_rollup = {before}, monthly_rollup = {before}"
    )
    slurm.stop_daemon("slurmdbd")
    slurm.start_daemon("slurmdbd")  # which rolls up at its start what has not been
    done = f"SELECT hourly_rollup FROM {name}_last_ran_table"
    slurm.wait_until(lambda: int(slurm.sql(done).split()[-1]) >= middle + 3600, "the hours are rolled up")
    return middle


def _sreport(
    slurm: SlurmCluster, kind: str, which: str, key: str, start: int, *, column: str = "Used"
) -> dict[tuple[str, str], int]:
    """Return what sreport says of an hour in seconds: by user, account or cluster, and resource."""
    first, last = (time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(moment)) for moment in (start, start + 3600))
    words = ["sreport", "-P", "-t", "seconds", "--tres=cpu,gres/gpu", kind, which, f"start={first}", f"end={last}"]
    lines = [line.split("|") for line in ask(slurm, *words).splitlines() if "|" in line]
    rows = [dict(zip(lines[0], line, strict=True)) for line in lines[1:]]
    return {(row[key], row["TRES Name"]): int(row[column]) for row in rows if not row.get("Login") or key == "Login"}


def test_live_jobs_have_the_efficiencies_of_the_dump(
    slurm: SlurmCluster, backend: CommandBackend, ids: list[str], tmp_path: Path
) -> None:
    (tmp_path / "dump.txt").write_text(ask(slurm, "sacct", "-aP", f"--format={COLUMNS}", f"--jobs={','.join(ids)}"))
    dumped = {job["job_id"]: job for job in jobs_of(read_sacct([tmp_path / "dump.txt"], zone=ZoneInfo("UTC"))[0])}
    live = jobs_of(job_table(backend.accounting(backend.now() - 600, backend.now() + 1)), dumped)
    assert {job["job_id"] for job in live} == set(dumped)
    for job in live:
        for name in ("cpu_efficiency", "memory_efficiency", "time_efficiency", "gpu_efficiency"):
            assert job[name] == pytest.approx(dumped[job["job_id"]][name]), (job["job_id"], name)
