"""``sacct --json`` (and slurmrestd's and squeue's answers) of every release, put into the words of sacct's columns.

The shapes drift: a number was a number up to 22.05 and has been an object ``{"set", "infinite", "number"}`` since, a
state was a word and is a list, a step's id was an object and is text. What a job's record means is decided in one
place, :mod:`hpcplan.report.sacct_fields`, so a record is written here as the row that ``sacct --parsable2`` would have.

In a list of trackable resources memory is counted in MiB; in a step's usage it is in bytes and CPU time in milliseconds
(Slurm's ``tres_usage_in_tot``, which the JSON has under ``tres.requested``).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from hpcplan.errors import InputError, Problem
from hpcplan.report.faults import Faults
from hpcplan.report.sacct_rows import Header, Row

__all__ = ["is_json", "rows_of_json"]

_COLUMNS: Final = (
    "jobid", "jobidraw", "jobname", "cluster", "user", "account", "partition", "qos", "state", "reason", "submit",
    "eligible", "start", "end", "elapsed", "timelimit", "timelimitraw", "nnodes", "alloccpus", "reqcpus", "ntasks",
    "reqmem", "reqtres", "alloctres", "totalcpu", "maxrss", "tresusageintot", "allocgres", "nodelist", "exitcode",
    "restartcnt", "flags", "failednode", "consumedenergyraw", "admincomment", "comment",
)  # fmt: skip
_HEADER: Final = Header(_COLUMNS, "|")
_FLAGS: Final = {
    "STARTED_ON_BACKFILL": "SchedBackfill", "STARTED_ON_SCHEDULE": "SchedMain", "STARTED_ON_SUBMIT": "SchedSubmit",
}  # fmt: skip
_NONE: Final = 2**32 - 4  # NO_VAL and its neighbours (slurm.h)


def is_json(text: bytes) -> bool:
    """Whether a file that begins so is JSON: no row of sacct begins with a bracket."""
    return text.lstrip()[:1] in (b"{", b"[")


def rows_of_json(text: str, file: str, faults: Faults) -> Iterator[Row]:
    """Yield the rows of every job and its steps, in order; several documents may follow one another.

    What Slurm itself reports as errors (a job that it has forgotten, say) goes into ``faults``.

    Raises:
        InputError: no JSON, or no list of jobs in it.
    """
    decoder = json.JSONDecoder()
    place, number = 0, 0
    while place < len(text):
        if text[place].isspace():
            place += 1
            continue
        try:
            document, place = decoder.raw_decode(text, place)
        except (ValueError, RecursionError) as error:
            line = text.count("\n", 0, getattr(error, "pos", place)) + 1
            raise InputError(Problem(f"is no JSON: {error}", file=file, line=line)) from None
        whole = document if isinstance(document, dict) else {"jobs": document}
        told = [one for one in _list(whole, "errors") if isinstance(one, dict)]
        for one in told:
            words = ": ".join(str(one[key]) for key in ("description", "error") if one.get(key))
            faults.add("Slurm reports an error", words, file, 1, json.dumps(one))
        jobs = whole.get("jobs", [] if told else None)
        if not isinstance(jobs, list):
            raise InputError(Problem('has no list "jobs", which sacct --json writes', file=file))
        for job in jobs:
            number += 1
            if isinstance(job, dict):
                yield from _job_rows(job, number, _number(whole.get("last_update")))
            else:
                yield _row({}, number, job)


def _row(cells: Mapping[str, Any], number: int, source: object) -> Row:
    found = ["" if cells.get(name) is None else str(cells[name]).replace("\n", " ") for name in _COLUMNS]
    return Row(_HEADER, found, number, json.dumps(source)[:2000])


def _job_rows(job: dict[str, Any], number: int, seen: int | None) -> Iterator[Row]:
    cells = _of_accounting(job) if isinstance(job.get("time"), dict) else _of_controller(job, seen)
    short = {key: value for key, value in job.items() if key != "steps"}
    yield _row(cells, number, short)
    for step in job.get("steps") or []:
        if isinstance(step, dict):
            yield _row(_step(step, cells), number, step)


def _of_accounting(job: Mapping[str, Any]) -> dict[str, Any]:
    time, tres, required = _map(job, "time"), _map(job, "tres"), _map(job, "required")
    held = _tres(tres.get("allocated"))
    comment = job.get("comment")
    comments = comment if isinstance(comment, dict) else {"job": comment}
    energy = next(
        (_number(part.get("count")) for part in _list(tres, "allocated") if part.get("type") == "energy"), None
    )
    return {
        **_names(job),
        "state": _state(_map(job, "state").get("current")),
        "reason": _map(job, "state").get("reason"),
        "submit": _number(time.get("submission")),
        "eligible": _number(time.get("eligible")),
        "start": _number(time.get("start")),
        "end": _number(time.get("end")),
        "elapsed": _number(time.get("elapsed")),
        **_limit(time.get("limit")),
        "nnodes": _number(job.get("allocation_nodes")),
        "reqcpus": _number(required.get("CPUs")),
        "reqmem": _memory(required),
        "reqtres": _tres(tres.get("requested")),
        "alloctres": held,
        "totalcpu": _cpu(time),
        "nodelist": job.get("nodes"),
        "exitcode": _exit(job.get("exit_code")),
        "restartcnt": _number(job.get("restart_cnt")),
        "flags": ",".join(_FLAGS.get(str(flag), str(flag)) for flag in _list(job, "flags")),
        "failednode": job.get("failed_node"),
        "consumedenergyraw": energy,
        "admincomment": comments.get("administrator"),
        "comment": comments.get("job"),
    }


def _of_controller(job: Mapping[str, Any], seen: int | None) -> dict[str, Any]:
    """Return the row of a job as squeue --json had it at ``seen``; it knows nothing of what was used."""
    start, state = _number(job.get("start_time")), _state(job.get("job_state"))
    running = state == "RUNNING" and start is not None and seen is not None
    nodes, tasks = _number(job.get("node_count")), _number(job.get("tasks"))
    return {
        **_names(job),
        "state": state,
        "reason": job.get("state_reason"),
        "user": job.get("user_name"),
        "submit": _number(job.get("submit_time")),
        "eligible": _number(job.get("eligible_time")),
        "start": None if state in ("PENDING", None) else start,
        "end": _number(job.get("end_time")),
        "elapsed": max(0, seen - start) if running and seen is not None and start is not None else None,
        **_limit(job.get("time_limit")),
        "nnodes": nodes,
        "alloccpus": _number(job.get("cpus")),
        "reqtres": job.get("tres_req_str"),
        "alloctres": job.get("tres_alloc_str"),
        "allocgres": _gres(job, nodes, tasks),
        "nodelist": job.get("nodes"),
        "exitcode": _exit(job.get("exit_code")),
        "restartcnt": _number(job.get("restart_cnt")),
        "failednode": job.get("failed_node"),
        "admincomment": job.get("admin_comment"),
        "comment": job.get("comment"),
    }


def _gres(job: Mapping[str, Any], nodes: int | None, tasks: int | None) -> str | None:
    """Return the GPUs of a job, of all its nodes: those it was given by node, else what it asked for.

    A request for each socket does not say of how many, and is left out.
    """
    given = [str(part) for part in _list(job, "gres_detail")]
    if given:
        return ",".join(given)
    for name, times in (("tres_per_job", 1), ("tres_per_node", nodes), ("tres_per_task", tasks)):
        asked = str(job.get(name) or "")
        if asked and times:
            return ",".join([asked] * times)
    return None


def _names(job: Mapping[str, Any]) -> dict[str, Any]:
    number = _number(job.get("job_id"))
    association = _map(job, "association")
    return {
        "jobid": _label(job, number),
        "jobidraw": number,
        "jobname": job.get("name"),
        "cluster": job.get("cluster") or association.get("cluster"),
        "user": job.get("user") or association.get("user"),
        "account": job.get("account") or association.get("account"),
        "partition": job.get("partition"),
        "qos": job.get("qos"),
    }


def _label(job: Mapping[str, Any], number: int | None) -> str | None:
    array, het = _map(job, "array"), _map(job, "het")
    whole = _number(array.get("job_id")) or _number(job.get("array_job_id"))
    if whole:
        task = _number(array.get("task_id", job.get("array_task_id")), zero=True)
        waiting = array.get("task") or job.get("array_task_string")
        return f"{whole}_{task}" if task is not None else f"{whole}_[{waiting}]" if waiting else str(whole)
    lead = _number(het.get("job_id")) or _number(job.get("het_job_id"))
    if lead:
        return f"{lead}+{_number(het.get('job_offset', job.get('het_job_offset')), zero=True) or 0}"
    return None if number is None else str(number)


def _step(step: Mapping[str, Any], job: Mapping[str, Any]) -> dict[str, Any]:
    found = _map(step, "step").get("id")  # 0 or "batch" in 22.05, {"step_id": "0"} in 23.02, "7.0" since
    name = found.get("step_id") if isinstance(found, dict) else found
    name = "" if name is None else str(name).rpartition(".")[2]
    time, tres = _map(step, "time"), _map(step, "tres")
    used = _map(tres, "requested").get("total") or _map(tres, "consumed").get("total")
    return {
        "jobid": f"{job['jobid']}.{name}",
        "cluster": job["cluster"],
        "elapsed": _number(time.get("elapsed")),
        "totalcpu": _cpu(time),
        "ntasks": _number(_map(step, "tasks").get("count")),
        "tresusageintot": _usage(used),
        "state": _state(step.get("state")),
    }


def _map(data: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = data.get(name)
    return found if isinstance(found, dict) else {}


def _list(data: Mapping[str, Any], name: str) -> list[Any]:
    found = data.get(name)
    return found if isinstance(found, list) else []


def _number(value: object, *, zero: bool = False) -> int | None:
    """Return a number in either shape; ``None`` for one that is not set, infinite, negative, or stands for no value."""
    if isinstance(value, dict):
        if value.get("infinite") or value.get("set") is False:
            return None
        value = value.get("number")
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 2**62:
        return None
    return None if (value == 0 and not zero) or _NONE <= value < 2**32 else int(value)


def _limit(value: object) -> dict[str, Any]:
    minutes = _number(value)
    if minutes is None:
        return {"timelimit": "UNLIMITED" if isinstance(value, dict) and value.get("infinite") else None}
    return {"timelimitraw": minutes}


def _state(value: object) -> str | None:
    words = value if isinstance(value, list) else [value]
    return str(words[0]) if words and words[0] else None


def _exit(value: object) -> int | None:
    found = value.get("return_code") if isinstance(value, dict) and "return_code" in value else value
    return _number(found, zero=True)


def _cpu(time: Mapping[str, Any]) -> str | None:
    total = _map(time, "total")
    seconds, rest = _number(total.get("seconds"), zero=True), _number(total.get("microseconds"), zero=True)
    if seconds is None:
        return None
    return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}.{rest or 0:06}"


def _memory(required: Mapping[str, Any]) -> str | None:
    for name, letter in (("memory_per_cpu", "c"), ("memory_per_node", "n")):
        amount = _number(required.get(name))
        if amount is not None:
            return f"{amount}M{letter}"
    return None


def _tres(parts: object) -> str:
    """Return a list of trackable resources as sacct writes it: ``cpu=8,mem=512M,gres/gpu:a100=2``."""
    return ",".join(f"{name}={count}{'M' if name == 'mem' else ''}" for name, count in _parts(parts))


def _usage(parts: object) -> str:
    words = []
    for name, count in _parts(parts):
        text = (
            f"{count // 3_600_000}:{count // 60_000 % 60:02}:{count // 1000 % 60:02}" if name == "cpu" else str(count)
        )
        words.append(f"{name}={text}")
    return ",".join(words)


def _parts(parts: object) -> Iterator[tuple[str, int]]:
    for part in parts if isinstance(parts, list) else []:
        count = _number(part.get("count"), zero=True) if isinstance(part, dict) else None
        if count is not None:
            kind, name = str(part.get("type") or ""), str(part.get("name") or "")
            yield (f"{kind}/{name}" if name else kind), count
