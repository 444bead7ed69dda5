"""sprio(1): what the priorities of waiting jobs are made of, where the cluster has ``priority/multifactor``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from hpcplan.simulate.commands.controller import Controller
from hpcplan.simulate.commands.formatting import Field, line_of, read_percent
from hpcplan.simulate.commands.options import Words, flags, read_words, usage
from hpcplan.simulate.commands.reply import Call, Refusal
from hpcplan.simulate.commands.rows import read_target
from hpcplan.simulate.jobs import Job
from hpcplan.simulate.multifactor import Multifactor
from hpcplan.simulate.slurm_settings import SlurmSettings
from hpcplan.simulate.store import Session

__all__ = ["sprio"]

_TABLE: Final = flags(
    "clusters:M format:o jobs:j partition:p sort:S user:u",
    "federation help local long:l noheader:h norm:n sibling usage verbose:v version:V weights:w",
)
_LONG: Final = "%.15i %9r %.8u %.10Y %.10S %.10A %.10B %.10F %.10J %.10P %.10Q %.11N %.20T"
_WEIGHTED: Final = {"A": "age", "F": "fair_share", "J": "job_size", "P": "partition", "Q": "qos"}
_HEADERS: Final = {
    "i": "JOBID", "r": "PARTITION", "u": "USER", "Y": "PRIORITY", "S": "SITE", "A": "AGE", "B": "ASSOC",
    "F": "FAIRSHARE", "J": "JOBSIZE", "P": "PARTITION", "Q": "QOS", "N": "NICE", "T": "TRES", "o": "ACCOUNT",
    "n": "QOS",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Line:
    """A waiting job and the parts of its priority; ``None`` stands for the line of the weights."""

    job: Job | None
    parts: Mapping[str, float]
    priority: int = 0


def sprio(controller: Controller, connection: Any, call: Call) -> int:
    """Print the parts of waiting jobs' priorities."""
    words = read_words("sprio", call.words, _TABLE)
    if "help" in words or "usage" in words:
        call.reply.say(usage("sprio", _TABLE))
        return 0
    with controller.session() as session:
        multifactor = getattr(session.engine, "multifactor", None)
        if multifactor is None:
            raise Refusal(
                "You are not running a supported priority plugin\n(priority/basic).\n"
                "Only 'priority/multifactor' is supported."
            )
        lines = _lines(session, multifactor, words)
        weights = _weights(multifactor.settings)
    fields = _fields(normalised="norm" in words, weights=weights)
    before, columns = read_percent(
        words.last("format") or (_LONG if "long" in words else _short(words, weights)),
        fields,
        lambda code: call.reply.complain(f"sprio: error: Invalid job format specification: {code}"),
    )
    if "noheader" not in words:
        call.reply.say(line_of(before, columns, [column.field.header for column in columns]))
    for line in [_Line(None, weights)] if "weights" in words else lines:
        call.reply.say(line_of(before, columns, [column.field.value(line) for column in columns]))
    return call.reply.code


def _short(words: Words, weights: Mapping[str, float]) -> str:
    """Return the default columns: those of the factors that have a weight."""
    chosen = "".join(f" %.10{letter}" for letter, name in _WEIGHTED.items() if weights.get(name))
    user = " %.8u" if words.every("user") else ""
    return f"%.15i %9r{user} %.10Y %.10S{chosen}" + (" %20T" if weights.get("tres") else "")


def _weights(settings: SlurmSettings) -> dict[str, float]:
    return {
        "age": settings.priority_weight_age, "fair_share": settings.priority_weight_fair_share,
        "job_size": settings.priority_weight_job_size, "partition": settings.priority_weight_partition,
        "qos": settings.priority_weight_qos, "tres": sum(weight for _, weight in settings.priority_weight_tres),
    }  # fmt: skip


def _lines(session: Session, multifactor: Multifactor, words: Words) -> list[_Line]:
    targets = [target for text in words.every("jobs") if (target := read_target(text)) is not None]
    partitions, users = set(words.every("partition")), set(words.every("user"))
    now = session.engine.now

    def given(job: Job) -> bool:
        return job.spec.priority is not None

    return [
        _Line(job, multifactor.parts(job, now), job.priority if given(job) else multifactor.priority(job, now))
        for job in _one_a_job_id(session.engine.jobs.values())
        if not job.running
        and not job.held
        and (not partitions or job.request.partition in partitions)
        and (not users or job.user in users)
        and (not targets or any(t.matches(job.id, job.array_job_id, job.array_task_id) for t in targets))
    ]


def _one_a_job_id(jobs: Iterable[Job]) -> list[Job]:
    """Return jobs by id, of the tasks that have one between them the first."""
    found: dict[int, Job] = {}
    for job in sorted(jobs, key=lambda one: one.submitted):
        found.setdefault(job.number, job)
    return [found[number] for number in sorted(found)]


def _fields(*, normalised: bool, weights: Mapping[str, float]) -> dict[str, Field[_Line]]:
    def part(name: str) -> Callable[[_Line], str]:
        def value(line: _Line) -> str:
            if line.job is None or not normalised:
                return str(int(line.parts.get(name, 0)))
            return f"{line.parts.get(name, 0) / (weights.get(name) or 1):.7f}"

        return value

    def of_job(value: Callable[[Job], str]) -> Callable[[_Line], str]:
        return lambda line: "" if line.job is None else value(line.job)

    values: dict[str, Callable[[_Line], str]] = {
        "i": lambda line: "Weights" if line.job is None else str(line.job.number),
        "r": of_job(lambda job: job.request.partition),
        "u": of_job(lambda job: job.user),
        "Y": lambda line: "" if line.job is None else str(line.priority),
        "S": lambda line: "1" if line.job is None else "0",
        "B": lambda line: "0",
        "N": of_job(lambda job: str(job.spec.nice)),
        "o": of_job(lambda job: job.spec.account or ""),
        "n": of_job(lambda job: job.spec.qos or "normal"),
        "T": part("tres"),
        **{letter: part(name) for letter, name in _WEIGHTED.items()},
    }
    return {letter: Field(_HEADERS[letter], value) for letter, value in values.items()}
