"""srun(1): a step of the job that it is typed in, or a job of its own with one step."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from hpcplan.errors import SlurmError
from hpcplan.simulate.commands.controller import Controller
from hpcplan.simulate.commands.environment import job_environment
from hpcplan.simulate.commands.options import OptionLike, Words, flags, read_words
from hpcplan.simulate.commands.reply import Call, Refusal
from hpcplan.simulate.commands.runner import Run
from hpcplan.simulate.commands.steps import OpenStep, StepWish, close_step, open_step, plan_of, register
from hpcplan.simulate.commands.submission import absolute, allocate, check_values, environment_words, fields
from hpcplan.simulate.jobs import Job, JobSpec
from hpcplan.simulate.sbatch_options import OPTIONS
from hpcplan.simulate.store import Session

__all__ = ["ALLOCATION_OPTIONS", "PYXIS", "await_start", "release", "srun"]

_NOT_HERE: Final = frozenset(
    {"array", "export-file", "get-user-env", "ignore-pbs", "parsable", "test-only", "wait", "wrap"}
)
ALLOCATION_OPTIONS: Final = tuple(option for option in OPTIONS if option.name not in _NOT_HERE)
_OWN: Final = flags(
    "accel-bind cpu-bind disable-status epilog immediate:I jobid launcher-opts mpi prolog relative:r slurmd-debug "
    "task-epilog task-prolog wait:W bell het-group max-exit-timeout max-launch-time msg-timeout",
    "disable-status:X exact label:l multi-prog no-allocate:Z overlap preserve-env:E pty test-only unbuffered:u whole "
    "interactive send-libs debugger-test",
    "bcast kill-on-bad-exit:K compress",
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


def srun(controller: Controller, connection: Any, call: Call) -> int:
    """Run tasks and return the highest of their exit codes."""
    try:
        words = read_words("srun", call.words, _TABLE, stop_at_first=True)
    except Refusal as error:
        raise Refusal(error.message, 255) from None
    if "help" in words or "usage" in words:
        call.reply.say("Usage: srun [OPTIONS(0)... [executable(0) [args(0)...]]]")
        return 0
    if words.last("mpi") == "list":
        call.reply.say("MPI plugin types are...\n\tnone")
        return 0
    if "multi-prog" in words:
        raise Refusal("srun: error: the mock cluster does not support --multi-prog")
    typed = check_values(words, "srun")
    if not words.rest:
        raise Refusal("srun: fatal: No command given to execute.")
    wish = _wish(call, words, typed)
    if "container-image" in words and "quiet" not in words:
        call.reply.complain(f"srun: the mock cluster runs this without its container {words.last('container-image')}")
    target = words.last("jobid") or (None if "no-allocate" in words else call.env.get("SLURM_JOB_ID"))
    if target is not None:
        return _inside(controller, connection, call, wish, target)
    return _outside(controller, connection, call, words, typed, wish)


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


def _inside(controller: Controller, connection: Any, call: Call, wish: StepWish, target: str) -> int:
    job_id = int(target) if target.isdecimal() else -1
    given = [(option, call.env[name]) for name, option in _STEP_VARIABLES.items() if call.env.get(name)]
    if wish.ntasks is None and not (wish.nodes is not None and wish.ntasks_per_node is not None):
        for option, value in given:
            if option == "ntasks" and value.isdecimal() and wish.ntasks_per_node is None and wish.nodes is None:
                wish.ntasks = int(value)
    for option, value in given:
        if option == "cpus-per-task" and wish.cpus_per_task is None and value.isdecimal():
            wish.cpus_per_task = int(value)
        if option == "ntasks-per-node" and wish.ntasks is None and wish.ntasks_per_node is None and value.isdecimal():
            wish.ntasks_per_node = int(value)
    return _step(controller, connection, call, job_id, wish)


def _step(controller: Controller, connection: Any, call: Call, job_id: int, wish: StepWish) -> int:
    """Create a step as soon as the job has room for it, let the client launch it, and wait for its end."""
    made = _await_room(controller, connection, call, job_id, wish)
    if made is None:
        return 1
    run, opened, plan = made
    connection.reply(call.reply)
    connection.send(launch=plan)
    ended = _watch(controller, connection, run, opened)
    with controller.session() as session:
        code = close_step(controller, session, run, opened.step, ended)
        if not run.batch:
            run.exit = (opened.step.exit_code, opened.step.signal)
    controller.wake()
    return code


def _await_room(
    controller: Controller, connection: Any, call: Call, job_id: int, wish: StepWish
) -> tuple[Run, OpenStep, dict[str, Any]] | None:
    waited = False
    while not controller.stopped.is_set():
        with controller.session() as session:
            job = session.engine.running.get(job_id)
            run = controller.runner.runs.get(job_id)
            if job is None or run is None or run.outcome is not None:
                raise _no_job(session, job_id)
            made = open_step(session, run, job, wish)
            if isinstance(made, OpenStep):
                info = controller.files.info(run.base_id)
                if info is not None:
                    told = job_environment(job, info, session.machine, session.settings.cluster)
                    wish.env = {**told, **wish.env} if call.job_id == job_id else {**wish.env, **told}
                if waited and not wish.quiet:
                    call.reply.complain(f"srun: Step created for job {job_id}")
                return run, made, plan_of(controller, job, made, wish, call.user)
            if not waited and not wish.quiet:
                call.reply.complain(f"srun: Job {job_id} step creation temporarily disabled, retrying ({made})")
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


def _watch(controller: Controller, connection: Any, run: Run, opened: OpenStep) -> dict[str, Any] | None:
    """Return the launcher's word of how the tasks ended, ``None`` where srun itself was killed."""
    began = connection.receive()
    if began is None:
        return None
    with controller.session():
        if not began["foreground"]:  # a terminal's task is in srun's own process group
            register(controller, run, opened.step.name, [int(group) for group in began["groups"]])
        if run.kill_at is not None:  # the job was stopped while the tasks began
            controller.runner.signal(run, 15)
    ended = connection.receive()
    if ended is None:
        with controller.session():
            controller.runner.end_step(run, opened.step.name)
        return None
    return dict(ended)


# on its own ---------------------------------------------------------------------------------------------------------


def _outside(
    controller: Controller, connection: Any, call: Call, words: Words, typed: dict[str, Any], wish: StepWish
) -> int:
    try:
        given = fields(environment_words("srun", call.env)) | typed
    except SlurmError as error:
        raise Refusal(error.message) from None
    plain = {key: value for key, value in given.items() if key in JobSpec.__dataclass_fields__}
    spec = replace(JobSpec.from_dict(plain), work_dir=call.cwd)
    with controller.session() as session:
        job = allocate(controller, session, call, words, spec, wish.name)
    if not await_start(controller, connection, call, job, "srun"):
        return 1
    if wish.ntasks is None and wish.ntasks_per_node is None:
        wish.ntasks = job.spec.ntasks
    wish.nodes = wish.nodelist = wish.exclude = None
    try:
        return _step(controller, connection, call, job.id, wish)
    finally:
        release(controller, job.id)


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
