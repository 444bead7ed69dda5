"""Records when a real slurmctld starts the jobs of a list: what the simulator of Slurm's policy is checked against.

By hand, as root, from the top of the checkout:

    python -m tests.slurm.record_schedule JOBS.csv SCHEDULING.conf -o RECORDED.csv

JOBS.csv has the columns job, submit_s, nodes, run_s, time_limit_min, and may have partition, priority, cpus, gres,
features, switches, segment, dependency (``afterok:JOB``), qos, account, user, nice, reservation. SCHEDULING.conf holds
the lines of slurm.conf that say how jobs are scheduled, with NodeName and PartitionName. Files beside it are used if
they are there: ``topology.conf`` or ``.yaml``; ``accounting.txt``, commands for sacctmgr, one a line, which gets a
slurmdbd started, and ``accounts.cfg`` and ``qos.txt`` written for the simulator; ``reservations.txt``, as scontrol has
them, a line each, with times in seconds from the first second of the jobs' clock.
Whatever lets many nodes run on one machine is added here. munged must answer.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from hpcplan.hostlist import expand
from tests.slurm import record_accounting
from tests.slurm.cluster import PATH, release

_PREFIXES = ("SLURM", "SBATCH", "SQUEUE", "SACCT", "SINFO", "SCANCEL", "SCONTROL", "SALLOC")
_FOR_EVER = {"PartitionTimeLimit", "PartitionNodeLimit", "DependencyNeverSatisfied"}  # such jobs are left waiting
_SOON_MS = 15  # nodes are clean so soon after a job of which they do not tell
_RECORDED = ("start_s", "end_s", "state", "nodelist")


def _free_ports(count: int) -> int:
    """Return the first of so many free ports in a row."""
    for first in random.sample(range(20000, 60000 - count), 50):
        with ExitStack() as probes:
            try:
                for port in range(first, first + count):
                    probes.enter_context(closing(socket.socket())).bind(("127.0.0.1", port))
            except OSError:
                continue
            return first
    raise SystemExit("no free ports")


def _configuration(folder: Path, text: str, accounting: Mapping[str, str]) -> tuple[str, list[str]]:
    """Return the whole slurm.conf and the names of its nodes; a NodeName line stays one line: it is a set to choose."""
    nodes: list[str] = []
    lines = []
    for line in text.splitlines():
        match = re.match(r"NodeName=(\S+)(.*)", line)
        if match is None or match[1] == "DEFAULT":
            lines.append(line)
            continue
        names = expand(match[1])
        nodes += names
        first = _free_ports(len(names))
        ports = str(first) if len(names) == 1 else f"[{first}-{first + len(names) - 1}]"
        lines.append(f"NodeName={match[1]} NodeHostname=localhost NodeAddr=127.0.0.1 Port={ports}{match[2]}")
    given = {line.partition("=")[0].strip().lower() for line in lines}
    own = {
        "SlurmctldHost": "localhost(127.0.0.1)", "SlurmctldPort": str(_free_ports(1)), "SlurmUser": "root",
        "SlurmdUser": "root", "AuthType": "auth/munge", "StateSaveLocation": f"{folder}/state",
        "SlurmdSpoolDir": f"{folder}/spool.%n", "SlurmctldPidFile": f"{folder}/ctld.pid",
        "SlurmdPidFile": f"{folder}/%n.pid", "SlurmctldLogFile": f"{folder}/ctld.log",
        "SlurmdLogFile": f"{folder}/%n.log", "JobCompLoc": f"{folder}/jobcomp", "JobCompType": "jobcomp/filetxt",
        "ClusterName": "recording", "ProctrackType": "proctrack/linuxproc", "TaskPlugin": "task/none",
        "ReturnToService": "2", "MpiDefault": "none", "SwitchType": "switch/none",
        "SlurmdParameters": "config_overrides", "SlurmctldDebug": "debug2", "DebugFlags": "Backfill",
        "AccountingStorageType": "accounting_storage/none", **accounting,
    }  # fmt: skip
    added = [f"{key}={value}" for key, value in own.items() if key.lower() not in given]
    return "\n".join([*added, *lines]) + "\n", nodes


def _gres(text: str, nodes: list[str]) -> str:
    """Return the gres.conf: GPUs have files, anything else is counted."""
    lines = [f"NodeName={','.join(nodes)} Name=gpu File=/dev/tty[0-7]"]
    for names, words in re.findall(r"^NodeName=(\S+).*\bGres=(\S+)", text, re.MULTILINE):
        for word in words.split(","):
            name, _, count = word.partition(":")
            if name != "gpu":
                lines.append(f"NodeName={names} Name={name} Count={count or 1}")
    return "\n".join(lines) + "\n"


@contextmanager
def cluster(folder: Path, conf: Path) -> Iterator[dict[str, str]]:
    """Run slurmctld and the slurmds of ``conf``; yields the environment in which Slurm's commands find them."""
    for name in ("etc", "state", "jobs"):
        (folder / name).mkdir()
    commands = conf.with_name("accounting.txt")
    ports = (_free_ports(1), _free_ports(1))
    accounting = {
        "AccountingStorageType": "accounting_storage/slurmdbd", "AccountingStorageHost": "127.0.0.1",
        "AccountingStoragePort": str(ports[1]), "AccountingStorageTRES": "gres/gpu",
        "AccountingStorageEnforce": "associations,limits,qos",
    }  # fmt: skip
    text, nodes = _configuration(folder, conf.read_text(), accounting if commands.exists() else {})
    (folder / "etc" / "slurm.conf").write_text(text)
    for topology in (conf.with_name("topology.conf"), conf.with_name("topology.yaml")):
        if topology.exists():
            shutil.copy(topology, folder / "etc" / topology.name)
    if release() >= (23, 11):
        (folder / "etc" / "cgroup.conf").write_text("CgroupPlugin=disabled\n")
    if "gres" in text.lower():
        (folder / "etc" / "gres.conf").write_text(_gres(text, nodes))
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_PREFIXES)}
    env = {**kept, "PATH": PATH, "SLURM_CONF": str(folder / "etc" / "slurm.conf")}
    log = (folder / "daemons.out").open("ab")
    daemons = []

    def spawn(*command: str) -> None:
        daemons.append(subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True))

    try:
        if subprocess.run(["munge", "--no-input"], env=env, capture_output=True, check=False).returncode:
            raise SystemExit("munged does not answer: start it, or a test cluster (python -m tests.slurm.cluster up)")
        if commands.exists():
            record_accounting.start(folder, env, spawn, ports, commands)
        env["RECORDING_STARTED"] = str(time.time())
        spawn("slurmctld", "-D")
        for node in nodes:
            spawn("slurmd", "-D", "-N", node)
        deadline = time.monotonic() + 60
        while run(env, "sinfo", "-h", "-N", "-o", "%N %T").count(" idle") < len(nodes):
            if time.monotonic() > deadline:
                raise SystemExit(f"the nodes do not come up: see {folder}")
            time.sleep(0.5)
        yield env
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
        for daemon in daemons:
            daemon.wait(30)
        log.close()


def run(env: Mapping[str, str], *command: str) -> str:
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=60).stdout


def _options(row: Mapping[str, str], ids: Mapping[str, str]) -> list[str]:
    options = [f"--nodes={row['nodes']}"]
    whole = not row.get("cpus") and not row.get("gres")
    for column, option in {
        "time_limit_min": "time", "partition": "partition", "priority": "priority", "features": "constraint",
        "switches": "switches", "segment": "segment",
        "gres": "gres", "cpus": "cpus-per-task", "mem": "mem", "qos": "qos", "account": "account",
        "nice": "nice", "reservation": "reservation", "user": "uid",
    }.items():  # fmt: skip
        if row.get(column):
            options.append(f"--{option}={row[column]}")
    options.append("--exclusive" if whole else "--ntasks-per-node=1")
    if row.get("dependency"):
        kind, _, job = row["dependency"].partition(":")
        options.append(f"--dependency={kind}:{ids[job]}" if job else f"--dependency={kind}")
    return options


def _may_start(reason: str) -> bool:
    if "PerJob" in reason or re.search(r"Grp\w+(?<!Run)Minutes|GrpWall", reason):  # what is used up stays so
        return False
    return reason not in _FOR_EVER


def _reserve(env: Mapping[str, str], file: Path, begin: float) -> None:
    """Make the reservations of a file like ``scontrol show reservation``, whose times are seconds from ``begin``."""
    for line in file.read_text().splitlines():
        given = dict(word.split("=", 1) for word in line.split())
        for key in ("StartTime", "EndTime"):
            given[key] = datetime.fromtimestamp(begin + float(given[key])).isoformat()
        answer = run(env, "scontrol", "create", "reservation", *(f"{key}={value}" for key, value in given.items()))
        print(answer.strip(), file=sys.stderr)


def record(jobs: Path, conf: Path, folder: Path) -> tuple[list[dict[str, str]], dict[str, Any]]:
    """Submit the jobs at their times and return their rows with what became of them; times from the first second.

    And the moments at which the controller looked: see :mod:`hpcplan.simulate.moments`.
    """
    with jobs.open(newline="") as stream:
        rows = [dict(row) for row in csv.DictReader(stream)]
    with cluster(folder, conf) as env:
        ids: dict[str, str] = {}
        if conf.with_name("accounting.txt").exists():
            record_accounting.dump(env, conf.parent)
        begin = float(int(time.time()) + 1)
        if (reserved := conf.with_name("reservations.txt")).exists():
            _reserve(env, reserved, begin)
        started = float(env["RECORDING_STARTED"]) - begin
        print(f"{jobs.stem}: slurmctld started at {started:.3f} s, unix second {begin:.0f}", file=sys.stderr)
        for row in sorted(rows, key=lambda row: float(row["submit_s"])):
            time.sleep(max(0.0, begin + float(row["submit_s"]) - time.time()))
            script = f"--wrap=sleep {shlex.quote(row['run_s'])}"
            options = [*_options(row, ids), "--parsable", "--output=/dev/null", "--chdir=/", script]
            answer = subprocess.run(["sbatch", *options], env=env, capture_output=True, text=True, check=False)
            ids[row["job"]] = answer.stdout.strip()
            if answer.returncode:
                print(f"job {row['job']}: {answer.stderr.strip()}", file=sys.stderr)
        while any(_may_start(reason) for reason in run(env, "squeue", "-h", "-o", "%r").split()):
            time.sleep(2)
        time.sleep(2)
    rows = _merge(rows, ids, folder / "jobcomp", begin)
    return rows, _moments(folder / "ctld.log", ids, begin, started, rows)


def _moments(
    log: Path, ids: Mapping[str, str], begin: float, started: float, rows: list[dict[str, str]]
) -> dict[str, Any]:
    """Return when the controller's threads had their turns and saw jobs start and end, in milliseconds.

    A node is clean when it tells (``epilog_complete``), or has answered to the word that the job is over: the answers
    are all taken in at the last ``got back``, just before the log has them one by one. What comes in the same
    millisecond as a look, and after it, is put into the next one.
    """
    nodes = {row["job"]: set(expand(row["nodelist"])) for row in rows if row["nodelist"]}
    names = {job_id: job for job, job_id in ids.items()}
    main: list[list[int]] = []
    backfill: list[int] = []
    submits: dict[str, int] = {}
    starts: dict[str, int] = {}
    ends: dict[str, int] = {}
    gone: dict[str, dict[str, int]] = {}
    answering: dict[str, set[str]] = {}  # nodes of jobs that are over that have not answered yet
    back = looked = 0
    for line in log.read_text(errors="replace").splitlines():
        match = re.match(r"\[(\S+)\] (.*)", line)
        if match is None:
            continue
        at, words = round((datetime.fromisoformat(match[1]).timestamp() - begin) * 1000), match[2]
        heard = at + (at == looked)
        if "Running job scheduler" in words:
            main.append([at, int("full" in words)])
            looked = at
        elif "_attempt_backfill: beginning" in words:
            backfill.append(at)
            looked = at
        elif (job := re.search(r"submit_batch_job: JobId=(\d+) ", words)) is not None:
            submits[names.get(job[1], "")] = heard
        elif (job := re.search(r"(?:Allocate JobId=(\d+) |Started JobId=(\d+) in)", words)) is not None:
            starts[names.get(job[1] or job[2], "")] = at
        elif (job := re.search(r"_job_complete: JobId=(\d+) done", words)) is not None:
            name = names.get(job[1], "")
            ends[name], answering[name] = heard, set(nodes.get(name, ()))
        elif (job := re.search(r"_slurm_rpc_epilog_complete: JobId=(\d+) Node=(\S+)", words)) is not None:
            name = names.get(job[1], "")
            gone.setdefault(name, {})[job[2]] = heard
            answering.pop(name, None)
        elif "Tree head got back" in words:
            back = heard
        elif (node := re.search(r"node_did_resp (\S+)", words)) is not None:
            for name, waiting in answering.items():
                if node[1] in waiting:
                    waiting.discard(node[1])
                    gone.setdefault(name, {})[node[1]] = max(back, ends[name])
    for name, at in _seen_clean(main, backfill, starts, ends, nodes).items():
        gone[name] = {node: min(at, gone.get(name, {}).get(node, at)) for node in nodes[name]}
    return {"clock_s": int(begin), "started_ms": round(started * 1000), "main": main, "backfill": backfill,
            "submits": submits, "starts": starts, "ends": ends, "gone": gone}  # fmt: skip


def _seen_clean(
    main: list[list[int]], backfill: list[int], starts: Mapping[str, int], ends: Mapping[str, int],
    nodes: Mapping[str, set[str]],
) -> dict[str, int]:  # fmt: skip
    """Return by when nodes were clean, of jobs after which another one was started there at once: at that look."""
    looks = sorted([at for at, _ in main] + backfill)
    found = {}
    for job, over in ends.items():
        soon = [
            at for other, at in starts.items()
            if other != job and 0 <= at - over <= _SOON_MS and nodes.get(other, set()) & nodes.get(job, set())
        ]  # fmt: skip
        look = max((at for at in looks if soon and at <= min(soon)), default=over - 1)
        if look >= over:
            found[job] = look
    return found


def _merge(rows: list[dict[str, str]], ids: Mapping[str, str], completed: Path, begin: float) -> list[dict[str, str]]:
    ended = {}
    for line in completed.read_text().splitlines():
        values = dict(word.split("=", 1) for word in line.split() if "=" in word)
        ended[values["JobId"]] = values
    for row in rows:
        values = ended.get(ids[row["job"]], {})
        for column, key in (("start_s", "StartTime"), ("end_s", "EndTime")):
            at = values.get(key, "")
            row[column] = f"{datetime.fromisoformat(at).timestamp() - begin:.1f}" if at[:2] == "20" else ""
        row["state"], row["nodelist"] = values.get("JobState", ""), values.get("NodeList", "")
    return rows


def main() -> None:
    """Record one list of jobs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("jobs", type=Path)
    parser.add_argument("conf", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hpcplan-recording-") as name:
        Path(name).chmod(0o755)  # other users run the scripts that are in it
        rows, moments = record(given.jobs, given.conf, Path(name))
    given.output.with_suffix(".moments.json").write_text(json.dumps(moments, separators=(",", ":")) + "\n")
    with given.output.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, [*(key for key in rows[0] if key not in _RECORDED), *_RECORDED])
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
