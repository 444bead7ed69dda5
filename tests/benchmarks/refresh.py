"""What one refresh of a campaign of 10,000 jobs costs: the client's CPU time, and the calls that Slurm gets.

    python -m tests.benchmarks.refresh [JOBS]            over commands that print what squeue and sacct would
    python -m tests.benchmarks.refresh [JOBS] --slurm    on a real Slurm with that many jobs in its queue (root, Debian)

CPU time is that of this process and of the commands that it runs. The limit that hpcplan promises is 1 s and one call
of the controller; calls of a real controller are counted by sdiag.
"""

from __future__ import annotations

import json
import os
import re
import resource
import sys
import tempfile
import time
from pathlib import Path

from hpcplan.campaign import status
from hpcplan.campaign.journal import JOURNAL_NAME, Entry, format_entry
from hpcplan.campaign.ledger import job_token
from hpcplan.slurm import sacct, squeue
from hpcplan.slurm.command import CommandBackend
from tests.campaign.tiny import write_tiny_campaign

LIMIT_S = 1.0
CAMPAIGN = "0123456789abcdef0123456789abcdef"
SCRIPT = """\
#!/bin/sh
echo {name} >> {calls}
for word in "$@"; do
  case $word in
    --Format=*) mark=${{word##*:0}};;
    --delimiter=*) mark=${{word#--delimiter=}};;
  esac
done
sed "s/@@/$mark/g" {answer}
"""


def cpu_s() -> float:
    """Return the CPU seconds of this process and of its children so far."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in used)


def journal(directory: Path, ids: list[int], now: int) -> None:
    """Write the journal of a campaign whose jobs have these ids."""
    entries = [("opened", {"campaign": CAMPAIGN, "name": "many", "backend": "command", "cluster": None,
                           "plan_sha256": "0" * 64, "at": now})]  # fmt: skip
    for number, job_id in enumerate(ids, start=1):
        key = f"train-{number:04d}"
        entries.append(("submit", {"job": key, "token": job_token(CAMPAIGN, "train", number), "at": now,
                                   "dependency": None, "script_sha256": "0" * 64}))  # fmt: skip
        entries.append(("submitted", {"job": key, "job_id": job_id, "at": now}))
    lines = [format_entry(Entry(seq, "2026-01-01T00:00:00Z", event, data))
             for seq, (event, data) in enumerate(entries, start=1)]  # fmt: skip
    (directory / JOURNAL_NAME).write_text("".join(lines))


def leave_words(folder: Path, number: int, state: str, now: int) -> None:
    """Leave what a job that has begun or ended says of itself."""
    folder.mkdir(parents=True, exist_ok=True)
    begin = f"token={job_token(CAMPAIGN, 'train', number)}\njob_id={number}\nrestarts=0\nnode=n1\nbegan={now}\n"
    if state != "PENDING":
        (folder / f"train-{number:04d}-{number}.began").write_text(begin)
    if state == "COMPLETED":
        end = f"{begin}ended={now + 60}\nexit_code=0\nhow=ended\n"
        (folder / f"train-{number:04d}-{number}.ended").write_text(end)


def made_up(folder: Path, directory: Path, jobs: int, now: int) -> CommandBackend:
    """Return a backend over commands that answer for this many jobs, a tenth of them running, a tenth ended."""
    bin_ = folder / "bin"
    bin_.mkdir()
    rows = {"squeue": [], "sacct": []}  # type: dict[str, list[str]]
    for number in range(1, jobs + 1):
        state = ("RUNNING", "COMPLETED", *["PENDING"] * 8)[number % 10]
        where = "" if state == "PENDING" else f"n[{number}-{number + 3}]"
        common = {
            "jobid": number, "arrayjobid": number, "arraytaskid": "N/A", "name": f"many-train-{number:04d}",
            "cluster": "lab", "username": "ada", "account": "research", "partition": "batch", "qos": "normal",
            "state": state, "reason": "Dependency" if state == "PENDING" else "None",
            "comment": job_token(CAMPAIGN, "train", number), "dependency": f"afterany:{number - 1}(unfulfilled)",
            "submittime": now, "eligibletime": now, "starttime": now, "endtime": now + 60, "timelimit": "1:00:00",
            "exit_code": 0, "restartcnt": 0, "prioritylong": 4294901000, "numnodes": 4, "nodelist": where,
            "numcpus": 256, "tres-alloc": "cpu=256,mem=2000G,node=4,billing=256,gres/gpu=32", "workdir": str(directory),
            "hetjobid": "N/A", "hetjoboffset": "N/A",
        }  # fmt: skip
        rows["squeue"].append("".join(f"{common[name]}@@" for name in squeue.FIELDS))
        stored = {
            "JobIDRaw": number, "JobID": number, "JobName": common["name"], "Cluster": "lab", "State": state,
            "Submit": now, "Eligible": now, "Start": now, "End": now + 60, "TimelimitRaw": 60, "ExitCode": "0:0",
            "NNodes": 4, "NodeList": where or "None assigned", "NCPUS": 256, "TotalCPU": "00:00:00", "User": "ada",
            "ReqTRES": common["tres-alloc"], "AllocTRES": common["tres-alloc"], "Comment": common["comment"],
        }  # fmt: skip
        leave_words(directory / "state" / "jobs", number, state, now)
        if state == "COMPLETED":  # accounting is asked about those alone that the queue does not settle
            rows["sacct"].append("".join(f"{stored.get(name, '')}@@" for name in sacct.FIELDS))
    for name, lines in rows.items():
        answer = folder / f"{name}.txt"
        answer.write_text("\n".join(lines) + "\n")
        program = bin_ / name
        program.write_text(SCRIPT.format(name=name, calls=folder / "calls", answer=answer))
        program.chmod(0o755)
    return CommandBackend({"PATH": f"{bin_}:{os.environ['PATH']}"})


def measure(directory: Path, backend: CommandBackend) -> tuple[float, int]:
    """Return the CPU seconds of one refresh, and how many jobs it told of."""
    before = cpu_s()
    result = status(directory, backend)
    return cpu_s() - before, sum(job.state in ("PENDING", "RUNNING", "COMPLETED") for job in result.jobs)


def over_commands(jobs: int) -> dict[str, object]:
    """Measure over made-up commands."""
    with tempfile.TemporaryDirectory() as name:
        folder, now = Path(name), int(time.time())
        directory = write_tiny_campaign(folder / "many", jobs, name="many")
        journal(directory, list(range(1, jobs + 1)), now)
        backend = made_up(folder, directory, jobs, now)
        measure(directory, backend)  # the first writes the ends that it sees into the journal
        (folder / "calls").unlink()
        used, told = measure(directory, backend)
        calls = (folder / "calls").read_text().split()
    return {"jobs": jobs, "told_of": told, "client_cpu_s": round(used, 3), "limit_s": LIMIT_S,
            "ratio": round(used / LIMIT_S, 3), "controller_calls": calls.count("squeue"),
            "accounting_calls": calls.count("sacct")}  # fmt: skip


def on_slurm(jobs: int) -> dict[str, object]:
    """Measure on a real Slurm whose queue holds that many jobs."""
    from tests.slurm.cluster import SlurmCluster, exclusive

    with exclusive():
        cluster = SlurmCluster()
        cluster.start()
        conf = Path(cluster.env["SLURM_CONF"])
        conf.write_text(conf.read_text() + f"MaxJobCount={jobs + 100}\n")
        cluster.stop_daemon("slurmctld")  # MaxJobCount is read at its start
        cluster.start_daemon("slurmctld")
        os.environ |= {name: cluster.env[name] for name in ("SLURM_CONF", "PATH")}
        try:
            directory, now = write_tiny_campaign(cluster.job_folder() / "many", jobs, name="many"), int(time.time())
            loop = (f"for n in $(seq {jobs}); do sbatch --parsable --hold --comment=hpcplan:{CAMPAIGN}:train:$n "
                    f"--chdir={directory} {directory}/$(printf 'train-%04d' $n).sbatch; done")  # fmt: skip
            import subprocess

            answer = subprocess.run(["bash", "-c", loop], capture_output=True, text=True, check=True)
            journal(directory, [int(word) for word in answer.stdout.split()], now)
            backend = CommandBackend()
            measure(directory, backend)
            cluster.run("sdiag", "--reset")
            used, told = measure(directory, backend)
            count = re.search(r"REQUEST_JOB_INFO\s+\(2003\) count:(\d+)", cluster.run("sdiag").stdout)
        finally:
            cluster.stop()
    return {"jobs": jobs, "told_of": told, "client_cpu_s": round(used, 3), "limit_s": LIMIT_S,
            "ratio": round(used / LIMIT_S, 3), "controller_calls": int(count[1]) if count else None}  # fmt: skip


def main(arguments: list[str]) -> int:
    """Run what the module's first lines say; exit code 1 where the promise is not kept."""
    words = [word for word in arguments if word != "--slurm"]
    jobs = int(words[0]) if words else 10_000
    found = on_slurm(jobs) if "--slurm" in arguments else over_commands(jobs)
    print(json.dumps(found))
    kept = found["told_of"] == jobs and found["controller_calls"] == 1 and float(str(found["ratio"])) < 1
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
