"""What sacct's fields stand for (sacct(1), Job Accounting Fields)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from hpcplan.simulate.commands.formatting import Clock, at_least, elapsed
from hpcplan.simulate.commands.jobfiles import Step
from hpcplan.simulate.commands.json_jobs import output_pattern
from hpcplan.simulate.commands.rows import JobRow
from hpcplan.simulate.commands.squeue_fields import tres_text
from hpcplan.slurm.records import JobState

__all__ = ["Line", "all_fields", "fields_of_line", "width_of"]

_MIB: Final = 1024**2


@dataclass(frozen=True, slots=True)
class Line:
    """One line of sacct: a job, or one of its steps."""

    row: JobRow
    step: Step | None = None


_OF_WIDTH: Final = {  # all others are 10 wide
    6: "gid qosraw uid",
    7: "associd",
    8: "exitcode failednode maxpages nnodes ntasks reqcpus reqnodes reservationid restarts",
    9: "group layout user",
    11: "segmentsize",
    12: "jobid jobidraw maxdiskread maxdiskwrite maxpagesnode mcslabel",
    13: "plannedcpuraw reqcpufreqgov reqcpufreqmax reqcpufreqmin",
    14: "avediskread avediskwrite comment consumedenergy extra maxpagestask maxvmsizenode maxvmsizetask sluid "
    "tresusageinave tresusageinmax tresusageinmin tresusageintot",
    15: "admincomment derivedexitcode maxdiskreadnode maxdiskreadtask nodelist systemcomment tresusageoutave "
    "tresusageoutmax tresusageoutmin tresusageouttot",
    16: "blockid maxdiskwritenode maxdiskwritetask",
    17: "consumedenergyraw",
    18: "tresusageinmaxnode tresusageinmaxtask tresusageinminnode tresusageinmintask",
    19: "constraints container eligible end flags start submit tresusageoutmaxnode tresusageoutmaxtask "
    "tresusageoutminnode tresusageoutmintask",
    20: "reqreservation reservation stderr stdin stdout submitline workdir",
    22: "reason",
}  # fmt: skip
_WIDTHS: Final = {name: width for width, names in _OF_WIDTH.items() for name in names.split()}
_NAMES: Final = (
    "Account AdminComment AllocCPUS AllocNodes AllocTRES AssocID AveCPU AveCPUFreq AveDiskRead AveDiskWrite "
    "AvePages AveRSS AveVMSize BlockID Cluster Comment Constraints ConsumedEnergy ConsumedEnergyRaw Container "
    "CPUTime CPUTimeRAW DBIndex DerivedExitCode Elapsed ElapsedRaw Eligible End ExitCode Flags GID Group JobID "
    "JobIDRaw JobName Layout MaxDiskRead MaxDiskReadNode MaxDiskReadTask MaxDiskWrite MaxDiskWriteNode "
    "MaxDiskWriteTask MaxPages MaxPagesNode MaxPagesTask MaxRSS MaxRSSNode MaxRSSTask MaxVMSize MaxVMSizeNode "
    "MaxVMSizeTask McsLabel MinCPU MinCPUNode MinCPUTask NCPUS NNodes NodeList NTasks Partition Priority QOS "
    "QOSRAW Reason ReqCPUFreq ReqCPUFreqGov ReqCPUFreqMax ReqCPUFreqMin ReqCPUS ReqMem ReqNodes ReqTRES "
    "Reservation ReservationId Reserved ResvCPU ResvCPURAW Start State Submit SubmitLine Suspended SystemComment "
    "SystemCPU Timelimit TimelimitRaw TotalCPU TRESUsageInAve TRESUsageInMax TRESUsageInMaxNode "
    "TRESUsageInMaxTask TRESUsageInMin TRESUsageInMinNode TRESUsageInMinTask TRESUsageInTot TRESUsageOutAve "
    "TRESUsageOutMax TRESUsageOutMaxNode TRESUsageOutMaxTask TRESUsageOutMin TRESUsageOutMinNode "
    "TRESUsageOutMinTask TRESUsageOutTot UID User UserCPU WCKey WCKeyID WorkDir"
)
_OF_2205: Final = _NAMES.split()


_SINCE: Final = {  # (name, the field that it follows)
    "23.02": (("Extra", "ExitCode"), ("FailedNode", "Extra"), ("Licenses", "Layout")),
    "24.05": (("StdErr", "State"), ("StdIn", "StdErr"), ("StdOut", "StdIn")),
    "24.11": (("QOSREQ", "QOSRAW"), ("Restarts", "ReservationId"), ("SLUID", "Restarts")),
    "25.05": (("ReqReservation", "ReservationId"), ("SegmentSize", "Restarts")),
    "26.05": (("Exclusive", "End"), ("OriginalSLUID", "NTasks"), ("OverSubscribe", "OriginalSLUID")),
}
_RENAMED: Final = {"Reserved": "Planned", "ResvCPU": "PlannedCPU", "ResvCPURAW": "PlannedCPURAW"}  # in 23.02


def all_fields(version: str) -> list[str]:
    """Return the fields of a release in its order."""
    found = list(_OF_2205)
    if at_least(version, "23.02"):
        found = [name for name in found if name not in _RENAMED]
        place = found.index("Partition") + 1
        found[place:place] = _RENAMED.values()
    for release, new in _SINCE.items():
        if at_least(version, release):
            for name, before in new:
                found.insert(found.index(before) + 1, name)
    return found


def width_of(name: str) -> int:
    """Return how wide a field's column is unless something else is asked for."""
    return _WIDTHS.get(name.lower(), 10)


def fields_of_line(clock: Clock) -> Mapping[str, tuple[str, Callable[[Line], str]]]:
    """Return (name as headers have it, value) of each field, by its name in small letters.

    What a mock cluster does not know is empty.
    """
    table: dict[str, tuple[str, Callable[[Line], str]]] = {
        name.lower(): (name, _nothing) for name in all_fields("99.11")
    }
    for name, value in {**_both(clock), **_of_jobs(clock)}.items():
        table[name.lower()] = (name, value)
    for old, new in _RENAMED.items():
        table[new.lower()] = (new, table[old.lower()][1])
    return table


def _nothing(line: Line) -> str:
    return ""


def _both(clock: Clock) -> dict[str, Callable[[Line], str]]:
    """Return the fields that steps have as well."""
    return {
        "Account": lambda line: line.row.record.account or "",
        "AllocCPUS": lambda line: str(_cpus(line)),
        "AllocNodes": lambda line: str(_nodes(line) if _start(line) is not None else 0),
        "AllocTRES": _alloc_tres,
        "AveCPU": lambda line: _cpu(line.step.cpu_s) if line.step else "",
        "AveRSS": lambda line: _kibibytes(line.step.max_rss_bytes) if line.step else "",
        "Cluster": lambda line: line.row.record.cluster or "",
        "CPUTime": lambda line: elapsed(_elapsed(line) * _cpus(line)),
        "CPUTimeRAW": lambda line: str(_elapsed(line) * _cpus(line)),
        "Elapsed": lambda line: elapsed(_elapsed(line)),
        "ElapsedRaw": lambda line: str(_elapsed(line)),
        "End": lambda line: clock.moment(_end(line), "Unknown"),
        "ExitCode": _exit_code,
        "JobID": lambda line: line.row.name + (f".{line.step.name}" if line.step else ""),
        "JobIDRaw": lambda line: f"{line.row.record.job_id}" + (f".{line.step.name}" if line.step else ""),
        "JobName": lambda line: line.step.job_name if line.step else line.row.record.name,
        "Layout": lambda line: ("Unknown" if line.step.name == "batch" else "Block") if line.step else "",
        "MaxRSS": lambda line: _kibibytes(line.step.max_rss_bytes) if line.step else "",
        "NCPUS": lambda line: str(_cpus(line)),
        "NNodes": lambda line: str(_nodes(line)),
        "NodeList": _node_list,
        "NTasks": lambda line: str(line.step.ntasks) if line.step else "",
        "ReqCPUS": lambda line: str(_requested_cpus(line)),
        "ReqCPUFreq": lambda line: "0" if line.step else "Unknown",
        "Start": lambda line: clock.moment(_start(line), "None" if line.row.record.state.final else "Unknown"),
        "State": _state,
        "Submit": lambda line: clock.moment(line.step.start if line.step else line.row.record.submit_time),
        "Suspended": lambda line: "00:00:00",
        "SystemCPU": lambda line: "00:00:00",
        "TotalCPU": lambda line: _cpu(_total_cpu(line)),
        "UserCPU": lambda line: _cpu(_total_cpu(line)),
    }


def _of_jobs(clock: Clock) -> dict[str, Callable[[Line], str]]:
    """Return the fields that are empty for steps."""

    def job(value: Callable[[JobRow], str]) -> Callable[[Line], str]:
        return lambda line: "" if line.step is not None else value(line.row)

    return {
        "AssocID": lambda line: "1",
        "Comment": job(lambda row: (row.record.comment or "") if row.state.final else ""),  # kept as jobs end
        "Constraints": job(lambda row: row.spec.constraint or ""),
        "DBIndex": lambda line: str(line.row.record.job_id),
        "DerivedExitCode": job(_derived),
        "Eligible": job(lambda row: clock.moment(row.record.eligible_time, "Unknown")),
        "Flags": job(_flags),
        "GID": job(lambda row: str(row.info.gid if row.info else 0)),
        "Group": job(_group),
        "Partition": job(lambda row: row.record.partition or ""),
        "Priority": job(lambda row: str(row.record.priority or 0)),
        "QOS": job(lambda row: row.record.qos or "normal"),
        "QOSRAW": job(lambda row: "1"),
        "Reason": job(lambda row: row.reason),
        "ReqMem": job(_req_mem),
        "ReqNodes": lambda line: str(_nodes(line)),
        "ReqTRES": job(lambda row: _by_name(row.requested)),
        "Reserved": job(lambda row: elapsed(row.record.eligible_wait_s(row.now) or 0)),
        "ResvCPU": job(lambda row: elapsed((row.record.eligible_wait_s(row.now) or 0) * (row.record.cpus or 0))),
        "ResvCPURAW": job(lambda row: str((row.record.eligible_wait_s(row.now) or 0) * (row.record.cpus or 0))),
        "QOSREQ": job(lambda row: row.spec.qos or ""),
        "ReqReservation": job(lambda row: row.spec.reservation or ""),
        "Reservation": job(lambda row: row.spec.reservation or ""),
        "Licenses": job(lambda row: row.spec.licenses or ""),
        "Restarts": job(lambda row: str(row.record.restarts)),
        "SegmentSize": job(lambda row: str(row.spec.segment or 0)),
        "StdErr": job(lambda row: (row.info.std_err if row.info else None) or ""),
        "StdIn": job(lambda row: row.info.std_in if row.info else ""),
        "StdOut": job(output_pattern),
        "SubmitLine": job(lambda row: row.info.submit_line if row.info else ""),
        "Timelimit": job(
            lambda row: "UNLIMITED" if row.record.time_limit_s is None else elapsed(row.record.time_limit_s)
        ),
        "TimelimitRaw": job(lambda row: "" if row.record.time_limit_s is None else str(row.record.time_limit_s // 60)),
        "UID": job(lambda row: str(row.info.uid if row.info else 0)),
        "User": job(lambda row: row.record.user or ""),
        "WCKeyID": job(lambda row: "0"),
        "WorkDir": job(lambda row: row.record.work_dir or ""),
    }


def _start(line: Line) -> int | None:
    return line.step.start if line.step else line.row.record.start_time


def _end(line: Line) -> int | None:
    if line.step is not None:
        return line.step.end
    record = line.row.record
    return record.end_time if record.state.final or record.state is JobState.REQUEUED else None


def _elapsed(line: Line) -> int:
    if line.step is not None:
        return max(0, (line.step.end if line.step.end is not None else line.row.now) - line.step.start)
    return line.row.record.elapsed_s(line.row.now) or 0


def _cpus(line: Line) -> int:
    return line.step.cpus if line.step else line.row.record.cpus or 0


def _requested_cpus(line: Line) -> int:
    return line.row.requested.get("cpu", 0) if line.step is None else line.step.cpus


def _nodes(line: Line) -> int:
    return line.step.nodes if line.step else line.row.record.nodes or 0


def _node_list(line: Line) -> str:
    if line.step is not None:
        return line.step.node_list
    return line.row.record.node_list or "None assigned"


def _alloc_tres(line: Line) -> str:
    if line.step is not None:
        gpus = f",gres/gpu={_gpus_a_node(line) * line.step.nodes}" if _gpus_a_node(line) else ""
        return f"cpu={line.step.cpus}{gpus},mem=0,node={line.step.nodes}"
    return _by_name(line.row.record.tres) if line.row.record.start_time is not None else ""


def _gpus_a_node(line: Line) -> int:
    """Return what a step has: the batch step all that the job got, another what was asked for."""
    record = line.row.record
    if line.step is not None and line.step.name == "batch":
        return record.tres.get("gres/gpu", 0) // (record.nodes or 1)
    return line.row.gpus_per_node


def _by_name(tres: Mapping[str, int]) -> str:
    return ",".join(sorted(tres_text(tres, short=True).split(",")))


def _req_mem(row: JobRow) -> str:
    size = row.requested.get("mem", 0) // _MIB
    return "0" if not size else f"{size // 1024}G" if size % 1024 == 0 else f"{size}M"


def _flags(row: JobRow) -> str:
    """Return which scheduler started it; ``StartRecieved`` (so spelt) is of the database."""
    scheduler = "SchedBackfill," if row.record.backfilled else "SchedMain,"
    return f"{scheduler if row.record.start_time else ''}StartRecieved"


def _exit_code(line: Line) -> str:
    if line.step is not None:
        return f"{line.step.exit_code}:{line.step.signal}"
    return f"{line.row.record.exit_code or 0}:{line.row.record.signal or 0}"


def _derived(row: JobRow) -> str:
    steps = [step for step in row.steps if step.name != "batch"]
    return f"{max((step.exit_code for step in steps), default=0)}:{max((step.signal for step in steps), default=0)}"


def _state(line: Line) -> str:
    if line.step is not None:
        return line.step.state
    state = line.row.record.state
    if line.row.job is not None and line.row.state is JobState.SUSPENDED:
        state = JobState.SUSPENDED
    if state is JobState.CANCELLED:
        return f"CANCELLED by {line.row.info.uid if line.row.info else 0}"
    return state.value


def _total_cpu(line: Line) -> float | None:
    if line.step is not None:
        return line.step.cpu_s
    known = [step.cpu_s for step in line.row.steps if step.cpu_s is not None and step.name == "batch"]
    return line.row.record.total_cpu_s if line.row.record.total_cpu_s is not None else sum(known) or None


def _cpu(seconds: float | None) -> str:
    """Return CPU time as sacct writes it: ``00:00.043``, from an hour on ``01:02:03``."""
    if not seconds:
        return "00:00:00"
    if seconds >= 3600:
        return elapsed(int(seconds))
    minutes, rest = divmod(seconds, 60)
    return f"{int(minutes):02d}:{rest:06.3f}"


def _kibibytes(size: int | None) -> str:
    return "" if size is None else f"{size // 1024}K" if size else "0"


def _group(row: JobRow) -> str:
    import grp

    gid = row.info.gid if row.info else 0
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
