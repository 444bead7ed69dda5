"""``scontrol show job`` and ``show step``: jobs as blocks of ``Key=Value``."""

from __future__ import annotations

from itertools import groupby

from hpcplan.hostlist import compress, expand
from hpcplan.simulate.commands.formatting import Clock, at_least, elapsed, first_to, limit, mebibytes
from hpcplan.simulate.commands.jobfiles import Step
from hpcplan.simulate.commands.rows import JobRow, expected_start
from hpcplan.simulate.commands.squeue_fields import gres_prefix, per_task_tres, tres_text
from hpcplan.simulate.job_records import Share, node_shares
from hpcplan.simulate.store import Session
from hpcplan.slurm.records import JobState

__all__ = ["block", "job_block", "step_block"]


def block(lines: list[str], *, one_line: bool) -> str:
    """Return one record as scontrol prints it: a line each, or with ``-o`` all on one."""
    return " ".join(lines) + "\n" if one_line else "\n   ".join(lines) + "\n\n"


def job_block(session: Session, row: JobRow, clock: Clock, *, detail: bool = False) -> list[str]:
    """Return the lines of one job."""
    record, spec, info = row.record, row.spec, row.info
    user, uid = record.user or "root", info.uid if info else 0
    group, gid = _group(row)
    lines = [
        f"{_identity(row)} JobName={record.name}",
        *([f"HetJobIdSet={row.het_id_set}"] if row.het is not None else []),
        f"UserId={user}({uid}) GroupId={group}({gid}) MCS_label=N/A",
        (
            f"Priority={record.priority or 0} Nice={spec.nice} Account={record.account or '(null)'} "
            f"QOS={record.qos or 'normal'}"
        ),
        f"JobState={row.state.value} Reason={row.reason.replace(' ', '')} Dependency={record.dependency or '(null)'}",
        (
            f"Requeue={int(spec.requeue)} Restarts={record.restarts} BatchFlag={int(info.batch if info else True)} "
            f"Reboot=0 ExitCode={record.exit_code or 0}:{record.signal or 0}"
        ),
    ]
    if detail:
        lines.append(f"DerivedExitCode={_derived(row)}:0")
    lines += _times(session, row, clock)
    lines += [
        f"Partition={record.partition or ''} AllocNode:Sid={_host(session)}:{info.base_id if info else 0}",
        f"ReqNodeList={spec.nodelist or '(null)'} ExcNodeList={spec.exclude or '(null)'}",
        f"NodeList={row.node_list}{_planned_nodes(session, row)}",
    ]
    started = record.start_time is not None
    if started and record.node_list:
        lines.append(f"BatchHost={first_node(session, row)}")
    lines += _resources(session, row, detail=detail)
    version = session.settings.slurm_version
    return [*lines, *_paths(row, version), *([] if at_least(version, "24.05") else [""])]


def _identity(row: JobRow) -> str:
    record = row.record
    if row.het is not None:
        return f"JobId={record.job_id} HetJobId={row.het[0]} HetJobOffset={row.het[1]}"
    if record.array_job_id is None:
        return f"JobId={record.job_id}"
    throttle = f" ArrayTaskThrottle={row.spec.array_limit}" if row.spec.array_limit else ""
    return f"JobId={record.job_id} ArrayJobId={record.array_job_id} ArrayTaskId={row.array_word.strip('[]')}{throttle}"


def _group(row: JobRow) -> tuple[str, int]:
    import grp

    gid = row.info.gid if row.info else 0
    try:
        return grp.getgrgid(gid).gr_name, gid
    except KeyError:
        return str(gid), gid


def _derived(row: JobRow) -> int:
    return max((step.exit_code for step in row.steps if step.name != "batch"), default=0)


def _times(session: Session, row: JobRow, clock: Clock) -> list[str]:
    record = row.record
    start, end = record.start_time, record.end_time
    slot = expected_start(session, row) if row.state is JobState.PENDING else None
    if slot is not None:
        start = slot[0]
    if not record.state.final and start is not None:
        end = None if record.time_limit_s is None else start + record.time_limit_s
    final_without_start = record.state.final and start is None
    start = end if final_without_start else start
    ran = elapsed(record.elapsed_s(row.now) or 0)
    return [
        f"RunTime={ran} TimeLimit={limit(record.time_limit_s, elapsed)} TimeMin=N/A",
        f"SubmitTime={clock.moment(record.submit_time)} EligibleTime={clock.moment(record.eligible_time, 'Unknown')}",
        f"AccrueTime={clock.moment(record.eligible_time, 'Unknown')}",
        f"StartTime={clock.moment(start, 'Unknown')} EndTime={clock.moment(end, 'Unknown')} Deadline=N/A",
        (
            f"SuspendTime=None SecsPreSuspend=0 LastSchedEval={clock.moment(start or row.now)} "
            f"Scheduler={'Backfill' if record.backfilled else 'Main'}"
        ),
    ]


def _host(session: Session) -> str:
    return session.settings.cluster


def _planned_nodes(session: Session, row: JobRow) -> str:
    if row.state is not JobState.PENDING or row.reason not in {"Resources", "Priority"}:
        return ""
    slot = expected_start(session, row)
    return "" if slot is None else f" SchedNodeList={slot[1]}"


def first_node(session: Session, row: JobRow) -> str:
    """Return the first of a job's nodes."""
    if row.job is not None and row.job.nodes:
        return session.machine.names_of(row.job.nodes & -row.job.nodes)[0]
    return next(iter(expand(row.record.node_list or "")), "")


def _resources(session: Session, row: JobRow, *, detail: bool) -> list[str]:
    record, spec, version = row.record, row.spec, session.settings.slurm_version
    allocated = "LicensesAlloc=(null) " if at_least(version, "25.05") else ""
    nodes = record.nodes or 0
    most = row.job.request.maximum if row.job is not None and not row.job.running else None
    if row.job is not None and row.job.request.spread:
        most = None
    many = f"{nodes}-{most}" if most is not None and (most > 1 or spec.nodes_max) else str(nodes)
    per_node = spec.ntasks_per_node or 0
    lines = [
        (
            f"NumNodes={many} NumCPUs={record.cpus or 0} NumTasks={row.info.ntasks if row.info else 1} "
            f"CPUs/Task={spec.cpus_per_task} ReqB:S:C:T=0:0:*:*"
        ),
        *_tres(row, version),
        f"Socks/Node=* NtasksPerN:B:S:C={per_node}:0:*:* CoreSpec=*",
    ]
    if detail and record.start_time is not None and record.node_list:
        lines += _shares(session, row)
    memory_word = "MinMemoryCPU" if spec.memory_per_cpu_bytes else "MinMemoryNode"
    memory_bytes = spec.memory_per_cpu_bytes or spec.memory_per_node_bytes
    shared = "NO" if spec.exclusive else "OK"
    lines += [
        f"MinCPUsNode={spec.cpus_per_task * max(1, per_node)} {memory_word}={mebibytes(memory_bytes)} MinTmpDiskNode=0",
        f"Features={spec.constraint or '(null)'} DelayBoot=00:00:00",
        *([f"Reservation={spec.reservation}"] if spec.reservation else []),
        f"OverSubscribe={shared} Contiguous=0 Licenses=(null) {allocated}Network=(null)",
    ]
    return lines


def _shares(session: Session, row: JobRow) -> list[str]:
    """Return what a job has of its nodes, those that follow one another and are alike on one line."""
    record = row.record
    names = list(expand(record.node_list or ""))
    cpus, gpus = (max(0, number or 0) // len(names) for number in (record.cpus, record.gpus))
    shares = [Share(cpus, gpus, (record.memory_bytes or 0) // len(names))] * len(names)
    if row.job is not None and row.job.running:
        shares = node_shares(row.job, session.machine)
    total = sum(share.gpus for share in shares)
    lines = [f"JOB_GRES={f'gpu:{total}' if total else '(null)'}"]
    for share, group in groupby(zip(names, shares, strict=True), key=lambda one: one[1]):
        gres = f"gpu:{share.gpus}(IDX:{first_to(share.gpus)})" if share.gpus else ""
        memory = share.memory_bytes // 1024**2 if record.memory_bytes else 0
        alike = compress([name for name, _ in group])
        lines.append(f"  Nodes={alike} CPU_IDs={first_to(share.cpus)} Mem={memory} GRES={gres}")
    return lines


def _tres(row: JobRow, version: str) -> list[str]:
    """Return what a job has, or asks for; from 23.02 on both."""
    has = tres_text(row.record.tres, short=True) if row.record.start_time else ""
    if not at_least(version, "23.02"):
        return [f"TRES={has or tres_text(row.requested, short=True)}"]
    return [f"ReqTRES={tres_text(row.requested)}", f"AllocTRES={has or '(null)'}"]


def _paths(row: JobRow, version: str) -> list[str]:
    record, spec, info = row.record, row.spec, row.info
    command = info.command if info is not None else None
    if command and info is not None and info.arguments:
        command = " ".join([command, *info.arguments])
    lines = [f"Command={command or '(null)'}"]
    if at_least(version, "25.11"):
        lines.append(f"SubmitLine={info.submit_line if info is not None else ''}")
    lines.append(f"WorkDir={record.work_dir or ''}")
    if record.comment:
        lines.append(f"Comment={record.comment} ")
    error = row.path("std_err")
    if at_least(version, "25.05") and (info is None or not info.std_err):
        error = ""
    if info is None or info.batch:
        lines += [f"StdErr={error}", f"StdIn={row.path('std_in')}", f"StdOut={row.path('std_out')}"]
    if spec.switches:
        count, _, wait = spec.switches.partition("@")
        lines.append(f"Switches={count}@{wait or '00:05:00'}")
    if not at_least(version, "24.05"):
        lines.append("Power=")
    kind = f"{spec.gpu_type}:" if spec.gpu_type else ""
    for name, gpus in (
        ("TresPerJob", spec.gpus),
        ("TresPerNode", spec.gpus_per_node),
        ("TresPerTask", None if at_least(version, "24.05") else spec.gpus_per_task),
    ):
        if gpus is not None:
            lines.append(f"{name}={gres_prefix(version)}:{kind}{gpus}")
    if at_least(version, "24.05") and (per_task := per_task_tres(row)):
        lines.append(f"TresPerTask={per_task}")
    return lines


def step_block(row: JobRow, step: Step, clock: Clock) -> list[str]:
    """Return the lines of one step."""
    uid = row.info.uid if row.info else 0
    gpus = f",gres/gpu={row.gpus_per_node * step.nodes}" if row.gpus_per_node else ""
    tres = f"cpu={step.cpus}{gpus},mem=0,node={step.nodes}"
    cpus = 0 if step.name == "batch" else step.cpus
    return [
        f"StepId={row.step_prefix}.{step.name} UserId={uid} StartTime={clock.moment(step.start)} TimeLimit=UNLIMITED",
        f"State={step.state} Partition={row.record.partition} NodeList={step.node_list}",
        f"Nodes={step.nodes} CPUs={cpus} Tasks={step.ntasks} Name={step.job_name} Network=(null)",
        f"TRES={'(null)' if step.name == 'batch' else tres}",
        "ResvPorts=(null)",
        "CPUFreqReq=Default",
        "SrunHost:Pid=(null):0",
    ]
