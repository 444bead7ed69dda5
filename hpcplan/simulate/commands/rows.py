"""The jobs of a cluster in use as its commands show them: what the engine knows, and what was kept of submissions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from hpcplan.simulate.commands.controller import Controller
from hpcplan.simulate.commands.environment import gpus_on_node
from hpcplan.simulate.commands.jobfiles import JobInfo, Step, output_path
from hpcplan.simulate.commands.requested import requested_tres
from hpcplan.simulate.job_records import live_record
from hpcplan.simulate.jobs import Job, JobSpec
from hpcplan.simulate.pending import earliest_start, reasons
from hpcplan.simulate.store import Session
from hpcplan.slurm.records import JobRecord, JobState

__all__ = [
    "MIN_JOB_AGE_S",
    "JobRow",
    "Target",
    "ended_rows",
    "find_jobs",
    "in_list_order",
    "is_user",
    "live_rows",
    "read_target",
    "task_ranges",
]

MIN_JOB_AGE_S: Final = 300  # slurm.conf(5): how long the controller remembers a job that has ended
_TARGET: Final = re.compile(r"(\d+)(?:\+(\d{1,4})|_(?:(\d+)|\[([\d,-]+)(?:%\d+)?\]|\*))?(?:\.(\w+))?")


@dataclass(slots=True)
class JobRow:
    """One job to be shown. ``tasks`` are the tasks of an array that wait together and are shown as one.

    ``ending`` is, of a job that was stopped and whose processes are still there, how and when it was, and ``left`` the
    nodes on which they are. ``requested`` are the TRES that it asked for.
    """

    record: JobRecord
    spec: JobSpec
    info: JobInfo | None
    state: JobState
    now: int
    job: Job | None = None
    tasks: tuple[int, ...] = ()
    gpus_per_node: int = 0
    ending: tuple[JobState, int] | None = None
    left: str | None = None
    steps: list[Step] = field(default_factory=list)
    requested: dict[str, int] = field(default_factory=dict)

    @property
    def node_list(self) -> str:
        """Its nodes as the controller lists them: of a job that is completing, those that are not yet given back."""
        return self.left or self.record.node_list or ""

    @property
    def array_word(self) -> str:
        """What follows the underscore: ``3`` or ``[4-7%2]``; empty for no array."""
        record = self.record
        if record.array_job_id is None:
            return ""
        if not self.tasks:
            return str(record.array_task_id)
        room = f"%{self.spec.array_limit}" if self.spec.array_limit else ""
        return f"[{task_ranges(self.tasks)}{room}]"

    @property
    def name(self) -> str:
        """The id as people write it: ``12``, ``12_3``, ``12_[4-7%2]``; ``12+1`` is a component of heterogeneous job."""
        record, het = self.record, self.het
        if het is not None:
            return f"{het[0]}+{het[1]}"
        return f"{record.array_job_id}_{self.array_word}" if record.array_job_id is not None else str(record.job_id)

    @property
    def step_prefix(self) -> str:
        """The id as the names of steps begin: components have their own there."""
        return self.name if self.het is None else str(self.record.job_id)

    @property
    def het(self) -> tuple[int, int, int] | None:
        """Of a component of a heterogeneous job: the first one's id, which one it is, and how many there are."""
        if self.job is not None and self.job.het_id is not None:
            return (self.job.het_id, self.job.het_offset, self.job.het_size)
        if self.info is not None:
            return self.info.het
        record = self.record
        if record.het_job_id is None or record.het_offset is None:
            return None
        return (record.het_job_id, record.het_offset, record.het_offset + 1)  # how many more there were is not kept

    @property
    def het_id_set(self) -> str:
        """The ids of all components of a heterogeneous job, nothing for others."""
        return f"{self.het[0]}-{self.het[0] + self.het[2] - 1}" if self.het is not None else ""

    def is_meant(self, target: Target) -> bool:
        """Whether a target names this job, or the heterogeneous job or array that it is part of."""
        record, het = self.record, self.het
        if target.het_id is not None:
            return het is not None and (het[0], record.job_id) == (target.het_id, target.job_id)
        if het is not None and target.tasks is None and het[0] == target.job_id:
            return True
        tasks = self.tasks or (record.array_task_id,)
        return any(target.matches(record.job_id, record.array_job_id, task) for task in tasks)

    @property
    def reason(self) -> str:
        """Squeue's word for why it waits, or how it ended."""
        return self.record.reason or "None"

    def path(self, which: str) -> str:
        """Return where the job's ``std_out`` (or ``std_err``, ``std_in``) is, with its %-codes replaced."""
        info, record = self.info, self.record
        if info is None:
            return ""
        default = "slurm-%A_%a.out" if record.array_job_id is not None else "slurm-%j.out"
        pattern = getattr(info, which) or info.std_out or default
        node = (record.node_list or "").partition(",")[0]
        codes: dict[str, str | int] = {
            "A": record.array_job_id or record.job_id,
            "a": 4294967294 if record.array_task_id is None else record.array_task_id,
            "J": record.job_id, "j": record.job_id, "N": node, "u": info.user, "x": record.name,
        }  # fmt: skip
        return output_path(pattern, info.work_dir, codes)


@dataclass(frozen=True, slots=True)
class Target:
    """A job, task or step that was named: ``12``, ``12_3``, ``12_[1-3]``, ``12.0``; ``tasks`` is ``None`` for all.

    ``12+1`` names the job 13, as long as that is a component of the heterogeneous job 12 (``het_id``).
    """

    job_id: int
    tasks: frozenset[int] | None = None
    step: str | None = None
    het_id: int | None = None

    def matches(self, job_id: int, array_job_id: int | None, task: int | None) -> bool:
        """Whether a job is meant."""
        if self.tasks is None:
            return self.job_id in (job_id, array_job_id)
        return array_job_id == self.job_id and task in self.tasks


def read_target(text: str) -> Target | None:
    """Return what ``12_3`` names, ``None`` for what is no job id."""
    match = _TARGET.fullmatch(text.strip())
    if match is None:
        return None
    tasks: frozenset[int] | None = None
    if match[3] is not None:
        tasks = frozenset({int(match[3])})
    elif match[4] is not None:
        tasks = frozenset(_numbers(match[4]))
    if match[2] is not None:
        return Target(int(match[1]) + int(match[2]), step=match[5], het_id=int(match[1]))
    return Target(int(match[1]), tasks, match[5])


def _numbers(text: str) -> Iterable[int]:
    for item in text.split(","):
        low, _, high = item.partition("-")
        if low.isdecimal():
            yield from range(int(low), min(int(high or low), int(low) + 100_000) + 1)


def task_ranges(tasks: Sequence[int]) -> str:
    """Return task numbers as squeue writes them: ``0-3,7``."""
    runs: list[list[int]] = []
    for task in sorted(tasks):
        if runs and runs[-1][1] == task - 1:
            runs[-1][1] = task
        else:
            runs.append([task, task])
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in runs)


def find_jobs(session: Session, target: Target) -> list[Job]:
    """Return the live jobs that are meant, by id."""
    jobs = session.engine.jobs
    direct = jobs.get(target.job_id) if target.tasks is None else None
    if target.het_id is not None:
        return [direct] if direct is not None and direct.het_id == target.het_id else []
    if direct is not None and direct.array_job_id is None:
        return [direct]
    return [
        jobs[job_id]
        for job_id in sorted(jobs)
        if target.matches(job_id, jobs[job_id].array_job_id, jobs[job_id].array_task_id)
    ]


def live_rows(controller: Controller, session: Session, *, whole_arrays: bool = True) -> list[JobRow]:
    """Return the jobs that have not ended, in order of submission, tasks that have one job id between them as one."""
    words = reasons(session.engine)
    rows: list[JobRow] = []
    together: dict[int, JobRow] = {}
    for job in sorted(session.engine.jobs.values(), key=lambda one: one.submitted):
        pooled = whole_arrays and job.pooled and not job.left_over and job.array_task_id is not None
        if pooled and job.number in together:
            first = together[job.number]
            first.tasks = (*first.tasks, job.array_task_id or 0)
            continue
        row = _live(controller, session, job, words.get(job.id))
        if pooled:
            row.tasks = (job.array_task_id or 0,)
            row.record = replace(row.record, array_task_id=None)
            together[job.number] = row
        rows.append(row)
    return rows


def _with_account(record: JobRecord, controller: Controller) -> JobRecord:
    """Return a record on the account that its user has by default, if it names none."""
    return record if record.account else replace(record, account=controller.default_account)


def _live(controller: Controller, session: Session, job: Job, reason: str | None) -> JobRow:
    if job.running and job.held:  # it will not start again after a requeue; until then it goes on
        reason = "JobHeldUser"
    record = _with_account(live_record(job, session.engine, reason), controller)
    run = controller.runner.runs.get(job.id)
    state = record.state
    if job.running and run is not None and run.outcome is not None:
        state = JobState.COMPLETING
    elif job.running and run is not None and run.suspended_at is not None:
        state = JobState.SUSPENDED
    base_id = job.array_job_id or job.id
    info = controller.files.info(base_id)
    steps = list(run.steps) if run is not None else controller.files.steps(base_id, job.id) if info else []
    ending = None
    if run is not None and run.outcome is not None and run.stopped_at is not None:
        ending = (run.outcome[0], run.stopped_at)
    now = session.engine.now
    row = JobRow(record, job.spec, info, state, now, job, gpus_per_node=gpus_on_node(job), steps=steps, ending=ending)
    row.requested = requested_tres(session, job.spec)
    if ending is not None and job.vacated:
        row.left = session.machine.node_list(job.held_nodes)
    return row


def ended_rows(controller: Controller, session: Session, records: Iterable[JobRecord]) -> list[JobRow]:
    """Return finished jobs as rows; the last tasks of an array that were cancelled before they had a job id as one."""
    rows: list[JobRow] = []
    together: dict[int, JobRow] = {}
    for record in _without_cancelled_tasks(session, list(records)):
        task = _cancelled_task(record)
        if task is not None and record.job_id in together:
            first = together[record.job_id]
            first.tasks = tuple(sorted({*first.tasks, task}))
            continue
        row = _ended(controller, session, _with_account(record, controller))
        if task is not None:
            row.tasks = (task,)
            row.record = replace(row.record, array_task_id=None)
            together[record.job_id] = row
        rows.append(row)
    return rows


def _cancelled_task(record: JobRecord) -> int | None:
    """Return the number of a task that ended while it waited with others of its array, ``None`` for any other job."""
    return record.array_task_id if record.job_id == record.array_job_id and record.start_time is None else None


def _without_cancelled_tasks(session: Session, records: list[JobRecord]) -> list[JobRecord]:
    """Leave out the tasks whose array's job id had others left: nothing is kept of them, as on Slurm."""
    ends: dict[int, int] = {}
    taken = {job.number for job in session.engine.jobs.values()}
    for record in records:
        if _cancelled_task(record) is None:
            taken.add(record.job_id)
        else:
            ends[record.job_id] = max(ends.get(record.job_id, 0), record.end_time or 0)
    return [
        record
        for record in records
        if _cancelled_task(record) is None or (record.job_id not in taken and record.end_time == ends[record.job_id])
    ]


def _ended(controller: Controller, session: Session, record: JobRecord) -> JobRow:
    base_id = record.array_job_id or record.job_id
    info = controller.files.info(base_id)
    spec = JobSpec.from_dict(info.spec) if info is not None and info.spec else JobSpec(name=record.name)
    steps = [s for s in controller.files.steps(base_id, record.job_id) if s.attempt == record.restarts] if info else []
    per_node = (record.gpus or 0) // (record.nodes or 1)
    row = JobRow(record, spec, info, record.state, session.engine.now, gpus_per_node=per_node, steps=steps)
    row.requested = requested_tres(session, spec)
    return row


def in_list_order(rows: Iterable[JobRow]) -> list[JobRow]:
    """Return rows in the order of slurmctld's list: a task that gets a job id keeps the place of those it waited with,
    and they go to the end.
    """
    rows = list(rows)
    own: dict[int, list[int]] = {}
    for row in rows:
        if row.record.array_job_id not in (None, row.record.job_id):
            own.setdefault(row.record.array_job_id or 0, []).append(row.record.job_id)

    def place(row: JobRow) -> tuple[int, bool]:
        array = row.record.array_job_id
        if array is None:
            return (row.record.job_id, False)
        split = sorted(own.get(array, ()))
        before = [one for one in split if one < row.record.job_id] if row.record.job_id != array else split
        return (before[-1], True) if before else (array, False)

    return sorted(rows, key=place)


def expected_start(session: Session, row: JobRow) -> tuple[int, str] | None:
    """Return when and where a waiting job would start if every job used up its limit."""
    if row.job is None or row.job.running:
        return None
    slot = earliest_start(session.engine, row.job)
    return None if slot is None else (slot.start, session.machine.node_list(slot.nodes))


def is_user(name: str, of_jobs: Iterable[str | None]) -> bool:
    """Whether a name or number is a user's, as far as this machine and the users of jobs tell."""
    import pwd

    if name.isdecimal() or name in of_jobs:
        return True
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True
