"""srun(1): a step of the job that it is typed in, or a job of its own with one step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from hpcplan.simulate.commands.controller import Controller
from hpcplan.simulate.commands.het_groups import components, environment_of, read_groups
from hpcplan.simulate.commands.multi_prog import read_programs
from hpcplan.simulate.commands.options import OptionLike, Words, flags, read_words, usage
from hpcplan.simulate.commands.reply import Call, Refusal
from hpcplan.simulate.commands.steps import (
    OpenStep,
    StepWish,
    begin_step,
    close_step,
    plan_of,
    register,
    room_for,
)
from hpcplan.simulate.commands.submission import absolute, allocate, check_values, take_cluster, try_allocation
from hpcplan.simulate.jobs import Job, JobSpec
from hpcplan.simulate.sbatch_options import OPTIONS
from hpcplan.simulate.store import Session

__all__ = ["ALLOCATION_OPTIONS", "PYXIS", "await_start", "release", "srun"]

_NOT_HERE: Final = frozenset(
    {"array", "export-file", "get-user-env", "ignore-pbs", "parsable", "test-only", "wait", "wrap"}
)
ALLOCATION_OPTIONS: Final = tuple(option for option in OPTIONS if option.name not in _NOT_HERE)
_OWN: Final = flags(
    "accel-bind cpu-bind epilog jobid launcher-opts mpi prolog relative:r slurmd-debug bcast-exclude "
    "task-epilog task-prolog wait:W het-group pack-group max-exit-timeout max-launch-time msg-timeout",
    "disable-status:X exact label:l multi-prog no-allocate:Z overlap preserve-env:E pty test-only unbuffered:u whole "
    "interactive send-libs debugger-test quit-on-interrupt bell",
    "immediate:I bcast kill-on-bad-exit:K compress",
)
PYXIS: Final = flags(
    "container-image container-mounts container-name container-save container-workdir container-env",
    "container-mount-home no-container-mount-home container-remap-root no-container-remap-root container-writable "
    "container-readonly container-entrypoint no-container-entrypoint container-entrypoint-log",
)
"""What the pyxis plugin adds; commands then run without their container."""
_TABLE: Final[tuple[OptionLike, ...]] = (
    *PYXIS,
    *ALLOCATION_OPTIONS,
    *(flag for flag in _OWN if flag.name not in {o.name for o in ALLOCATION_OPTIONS}),
)
_STEP_VARIABLES: Final = {
    "SLURM_NTASKS": "ntasks", "SLURM_NPROCS": "ntasks", "SLURM_NTASKS_PER_NODE": "ntasks-per-node",
    "SRUN_CPUS_PER_TASK": "cpus-per-task", "SLURM_STEP_GPUS_PER_TASK": "gpus-per-task",
}  # fmt: skip


class _NoCommand(Refusal):
    """Nothing to run was typed."""


def srun(controller: Controller, connection: Any, call: Call) -> int:
    """Run tasks and return the highest of their exit codes."""
    try:
        parts = _parts(call.words)
    except _NoCommand:
        raise
    except Refusal as error:
        raise Refusal(error.message, 255) from None
    take_cluster(parts, controller)
    words = parts[0]
    if "help" in words or "usage" in words:
        call.reply.say(usage("srun", _TABLE, "COMMAND [ARGUMENT ...] [: ...]"))
        return 0
    if words.last("mpi") == "list":
        call.reply.say("MPI plugin types are...\n\tnone")
        return 0
    wishes = [_wish(call, part, check_values(part, "srun")) for part in parts]
    if "container-image" in words and "quiet" not in words:
        call.reply.complain(f"srun: the mock cluster runs this without its container {words.last('container-image')}")
    target = words.last("jobid") or (None if "no-allocate" in words else call.env.get("SLURM_JOB_ID"))
    if "test-only" in words:
        return try_allocation(controller, call, parts, wishes[0].name)
    if target is not None:
        return _inside(controller, connection, call, list(zip(parts, wishes, strict=True)), target)
    return _outside(controller, connection, call, parts, wishes)


def _parts(typed: list[str]) -> list[Words]:
    """Return what was typed for each component; colons part them, and the last command is for those without any.

    Raises:
        Refusal: getopt's, or no command.
    """
    pieces: list[list[str]] = [[]]
    for word in typed:
        if word == ":":
            pieces.append([])
        else:
            pieces[-1].append(word)
    parts = [read_words("srun", piece, _TABLE, stop_at_first=True) for piece in pieces]
    if "help" in parts[0] or "usage" in parts[0] or parts[0].last("mpi") == "list":
        return parts
    command: list[str] = []
    for part in reversed(parts):
        command = part.rest = part.rest or command
    if not command:
        raise _NoCommand("srun: fatal: No command given to execute.")
    return parts


def _wish(call: Call, words: Words, typed: dict[str, Any]) -> StepWish:
    spec = JobSpec.from_dict({key: value for key, value in typed.items() if key in JobSpec.__dataclass_fields__})
    kill = words.last("kill-on-bad-exit") or ("1" if "kill-on-bad-exit" in words else None)
    env_kill = call.env.get("SLURM_KILL_BAD_EXIT", "0")
    mode = words.last("open-mode") or call.env.get("SLURM_OPEN_MODE") or "t"
    chdir = words.last("chdir") or call.env.get("SLURM_WORKING_DIR")
    return StepWish(
        argv=words.rest,
        name=typed.get("name") or words.rest[0].rpartition("/")[2],
        nodes=spec.nodes_min,
        ntasks=spec.ntasks,
        ntasks_per_node=spec.ntasks_per_node,
        cpus_per_task=typed.get("cpus_per_task"),
        gpus_per_task=spec.gpus_per_task,
        nodelist=spec.nodelist,
        exclude=spec.exclude,
        exact="exact" in words or "exclusive" in words,
        overlap="overlap" in words or "pty" in words,
        label="label" in words or call.env.get("SLURM_LABELIO", "0") not in {"0", ""},
        kill_on_bad_exit=(kill or env_kill) != "0",
        quiet="quiet" in words,
        pty="pty" in words,
        append=mode.lower().startswith("a"),
        stdin=words.last("input") or call.env.get("SLURM_STDINMODE"),
        stdout=words.last("output") or call.env.get("SLURM_STDOUTMODE"),
        stderr=words.last("error") or call.env.get("SLURM_STDERRMODE"),
        cwd=absolute(chdir, call.cwd) if chdir else call.cwd,
        env=_exported(call.env, words.last("export") or call.env.get("SLURM_EXPORT_ENV")),
        programs=read_programs(Path(absolute(words.rest[0], call.cwd)), words.rest[0])
        if "multi-prog" in words
        else None,
    )


def _exported(env: dict[str, str], wish: str | None) -> dict[str, str]:
    """Return what tasks get of srun's environment (srun(1), --export)."""
    if wish is None or wish == "ALL":
        return dict(env)
    items = wish.split(",")
    slurm = {name: value for name, value in env.items() if name.startswith(("SLURM_", "SPANK_"))}
    chosen = dict(env) if "ALL" in items else slurm
    for item in items:
        name, given, value = item.partition("=")
        if given:
            chosen[name] = value
        elif name in env and name not in {"ALL", "NONE"}:
            chosen[name] = env[name]
    chosen.setdefault("PATH", env.get("PATH", "/usr/bin:/bin"))
    return chosen


# in a job -----------------------------------------------------------------------------------------------------------


def _inside(
    controller: Controller, connection: Any, call: Call, parts: list[tuple[Words, StepWish]], target: str
) -> int:
    job_id = int(target) if target.isdecimal() else -1
    with controller.session() as session:
        job = session.engine.running.get(job_id)
        count = len(components(session, job)) if job is not None else 1
    asked: list[tuple[int, StepWish]] = []
    for position, (words, wish) in enumerate(parts):
        text = words.last("het-group") or words.last("pack-group")
        groups = read_groups(text, count) if text is not None else [position]
        if position >= count:
            raise Refusal("srun: error: Requested het-group offset exceeds highest hetjob index")
        for group in groups:
            own = replace(wish)
            _fill(own, call.env, f"_HET_GROUP_{group}" if count > 1 and text is not None else "")
            asked.append((group, own))
    return _step(controller, connection, call, job_id, sorted(asked, key=lambda one: one[0]))


def _fill(wish: StepWish, env: dict[str, str], suffix: str) -> None:
    """Take from the job's variables what was not typed."""
    given = [(option, env[name + suffix]) for name, option in _STEP_VARIABLES.items() if env.get(name + suffix)]
    if wish.ntasks is None and not (wish.nodes is not None and wish.ntasks_per_node is not None):
        for option, value in given:
            if option == "ntasks" and value.isdecimal() and wish.ntasks_per_node is None and wish.nodes is None:
                wish.ntasks = int(value)
    for option, value in given:
        if option == "cpus-per-task" and wish.cpus_per_task is None and value.isdecimal():
            wish.cpus_per_task = int(value)
        if option == "ntasks-per-node" and wish.ntasks is None and wish.ntasks_per_node is None and value.isdecimal():
            wish.ntasks_per_node = int(value)


def _step(
    controller: Controller, connection: Any, call: Call, job_id: int, asked: Sequence[tuple[int, StepWish]]
) -> int:
    """Create a step as soon as the job has room for it, let the client launch it, and wait for its end.

    ``asked`` is what it is to be on each component of the job, by its place; on an ordinary one, which has the place 0.
    """
    made = _await_room(controller, connection, call, job_id, asked)
    if made is None:
        return 1
    parts, plan = made
    connection.reply(call.reply)
    connection.send(launch=plan)
    ended = _watch(controller, connection, parts)
    with controller.session() as session:
        code, first = 0, 0
        for part in parts:
            own = None
            if ended is not None:
                share = part.ntasks / len(ended["exits"])
                own = {**ended, "exits": ended["exits"][first : first + part.ntasks], "cpu_s": ended["cpu_s"] * share}
            code = max(code, close_step(controller, session, part.run, part.step, own))
            first += part.ntasks
            if not part.run.batch:
                part.run.exit = (part.step.exit_code, part.step.signal)
    controller.wake()
    return code


def _await_room(
    controller: Controller, connection: Any, call: Call, job_id: int, asked: Sequence[tuple[int, StepWish]]
) -> tuple[list[OpenStep], dict[str, Any]] | None:
    waited = False
    quiet = asked[0][1].quiet
    while not controller.stopped.is_set():
        with controller.session() as session:
            parts: list[OpenStep] = []
            waits: str | None = None
            for group, wish in asked:
                job, run = session.engine.running.get(job_id + group), controller.runner.runs.get(job_id + group)
                if job is None or run is None or run.outcome is not None:
                    raise _no_job(session, job_id)
                room = room_for(session, run, job, wish)
                if isinstance(room, OpenStep):
                    parts.append(room)
                else:
                    waits = room
            if waits is None:
                for part in parts:
                    told = environment_of(part.job, controller.files, session)
                    mine = call.job_id == part.job.id
                    part.wish.env = {**told, **part.wish.env} if mine else {**part.wish.env, **told}
                begin_step(session, controller.runner.runs[job_id], parts)
                if waited and not quiet:
                    call.reply.complain(f"srun: Step created for job {job_id}")
                return parts, plan_of(controller, session, parts, call.user)
            if not waited and not quiet:
                call.reply.complain(f"srun: Job {job_id} step creation temporarily disabled, retrying ({waits})")
                connection.reply(call.reply)
            waited = True
        if connection.gone(0.1):
            return None
    return None


def _no_job(session: Session, job_id: int) -> Refusal:
    why = "Invalid job id specified"
    if 0 < job_id < session.engine.next_id:
        job = session.engine.jobs.get(job_id)
        pending = job is not None and not job.running
        why = "Job is pending execution" if pending else "Job/step already completing or completed"
    return Refusal(
        f"srun: error: Unable to confirm allocation for job {job_id}: {why}\n"
        f"srun: Check SLURM_JOB_ID environment variable. Expired or invalid job {job_id}"
    )


def _watch(controller: Controller, connection: Any, parts: Sequence[OpenStep]) -> dict[str, Any] | None:
    """Return the launcher's word of how the tasks ended, ``None`` where srun itself was killed."""
    began = connection.receive()
    if began is None:
        return None
    with controller.session():
        first = 0
        for part in parts:
            ranks = {str(rank) for rank in range(first, first + part.ntasks)}
            first += part.ntasks
            if not began["foreground"]:  # a terminal's task is in srun's own process group
                groups = [int(group) for rank, group in began["groups"].items() if rank in ranks]
                register(controller, part.run, part.step.name, groups)
            if part.run.kill_at is not None:  # the job was stopped while the tasks began
                controller.runner.signal(part.run, 15)
    ended = connection.receive()
    if ended is None:
        with controller.session():
            for part in parts:
                controller.runner.end_step(part.run, part.step.name)
        return None
    return dict(ended)


# on its own ---------------------------------------------------------------------------------------------------------


def _outside(controller: Controller, connection: Any, call: Call, parts: list[Words], wishes: list[StepWish]) -> int:
    with controller.session() as session:
        jobs = allocate(controller, session, call, parts, wishes[0].name)
    if not await_start(controller, connection, call, jobs[0], "srun"):
        return 1
    for job, wish in zip(jobs, wishes, strict=True):
        if wish.ntasks is None and wish.ntasks_per_node is None:
            wish.ntasks = job.spec.ntasks
        wish.nodes = wish.nodelist = wish.exclude = None
    try:
        return _step(controller, connection, call, jobs[0].id, list(enumerate(wishes)))
    finally:
        release(controller, jobs[0].id)


def await_start(controller: Controller, connection: Any, call: Call, job: Job, command: str) -> bool:
    """Wait until an allocation is there; ``False``, with the reason said, where it will not be."""

    def settled(session: Session) -> bool:
        return job.id in controller.runner.runs or job.id not in session.engine.jobs

    with controller.session() as session:
        waits = not settled(session)
    if waits:
        call.reply.complain(f"{command}: job {job.id} queued and waiting for resources")
        connection.reply(call.reply)
        if not controller.wait_until(settled, connection.gone):
            with controller.session() as session:
                if job.id in session.engine.jobs:
                    session.engine.cancel(job.id)
            return False
    if job.id not in controller.runner.runs:
        call.reply.complain(f"{command}: error: Job allocation {job.id} has been revoked", 1)
        return False
    if waits:
        call.reply.complain(f"{command}: job {job.id} has been allocated resources")
    return True


def release(controller: Controller, job_id: int, state: tuple[int, int] | None = None) -> None:
    """Give an allocation back: its job has ended, with this exit code and signal unless its step said others."""
    with controller.session():
        run = controller.runner.runs.get(job_id)
        if run is not None:
            run.exit = run.exit if state is None else state
            run.released = True
    controller.wake()
