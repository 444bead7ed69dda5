"""Types every option of Slurm's commands, alone and in pairs, on a real Slurm and on a mock of the same cluster.

By hand, as root, from the top of the checkout (some minutes; :mod:`tests.slurm.cluster` says which Slurm):

    python -m tests.slurm.compare_options [COMMAND ...] [-o DIFFERENCES.txt]

The options are those of the real ``COMMAND --help``; a value for each comes from ``VALUES``. Both sides have the same
jobs (``SCENE``). Exit code, stdout and stderr are compared without times, folders and what else must differ. An answer
is the same, differs, or is refused by the mock cluster: with words of its own, or because it has no such option.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from hpcplan.simulate.commands.attach import EnterOptions, enter
from hpcplan.simulate.lifecycle import StartOptions, start_cluster
from hpcplan.site.load import load_site
from tests.slurm.cluster import SlurmCluster, exclusive
from tests.slurm.test_commands_like_slurm import plain, shape
from tests.slurm.twin import SITE

SCENE: Final = """
sbatch -J done -o /dev/null --wrap 'srun -n1 true'; sbatch -J fails -o /dev/null --wrap 'exit 3'
sbatch -J array -a 1-2 -o /dev/null --wrap true
sleep 8
sbatch -J runs -N2 -c2 --gres=gpu:1 -t 30 --comment words -o runs.out --wrap 'echo out; srun sleep 900'
sleep 4
sbatch -J held -H -N3 --ntasks-per-node=2 -C h100 -t 10 --wrap 'sleep 900'
sbatch -J later -b now+5hours -a 3-9%2 --wrap true; sbatch -J after -d afterok:6 -p long --wrap true
sbatch -J het -H -N1 : -N2 --wrap true; sbatch -J gone -H --wrap true; scancel -n gone
sleep 6
"""
VALUES: Final = {
    "account": "research", "accounts": "research", "acctg-freq": "30", "array": "1-3", "association": "1",
    "batch": "h100", "bb": "x", "bbf": "x", "begin": "now+1hour", "chdir": "/tmp", "cluster-constraint": "x",
    "clusters": "hpcplan", "comment": "words", "constraint": "h100", "constraints": "h100", "container": "/tmp",
    "contiguous": "", "core-spec": "0", "cores-per-socket": "1", "cpu-bind": "none", "cpu-freq": "low",
    "cpus-per-gpu": "2", "cpus-per-task": "2", "deadline": "now+2days", "delay-boot": "1", "delimiter": ":",
    "dependency": "afterany:1", "distribution": "block", "endtime": "now", "epilog": "/bin/true", "error": "err",
    "exclude": "n1", "export": "NONE", "export-file": "/dev/null", "extra-node-info": "1", "file": "/dev/null",
    "flags": "SchedMain", "fields": "jobid", "format": "%i", "Format": "NodeList", "get-user-env": "", "gid": "0",
    "gpu-bind": "none", "gpu-freq": "low", "gpus": "2", "gpus-per-node": "1", "gpus-per-socket": "1",
    "gpus-per-task": "1", "gres": "gpu:1", "gres-flags": "enforce-binding", "group": "root", "het-group": "0",
    "hint": "nomultithread", "ignore-pbs": "", "immediate": "20", "input": "/dev/null", "iterate": "1", "job": "6",
    "job-name": "named", "jobid": "5", "jobs": "5,6", "json": "", "kill-command": "15", "kill-on-invalid-dep": "yes",
    "licenses": "x", "mail-type": "NONE", "mail-user": "root", "max-exit-timeout": "60", "mcs-label": "x",
    "mem": "100", "mem-bind": "none", "mem-per-cpu": "10", "mem-per-gpu": "10", "mincpus": "2", "mpi": "none",
    "msg-timeout": "10", "name": "held", "ncpus": "2", "network": "x", "nice": "5", "nnodes": "1-2",
    "node": "n0", "nodefile": "/dev/null", "nodelist": "n0", "nodes": "2", "ntasks": "2", "ntasks-per-core": "1",
    "ntasks-per-gpu": "1", "ntasks-per-node": "2", "ntasks-per-socket": "1", "open-mode": "append",
    "output": "out", "parent": "root", "partition": "batch", "prefer": "h100", "priority": "7", "profile": "none",
    "prolog": "/bin/true", "propagate": "NONE", "qos": "normal", "reason": "Resources", "relative": "0",
    "reservation": "nosuch", "resv-ports": "1", "signal": "USR1@60", "slurmd-debug": "info", "sort": "i",
    "sockets-per-node": "1", "start": "now-1hour", "starttime": "now-1hour", "state": "RUNNING", "states": "all",
    "switches": "1", "task-epilog": "/bin/true", "task-prolog": "/bin/true", "tasks-per-node": "1",
    "thread-spec": "1", "threads-per-core": "1", "threads": "1", "time": "5", "time-min": "1", "timelimit-max": "60",
    "timelimit-min": "1", "tmp": "0", "tres": "cpu", "tres-per-task": "cpu=1", "uid": "0", "units": "M",
    "user": "root", "users": "root", "wait": "0", "wait-all-nodes": "1", "wckey": "x", "wckeys": "x", "whole": "",
    "wrap": "true", "X11": "", "test-only": "", "fanout": "1", "treewidth": "1", "compress": "none",
    "cluster": "hpcplan", "tasks": "2", "weights": "", "step": "5.0", "step-format": "",
}  # fmt: skip
OWN: Final = {
    ("sacct", "state"): "COMPLETED", ("sacct", "format"): "JobID,State%20", ("sacct", "name"): "done",
    ("sacct", "jobs"): "1,2", ("sacct", "job"): "1", ("sinfo", "format"): "%P %t %D", ("sinfo", "nodes"): "n[0-1]",
    ("squeue", "Format"): "JobID,Name", ("sshare", "format"): "Account,User", ("sprio", "format"): "%i %Y",
    ("sinfo", "sort"): "P", ("sprio", "sort"): "i", ("sinfo", "states"): "idle", ("sstat", "format"): "JobID,NTasks",
    ("sstat", "jobs"): "5.0", ("scancel", "nodelist"): "n7", ("sreport", "all_clusters"): "",
}  # fmt: skip
_SHOWN: Final = "JobId|UserId|AllocNode|SubmitTime|AccrueTime|LastSched|StdOut|StdErr|WorkDir|EligibleTime|Priority"
_SUBMIT: Final = (
    'id=$(sbatch -H --parsable {} --wrap true); echo rc $?; id=${{id%%;*}}; [ -z "$id" ] || '
    f"{{{{ scontrol show job -o $id | tr ' ' '\\n' | grep -vE '^({_SHOWN})'; scancel $id; }}}}"
)
LINES: Final = {  # where an option goes, in a line that is short and changes nothing
    "sbatch": _SUBMIT,
    "salloc": "salloc {} bash -c 'echo $SLURM_NNODES $SLURM_NTASKS $SLURM_JOB_PARTITION'",
    "srun": "srun {} bash -c 'echo $SLURM_PROCID $SLURM_NTASKS $SLURM_NNODES' | sort",
    "squeue": "squeue {}", "sacct": "sacct {}", "sinfo": "sinfo {}", "sprio": "sprio {}", "sshare": "sshare {}",
    "sdiag": "sdiag {} | head -4", "sstat": "sstat -j 5 {}", "sreport": "sreport {} cluster utilization | head -3",
    "sacctmgr": "sacctmgr {} show qos", "scontrol": "scontrol {} show node n5",
    "scancel": "id=$(sbatch -H --parsable -J held2 --wrap true); scancel {} $id; echo rc $?; squeue -h -j $id -o %T; "
    "scancel -Q $id",
    "sattach": "timeout 2 sattach {} 5.0", "sbcast": "sbcast {} /etc/hostname /tmp/x",
}  # fmt: skip
PAIRS: Final = {  # what clients say together
    "sbatch": "nodes ntasks cpus-per-task gres gpus mem time array dependency constraint exclusive signal "
    "ntasks-per-node",
    "squeue": "jobs format noheader states users array long start sort",
    "sinfo": "Node long noheader format exact summarize",
    "sacct": "jobs format parsable2 noheader allocations starttime state brief duplicates units",
    "srun": "nodes ntasks cpus-per-task overlap exclusive label gres time ntasks-per-node",
    "salloc": "nodes ntasks gres time no-shell", "scancel": "name state user quiet verbose signal",
    "scontrol": "oneliner details all",
}  # fmt: skip
MORE: Final = [  # the commands of those that have commands, and all columns
    "sacct -o ALL | head -2", "squeue -o %all | head -1", "sinfo -o %all | head -1",
    *(f"scontrol {word}" for word in (
        "show job 5", "show job", "show step 5.0", "show step", "show node", "show partition", "show partition debug",
        "show config | wc -w > /dev/null", "show hostnames n[1-3]", "show hostlist n1,n2", "show topology",
        "show topology node=n0", "show daemons", "show licenses", "show reservation", "show assoc_mgr | head -1",
        "show federation", "show bbstat", "show burstbuffer", "show dwstat", "show aliases n0", "show frontend",
        "show slurmd | head -1", "-d show job 5", "-o show job 6", "-dd show job 6", "show jobid=5", "show jobs 5",
        "ping", "listpids 5 n0 | wc -l", "completing", "write batch_script 5 -", "write config", "notify 5 hello",
        "setdebug info", "setdebugflags +Backfill", "schedloglevel 0", "reconfigure", "version", "getaddrs n0",
        "wait_job 5", "fsdampeningfactor 1", "top 6", "suspend 6", "resume 6", "requeue 6", "requeuehold 6",
        "release 6", "hold 6", "uhold 6", "update job 6 name=x", "update job 6 timelimit=+5",
        "update job 6 nice=3 comment=hi", "update job 6 numnodes=2", "update job 6 features=sim",
        "update job 6 dependency=afterany:6", "update job 6 partition=long", "update job 6 reqnodelist=n1",
        "update job 6 priority=3", "update job 6 qos=normal", "update job 6 account=research",
        "update job 6 eligibletime=now+2hours", "update job 6 excnodelist=n2", "update job 6 requeue=0",
        "update job 6 mincpusnode=1", "update job 6 minmemorynode=10", "update job 6 gres=gpu:1",
        "update job 6 wckey=x", "update job 6 stdout=/tmp/x", "update job 6 licenses=x", "update job 6 burstbuffer=x",
        "update job 6 admincomment=x", "update job 6 switches=1", "update job 6 deadline=now+3days",
        "update job 6 numcpus=5", "update job 6 numtasks=5", "update job 6 mailuser=x", "update job 6 userid=0",
        "update job 6 clusterfeatures=x", "update job 6 contiguous=1", "update job 6 arraytaskthrottle=1",
        "update job 5_ 2", "update step 5.0 timelimit=6", "update node n7 weight=2", "update node n7 weight=1",
        "update node n7 state=drain reason=why", "update node n7 state=resume", "update node n7 features=x",
        "update node n7 gres=gpu:8", "update node n7 comment=c", "update node n7 extra=e", "update foo=1",
        "token", "token lifespan=10", "errnumstr 2", "cluster hpcplan",
        "reboot nosuch", "cancel_reboot n0", "delete partition nosuch", "create partition",
    )),
    *(f"sacctmgr -nP show {word}" for word in (
        "account", "account withassoc", "account nosuch", "association", "association user=root",
        "association tree", "cluster", "configuration | wc -l > /dev/null", "event", "federation", "problem", "qos",
        "qos format=name,priority", "qos where name=normal", "resource", "reservation", "runawayjobs",
        "stats | head -1",
        "transaction | wc -l > /dev/null", "tres", "user", "user root", "user root withassoc format=user,account",
        "user withcoord", "wckey", "nosuch", "coordinator",
    )),
    "sacctmgr list qos", "sacctmgr -i add account x", "sacctmgr -i delete account x", "sacctmgr -i add qos x",
    "sacctmgr -i modify user root set fairshare=2", "sacctmgr version", "sacctmgr ping",
    "sacctmgr dump hpcplan | head -1",
    *(f"sreport -nP {word}" for word in (
        "cluster utilization", "cluster accountutilizationbyuser", "cluster userutilizationbyaccount",
        "cluster userutilizationbywckey", "cluster wckeyutilizationbyuser", "job sizesbyaccount",
        "job sizesbyaccountandwckey", "job sizesbywckey", "reservation utilization", "user topusage", "user top",
        "cluster utilization start=now-1hour end=now", "user top topcount=2 -t hours", "-t percent cluster utilization",
        "-T cpu,gres/gpu user top", "cluster utilization format=cluster,allocated",
    )),
]  # fmt: skip
_SKIPPED: Final = {  # that wait, ask, or end the shell
    ("squeue", "iterate"), ("sinfo", "iterate"), ("sbatch", "wait"), ("scancel", "interactive"), ("scancel", "user"),
    ("srun", "pty"), ("srun", "debugger-test"), ("scancel", "state"), ("scancel", "partition"), ("scancel", "account"),
    ("scancel", "qos"), ("scancel", "me"), ("srun", "X11"), ("salloc", "X11"), ("salloc", "no-shell"),
    ("sacct", "completion"), ("srun", "slurmd-debug"), ("srun", "bcast"), ("srun", "input"), ("sbatch", "wrap"),
}  # fmt: skip


def options(text: str) -> Iterator[tuple[str, bool]]:
    """Yield the long options of a ``--help``, and whether a value follows."""
    seen = set()
    for line in text.splitlines():
        match = re.match(r"\s*(?:-\w(?:, |\|| <?\w+>? ?,? ?)?)?\s*--([\w-]+)(\[?=| <|)", line)
        if match and match[1] not in seen:
            seen.add(match[1])
            yield match[1], match[2] in {"=", "[=", " <"}


def word(command: str, name: str, *, takes: bool) -> str:
    """Return an option as it is typed."""
    value = OWN.get((command, name), VALUES.get(name, "1"))
    return f"--{name}={value}" if takes and value else f"--{name}"


def lines(command: str, text: str) -> Iterator[str]:
    """Yield what is typed of one command."""
    template = LINES[command]
    known = {name: word(command, name, takes=takes) for name, takes in options(text) if (command, name) not in _SKIPPED}
    yield template.format("")
    for option in known.values():
        yield template.format(option)
    pairs = [known[name] for name in PAIRS.get(command, "").split() if name in known]
    for index, first in enumerate(pairs):
        for second in pairs[index + 1 :]:
            yield template.format(f"{first} {second}")


def run(line: str, env: Mapping[str, str], folder: Path) -> tuple[int, str, str]:
    """Type a line, and return exit code, stdout and stderr without what must differ."""
    try:
        done = subprocess.run(
            ["bash", "-c", line], env=env, cwd=folder, capture_output=True, text=True, timeout=30, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return 124, "", ""
    out = done.stdout
    if "--json" in line:
        with contextlib.suppress(ValueError):
            out = json.dumps(shape(json.loads(out)), sort_keys=True)
    return done.returncode, settled(out, folder), settled(done.stderr, folder)


def settled(text: str, folder: Path) -> str:
    """Return a text without times, ids of processes, addresses, and the pace of the machine."""
    text = plain(text, folder)
    text = re.sub(r"AllocNode:Sid=\S+| Port=\d+|ArrayJobId=\d+", "", text)
    text = re.sub(r"\w{3} \w{3} +\d+ \d\d:\d\d:\d\d \d{4}", "DATE", text)
    text = re.sub(r"(?<![\w.])(\d+-)?\d+:\d\d(:\d\d)?(\.\d+)?(?![\w:])", "CLOCK", text)
    text = re.sub(
        r"(CPULoad|FreeMem|OS|CPU_LOAD|FREE_MEM|NodeHostName|LastBusyTime|SlurmctldHost\S*)=\S*", r"\1=", text
    )
    text = re.sub(r"(?<=\|)\d{4,}(?=\|)", "NUMBER", text)
    text = re.sub(r"salloc: Job allocation N has been revoked.\n?", "", text)  # said where salloc still listens
    text = re.sub(r"\bresearch\b", "root", text)  # the account that the real cluster's users are on
    return re.sub(r" +", " ", text)


def verdict(real: tuple[int, str, str], mock: tuple[int, str, str]) -> str:
    """Return how two answers stand to each other."""
    if real == mock:
        return "same"
    if "mock cluster" in mock[2]:
        return "refused"
    if "unrecognized option" in mock[2] or "invalid option" in mock[2] or "invalid keyword" in mock[2]:
        return "not known"
    return "words" if real[0] == mock[0] and real[1] == mock[1] else "differs"


def main() -> None:
    """Compare, and say how much is the same."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commands", nargs="*", metavar="COMMAND", help="all of them unless said")
    parser.add_argument("-o", "--output", type=Path, default=Path("differences.txt"))
    given = parser.parse_args()
    cluster = SlurmCluster()
    with exclusive(), tempfile.TemporaryDirectory(prefix="compare-") as name:
        folders = {side: Path(name, side) for side in ("real", "mock")}
        for path in folders.values():
            path.mkdir()
        cluster.start()
        try:
            (Path(name) / "twin.yaml").write_text(shared(SITE))
            site = load_site(str(Path(name) / "twin.yaml"))
            store = start_cluster(site, StartOptions(speed=1.0), directory=Path(name, "cluster"))
            with enter(store, EnterOptions(purge=True, kill_wait_s=2.0, accounts=("research",))) as entered:
                sides = {"real": cluster.env, "mock": entered.environment(os.environ)}
                compare(given.commands or list(LINES), sides, folders, given.output)
        finally:
            cluster.stop()


def shared(site: str) -> str:
    """Return the site with partitions whose jobs share nodes, as those of the real cluster do."""
    return re.sub(r"(batch|debug|long): \{", r"\1: {exclusive: false, ", site)


def compare(
    commands: list[str], sides: Mapping[str, Mapping[str, str]], folders: Mapping[str, Path], output: Path
) -> None:
    """Type all lines, print a table of verdicts, and write down what is not the same."""
    for side, env in sides.items():
        subprocess.run(["bash", "-c", SCENE], env=env, cwd=folders[side], capture_output=True, check=False)
    time.sleep(2)
    counts: dict[str, Counter[str]] = {}
    with output.open("w", encoding="utf-8") as stream:
        for command in commands:
            text = subprocess.run([command, "--help"], env=sides["real"], capture_output=True, text=True, check=False)
            typed = [*lines(command, text.stdout + text.stderr), *(one for one in MORE if one.split()[0] == command)]
            counts[command] = Counter()
            for line in typed:
                real, mock = (run(line, sides[side], folders[side]) for side in ("real", "mock"))
                found = verdict(real, mock)
                counts[command][found] += 1
                if found != "same":
                    stream.write(f"## {found}: {line}\n  real {real}\n  mock {mock}\n")
                    stream.flush()
            print(command, dict(counts[command]), flush=True)
    print("all", dict(sum(counts.values(), Counter())))


if __name__ == "__main__":
    main()
