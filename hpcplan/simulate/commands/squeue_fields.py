"""What squeue's format codes stand for (squeue(1), OUTPUT FORMAT FIELDS)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Final

from hpcplan.simulate.commands.formatting import Clock, Field, at_least, limit, mebibytes, short_time
from hpcplan.simulate.commands.rows import JobRow, expected_start
from hpcplan.simulate.commands.states import compact
from hpcplan.simulate.store import Session
from hpcplan.slurm.records import JobState

__all__ = ["fields", "gres_prefix", "group_name", "long_names", "per_task_tres", "tres_text"]

_TOP: Final = 2**32 - 1
_MIB: Final = 1024**2


def fields(session: Session, clock: Clock) -> dict[str, Field[JobRow]]:
    """Return the field of each letter."""
    planned: dict[int, tuple[int, str] | None] = {}

    def plan(row: JobRow) -> tuple[int, str] | None:
        key = row.record.job_id
        if key not in planned:
            planned[key] = expected_start(session, row)
        return planned[key]

    table: dict[str, tuple[str, Callable[[JobRow], str]]] = {
        "a": ("ACCOUNT", lambda row: row.record.account or "(null)"),
        "A": ("JOBID", lambda row: str(row.record.job_id)),
        "b": ("TRES_PER_NODE", lambda row: _gres(row, gres_prefix(session.settings.slurm_version))),
        "B": ("EXEC_HOST", lambda row: _first_node(row, session) or "n/a"),
        "c": ("MIN_CPUS", lambda row: str(row.spec.cpus_per_task * (row.spec.ntasks_per_node or 1))),
        "C": ("CPUS", lambda row: str(row.record.cpus or 0)),
        "d": ("MIN_TMP_DISK", lambda row: "0"),
        "D": ("NODES", lambda row: str(row.record.nodes or 0)),
        "e": ("END_TIME", lambda row: clock.moment(_end(row, plan))),
        "E": ("DEPENDENCY", lambda row: row.record.dependency or "(null)"),
        "f": ("FEATURES", lambda row: row.spec.constraint or "(null)"),
        "F": ("ARRAY_JOB_ID", lambda row: str(row.record.array_job_id or row.record.job_id)),
        "g": ("GROUP", group_name),
        "G": ("GROUP", lambda row: str(row.info.gid if row.info else 0)),
        "h": ("OVER_SUBSCRIBE", lambda row: "NO" if row.spec.exclusive else "OK"),
        "H": ("SOCKETS_PER_NODE", lambda row: "*"),
        "i": ("JOBID", lambda row: row.name),
        "I": ("CORES_PER_SOCKET", lambda row: "*"),
        "j": ("NAME", lambda row: row.record.name),
        "J": ("THREADS_PER_CORE", lambda row: "*"),
        "k": ("COMMENT", lambda row: row.record.comment or "(null)"),
        "K": ("ARRAY_TASK_ID", lambda row: row.array_word.strip("[]") or "N/A"),
        "l": ("TIME_LIMIT", lambda row: limit(row.record.time_limit_s, short_time)),
        "L": ("TIME_LEFT", lambda row: _left(row)),
        "m": ("MIN_MEMORY", lambda row: mebibytes(_min_memory(row))),
        "M": ("TIME", lambda row: short_time(_run_time(row))),
        "n": ("REQ_NODES", lambda row: row.spec.nodelist or ""),
        "N": ("NODELIST", lambda row: row.node_list),
        "o": ("COMMAND", lambda row: (row.info.command if row.info else None) or "(null)"),
        "O": ("CONTIGUOUS", lambda row: "0"),
        "p": ("PRIORITY", lambda row: f"{(row.record.priority or 0) / _TOP:.14f}"),
        "P": ("PARTITION", lambda row: row.record.partition or ""),
        "q": ("QOS", lambda row: row.record.qos or "normal"),
        "Q": ("PRIORITY", lambda row: str(row.record.priority or 0)),
        "r": ("REASON", lambda row: row.reason.partition(",")[0]),
        "R": ("NODELIST(REASON)", lambda row: _nodes_or_reason(row)),
        "s": ("SLUID" if at_least(session.settings.slurm_version, "25.11") else "", lambda row: ""),
        "S": ("START_TIME", lambda row: clock.moment(_start(row, plan))),
        "t": ("ST", lambda row: compact(row.state)),
        "T": ("STATE", lambda row: row.state.value),
        "u": ("USER", lambda row: row.record.user or ""),
        "U": ("UID", lambda row: str(row.info.uid if row.info else 0)),
        "v": ("RESERVATION", lambda row: row.spec.reservation or "(null)"),
        "V": ("SUBMIT_TIME", lambda row: clock.moment(row.record.submit_time)),
        "w": ("WCKEY", lambda row: "(null)"),
        "W": ("LICENSES", lambda row: "(null)"),
        "x": ("EXC_NODES", lambda row: row.spec.exclude or ""),
        "X": ("CORE_SPEC", lambda row: "N/A"),
        "y": ("NICE", lambda row: str(row.spec.nice)),
        "Y": ("SCHEDNODES", lambda row: "(null)" if row.reason == "BeginTime" else (plan(row) or (0, "(null)"))[1]),
        "z": ("S:C:T", lambda row: "*:*:*"),
        "Z": ("WORK_DIR", lambda row: row.record.work_dir or ""),
        # of --Format alone
        "tres-alloc": ("TRES_ALLOC", lambda row: tres_text(row.record.tres, short=True)),
        "stdout": ("STDOUT", lambda row: _pattern(row, "std_out")),
        "stderr": ("STDERR", lambda row: _pattern(row, "std_err")),
        "stdin": ("STDIN", lambda row: _pattern(row, "std_in")),
        "eligibletime": ("ELIGIBLE_TIME", lambda row: clock.moment(row.record.eligible_time)),
        "numtasks": ("TASKS", lambda row: str(row.info.ntasks if row.info else 1)),
        "cpus-per-task": ("CPUS_PER_TASK", lambda row: str(row.spec.cpus_per_task)),
        "exit_code": ("EXIT_CODE", lambda row: str(row.record.exit_code or 0)),
        "requeue": ("REQUEUE", lambda row: str(int(row.spec.requeue))),
        "restartcnt": ("RESTART_COUNT", lambda row: str(row.record.restarts)),
        "hetjobid": ("HET_JOB_ID", lambda row: str(row.het[0]) if row.het is not None else "N/A"),
        "hetjoboffset": ("HET_JOB_OFFSET", lambda row: str(row.het[1]) if row.het is not None else "N/A"),
        "hetjobidset": ("HET_JOB_ID_SET", lambda row: row.het_id_set or "N/A"),
        "cluster": ("CLUSTER", lambda row: row.record.cluster or ""),
    }
    return {letter: Field(header, value) for letter, (header, value) in table.items()}


_NAMES: Final = {
    "account": "a", "jobid": "A", "tres-per-node": "b", "gres": "b", "batchhost": "B", "mincpus": "c", "numcpus": "C",
    "mintmpdisk": "d", "numnodes": "D", "endtime": "e", "dependency": "E", "feature": "f", "arrayjobid": "F",
    "jobarrayid": "i", "groupname": "g", "groupid": "G", "oversubscribe": "h", "sockets": "H", "cores": "I",
    "name": "j", "threads": "J", "comment": "k", "arraytaskid": "K", "timelimit": "l", "timeleft": "L",
    "minmemory": "m", "timeused": "M", "reqnodes": "n", "nodelist": "N", "command": "o", "contiguous": "O",
    "priority": "p", "partition": "P", "qos": "q", "prioritylong": "Q", "reason": "r", "reasonlist": "R",
    "starttime": "S", "statecompact": "t", "state": "T", "username": "u", "userid": "U", "reservation": "v",
    "submittime": "V", "wckey": "w", "licenses": "W", "exc_nodes": "x", "nice": "y", "schednodes": "Y", "sct": "z",
    "workdir": "Z", "deltaeligible": "V",
}  # fmt: skip


def long_names(known: Mapping[str, Field[JobRow]]) -> dict[str, Field[JobRow]]:
    """Return the fields of ``--Format`` by name."""
    return {name: known[letter] for name, letter in _NAMES.items()} | {
        name: field for name, field in known.items() if len(name) > 1
    }


def tres_text(tres: Mapping[str, int], *, short: bool = False) -> str:
    """Return ``cpu=4,mem=2000M,node=2,billing=4,gres/gpu=2``."""
    order = ["cpu", "mem", "node", "billing", *sorted(set(tres) - {"cpu", "mem", "node", "billing"})]
    return ",".join(f"{name}={_tres_value(name, tres[name])}" for name in order if tres.get(name))


def _tres_value(name: str, value: int) -> str:
    if name != "mem":
        return str(value)
    size = value // _MIB
    return f"{size // 1024}G" if size % 1024 == 0 else f"{size}M"


def _pattern(row: JobRow, which: str) -> str:
    """Return a job's file as squeue has it: as it was given, its %-codes and all."""
    info = row.info
    if info is None:
        return ""
    given = getattr(info, which) or info.std_out
    return str(Path(info.work_dir) / (given or f"slurm-{row.record.job_id}.out"))


def gres_prefix(version: str) -> str:
    """Return how a release begins the GPUs that a job asks for: ``gres:gpu``, from 23.11 on ``gres/gpu``."""
    return "gres/gpu" if at_least(version, "23.11") else "gres:gpu"


def _gres(row: JobRow, prefix: str) -> str:
    spec = row.spec
    kind = f":{spec.gpu_type}" if spec.gpu_type else ""
    if spec.gpus_per_node is not None:
        return f"{prefix}{kind}:{spec.gpus_per_node}"
    return "N/A"


def _first_node(row: JobRow, session: Session) -> str:
    if row.job is not None and row.job.nodes:
        return session.machine.names_of(row.job.nodes & -row.job.nodes)[0]
    return ""


def _min_memory(row: JobRow) -> int | None:
    spec = row.spec
    return spec.memory_per_node_bytes or spec.memory_per_cpu_bytes or spec.memory_per_gpu_bytes


def _run_time(row: JobRow) -> int:
    return row.record.elapsed_s(row.now) or 0


def _left(row: JobRow) -> str:
    if row.record.time_limit_s is None:
        return "UNLIMITED"
    return short_time(row.record.time_limit_s - _run_time(row))


def _start(row: JobRow, plan: Callable[[JobRow], tuple[int, str] | None]) -> int | None:
    if row.state is JobState.PENDING:
        slot = plan(row)
        return slot[0] if slot is not None else None
    return row.record.start_time


def _end(row: JobRow, plan: Callable[[JobRow], tuple[int, str] | None]) -> int | None:
    record = row.record
    if record.end_time is not None and record.state.final:
        return record.end_time
    start = _start(row, plan)
    return None if start is None or record.time_limit_s is None else start + record.time_limit_s


def _nodes_or_reason(row: JobRow) -> str:
    never_ran = row.state.final and row.record.start_time is None and row.reason == "None"
    if never_ran or row.state in (JobState.RUNNING, JobState.COMPLETING, JobState.COMPLETED):
        return row.node_list
    return f"({row.reason})"


@cache
def _name_of_group(gid: int) -> str:
    import grp

    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def group_name(row: JobRow) -> str:
    """Return the group that a job runs as."""
    return _name_of_group(row.info.gid) if row.info else "root"


def per_task_tres(row: JobRow) -> str:
    """Return what a job asked for a task, as Slurm keeps it from 23.11 on: ``cpu=2,gres/gpu=1``."""
    spec, info = row.spec, row.info
    kind = f":{spec.gpu_type}" if spec.gpu_type else ""
    cpus = [f"cpu={spec.cpus_per_task}"] if info is not None and info.cpus_per_task_given else []
    gpus = [f"gres/gpu{kind}={spec.gpus_per_task}"] if spec.gpus_per_task is not None else []
    return ",".join([*cpus, *gpus])
