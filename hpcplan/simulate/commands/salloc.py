"""salloc(1): an allocation, and a command (a shell) on this machine that uses it."""

from __future__ import annotations

import os
from typing import Any, Final

from hpcplan.simulate.commands.controller import Controller
from hpcplan.simulate.commands.het_groups import environment_of
from hpcplan.simulate.commands.options import OptionLike, Words, flags, read_components, usage
from hpcplan.simulate.commands.reaper import MARK
from hpcplan.simulate.commands.reply import Call, Refusal
from hpcplan.simulate.commands.srun import ALLOCATION_OPTIONS, PYXIS, await_start, release
from hpcplan.simulate.commands.submission import allocate, take_cluster

__all__ = ["salloc"]

_TABLE: Final[tuple[OptionLike, ...]] = (
    *ALLOCATION_OPTIONS,
    *PYXIS,
    *flags("", "no-shell bell no-bell", "immediate:I kill-command:K get-user-env"),
)
_NOT_OF_THE_JOB: Final = ("SLURM_CPUS_ON_NODE", "SLURM_GTIDS", "SLURM_LOCALID", "SLURM_NODEID", "SLURM_PROCID")


def salloc(controller: Controller, connection: Any, call: Call) -> int:
    """Hold an allocation while a command runs and return its exit code."""
    parts = read_components("salloc", call.words, _TABLE)
    take_cluster(parts, controller)
    words = Words([pair for part in reversed(parts) for pair in part.given], parts[-1].rest)
    if "help" in words or "usage" in words:
        call.reply.say(usage("salloc", _TABLE, "[COMMAND [ARGUMENT ...]] [: ...]"))
        return 0
    argv = words.rest or [call.env.get("SHELL") or "/bin/sh"]
    with controller.session() as session:
        name = words.rest[0].rpartition("/")[2] if words.rest and len(parts) == 1 else "interactive"
        job = allocate(controller, session, call, parts, name)[0]
    quiet = "quiet" in words
    before = call.reply.err
    call.reply.complain(f"salloc: Pending job allocation {job.id}")
    if job.id in controller.runner.runs:
        call.reply.err = before
    if not await_start(controller, connection, call, job, "salloc"):
        return 1
    if not quiet:
        call.reply.complain(f"salloc: Granted job allocation {job.id}")
    if "no-shell" in words:
        return 0
    code = _run(controller, connection, call, job.id, argv)
    with controller.session() as session:
        alive = job.id in session.engine.running and not _stopped(controller, job.id)
    release(controller, job.id, (code, 0) if code < 128 else (0, code - 128))
    if not quiet:
        said = f"salloc: Relinquishing job allocation {job.id}"
        call.reply.complain(said if alive else f"salloc: Job allocation {job.id} has been revoked.")
    return code


def _stopped(controller: Controller, job_id: int) -> bool:
    run = controller.runner.runs.get(job_id)
    return run is None or run.outcome is not None


def _run(controller: Controller, connection: Any, call: Call, job_id: int, argv: list[str]) -> int:
    with controller.session() as session:
        job, run = session.engine.running.get(job_id), controller.runner.runs.get(job_id)
        if job is None or run is None:
            raise Refusal(f"salloc: error: Job allocation {job_id} has been revoked")
        env = {name: value for name, value in call.env.items() if name not in _NOT_OF_THE_JOB}
        env |= environment_of(job, controller.files, session)
        # The job's own mark would end this command, which is the user's, with the job.
        env[MARK] = f"{controller.store.directory}:salloc"
    connection.reply(call.reply)
    task: dict[str, Any] = {"argv": argv, "env": {}, "cwd": call.cwd, "node": "", "stdout": None, "stderr": None}
    connection.send(launch={
        "env": env, "tasks": [task], "stdin": "all", "label": False, "append": False, "foreground": True,
        "kill_on_bad_exit": False, "quiet": True, "step": str(job_id), "kill_wait_s": 0,
    })  # fmt: skip
    if connection.receive() is None:
        return os.EX_SOFTWARE
    ended = connection.receive()
    if ended is None:
        return 137
    code = int(ended["exits"][0])
    return code if code >= 0 else 128 - code
