"""What sbatch, salloc and srun have in common: reading options, and putting a job into the queue."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from hpcplan.errors import SlurmError
from hpcplan.simulate.commands.controller import Controller
from hpcplan.simulate.commands.environment import layout
from hpcplan.simulate.commands.jobfiles import JobInfo
from hpcplan.simulate.commands.options import Words
from hpcplan.simulate.commands.reply import Call, Refusal
from hpcplan.simulate.het_jobs import inherited
from hpcplan.simulate.jobs import Behaviour, Job, JobSpec
from hpcplan.simulate.live import REAL
from hpcplan.simulate.pending import earliest_start
from hpcplan.simulate.sbatch_options import OPTIONS, fields_of
from hpcplan.simulate.store import Session

__all__ = [
    "absolute", "allocate", "check_values", "environment_words", "exported", "fields", "in_words_of", "job_info",
    "ntasks_of", "per_node_counts", "preview", "say_start", "try_allocation",
]  # fmt: skip

_HANDLED: Final = frozenset({"wrap"})
_VARIABLES: Final = {
    "ACCOUNT": "account", "ARRAY_INX": "array", "CONSTRAINT": "constraint", "EXCLUSIVE": "exclusive",
    "EXPORT": "export", "GPUS": "gpus", "GPUS_PER_NODE": "gpus-per-node", "GPUS_PER_TASK": "gpus-per-task",
    "GRES": "gres", "JOB_NAME": "job-name", "MEM_PER_CPU": "mem-per-cpu", "MEM_PER_GPU": "mem-per-gpu",
    "MEM_PER_NODE": "mem", "NO_REQUEUE": "no-requeue", "OPEN_MODE": "open-mode", "PARTITION": "partition",
    "QOS": "qos", "REQUEUE": "requeue", "SIGNAL": "signal", "TIMELIMIT": "time", "WAIT": "wait",
    "INPUT": "input", "OUTPUT": "output", "ERROR": "error",
}  # fmt: skip
_BY_NAME: Final = {option.name: option for option in OPTIONS}
_SPEAKS: Final = re.compile(r"^sbatch: ", re.MULTILINE)
_USAGE: Final = (
    "valid node count",
    "specification",
    "unrecognized",
    "invalid option",
    "requires an argument",
    "allow an argument",
)


def environment_words(command: str, env: Mapping[str, str]) -> list[tuple[Any, str | None]]:
    """Return the options that the environment gives: ``SBATCH_PARTITION`` and the like (sbatch(1))."""
    prefix = {"sbatch": "SBATCH_", "salloc": "SALLOC_", "srun": "SLURM_"}[command]
    return [
        (_BY_NAME[name], env[prefix + variable] or None)
        for variable, name in _VARIABLES.items()
        if prefix + variable in env and (prefix != "SLURM_" or variable in {"PARTITION", "QOS", "ACCOUNT", "TIMELIMIT"})
    ]


def fields(given: Iterable[tuple[Any, str | None]]) -> dict[str, Any]:
    """Return the fields of a job specification that options set; those of their own command are left out.

    Raises:
        SlurmError: a value that sbatch refuses.
    """
    found: dict[str, Any] = {}
    for option, value in given:
        if option.name in _BY_NAME and option.name not in _HANDLED:
            found |= fields_of(_BY_NAME[option.name], value)
    return found


def check_values(words: Words, command: str) -> dict[str, Any]:
    """Return :func:`fields` of what was typed.

    Raises:
        Refusal: a value that the command refuses, in its words, with the exit code that it leaves with then.
    """
    try:
        return fields(words.given)
    except SlurmError as error:
        raise in_words_of(command, error) from None


def take_cluster(parts: Iterable[Words], controller: Controller) -> str | None:
    """Take ``--clusters`` out of what was typed where it names this cluster, which is returned; others are refused."""
    own = controller.store.settings().cluster
    found = None
    for part in parts:
        kept = [(option, value) for option, value in part.given if not (option.name == "clusters" and value == own)]
        found = own if len(kept) < len(part.given) else found
        part.given[:] = kept
    return found


def in_words_of(command: str, error: SlurmError) -> Refusal:
    """Return a refusal of sbatch as ``command`` words it."""
    text = error.message
    usage = any(word in text for word in _USAGE) and "submission failed" not in text and "gres" not in text.lower()
    if command != "sbatch":
        text = _SPEAKS.sub(f"{command}: ", text)
        failed = "Unable to allocate resources" if command == "srun" else "Job submit/allocate failed"
        text = text.replace("Batch job submission failed", failed)
    return Refusal(text, 255 if usage else 1)


def exported(env: Mapping[str, str], wish: str | None) -> dict[str, str]:
    """Return the variables that go with a job (sbatch(1), --export)."""
    plain = {
        name: value
        for name, value in env.items()
        if not name.startswith("SBATCH_") and not (name.startswith("SLURM_") and name != "SLURM_CONF")
    }
    if wish is None or wish == "ALL":
        return plain
    items = re.split(r",(?=[A-Za-z_]\w*(?:=|,|$))", wish)
    chosen: dict[str, str] = plain if "ALL" in items else {}
    if not chosen:
        always = ("HOME", "USER", "LOGNAME", "SHELL", "PATH", "TMPDIR", "LANG")
        chosen = {name: env[name] for name in always if name in env}
        chosen["SLURM_EXPORT_ENV"] = wish
    for item in items:
        name, given, value = item.partition("=")
        if given:
            chosen[name] = value
        elif name in env and name not in {"ALL", "NONE"}:
            chosen[name] = env[name]
    return chosen


def preview(session: Session, specs: Sequence[JobSpec], user: str) -> list[Job]:
    """Return the job that a specification would be, or each component of a heterogeneous one.

    Raises:
        SlurmError: it would be refused.
    """
    return session.engine.preview_together([(spec, Behaviour(1)) for spec in specs], user)


def ntasks_of(spec: JobSpec, nodes: int) -> int:
    """Return how many tasks a job has."""
    return spec.ntasks or nodes * (spec.ntasks_per_node or 1)


def job_info(call: Call, job: Job, options: Mapping[str, str | None], *, command: str | None, real: bool) -> JobInfo:
    """Return what is kept of a submission beside its specification."""
    spec = job.spec
    given, per_task = bool({"ntasks", "ntasks-per-node"} & options.keys()), options.get("cpus-per-task") is not None
    if job.het_id is not None:  # the options are those of all components
        given, per_task = (spec.ntasks or spec.ntasks_per_node) is not None, spec.cpus_per_task > 1
    return JobInfo(
        base_id=job.number,
        command=command,
        submit_line=" ".join([call.command, *call.words]),
        work_dir=spec.work_dir or call.cwd,
        user=call.user,
        uid=call.uid,
        gid=call.gid,
        umask=call.umask,
        std_in=options.get("input") or "/dev/null",
        std_out=spec.output,
        std_err=spec.error,
        append=(spec.open_mode or "").lower().startswith("a"),
        real=real,
        ntasks=ntasks_of(spec, job.request.minimum),
        ntasks_given=given,
        cpus_per_task_given=per_task,
        spec=spec.as_dict(),
        het=(job.het_id, job.het_offset, job.het_size) if job.het_id is not None else None,
    )


def _specs(call: Call, parts: Sequence[Words], default_name: str) -> list[JobSpec]:
    """Return what salloc or srun asks for."""
    given: dict[str, Any] = {"name": default_name}
    specs = []
    from_env = fields(environment_words(call.command, call.env))
    for part in parts:
        given = inherited(given) | from_env | check_values(part, call.command)
        plain = {key: value for key, value in given.items() if key in JobSpec.__dataclass_fields__}
        specs.append(replace(JobSpec.from_dict(plain), requeue=False, work_dir=call.cwd))
    return specs


def try_allocation(controller: Controller, call: Call, parts: Sequence[Words], default_name: str) -> int:
    """Say when and where an allocation would be, as ``--test-only`` asks.

    Raises:
        Refusal: it would be refused.
    """
    return say_start(controller, call, _specs(call, parts, default_name))


def say_start(controller: Controller, call: Call, specs: Sequence[JobSpec]) -> int:
    """Say when and where a job would start.

    Raises:
        Refusal: it would be refused.
    """
    with controller.session() as session:
        try:
            job, *others = preview(session, specs, call.user)
        except SlurmError as error:
            text = error.message.replace("sbatch: error: Batch job submission failed", "allocation failure")
            raise Refusal(text.replace("sbatch:", f"{call.command}:")) from None
        slot = earliest_start(session.engine, job, others)
        if slot is None:
            raise Refusal("allocation failure: Requested node configuration is not available")
        when = datetime.fromtimestamp(slot.start).strftime("%Y-%m-%dT%H:%M:%S")
        nodes, cpus = session.machine.node_list(slot.nodes), sum(one.request.cpus for one in (job, *others))
        call.reply.complain(
            f"{call.command}: Job {session.engine.next_id} to start at {when} using {cpus} processors "
            f"on nodes {nodes} in partition {job.request.partition}"
        )
    return 0


def allocate(
    controller: Controller, session: Session, call: Call, parts: Sequence[Words], default_name: str
) -> list[Job]:
    """Queue the allocation of salloc or srun, which runs no script: a job, or the components of a heterogeneous one.

    Raises:
        Refusal: it is refused, in the command's words.
    """
    try:
        jobs = preview(session, _specs(call, parts, default_name), call.user)
        for job, part in zip(jobs, parts, strict=True):
            info = job_info(call, job, {option.name: value for option, value in part.given}, command=None, real=True)
            info.batch = False
            controller.files.create(info, "", exported(call.env, "ALL"))
        session.engine.submit_together([(job.spec, REAL) for job in jobs], call.user)
    except SlurmError as error:
        raise in_words_of(call.command, error) from None
    return jobs


def per_node_counts(ntasks: int, nodes: int, per_node: int | None) -> Sequence[int]:
    """Return how a step's tasks are spread."""
    return layout(ntasks, nodes, per_node if per_node and per_node * nodes >= ntasks else None)


def absolute(path: str, cwd: str) -> str:
    """Return a path as the caller meant it."""
    return str(Path(cwd) / path)
