"""scancel(1)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

from hpcplan.errors import SlurmError
from hpcplan.simulate.commands.controller import Controller
from hpcplan.simulate.commands.het_groups import components
from hpcplan.simulate.commands.options import Words, flags, read_words, usage
from hpcplan.simulate.commands.reply import Call, Refusal
from hpcplan.simulate.commands.rows import Target, find_jobs, is_user, read_target
from hpcplan.simulate.commands.signals import signal_number
from hpcplan.simulate.commands.states import read_states
from hpcplan.simulate.jobs import Job
from hpcplan.simulate.live import is_real
from hpcplan.simulate.store import Session
from hpcplan.slurm.records import JobState

__all__ = ["scancel"]

_TABLE: Final = flags(
    "account:A clusters:M jobname:n name:n nodelist:w partition:p qos:q reservation:R signal:s state:t sibling user:u "
    "wckey",
    "batch:b ctld full:f help hurry:H interactive:i me quiet:Q usage verbose:v version:V cron",
)
_PART: Final = 60  # how scancel leaves when it cannot take a component out of a job that waits
_FILTERS: Final = ("account", "jobname", "name", "partition", "qos", "state", "user", "me", "nodelist", "wckey")


def scancel(controller: Controller, connection: Any, call: Call) -> int:
    """Signal or cancel jobs."""
    words = read_words("scancel", call.words, _TABLE)
    if "help" in words or "usage" in words:
        call.reply.say(usage("scancel", _TABLE, "[JOB[_TASK][.STEP] ...]"))
        return 0
    number = _signal(words)
    texts = [text for word in words.rest for text in re.split(r",(?![^\[]*\])", word) if text]
    targets = [_target(text) for text in texts]
    if not targets and not any(name in words for name in _FILTERS):
        raise Refusal("scancel: error: No job identification provided")
    states = _states(words)
    with controller.session() as session:
        for user in words.every("user"):
            if not is_user(user, (job.user for job in session.engine.jobs.values())):
                raise Refusal(f"scancel: error: Invalid user name: {user}")
        if targets:
            for text, target in zip(texts, targets, strict=True):
                _one(controller, session, call, words, text, target, states, number)
        else:
            # a component that waits goes with the first one
            jobs = [job for job in session.engine.jobs.values() if job.running or not job.het_offset]
            home = controller.default_account
            _act(
                controller,
                session,
                [job for job in jobs if _chosen(job, call, words, states, home)],
                words,
                number,
            )
    controller.wake()
    return call.reply.code


def _states(words: Words) -> set[JobState] | None:
    try:
        return read_states("scancel", words.every("state"))
    except Refusal:
        said = f"Invalid job state specified: {words.last('state')}"
        raise Refusal(f"{said}\nValid job states are PENDING, RUNNING, and SUSPENDED") from None


def _signal(words: Words) -> int | None:
    text = words.last("signal")
    if text is None:
        return None
    number = signal_number(text)
    if number is None:
        raise Refusal(f"Unknown job signal: {text}")
    return number


def _target(text: str) -> Target:
    target = read_target(text)
    if target is None:
        raise Refusal(f"scancel: error: Invalid job id {text}")
    return target


def _one(
    controller: Controller,
    session: Session,
    call: Call,
    words: Words,
    text: str,
    target: Target,
    states: set[JobState] | None,
    number: int | None,
) -> None:
    jobs = find_jobs(session, target)
    if "verbose" in words:
        call.reply.complain(f"scancel: Terminating job {text}")
    if not jobs:
        if target.step is not None:
            message = f"scancel: error: Kill job error on job step id {text}: Invalid job id specified"
            call.reply.complain(message, 1)
        elif number is not None or "batch" in words:
            call.reply.complain(f"scancel: error: Kill job error on job id {text}: Invalid job id specified", 1)
        elif "verbose" in words:  # without it, scancel says nothing of a job that is not there
            known = 0 < target.job_id < session.engine.next_id
            why = "Job/step already completing or completed" if known else "Invalid job id specified"
            call.reply.complain(f"scancel: error: Kill job error on job id {text}: {why}")
        return
    if any(job.user != call.user for job in jobs):
        call.reply.complain(f"scancel: error: Kill job error on job id {text}: Access/permission denied", 1)
    try:
        chosen = [job for job in jobs if _chosen(job, call, words, states, controller.default_account)]
        _act(controller, session, chosen, words, number, step=target.step)
    except SlurmError as error:
        name = f"{jobs[0].het_id}+{jobs[0].het_offset}" if target.het_id is not None else text
        call.reply.complain(f"scancel: error: Kill job error on job id {name}: {error.message}", _PART)


def _chosen(job: Job, call: Call, words: Words, states: set[JobState] | None, default_account: str) -> bool:
    state = JobState.RUNNING if job.running else JobState.PENDING
    names = [*words.every("name"), *words.every("jobname")]
    return (
        (job.user == call.user)
        and (states is None or state in states)
        and (not names or job.spec.name in names)
        and ("user" not in words or job.user in words.every("user"))
        and ("account" not in words or (job.spec.account or default_account) in words.every("account"))
        and ("partition" not in words or not set(_partitions(job)).isdisjoint(words.every("partition")))
        and ("qos" not in words or (job.spec.qos or "normal") in words.every("qos"))
        and ("reservation" not in words or job.spec.reservation in words.every("reservation"))
        and ("nodelist" not in words or _runs_on(job, words.every("nodelist")))
    )


def _partitions(job: Job) -> list[str]:
    """Return the partitions that a job may go to, or the one that it is in."""
    return [job.request.partition] if job.running else (job.spec.partition or job.request.partition).split(",")


def _runs_on(job: Job, names: list[str]) -> bool:
    from hpcplan.hostlist import expand

    try:
        return bool(set(expand(",".join(names))) & set(expand(job.node_list or "")))
    except ValueError:
        return False


def _act(
    controller: Controller,
    session: Session,
    jobs: Sequence[Job],
    words: Words,
    number: int | None,
    *,
    step: str | None = None,
) -> None:
    """Cancel jobs, or a step, or signal them: as scancel does first those that wait, so that none takes a place."""
    if step in (None, "batch") and number in (None, 9):
        session.engine.cancel(*(job.id for job in jobs if not job.running))
    for job in jobs:
        if job.running and job.id in session.engine.jobs:
            _act_on_running(controller, session, job, words, number, step=step)


def _act_on_running(
    controller: Controller, session: Session, job: Job, words: Words, number: int | None, *, step: str | None
) -> None:
    """Cancel a job or a step, or send what was asked for to its steps, its batch script, or both."""
    run = controller.runner.runs.get(job.id) if is_real(job) else None
    if step is not None and step != "batch":
        if run is not None and number is not None:
            controller.runner.signal(run, number, only=step)
        elif run is not None:
            controller.runner.end_step(run, step)
        return
    if number is not None and number != 9:
        if run is not None:
            batch, full = "batch" in words or step == "batch", "full" in words
            controller.runner.signal(run, number, batch=batch or full, steps=not batch or full)
        return
    if run is not None:
        for one in components(session, job) if job.het_id == job.id else [job]:
            if one.id in controller.runner.runs:
                controller.runner.cancel(controller.runner.runs[one.id], session)
        return
    session.engine.cancel(job.id)
