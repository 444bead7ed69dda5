"""One row of sacct's output becomes a job or a step: which column each figure is read from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from hpcplan.report import jobstats
from hpcplan.report import sacct_cells as cells
from hpcplan.report.faults import Faults
from hpcplan.report.sacct_rows import Row
from hpcplan.report.submit_line import asked_gpus
from hpcplan.report.table import never_started
from hpcplan.slurm.records import JobState

__all__ = ["Fields", "Job", "Step", "job_of", "step_of"]

T = TypeVar("T")


@dataclass(slots=True)
class Fields:
    """The cells of one row by their column's name; one that cannot be read is counted as a fault and unknown."""

    row: Row
    index: Mapping[str, int]
    file: str
    faults: Faults

    def text(self, *names: str) -> str:
        """Return the first of these columns that the file has and the row fills, else ``""``."""
        for name in names:
            position = self.index.get(name)
            if position is not None:
                found = self.row.cells[position].strip()
                if found:
                    return found
        return ""

    def cell(self, parse: Callable[[str], T], *names: str) -> T | None:
        """Return the first of these columns that the row fills, as ``parse`` reads it."""
        return self.value(parse, self.text(*names), names[0])

    def value(self, parse: Callable[[str], T], text: str, name: str) -> T | None:
        """Return ``text`` as ``parse`` reads it, ``None`` where it is empty or no such value."""
        if not text:
            return None
        try:
            return parse(text)
        except ValueError as error:
            self.fault(f"{name}: {error}")
            return None

    def fault(self, message: str, kind: str = "cell ignored") -> None:
        """Count a fault of this row."""
        self.faults.add(kind, message, self.file, self.row.line, self.row.text)

    def job_name(self) -> cells.JobName | None:
        """Return the parts of the row's JobID; without one, the row cannot be used."""
        try:
            return cells.job_name(self.text("jobid", "jobidraw"))
        except ValueError as error:
            self.fault(str(error), "row skipped")
            return None


@dataclass(frozen=True, slots=True)
class Step:
    """What one step used; ``gpu_percent`` is added up over its GPUs. A memory of zero is one that was not sampled."""

    name: str
    elapsed_s: float | None
    cpu_s: float | None
    memory_bytes: int | None
    gpu_percent: float | None
    measured: jobstats.Measured | None


@dataclass(slots=True)
class Job:
    """A job's own row: the columns of the job table that it tells, and what has to wait for its steps.

    ``tres_listed`` says that Slurm listed the job's resources, so that a GPU would have been named.
    """

    values: dict[str, Any]
    total_cpu_s: float | None
    gpus: int | None
    tres_listed: bool
    measured: jobstats.Measured | None
    steps: list[Step] = field(default_factory=list)


def job_of(fields: Fields, name: cells.JobName, clock: cells.Clock) -> Job:
    """Return the job of a row that is not a step's."""
    raw = fields.cell(cells.job_name, "jobidraw")
    values: dict[str, Any] = {
        "job_id": name.base if raw is None else raw.base,
        "label": name.label,
        "name": fields.text("jobname"),
        "node_list": fields.text("nodelist") or None,
        "restarts": fields.cell(cells.count, "restartcnt"),
        "exit_code": fields.cell(cells.exit_code, "exitcode"),
        "energy_j": fields.cell(cells.energy_j, "consumedenergyraw", "consumedenergy"),
        "backfilled": cells.backfilled(fields.text("flags")),
        "failed_node": cells.node_name(fields.text("failednode")),
        "comment": cells.campaign_token(fields.text("comment")),
    }
    for column in ("cluster", "user", "account", "partition", "qos", "reason"):
        values[column] = fields.text(column) or None
    values |= _times(fields, clock, values["node_list"])
    given = fields.cell(cells.tres, "alloctres") or {}
    asked = fields.cell(cells.tres, "reqtres") or {}
    values |= _size(fields, given, asked)
    gpus = _gpus(fields, given or asked, values["nodes"])
    values["gpu_type"] = cells.gpu_type(given or asked)
    typed = None if given or asked or gpus is not None else asked_gpus(fields.text("submitline"), values["nodes"])
    if typed is not None:
        gpus, values["gpu_type"] = typed
        values["gpus_asked"] = True
    total_cpu_s = fields.cell(cells.duration_s, "totalcpu")
    return Job(values, total_cpu_s, gpus, bool(given or asked), _measured(fields))


def step_of(fields: Fields, name: str) -> Step:
    """Return the step of a row whose JobID names one."""
    usage = fields.cell(cells.tres, "tresusageintot") or {}
    cpu_s = fields.cell(cells.duration_s, "totalcpu") or fields.value(cells.duration_s, usage.get("cpu", ""), "cpu")
    memory = fields.value(cells.memory_bytes, usage.get("mem", ""), "mem")
    if not memory:
        largest, tasks = fields.cell(cells.memory_bytes, "maxrss"), fields.cell(cells.count, "ntasks")
        memory = largest * (tasks or 1) if largest else None
    percent = fields.value(lambda text: cells.amount(text, step=1000), usage.get("gres/gpuutil", ""), "gpuutil")
    elapsed_s = fields.cell(cells.duration_s, "elapsed", "elapsedraw")
    return Step(name, elapsed_s, cpu_s, memory, percent, _measured(fields))


def _state(fields: Fields) -> JobState:
    text = fields.text("state")
    state = JobState.parse(text)
    if state is JobState.UNKNOWN and text.upper() != "UNKNOWN" and "state" in fields.index:
        fields.fault(f"state: {text!r} is no state of Slurm")
    return state


def _times(fields: Fields, clock: cells.Clock, node_list: str | None) -> dict[str, Any]:
    state = _state(fields)
    elapsed_s = fields.cell(cells.duration_s, "elapsed", "elapsedraw")
    start, end = fields.cell(clock.read, "start"), fields.cell(clock.read, "end")
    if start is not None and end is not None:
        start, end = clock.interval(fields.text("start"), fields.text("end"), elapsed_s)
    if start is not None and end is not None and end < start:
        fields.fault("end: before the start")
        end = None
    limit_s = fields.cell(cells.duration_s, "timelimit")
    minutes = fields.cell(cells.duration_s, "timelimitraw") if limit_s is None else None
    limit_s = limit_s if minutes is None else minutes * 60
    return {
        "submit_time": fields.cell(clock.read, "submit"),
        "eligible_time": fields.cell(clock.read, "eligible"),
        "time_limit_s": round(limit_s) if limit_s else None,
        **_life(state, start, end, None if elapsed_s is None else round(elapsed_s), node_list),
    }


def _life(
    state: JobState, start: int | None, end: int | None, elapsed_s: int | None, node_list: str | None
) -> dict[str, Any]:
    """Return start, end and what is known of the time between, in agreement with the state."""
    life: dict[str, Any] = {"state": state.value}
    ended = state.final or (end is not None and not state.active)
    if not ended:
        start = None if state.waiting else start
        seen = start + elapsed_s if start is not None and elapsed_s is not None else None
        ran = elapsed_s if start is None and not state.waiting else None  # else start and seen_until tell
        return {**life, "start_time": start, "ended": False, "seen_until": seen, "elapsed_s": ran}
    if end is None and start is not None and elapsed_s is not None:
        end = start + elapsed_s
    if not elapsed_s and never_started(state, start, end, node_list):
        start = None
    if elapsed_s is None and start is not None and end is not None:
        elapsed_s = end - start
    return {**life, "start_time": start, "end_time": end, "ended": True, "elapsed_s": elapsed_s}


def _size(fields: Fields, given: Mapping[str, str], asked: Mapping[str, str]) -> dict[str, int | None]:
    """Return CPUs, nodes and memory: allocated if the job has been given any, else asked for."""

    def first(name: str, *columns: str) -> int | None:
        return (
            fields.value(cells.count, given.get(name, ""), name)
            or fields.cell(cells.count, *columns)
            or fields.value(cells.count, asked.get(name, ""), name)
            or None
        )

    cpus = first("cpu", "alloccpus", "ncpus") or fields.cell(cells.count, "reqcpus") or None
    nodes = first("node", "allocnodes", "nnodes") or fields.cell(cells.count, "reqnodes") or None
    memory = fields.value(cells.memory_bytes, given.get("mem", ""), "mem")
    if not memory:
        memory = _requested_memory(fields, cpus, nodes)
    if not memory:
        memory = fields.value(cells.memory_bytes, asked.get("mem", ""), "mem")
    return {"cpus": cpus, "nodes": nodes, "memory_bytes": memory or None}


def _requested_memory(fields: Fields, cpus: int | None, nodes: int | None) -> int | None:
    asked = fields.cell(cells.requested_memory, "reqmem")
    if asked is None:
        return None
    amount, per = asked
    times = {"cpu": cpus, "node": nodes}.get(per, 1)
    return None if times is None or amount * times > cells.MAX_BYTES else amount * times


def _gpus(fields: Fields, held: Mapping[str, str], nodes: int | None) -> int | None:
    if "gres/gpu" in held:
        return fields.value(cells.count, held["gres/gpu"], "gres/gpu")
    typed = [fields.value(cells.count, held[name], name) for name in held if name.startswith("gres/gpu:")]
    if typed:
        return None if None in typed else sum(number or 0 for number in typed)
    given, asked = cells.gpus_of_gres(fields.text("allocgres")), cells.gpus_of_gres(fields.text("reqgres"))
    return given or (asked * nodes if nodes else None) or None


def _measured(fields: Fields) -> jobstats.Measured | None:
    return jobstats.read(fields.text("admincomment")) or jobstats.read(fields.text("comment"))
