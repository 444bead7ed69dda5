"""squeue(1)."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from hpcplan.simulate.commands.controller import Controller
from hpcplan.simulate.commands.data_parser import json_flags, parser_of, say_json
from hpcplan.simulate.commands.formatting import (
    Clock,
    Column,
    Field,
    at_least,
    line_of,
    long_date,
    read_long,
    read_percent,
    short_time,
    spelt_out,
)
from hpcplan.simulate.commands.job_json import say_old, squeue_json
from hpcplan.simulate.commands.jobfiles import Step
from hpcplan.simulate.commands.json_jobs import job_document
from hpcplan.simulate.commands.options import Words, flags, read_words, refuse_both, say_cluster, usage
from hpcplan.simulate.commands.reply import Call, Refusal
from hpcplan.simulate.commands.rows import (
    JobRow,
    Target,
    ended_rows,
    in_list_order,
    is_user,
    live_rows,
    read_target,
)
from hpcplan.simulate.commands.squeue_fields import fields, long_names
from hpcplan.simulate.commands.states import read_states
from hpcplan.simulate.store import Session
from hpcplan.slurm.records import JobRecord, JobState

__all__ = ["controller_rows", "say_jobs", "squeue"]

_TABLE: Final = flags(
    "clusters:M account:A format:o Format:O jobs:j licenses:L name:n node partition:p qos:q reservation:R states:t "
    "sort:S users:u nodelist:w iterate:i",
    "all:a array:r federation help hide long:l local me noconvert noheader:h notme only-job-state priority:P sibling "
    "start usage verbose:v version:V array-unique",
    "steps:s",
)
_SHORT: Final = "%.18i %.9P %.8j %.8u %.2t %.10M %.6D %R"
_LONG: Final = "%.18i %.9P %.8j %.8u %.8T %.10M %.9l %.6D %R"
_START: Final = "%.18i %.9P %.8j %.8u %.2t %.19S %.6D %20Y %R"
_STEPS: Final = "%.15i %.8j %.9P %.8u %.9M %N"
_MIN_JOB_AGE_S: Final = 300


def squeue(controller: Controller, connection: Any, call: Call) -> int:
    """Print the jobs that the controller knows."""
    version = controller.store.settings().slurm_version
    table = (*_TABLE, *json_flags(version))
    words = read_words("squeue", call.words, table)
    if "help" in words or "usage" in words:
        call.reply.say(usage("squeue", table))
        return 0
    refuse_both("squeue", words, ("format", "o"), ("long", "l"))
    clock = Clock(call.env)
    with controller.session() as session:
        rows = controller_rows(controller, session, whole_arrays="array" not in words)
        rows = _chosen(rows, words, call, version)
        if "start" in words and not words.every("states"):
            rows = [row for row in rows if row.state is JobState.PENDING]
        if "json" in words or "yaml" in words:
            say_jobs(call, session, words, rows)
            return 0
        if "steps" in words:
            _print_steps(call, rows, words, clock)
            return 0
        if "array" not in words:
            rows = _with_split_tasks(rows)
        before, columns = _columns(words, call, fields(session, clock))
        lines = [
            line_of(before, columns, [column.field.value(row) for column in columns])
            for row in _sorted(rows, words, session)
        ]
    say_cluster(call, words)
    if "noheader" not in words:
        if "long" in words:
            call.reply.say(long_date(session.engine.now))
        call.reply.say(line_of(before, columns, [column.field.header for column in columns]))
    for line in lines:
        call.reply.say(line)
    return call.reply.code


def say_jobs(call: Call, session: Session, words: Words, rows: list[JobRow]) -> None:
    """Print jobs as JSON (or YAML), in the shape of the cluster's release."""
    parser = parser_of(call.command, words, session.settings.slurm_version, call)
    if parser is None:
        return
    if parser.is_old:
        say_old(call, words, squeue_json(session, rows))
        return
    documents = (job_document(session, row) for row in rows)
    say_json(call, session, parser, words, documents, "jobs", times=("last_backfill", "last_update"))


def controller_rows(controller: Controller, session: Session, *, whole_arrays: bool = True) -> list[JobRow]:
    """Return what the controller remembers: live jobs, and those that ended in the last five minutes."""
    rows = live_rows(controller, session, whole_arrays=whole_arrays)
    live = {job.number for job in session.engine.jobs.values()}
    since = session.engine.now - _MIN_JOB_AGE_S
    records: dict[tuple[int, int | None], JobRecord] = {}
    for record in [*reversed(session.engine.ended), *session.accounting.latest_first(since=since)]:
        if record.job_id not in live and (record.end_time or 0) >= since and record.state.final:
            records.setdefault((record.job_id, record.array_task_id), record)
    rows += ended_rows(controller, session, records.values())
    return in_list_order(rows)


def _with_split_tasks(rows: list[JobRow]) -> list[JobRow]:
    """Return rows with the waiting tasks that have a job id of their own shown with those that have not."""
    pools = {row.record.array_job_id: row for row in rows if row.tasks and row.state is JobState.PENDING}
    found: list[JobRow] = []
    for row in rows:
        pool = pools.get(row.record.array_job_id)
        if pool is None or row.state is not JobState.PENDING or row is pool:
            found.append(row)
            continue
        pool.tasks = tuple(sorted({*pool.tasks, *(row.tasks or (row.record.array_task_id or 0,))}))
        pool.spec = replace(pool.spec, array_limit=None)
        reasons = dict.fromkeys([*pool.reason.split(","), row.reason])
        pool.record = replace(pool.record, reason=",".join(reasons))
    return found


def _date(session: Session) -> str:
    from datetime import datetime

    return datetime.fromtimestamp(session.engine.now).strftime("%a %b %d %H:%M:%S %Y")


def _columns(words: Words, call: Call, known: Any) -> tuple[str, list[Column[JobRow]]]:
    percent = call.env.get("SQUEUE_FORMAT")
    named = words.last("Format") or (call.env.get("SQUEUE_FORMAT2") if not percent else None)
    if words.last("format") is not None or not named:
        default = _START if "start" in words else _LONG if "long" in words else _SHORT
        plain = "long" not in words and "start" not in words
        text = words.last("format") or (percent if plain else None) or default
        return read_percent(
            spelt_out(text, known),
            known,
            lambda code: call.reply.complain(f"squeue: error: Invalid job format specification: {code}"),
        )
    return "", read_long(named, long_names(known), "squeue", call)


def _chosen(rows: list[JobRow], words: Words, call: Call, version: str) -> list[JobRow]:
    """Return the rows that the filters let through."""
    in_json = "json" in words or "yaml" in words
    targets = _targets(words, call, rows)
    states = read_states("squeue", words.every("states") or call.env.get("SQUEUE_STATES", "").split(","))
    if states is None:
        all_states = in_json and not at_least(version, "24.05")  # which filters them as it does tables
        states = {state for state in JobState if not state.final or all_states}
    tests: list[Callable[[JobRow], bool]] = [lambda row: row.state in states]
    if targets:
        tests.append(lambda row: any(row.is_meant(target) for target in targets))
    for option, of in (
        ("account", lambda row: row.record.account or ""), ("name", lambda row: row.record.name),
        ("qos", lambda row: row.record.qos or "normal"),
        ("licenses", lambda row: row.spec.licenses or ""), ("reservation", lambda row: row.spec.reservation or ""),
        ("users", lambda row: row.record.user or ""),
    ):  # fmt: skip
        if wanted := set(words.every(option)):
            tests.append(lambda row, of=of, wanted=wanted: of(row) in wanted)  # type: ignore[misc]
    if partitions := set(words.every("partition")):
        tests.append(lambda row: not partitions.isdisjoint((row.record.partition or "").split(",")))
    if unknown := [name for name in words.every("users") if not is_user(name, (row.record.user for row in rows))]:
        call.reply.complain(f"squeue: error: Invalid user: {unknown[0]}\n")
    if "me" in words:
        tests.append(lambda row: row.record.user == call.user)
    if nodes := words.last("nodelist"):
        tests.append(lambda row: _on(row, nodes))
    return [_narrowed(row, targets) for row in rows if all(test(row) for test in tests)]


def _narrowed(row: JobRow, targets: list[Target]) -> JobRow:
    """Return a row with those tasks alone that were named, where some were."""
    array, named = row.record.array_job_id, [one for one in targets if one.tasks is not None]
    if not row.tasks or not named or any(row.is_meant(one) for one in targets if one not in named):
        return row
    tasks = tuple(task for task in row.tasks if any(one.matches(row.record.job_id, array, task) for one in named))
    if len(tasks) > 1:
        return replace(row, tasks=tasks, spec=replace(row.spec, array_limit=None))
    return replace(row, tasks=(), record=replace(row.record, array_task_id=tasks[0]))


def _on(row: JobRow, nodes: str) -> bool:
    from hpcplan.hostlist import expand

    try:
        return bool(set(expand(nodes)) & set(expand(row.record.node_list or "")))
    except ValueError:
        return False


def _targets(words: Words, call: Call, rows: list[JobRow]) -> list[Target]:
    targets = []
    for text in _ids(words):
        target = read_target(text)
        if target is None:
            raise Refusal(f"squeue: error: Invalid job id: {text}")
        targets.append(target if target.het_id is None else Target(target.het_id))  # the whole job is shown
    if len(targets) == 1 and not any(row.is_meant(targets[0]) for row in rows):
        raise Refusal("slurm_load_jobs error: Invalid job id specified")
    return targets


def _ids(words: Words) -> list[str]:
    """Return the ids given; a comma in brackets does not part them."""
    texts = [value for option, value in words.given if option.name == "jobs" and value]
    return [item for text in texts for item in re.split(r",(?![^\[]*\])", text) if item.strip()]


def _sorted(rows: list[JobRow], words: Words, session: Session) -> list[JobRow]:
    """Return rows in order; ``P,t,-p`` unless ``--sort`` says otherwise."""
    text = words.last("sort") or ("S,-p" if "start" in words else "P,t,-p")
    result = sorted(rows, key=_unsorted)
    known = fields(session, Clock({"SLURM_TIME_FORMAT": "%s"}))
    for key in reversed(text.split(",")):
        letter = key.lstrip("+-")[:1]
        if letter in known:
            result.sort(key=lambda row, letter=letter: _sort_key(row, letter, known), reverse=key.startswith("-"))  # type: ignore[misc]
    return result


def _unsorted(row: JobRow) -> tuple[int, int, int]:
    """Return what Slurm's order goes by where nothing else tells jobs apart: of an array the tasks go up."""
    record = row.record
    begin = record.start_time or (row.job.begin_time if row.job is not None else None)
    return (-(begin or 0), -(record.array_job_id or record.job_id), record.array_task_id or 0)


def _sort_key(row: JobRow, letter: str, known: Any) -> tuple[int, float, str]:
    if letter in "pQ":
        return (0, float(row.record.priority or 0), "")
    text = known[letter].value(row)
    if letter == "S":
        return (0, float(text) if text.isdecimal() else math.inf, f"{row.record.job_id:012}")
    if letter == "i":
        het = row.het[1] if row.het is not None else 0
        return (0, float(row.record.submitted_id), f"{het:06}")
    if letter in "AF":
        return (0, float(row.record.job_id), "")
    return (0, float(text), "") if re.fullmatch(r"\d+", text) else (1, 0.0, text)


def _print_steps(call: Call, rows: list[JobRow], words: Words, clock: Clock) -> None:
    text = words.last("format") or _STEPS
    before, columns = read_percent(
        text,
        _step_fields(clock),
        lambda code: call.reply.complain(f"squeue: error: Invalid job step format specification: {code}"),
    )
    if "noheader" not in words:
        call.reply.say(line_of(before, columns, [column.field.header for column in columns]))
    named = [read_target(text) for text in words.every("steps")]
    for row in rows:
        for step in row.steps:
            if named and not any(one and row.is_meant(one) and one.step in (None, step.name) for one in named):
                continue
            if step.end is None and row.state in (JobState.RUNNING, JobState.COMPLETING):
                call.reply.say(line_of(before, columns, [column.field.value((row, step)) for column in columns]))


def _step_fields(clock: Clock) -> dict[str, Field[tuple[JobRow, Step]]]:
    """Return what the codes of ``--steps --format`` stand for."""
    return {
        "A": Field("STEPID", lambda one: f"{one[0].step_prefix}.{one[1].name}"),
        "b": Field("TRES_PER_NODE", lambda one: "N/A"),
        "i": Field("STEPID", lambda one: f"{one[0].step_prefix}.{one[1].name}"),
        "j": Field("NAME", lambda one: one[1].job_name),
        "l": Field("TIME_LIMIT", lambda one: "UNLIMITED"),
        "M": Field("TIME", lambda one: short_time(one[0].now - one[1].start)),
        "N": Field("NODELIST", lambda one: one[1].node_list),
        "P": Field("PARTITION", lambda one: one[0].record.partition or ""),
        "S": Field("START_TIME", lambda one: clock.moment(one[1].start)),
        "u": Field("USER", lambda one: one[0].record.user or ""),
        "U": Field("UID", lambda one: str(one[0].info.uid if one[0].info else 0)),
    }
