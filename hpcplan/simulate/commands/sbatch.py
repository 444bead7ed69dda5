"""sbatch(1)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from hpcplan.errors import SlurmError
from hpcplan.simulate.backend import pretended_run
from hpcplan.simulate.commands.controller import Controller
from hpcplan.simulate.commands.options import Flag, OptionLike, Words, read_components, read_words, usage
from hpcplan.simulate.commands.reply import Call, Refusal
from hpcplan.simulate.commands.rows import Target, find_jobs
from hpcplan.simulate.commands.submission import (
    absolute,
    check_values,
    environment_words,
    exported,
    fields,
    in_words_of,
    job_info,
    preview,
    say_start,
    take_cluster,
)
from hpcplan.simulate.jobs import JobSpec
from hpcplan.simulate.live import REAL
from hpcplan.simulate.sbatch_options import OPTIONS
from hpcplan.simulate.script import directives, parse_components
from hpcplan.simulate.store import Session
from hpcplan.slurm.records import JobState

__all__ = ["sbatch"]

_TABLE: Final[tuple[OptionLike, ...]] = (*OPTIONS, Flag("wrap"))


def sbatch(controller: Controller, connection: Any, call: Call) -> int:
    """Submit a script, a ``--wrap``'s command, or what comes on stdin."""
    try:
        parts = read_components("sbatch", call.words, _TABLE)
    except Refusal as error:
        raise Refusal(error.message, 255) from None
    cluster = take_cluster(parts, controller)
    words = Words([pair for part in reversed(parts) for pair in part.given], parts[-1].rest)
    if "help" in words or "usage" in words:
        call.reply.say(usage("sbatch", _TABLE, "[SCRIPT [ARGUMENT ...]]"))
        return 0
    typed = [check_values(part, "sbatch") for part in parts]
    text, name, command = _script(call, words, connection)
    specs, options = _specification(controller, call, words, typed, text, name)
    if "test-only" in options:
        return say_start(controller, call, specs)
    job_id = _submit(controller, call, specs, options, text, command, words.rest[1:])
    if "quiet" not in options:
        of_cluster = (f";{cluster}", f" on cluster {cluster}") if cluster else ("", "")
        call.reply.say(
            f"{job_id}{of_cluster[0]}" if "parsable" in options else f"Submitted batch job {job_id}{of_cluster[1]}"
        )
    if "wait" not in options:
        return 0
    connection.reply(call.reply)
    return _wait(controller, connection, job_id)


def _script(call: Call, words: Words, connection: Any) -> tuple[str, str, str | None]:
    """Return the script's text, the job's name, and the script's path."""
    wrapped = words.last("wrap")
    if "wrap" in words:
        if words.rest:
            raise Refusal("sbatch: error: Script arguments not permitted with --wrap option")
        return f"#!/bin/sh\n# This script was created by sbatch --wrap.\n\n{wrapped}\n", "wrap", None
    if not words.rest or words.rest[0] == "-":
        connection.send(want="stdin")
        answer = connection.receive() or {}
        return str(answer.get("stdin", "")), "sbatch", None
    path = Path(absolute(words.rest[0], call.cwd))
    try:
        text = path.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        raise Refusal(f"sbatch: error: Unable to open file {words.rest[0]}") from None
    return text, path.name, str(path)


def _specification(
    controller: Controller, call: Call, words: Words, typed: list[dict[str, Any]], text: str, name: str
) -> tuple[list[JobSpec], dict[str, str | None]]:
    """Return what each component asks for, and all options by name: the script's, the environment's, those typed."""
    from_env = environment_words("sbatch", call.env)
    with_version = controller.store.settings().slurm_version
    try:
        specs = parse_components(text, name=name, version=with_version, everywhere=fields(from_env), typed=typed)
        in_script = [pair for line in directives(text) for pair in read_words("sbatch", line, _TABLE).given]
    except SlurmError as error:
        raise in_words_of("sbatch", error) from None
    options = {option.name: value for option, value in (*in_script, *from_env, *words.given)}
    return [replace(spec, work_dir=absolute(spec.work_dir or "", call.cwd)) for spec in specs], options


def _submit(
    controller: Controller,
    call: Call,
    specs: list[JobSpec],
    options: dict[str, str | None],
    text: str,
    command: str | None,
    arguments: list[str],
) -> int:
    with controller.session() as session:
        try:
            jobs = preview(session, specs, call.user)
            env = exported(call.env, options.get("export"))
            for job in jobs:
                info = job_info(call, job, options, command=command, real=not controller.pretend)
                info.arguments = arguments
                controller.files.create(info, text, env)
            components = [
                (job.spec, pretended_run(job.spec, job.request.limit_s) if controller.pretend else REAL) for job in jobs
            ]
            job_id = session.engine.submit_together(components, call.user)
        except SlurmError as error:
            raise in_words_of("sbatch", error) from None
    controller.wake()
    return job_id


def _wait(controller: Controller, connection: Any, job_id: int) -> int:
    """Wait for the job, or all tasks of the array, and return the highest exit code (sbatch(1), --wait)."""

    def done(session: Session) -> bool:
        return not find_jobs(session, Target(job_id))

    if not controller.wait_until(done, connection.gone):
        return 1
    with controller.session() as session:
        records = list(session.accounting.latest_first(job_ids={job_id}))
        records += [r for r in session.engine.ended if job_id in (r.job_id, r.array_job_id)]
    # A script that a signal ended has no exit code; sbatch then leaves with 1.
    codes = [(record.exit_code or 0) or int(record.state is not JobState.COMPLETED) for record in records]
    return max(codes, default=1)
