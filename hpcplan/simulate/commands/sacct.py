"""sacct(1)."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

from hpcplan.simulate.commands.controller import Controller
from hpcplan.simulate.commands.data_parser import json_flags, parser_of, say_json
from hpcplan.simulate.commands.formatting import Clock
from hpcplan.simulate.commands.job_json import sacct_json, say_old
from hpcplan.simulate.commands.json_accounting import accounting_document
from hpcplan.simulate.commands.options import Words, flags, read_words, usage
from hpcplan.simulate.commands.reply import Call, Refusal
from hpcplan.simulate.commands.rows import JobRow, Target, ended_rows, is_user, live_rows, read_target
from hpcplan.simulate.commands.sacct_fields import Line, all_fields, fields_of_line, width_of
from hpcplan.simulate.store import Session
from hpcplan.slurm.records import JobRecord, JobState

__all__ = ["moment_of", "sacct"]

_TABLE: Final = flags(
    "accounts:A associations:x clusters:M delimiter endtime:E format:o file:f gid:g group jobs:j name ncpus:I "
    "nnodes:i nodelist:N partition:r qos:q starttime:S state:s timelimit-max:K timelimit-min:k uid:u user reason:R "
    "units wckeys:W flags:F constraints:C",
    "allclusters:L allocations:X allusers:a batch-script:B brief:b completion:c duplicates:D env-vars federation "
    "helpformat:e help:h local long:l noheader:n noconvert parsable:p parsable2:P truncate:T use-local-uid usage "
    "verbose:v version:V",
    "whole-hetjob",
)
_DEFAULT: Final = "JobID,JobName,Partition,Account,AllocCPUS,State,ExitCode"
_BRIEF: Final = "JobID,State,ExitCode"
_LONG: Final = (
    "JobID,JobIDRaw,JobName,Partition,MaxVMSize,MaxVMSizeNode,MaxVMSizeTask,AveVMSize,MaxRSS,MaxRSSNode,MaxRSSTask,"
    "AveRSS,MaxPages,MaxPagesNode,MaxPagesTask,AvePages,MinCPU,MinCPUNode,MinCPUTask,AveCPU,NTasks,AllocCPUS,Elapsed,"
    "State,ExitCode,AveCPUFreq,ReqCPUFreqMin,ReqCPUFreqMax,ReqCPUFreqGov,ReqMem,ConsumedEnergy,MaxDiskRead,"
    "MaxDiskReadNode,MaxDiskReadTask,AveDiskRead,MaxDiskWrite,MaxDiskWriteNode,MaxDiskWriteTask,AveDiskWrite,ReqTRES,"
    "AllocTRES,TRESUsageInAve,TRESUsageInMax,TRESUsageInMaxNode,TRESUsageInMaxTask,TRESUsageInMin,TRESUsageInMinNode,"
    "TRESUsageInMinTask,TRESUsageInTot,TRESUsageOutMax,TRESUsageOutMaxNode,TRESUsageOutMaxTask,TRESUsageOutAve,"
    "TRESUsageOutTot"
)


def sacct(controller: Controller, connection: Any, call: Call) -> int:
    """Print what accounting knows of jobs and their steps."""
    version = controller.store.settings().slurm_version
    table = (*_TABLE, *json_flags(version))
    words = read_words("sacct", call.words, table)
    if "help" in words or "usage" in words:
        call.reply.say(usage("sacct", table))
        return 0
    if "helpformat" in words:
        _help_format(call, all_fields(version))
        return 0
    _refuse_more(words)
    columns = _columns(words, call, all_fields(version))
    clock = Clock(call.env)
    with controller.session() as session:
        rows = _chosen(controller, session, words, call)
        if "batch-script" in words:
            _print_scripts(call, rows)
            return 0
        if "json" in words or "yaml" in words:
            _say_jobs(call, session, words, rows)
            return 0
    lines = [Line(row, step) for row in rows for step in (None, *_steps(row, words))]
    _print(call, words, columns, _with_targets(lines, words), clock)
    return 0


def _refuse_more(words: Words) -> None:
    """Refuse scripts and environments of no jobs in particular, and a file of records.

    Raises:
        Refusal: in sacct's words.
    """
    for option, what in (("batch-script", "scripts"), ("env-vars", "environment")):
        if option in words and not words.every("jobs"):
            raise Refusal(
                f"sacct: fatal: When requesting job {what} you must also request specific jobs with the '-j' option."
            )
    if (value := words.last("whole-hetjob")) not in {None, "yes", "no"}:
        raise Refusal(f'sacct: error: Invalid --whole-hetjob value "{value}". Valid values: [yes|no].')
    if (path := words.last("file")) is not None:
        raise Refusal(f"{path} is not a valid file")


def _say_jobs(call: Call, session: Session, words: Words, rows: list[JobRow]) -> None:
    parser = parser_of("sacct", words, session.settings.slurm_version, call)
    if parser is None:
        return
    if parser.is_old:
        say_old(call, words, sacct_json(session, rows))
        return
    say_json(call, session, parser, words, map(accounting_document, rows), "accounting", key="jobs", times=())


def _print_scripts(call: Call, rows: list[JobRow]) -> None:
    """Print the scripts of jobs as sacct does where slurmdbd keeps none (slurm.conf(5), AccountingStoreFlags)."""
    for row in rows:
        call.reply.say(f"Batch Script for {row.name}\n{'-' * 80}\nNONE\n")


def _help_format(call: Call, names: list[str]) -> None:
    for start in range(0, len(names), 4):
        call.reply.say("".join(f"{name:<20}" for name in names[start : start + 4]).removesuffix(" "))


def _columns(words: Words, call: Call, names: list[str]) -> list[tuple[str, int]]:
    """Return (field, width) of each column; a negative width is to the left."""
    text = words.last("format") or call.env.get("SACCT_FORMAT") or _DEFAULT
    if "brief" in words:
        text = _BRIEF
    if "long" in words:
        text = _LONG
    known = {name.lower(): name for name in names}
    columns = []
    for item in text.split(","):
        name, _, size = item.strip().partition("%")
        if not name:
            continue
        if name.lower() == "all":
            columns += [(field.lower(), width_of(field)) for field in names]
            continue
        close = [field for field in known if field.startswith(name.lower())]
        field = name.lower() if name.lower() in known else close[0] if close else None
        if field is None:
            raise Refusal(f'sacct: error: Invalid field requested: "{name}"')
        columns.append((field, int(size) if re.fullmatch(r"-?\d+", size) else width_of(field)))
    return columns


def _steps(row: JobRow, words: Words) -> list[Any]:
    """Return the steps in sacct's order, the batch script first."""
    if "allocations" in words or row.tasks:
        return []
    if row.job is None or row.job.running:
        return sorted(row.steps, key=lambda step: -1 if step.name == "batch" else int(step.name))
    return []


def _with_targets(lines: list[Line], words: Words) -> list[Line]:
    """Leave out the steps that were not named where a step was."""
    targets = _targets(words)
    if not any(target.step for target in targets):
        return lines

    def wanted(line: Line) -> bool:
        step = line.step.name if line.step is not None else None
        return any(line.row.is_meant(target) and target.step in (None, step) for target in targets)

    return [line for line in lines if wanted(line)]


def _print(call: Call, words: Words, columns: list[tuple[str, int]], lines: Iterable[Line], clock: Clock) -> None:
    known = fields_of_line(clock)
    parsable = "parsable" in words or "parsable2" in words
    between = words.last("delimiter") or "|"
    end = between if "parsable" in words and "parsable2" not in words else ""

    def say(cells: list[str]) -> None:
        if parsable:
            call.reply.say(between.join(cells) + end)
            return
        call.reply.say("".join(_cell(text, name, width) for text, (name, width) in zip(cells, columns, strict=True)))

    if "noheader" not in words:
        say([known[name][0] for name, _ in columns])
        if not parsable:
            call.reply.say("".join("-" * abs(width) + " " for _, width in columns))
    for line in lines:
        say([known[name][1](line) for name, _ in columns])


def _cell(text: str, name: str, width: int) -> str:
    size = abs(width)
    if len(text) > size:
        text = text[: size - 1] + "+"
    left = width < 0 or name in {"jobid", "jobidraw"}
    return (text.ljust(size) if left else text.rjust(size)) + " "


# which jobs ---------------------------------------------------------------------------------------------------------


def _targets(words: Words) -> list[Target]:
    targets = []
    for text in words.every("jobs"):
        target = read_target(text)
        if target is None:
            raise Refusal(f"sacct: fatal: Bad job/step specified: {text}")
        targets.append(target)
    return targets


def _with_components(controller: Controller, targets: list[Target], words: Words) -> list[Target]:
    """Return what is named, of heterogeneous jobs the components that are meant with it (sacct(1), --whole-hetjob)."""
    wish = words.last("whole-hetjob") or ("yes" if "whole-hetjob" in words else "")
    found: list[Target] = []
    for target in targets:
        info = controller.files.info(target.job_id)
        het = info.het if info is not None else None
        if het is None or wish == "no" or (wish != "yes" and het[0] != target.job_id) or target.het_id == het[0]:
            found.append(replace(target, het_id=het[0]) if het is not None and target.het_id is None else target)
            continue
        found += [Target(het[0] + offset, step=target.step, het_id=het[0]) for offset in range(het[2])]
    return found


def _chosen(controller: Controller, session: Session, words: Words, call: Call) -> list[JobRow]:
    targets = _with_components(controller, _targets(words), words)
    now = session.engine.now
    start, end = _span(words, call, now, anything=bool(targets))
    rows = _rows(controller, session, start, targets, every="duplicates" in words)
    tests: list[Callable[[JobRow], bool]] = [lambda row: _overlaps(row, start, end, now)]
    if targets:
        tests.append(lambda row: any(_is_meant(row, target) for target in targets))
    if (states := _states(words)) is not None:
        tests.append(lambda row: any(_was(row.record, state, start, end, now) for state in states))
    users = {*words.every("uid"), *words.every("user")}
    for name in users:
        if not is_user(name, (row.record.user for row in rows)):
            raise Refusal(f"sacct: error: Invalid user id: {name}")
    if users:
        tests.append(lambda row: row.record.user in users or str(row.info.uid if row.info else 0) in users)
    elif "allusers" not in words and not targets and os.getuid() != 0:
        tests.append(lambda row: row.record.user == call.user)
    for option, of in (
        ("accounts", lambda row: row.record.account or ""), ("name", lambda row: row.record.name),
        ("partition", lambda row: row.record.partition or ""), ("qos", lambda row: row.record.qos or "normal"),
    ):  # fmt: skip
        if wanted := set(words.every(option)):
            tests.append(lambda row, of=of, wanted=wanted: of(row) in wanted)  # type: ignore[misc]
    for option, size in (("ncpus", lambda row: row.record.cpus), ("nnodes", lambda row: row.record.nodes)):
        if (span := words.last(option)) is not None and re.fullmatch(r"\d+(-\d+)?", span):
            low, _, high = span.partition("-")
            wanted_sizes = range(int(low), int(high or 2**31) + 1)
            tests.append(lambda row, size=size, wanted=wanted_sizes: (size(row) or 0) in wanted)  # type: ignore[misc]
    if nodes := words.last("nodelist"):
        tests.append(lambda row: _on(row, nodes))
    return [row for row in rows if all(test(row) for test in tests)]


def _is_meant(row: JobRow, target: Target) -> bool:
    """Whether a target names a job; a task that waits with others is not found by its number."""
    return row.is_meant(target) and not (row.tasks and target.tasks is not None)


def _rows(
    controller: Controller, session: Session, start: int | None, targets: list[Target], *, every: bool
) -> list[JobRow]:
    """Return jobs in order of submission; of each the last attempt unless ``every`` is wanted."""
    ids = {target.job_id for target in targets} or None
    records = [*session.accounting.latest_first(since=start, job_ids=ids)]
    records = [*reversed(records), *session.engine.ended]
    live = [_as_ended(row) for row in live_rows(controller, session)]
    rows = ended_rows(controller, session, records) + live
    if not every:
        # A job that was requeued is shown as it stands now; until then, as it was stopped.
        last: dict[int, JobRow] = {}
        for row in rows:
            last[row.record.job_id] = row
        rows = list(last.values())
    return sorted(rows, key=_recorded)


def _recorded(row: JobRow) -> tuple[int, int, bool, int, int]:
    """Return what slurmdbd's order goes by: it learns of tasks that wait together after those that have started."""
    record = row.record
    whole = record.job_id == record.array_job_id
    return (record.submit_time or 0, record.submitted_id, whole, record.job_id, record.restarts)


def _as_ended(row: JobRow) -> JobRow:
    """Return a job that was stopped as accounting has it: it has ended, though its processes may still be there."""
    if row.ending is None or row.state is not JobState.COMPLETING:
        return row
    state, when = row.ending
    return replace(row, record=replace(row.record, state=state, end_time=when))


def _overlaps(row: JobRow, start: int | None, end: int | None, now: int) -> bool:
    record = row.record
    eligible, until = record.eligible_time, now if end is None else end
    never_ran = record.start_time is None
    if start is not None and never_ran and (eligible is None or eligible > until):
        return False  # slurmdbd does not find it by its time
    ended = record.end_time if record.state.final or record.state is JobState.REQUEUED else now
    return (start is None or (ended or 0) >= start) and (end is None or (record.submit_time or 0) <= end)


def _was(record: JobRecord, state: JobState, start: int | None, end: int | None, now: int) -> bool:
    """Whether a job was in a state within the time asked about, as far as accounting tells."""
    first, last = start or 0, now if end is None else end
    if state is JobState.RUNNING:
        begin, until = record.start_time, record.end_time if record.state.final else None
    elif state is JobState.PENDING:
        begin, until = record.eligible_time or record.submit_time, record.start_time
        if record.state.final and until is None:
            until = record.end_time
    else:
        return record.state is state and (not record.state.final or first <= (record.end_time or 0) <= last)
    return begin is not None and begin <= last and (until is None or until >= first)


def _states(words: Words) -> set[JobState] | None:
    found: set[JobState] = set()
    for word in words.every("state"):
        state = JobState.parse(word)
        if state is JobState.UNKNOWN:
            raise Refusal(f"sacct: fatal: unrecognized job state value '{word}'")
        found.add(state)
    return found or None


def _on(row: JobRow, nodes: str) -> bool:
    from hpcplan.hostlist import expand

    try:
        return bool(set(expand(nodes)) & set(expand(row.record.node_list or "")))
    except ValueError:
        return False


# times --------------------------------------------------------------------------------------------------------------


def _span(words: Words, call: Call, now: int, *, anything: bool) -> tuple[int | None, int | None]:
    """Return the time asked about (sacct(1), DEFAULT TIME WINDOW): unless said, from midnight on, or from ever where
    jobs are named; where states are, and no jobs, it is the moment at which it begins, or now.
    """
    given = words.last("starttime")
    midnight = datetime.fromtimestamp(now).replace(hour=0, minute=0, second=0)
    usual = now if words.every("state") else int(midnight.timestamp())
    start = moment_of(given, now) if given else None if anything else usual
    end = words.last("endtime")
    return start, moment_of(end, now) if end else start if words.every("state") and not anything else None


_FORMS: Final = (
    "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M", "%Y-%m-%d", "%Y-%m-%d-%H:%M:%S", "%m/%d/%y", "%m/%d/%y-%H:%M:%S",
    "%m/%d/%y-%H:%M", "%m/%d/%Y", "%H:%M:%S", "%H:%M", "%m%d%y",
)  # fmt: skip
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def moment_of(text: str, now: int) -> int:
    """Return the unix time that a word of ``--starttime`` means.

    Raises:
        Refusal: it means none.
    """
    word = text.strip().lower()
    here = datetime.fromtimestamp(now)
    midnight = here.replace(hour=0, minute=0, second=0)
    named = {
        "now": here, "today": midnight, "midnight": midnight, "noon": midnight + timedelta(hours=12),
        "tomorrow": midnight + timedelta(days=1), "yesterday": midnight - timedelta(days=1),
    }  # fmt: skip
    if word in named:
        return int(named[word].timestamp())
    if match := re.fullmatch(r"now([+-])(\d+)([a-z]*)", word):
        unit = _UNITS.get(match[3][:1] or "s")
        if unit is not None:
            return now + (1 if match[1] == "+" else -1) * int(match[2]) * unit
    if word.isdecimal() and len(word) >= 9:
        return int(word)
    for form in _FORMS:
        try:
            found = datetime.strptime(text.strip(), form)
        except ValueError:
            continue
        if "%d" not in form:
            found = found.replace(year=here.year, month=here.month, day=here.day)
        return int(found.timestamp())
    raise Refusal(f"Invalid time specification (pos={len(text) - len(text.lstrip('-'))}): {text}")
