"""A rendered script as slurmrestd wants it: slurmrestd passes the script on and does not read its ``#SBATCH`` lines.

Each option becomes the property of that meaning. API 0.0.38 names most of them after sbatch's options; from 0.0.39 on
they are the fields of Slurm's own job description, with numbers wrapped. An option that a version has no property for
is an error: a job that runs with other options than its script says is worse than none.

Names: the OpenAPI description that slurmrestd serves (``job_properties`` in 0.0.38, ``job_desc_msg`` from 0.0.39).
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from hpcplan.documents import read_text
from hpcplan.errors import InputError, SlurmError
from hpcplan.hostlist import expand
from hpcplan.slurm.records import Submission
from hpcplan.units import parse_slurm_time

__all__ = ["directives", "request_body"]

_MAX_SCRIPT_BYTES: Final = 4 * 1024**2  # slurm.conf(5), max_script_size: the default
_WRAPPED: Final = 39  # the first version with {"set": true, "number": …}
_SHORT: Final = {
    "A": "account", "a": "array", "b": "begin", "c": "cpus-per-task", "C": "constraint", "d": "dependency",
    "D": "chdir", "e": "error", "G": "gpus", "H": "hold", "J": "job-name", "L": "licenses", "N": "nodes",
    "n": "ntasks", "o": "output", "p": "partition", "q": "qos", "t": "time", "w": "nodelist", "x": "exclude",
}  # fmt: skip
_BARE: Final = frozenset({"exclusive", "hold", "requeue", "no-requeue", "contiguous", "oversubscribe", "nice"})
_MEMORY: Final = {"K": 1 / 1024, "M": 1, "": 1, "G": 1024, "T": 1024**2}
_ENVIRONMENT: Final = {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"}

Properties = dict[str, Any]
Writer = Callable[[str, int], Properties]
"""Given an option's value and the version's last number, the properties that say the same."""


def directives(script: str) -> Iterator[tuple[str, str]]:
    """Yield the options of a script's ``#SBATCH`` lines and their values, up to its first command (sbatch(1)).

    Raises:
        SlurmError: an option that is not one.
    """
    for line in script.splitlines():
        if line.startswith("#SBATCH"):
            words = shlex.split(line[len("#SBATCH") :], comments=True)
            while words:
                yield _option(words)
        elif line.strip() and not line.startswith("#"):
            return


def _option(words: list[str]) -> tuple[str, str]:
    """Take one option and its value off the front."""
    first = words.pop(0)
    if first.startswith("--"):
        name, equals, value = first[2:].partition("=")
    elif re.fullmatch(r"-[A-Za-z].*", first) and first[1] in _SHORT:
        name, value = _SHORT[first[1]], first[2:].removeprefix("=")
        equals = value
    else:
        raise SlurmError(f"#SBATCH {first}: is not an option that can be sent to slurmrestd")
    if not equals and name not in _BARE:
        if not words:
            raise SlurmError(f"#SBATCH --{name}: a value is missing")
        value = words.pop(0)
    return name, value


def request_body(submission: Submission, version: int) -> dict[str, Any]:
    """Return the body of ``POST /slurm/v0.0.<version>/job/submit``.

    The job's environment is a plain ``PATH`` and nothing of this machine's, where the cluster's paths mean nothing.

    Raises:
        SlurmError: the script cannot be read, or this version cannot say one of its options.
    """
    try:
        script = read_text(Path(submission.script), max_bytes=_MAX_SCRIPT_BYTES)
    except InputError as error:
        raise SlurmError(f"Unable to open file {submission.script}", hint=error.message) from None
    job: Properties = {"name": Path(submission.script).name}
    for name, value in directives(script):
        _add(job, _properties(name, value, version))
    for name, given in _own_options(submission):
        _add(job, _properties(name, given, version))
    job["current_working_directory"] = submission.work_dir
    environment = dict(_ENVIRONMENT)
    if submission.token is not None:  # not in argv, of which slurmrestd 22.05 dies
        environment["HPCPLAN_TOKEN"] = submission.token
    job["environment"] = (
        environment if version < _WRAPPED else [f"{name}={value}" for name, value in environment.items()]
    )
    for key in ("standard_output", "standard_error"):
        if key in job and not job[key].startswith("/"):
            job[key] = f"{submission.work_dir.rstrip('/')}/{job[key]}"
    if version < _WRAPPED:
        return {"script": script, "job": job}
    # From 0.0.41 on the script belongs into the description; 0.0.39 and 0.0.40 know it in both places.
    return {"job": {**job, "script": script}} if version > 40 else {"script": script, "job": job}


def _own_options(submission: Submission) -> Iterator[tuple[str, str]]:
    for name, value in (
        ("dependency", submission.dependency), ("comment", submission.comment), ("exclude", submission.exclude)
    ):  # fmt: skip
        if value is not None:
            yield name, value
    if submission.hold:
        yield "hold", ""


def _add(job: Properties, properties: Mapping[str, Any]) -> None:
    for key, value in properties.items():
        if isinstance(value, list) and key in ("flags",):
            job[key] = [*job.get(key, []), *value]
        else:
            job[key] = value


def _properties(name: str, value: str, version: int) -> Properties:
    if name in ("chdir", "parsable", "export"):
        return {}  # where it runs and with which environment is ours to say here
    writer = _WRITERS.get(name)
    if writer is None:
        raise SlurmError(f"#SBATCH --{name}: cannot be sent to slurmrestd", hint="submit with the command backend")
    try:
        return writer(value, version)
    except _Unsaid:
        raise SlurmError(
            f"#SBATCH --{name}: API v0.0.{version} of slurmrestd has no property for it",
            hint="submit with the command backend, or ask the site for a newer slurmrestd",
        ) from None
    except ValueError as error:
        raise SlurmError(f"#SBATCH --{name}={value}: {error}") from None


class _Unsaid(Exception):
    """This version of the API has no property for the option."""


def _text(old: str | None, new: str | None = None) -> Writer:
    def write(value: str, version: int) -> Properties:
        if version >= _WRAPPED:
            return {new or old or "": value}
        if old is None:
            raise _Unsaid
        return {old: value}

    return write


def _whole(old: str, new: str | None = None) -> Writer:
    return lambda value, version: {(new or old) if version >= _WRAPPED else old: int(value)}


def _wrapped(number: int) -> dict[str, Any]:
    return {"set": True, "infinite": False, "number": number}


def _nodes(value: str, version: int) -> Properties:
    low, _, high = value.partition("-")
    least, most = int(low), int(high or low)
    if version < _WRAPPED:
        return {"nodes": f"{least}-{most}"}  # a list of the two, as it describes itself, asks 22.05 for one node
    return {"minimum_nodes": least, "maximum_nodes": most}


def _time(value: str, version: int) -> Properties:
    seconds = parse_slurm_time(value)
    if seconds is None:
        if version < _WRAPPED:
            raise _Unsaid
        return {"time_limit": {"set": True, "infinite": True, "number": 0}}
    limit = -(-seconds // 60)
    return {"time_limit": limit if version < _WRAPPED else _wrapped(limit)}


def _memory(key: str) -> Writer:
    def write(value: str, version: int) -> Properties:
        match = re.fullmatch(r"(\d+)([KMGT]?)B?", value.upper())
        if match is None:
            raise ValueError("is not an amount of memory")
        number = round(int(match[1]) * _MEMORY[match[2]])
        return {key: number if version < _WRAPPED else _wrapped(number)}

    return write


def _gres(value: str, version: int) -> Properties:
    if version < _WRAPPED:
        return {"gres": value}
    return {"tres_per_node": ",".join(f"gres/{part.removeprefix('gres:')}" for part in value.split(","))}


def _gpus(old: str, new: str) -> Writer:
    def write(value: str, version: int) -> Properties:
        return {old: value} if version < _WRAPPED else {new: f"gres/gpu:{value.removeprefix('gpu:')}"}

    return write


def _hosts(key: str) -> Writer:
    def write(value: str, version: int) -> Properties:
        if version < _WRAPPED:
            raise _Unsaid
        return {key: list(expand(value))}

    return write


def _switches(value: str, version: int) -> Properties:
    if version < _WRAPPED:
        raise _Unsaid
    number, _, patience = value.partition("@")
    wanted: Properties = {"required_switches": _wrapped(int(number))}
    if patience:
        seconds = parse_slurm_time(patience)
        if seconds is not None:
            wanted["wait_for_switch"] = seconds
    return wanted


def _signal(value: str, version: int) -> Properties:
    if version < _WRAPPED:
        if "B" in value.partition(":")[0] and ":" in value:
            raise _Unsaid  # 0.0.38 takes "R:" and refuses "B:"
        return {"signal": value}
    match = re.fullmatch(r"(?:([RB]{1,2}):)?(\w+)(?:@(\d+))?", value)
    if match is None:
        raise ValueError("is not a signal")
    flags = [{"B": "BATCH_JOB", "R": "ALLOW_RESERVATION"}[letter] for letter in match[1] or ""]
    found: Properties = {"kill_warning_signal": match[2], "kill_warning_delay": _wrapped(int(match[3] or 60))}
    return {**found, "kill_warning_flags": flags} if flags else found


def _exclusive(value: str, version: int) -> Properties:
    if version < _WRAPPED:
        return {"exclusive": value or "exclusive"}
    kind = {"": "none", "user": "user", "mcs": "mcs", "topo": "topo"}[value]
    return {"shared": [kind]}


def _open_mode(value: str, version: int) -> Properties:
    mode = "append" if value.lower().startswith("a") else "truncate"
    return {"open_mode": mode if version < _WRAPPED else [mode.upper()]}


def _kill_on_invalid_dep(value: str, version: int) -> Properties:
    wanted = value.lower() in ("yes", "y")
    if version < _WRAPPED:
        return {"kill_on_invalid_dependency": wanted}
    return {"flags": ["KILL_INVALID_DEPENDENCY" if wanted else "NO_KILL_INVALID_DEPENDENCY"]}


def _mail_type(value: str, version: int) -> Properties:
    return {"mail_type": value if version < _WRAPPED else value.upper().split(",")}


def _true(key: str, said: bool = True) -> Writer:
    return lambda value, version: {key: said}


def _nice(value: str, version: int) -> Properties:
    return {"nice": int(value or 100)}


_WRITERS: Final[dict[str, Writer]] = {
    "account": _text("account"),
    "array": _text("array"),
    "comment": _text("comment"),
    "constraint": _text("constraints"),
    "cpus-per-task": _whole("cpus_per_task"),
    "dependency": _text("dependency"),
    "error": _text("standard_error"),
    "exclude": _hosts("excluded_nodes"),
    "exclusive": _exclusive,
    "gpus": _gpus("gpus", "tres_per_job"),
    "gpus-per-node": _gpus("gpus_per_node", "tres_per_node"),
    "gpus-per-task": _gpus("gpus_per_task", "tres_per_task"),
    "gres": _gres,
    "hold": _true("hold"),
    "job-name": _text("name"),
    "kill-on-invalid-dep": _kill_on_invalid_dep,
    "licenses": _text("licenses"),
    "mail-type": _mail_type,
    "mail-user": _text("mail_user"),
    "mem": _memory("memory_per_node"),
    "mem-per-cpu": _memory("memory_per_cpu"),
    "nice": _nice,
    "no-requeue": _true("requeue", False),
    "nodelist": _hosts("required_nodes"),
    "nodes": _nodes,
    "ntasks": _whole("tasks"),
    "ntasks-per-node": _whole("tasks_per_node"),
    "open-mode": _open_mode,
    "output": _text("standard_output"),
    "partition": _text("partition"),
    "qos": _text("qos"),
    "requeue": _true("requeue"),
    "reservation": _text("reservation"),
    "signal": _signal,
    "switches": _switches,
    "time": _time,
    "wckey": _text("wckey"),
}
