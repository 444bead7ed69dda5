"""scontrol's commands that change jobs and nodes: update, hold, release, requeue, suspend, resume."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Final

from hpcplan.errors import SlurmError
from hpcplan.hostlist import expand
from hpcplan.simulate.commands import scontrol_partitions as partitions
from hpcplan.simulate.commands import scontrol_reservations as reservations
from hpcplan.simulate.commands.controller import Controller
from hpcplan.simulate.commands.options import Words
from hpcplan.simulate.commands.reply import Call, Refusal
from hpcplan.simulate.commands.rows import find_jobs, read_target
from hpcplan.simulate.het_jobs import whole
from hpcplan.simulate.jobs import Job, JobSpec
from hpcplan.simulate.live import is_real
from hpcplan.simulate.sbatch_options import OPTIONS, fields_of
from hpcplan.simulate.store import Session

__all__ = ["hold", "list_pids", "release", "requeue", "requeue_hold", "resume", "suspend", "top", "update"]

_INVALID: Final = "Invalid job id specified"
_PENDING: Final = "Job is pending execution"
_NOT_PENDING: Final = "Job is no longer pending execution"
_DISABLED: Final = "Requested operation is presently disabled"
_ENDED: Final = "Job/step already completing or completed"
_FINISHED: Final = "Job has already finished"
_OPTIONS: Final = {option.name: option for option in OPTIONS}
_PLAIN: Final = {
    "account": "account", "comment": "comment", "dependency": "dependency", "excnodelist": "exclude",
    "features": "constraint", "jobname": "job-name", "name": "job-name", "nice": "nice", "numnodes": "nodes",
    "partition": "partition", "partitionname": "partition", "priority": "priority", "qos": "qos",
    "reqnodelist": "nodelist", "numtasks": "ntasks", "numcpus": "ntasks", "timelimit": "time", "switches": "switches",
    "starttime": "begin", "minmemorynode": "mem", "workdir": "chdir",
}  # fmt: skip
_WHILE_RUNNING: Final = frozenset({"name", "comment", "nice", "time_limit_s", "priority", "array_limit"})


def _jobs(session: Session, call: Call, texts: list[str], ended: str, error: str) -> Iterator[tuple[str, Job]]:
    """Yield the jobs named; what names none is complained of, of a job that is no more as ``ended`` says."""
    for text in texts:
        for word in re.split(r",(?![^\[]*\])", text.removeprefix("jobid=").removeprefix("JobId=")):
            target = read_target(word)
            jobs = find_jobs(session, target) if target is not None else []
            if target is not None and target.tasks is not None:
                _split(session, jobs)
            if not jobs:
                known = target is not None and 0 < target.job_id < session.engine.next_id
                why = ended if known else _INVALID
                if target is not None and target.tasks is not None:
                    call.reply.complain(f"{word}: {_INVALID}", 1)
                    continue
                call.reply.complain(f"{why} for job {word}", 1)
                if error:
                    call.reply.complain(f"{error} error: {why}")
            for job in jobs:
                if job.user != call.user:
                    call.reply.complain(f"Access/permission denied for job {word}", 1)
                elif job.id in session.engine.jobs:
                    yield word, job


def _split(session: Session, jobs: list[Job]) -> None:
    """Give the tasks that were named job ids of their own, unless they are all that wait with them."""
    left = {id(one) for job in jobs for one in session.engine.array_tasks.pool(job)}
    if not left <= {id(job) for job in jobs}:
        session.engine.split(*jobs)


def _each(
    controller: Controller,
    call: Call,
    rest: list[str],
    act: Callable[[Session, Job], None],
    ended: str = _ENDED,
    error: str = "",
) -> None:
    if not rest:
        raise Refusal("too few arguments for keyword")
    with controller.session() as session:
        for word, job in _jobs(session, call, rest, ended, error):
            try:
                act(session, job)
            except SlurmError as problem:
                call.reply.complain(f"{problem.message} for job {word}", 1)
    controller.wake()


def hold(controller: Controller, call: Call, words: Words, rest: list[str]) -> None:
    """Keep jobs from starting."""
    _each(controller, call, rest, lambda session, job: session.engine.hold(job.id), _FINISHED, "slurm_suspend")


def release(controller: Controller, call: Call, words: Words, rest: list[str]) -> None:
    """Undo :func:`hold`."""
    _each(controller, call, rest, lambda session, job: session.engine.release(job.id), _FINISHED, "slurm_suspend")


def _requeue(session: Session, job: Job) -> None:
    if not job.running:
        raise SlurmError(_PENDING)
    if not job.spec.requeue:
        raise SlurmError(_DISABLED)
    session.engine.requeue(job.id)


def requeue(controller: Controller, call: Call, words: Words, rest: list[str]) -> None:
    """Stop jobs and put them back into the queue."""
    _each(controller, call, rest, _requeue)


def requeue_hold(controller: Controller, call: Call, words: Words, rest: list[str]) -> None:
    """Do as :func:`requeue`, and hold the jobs."""

    def act(session: Session, job: Job) -> None:
        _requeue(session, job)
        session.engine.hold(job.id)

    _each(controller, call, [word for word in rest if not word.lower().startswith("state=")], act)


def suspend(controller: Controller, call: Call, words: Words, rest: list[str]) -> None:
    """Stop the processes of jobs that run, until :func:`resume`."""

    def act(session: Session, job: Job) -> None:
        runs = [controller.runner.runs.get(one.id) for one in whole(session.engine.jobs, job)]
        if not job.running:
            raise SlurmError(_PENDING)
        if not is_real(job):
            raise SlurmError(_DISABLED)
        for run in runs:
            if run is not None:
                controller.runner.suspend(run, session)

    _each(controller, call, rest, act)


def resume(controller: Controller, call: Call, words: Words, rest: list[str]) -> None:
    """Let the processes of suspended jobs go on."""

    def act(session: Session, job: Job) -> None:
        runs = [controller.runner.runs.get(one.id) for one in whole(session.engine.jobs, job)]
        if not any(run is not None and run.suspended_at is not None for run in runs):
            raise SlurmError(_DISABLED)
        for run in runs:
            if run is not None:
                controller.runner.resume(run, session)

    _each(controller, call, rest, act)


def top(controller: Controller, call: Call, words: Words, rest: list[str]) -> None:
    """Put waiting jobs before the user's others."""

    def act(session: Session, job: Job) -> None:
        if job.running:
            raise SlurmError(_NOT_PENDING)
        best = max(other.priority for other in session.engine.jobs.values() if other.user == job.user)
        session.engine.change(job.id, job.spec, priority=best + 1)

    _each(controller, call, rest, act, _NOT_PENDING)


def list_pids(controller: Controller, call: Call, words: Words, rest: list[str]) -> None:
    """List the process groups of the jobs that really run."""
    call.reply.say("PID      JOBID    STEPID   LOCALID GLOBALID")
    wanted = read_target(rest[0]).job_id if rest and read_target(rest[0]) is not None else None  # type: ignore[union-attr]
    for run in controller.runner.runs.values():
        if wanted not in (None, run.job_id):
            continue
        groups = {"batch": [run.batch.pid]} if run.batch is not None and run.batch.ended is None else {}
        for step, pids in {**groups, **run.groups}.items():
            for rank, pid in enumerate(pids):
                call.reply.say(f"{pid:<8} {run.job_id:<8} {step:<8} {rank:<7} {rank:<7} ")


def update(controller: Controller, call: Call, words: Words, rest: list[str]) -> None:
    """Change what is given as ``key=value`` of the job or node that is named first."""
    if len(rest) > 1 and rest[0].lower() in {"job", "jobid"}:
        rest = [f"{rest[0]}={rest[1]}", *rest[2:]]  # 'update job 12 name=x'
    pairs = [(key.lower(), value) for key, _, value in (word.partition("=") for word in rest)]
    keys = {key for key, _ in pairs}
    if any(key in {"job", "jobid"} for key in keys):
        _update_jobs(controller, call, pairs)
    elif any(key in {"node", "nodename"} for key in keys):
        _update_nodes(controller, call, dict(pairs))
    elif any(key in {"partition", "partitionname"} for key in keys):
        with controller.session() as session:
            partitions.update(session, pairs)
        controller.wake()
    elif any(key in {"reservation", "reservationname"} for key in keys):
        with controller.session() as session:
            reservations.update(session, call, rest)
        controller.wake()
    elif not pairs:
        raise Refusal("too few arguments for update keyword")
    else:
        raise Refusal(
            "No valid entity in update command\n"
            'Input line must include "NodeName", "PartitionName", "Reservation", "JobId", or "SlurmctldDebug"'
        )


def _update_jobs(controller: Controller, call: Call, pairs: list[tuple[str, str]]) -> None:
    targets = [value for key, value in pairs if key in {"job", "jobid"}]
    given: dict[str, Any] = {}
    for key, value in pairs:
        if key in {"job", "jobid"}:
            continue
        given |= _change(key, value)

    def act(session: Session, job: Job) -> None:
        changes = dict(given)
        if callable(limit := changes.pop("time_limit_s", None)):
            changes["time_limit_s"] = limit(job.request.limit_s)
        elif limit is not None:
            changes["time_limit_s"] = limit
        held = changes.pop("held", None)
        priority = changes.pop("priority", None)
        if job.running and not set(changes) <= _WHILE_RUNNING:
            raise SlurmError(_NOT_PENDING)
        spec = replace(job.spec, **changes)
        session.engine.change(job.id, spec, priority=priority, anew=set(changes) & {"dependency", "begin"})
        run = controller.runner.runs.get(job.id)
        if run is not None and "time_limit_s" in changes:
            run.limit_end = job.limit_end
        if held is not None:
            (session.engine.hold if held else session.engine.release)(job.id)

    _each(controller, call, targets, act, _FINISHED)


def _change(key: str, value: str) -> dict[str, Any]:
    """Return what a ``key=value`` changes of a job specification.

    Raises:
        Refusal: no such key, or a value that Slurm refuses.
    """
    if key in {"starttime", "endtime"} and value.lower() == "now":
        value = "now"
    if key == "arraytaskthrottle":
        return {"array_limit": int(value) or None} if value.isdecimal() else {}
    if key == "requeue" and value in {"0", "1"}:
        return {"requeue": value == "1"}
    if key == "oversubscribe":
        return {"exclusive": value.lower() == "no"}
    if key == "timelimit" and value[:1] in "+-":
        sign = -1 if value[0] == "-" else 1
        span = _read("time", value[1:])["time_limit_s"]
        return {"time_limit_s": lambda before: max(60, before + sign * span)}
    if key == "priority" and value == "0":
        return {"held": True}
    if key == "timelimit":
        try:
            return _read("time", value)
        except Refusal:
            raise Refusal("scontrol: error: Invalid TimeLimit value") from None
    option = _PLAIN.get(key)
    if option is None:
        raise Refusal(f"Update of this parameter is not supported: {key}={value}\nRequest aborted")
    if not value and option in {"dependency", "comment", "exclude", "nodelist", "constraint"}:
        return {{"exclude": "exclude", "nodelist": "nodelist"}.get(option, option): None}
    return _read(option, value)


def _read(option: str, value: str) -> dict[str, Any]:
    try:
        found = fields_of(_OPTIONS[option], value)
    except SlurmError as error:
        raise Refusal(f"{error.message.replace('sbatch: error: ', '')}\nRequest aborted") from None
    return {key: one for key, one in found.items() if key in JobSpec.__dataclass_fields__}


def _update_nodes(controller: Controller, call: Call, given: dict[str, str]) -> None:
    names = given.get("nodename") or given.get("node") or ""
    state = given.get("state", "").lower()
    wanted = {
        "drain": "drain",
        "down": "down",
        "resume": "resume",
        "undrain": "resume",
        "idle": "resume",
        "fail": "drain",
    }
    if state not in wanted:
        raise Refusal(
            f"Invalid input: state={given.get('state', '')}\nRequest aborted\n"
            "Valid states are: DOWN, DRAIN, FAIL, IDLE, RESUME, UNDRAIN"
        )
    if wanted[state] != "resume" and not given.get("reason"):
        raise Refusal("You must specify a reason when DOWNING or DRAINING a node. Request denied")
    with controller.session() as session:
        try:
            session.engine.set_node_state(list(expand(names)), wanted[state], given.get("reason"))
        except (KeyError, ValueError):
            raise Refusal("slurm_update error: Invalid node name specified") from None
    controller.wake()
