"""The steps of a job that really runs: which nodes and CPUs each gets, and what its tasks are told."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from hpcplan.hostlist import compress, expand
from hpcplan.simulate.commands.controller import Controller
from hpcplan.simulate.commands.environment import (
    allocated_cpus,
    compact_counts,
    gpu_ids,
    gpus_on_node,
    layout,
    task_environment,
)
from hpcplan.simulate.commands.jobfiles import Step, output_path
from hpcplan.simulate.commands.multi_prog import programs_of
from hpcplan.simulate.commands.reaper import MARK
from hpcplan.simulate.commands.reply import Refusal
from hpcplan.simulate.commands.runner import Run
from hpcplan.simulate.jobs import Job
from hpcplan.simulate.store import Session
from hpcplan.slurm.records import JobState

__all__ = ["OpenStep", "StepWish", "begin_step", "close_step", "plan_of", "register", "room_for"]

_BUSY: Final = "Requested nodes are busy"
_TOO_MANY: Final = "More processors requested than permitted"
_NO_NODES: Final = "Requested node configuration is not available"


@dataclass(slots=True)
class StepWish:
    """What srun was asked for; ``None`` is *not given*. ``programs`` are the lines of ``--multi-prog``."""

    argv: list[str]
    name: str
    nodes: int | None = None
    ntasks: int | None = None
    ntasks_per_node: int | None = None
    cpus_per_task: int | None = None
    gpus_per_task: int | None = None
    nodelist: str | None = None
    exclude: str | None = None
    exact: bool = False
    overlap: bool = False
    label: bool = False
    kill_on_bad_exit: bool = False
    quiet: bool = False
    pty: bool = False
    append: bool = False
    stdin: str | None = None
    stdout: str | None = None
    stderr: str | None = None
    cwd: str = "/"
    env: dict[str, str] = field(default_factory=dict)
    programs: list[tuple[int, str, str]] | None = None


@dataclass(slots=True)
class OpenStep:
    """A step under way on one job: its line in accounting, its nodes, and how many tasks each has.

    A step over several components of a heterogeneous job is one on each, under one number.
    """

    run: Run
    job: Job
    wish: StepWish
    names: list[str]
    counts: list[int]
    cpus: list[int]
    step: Step = field(init=False)

    @property
    def ntasks(self) -> int:
        """How many tasks it has."""
        return sum(self.counts)


def room_for(session: Session, run: Run, job: Job, wish: StepWish) -> OpenStep | str:
    """Return a step that could begin now, or why it has to wait.

    Raises:
        Refusal: the job cannot hold it.
    """
    cpus_of = dict(zip(session.machine.names_of(job.nodes), allocated_cpus(job, session.machine), strict=True))
    names = _nodes(job, wish, list(cpus_of))
    ntasks = wish.ntasks or len(names) * (wish.ntasks_per_node or 1)
    if wish.ntasks is not None and wish.ntasks < len(names):
        names = names[: wish.ntasks]
    counts = layout(ntasks, len(names), wish.ntasks_per_node if wish.ntasks_per_node else None)
    if sum(counts) < ntasks:
        counts = layout(ntasks, len(names))
    per_task = wish.cpus_per_task or 1
    if ntasks * per_task > sum(cpus_of[name] for name in names) and not wish.overlap:
        raise _cannot(job, _TOO_MANY)
    exact = wish.exact or wish.cpus_per_task is not None
    claim = {name: count * per_task if exact else cpus_of[name] for name, count in zip(names, counts, strict=True)}
    if not wish.overlap:
        for name, cpus in claim.items():
            if cpus + sum(other.get(name, 0) for other in run.claims.values()) > cpus_of[name]:
                return _BUSY
    return OpenStep(run, job, wish, names, counts, list(claim.values()))


def begin_step(session: Session, leader: Run, parts: Sequence[OpenStep]) -> None:
    """Create a step of these parts, under the next number of the job (of a heterogeneous one's first component)."""
    number = str(leader.next_step)
    leader.next_step += 1
    for part in parts:
        run, now = part.run, session.engine.now
        run.claims[number] = {} if part.wish.overlap else dict(zip(part.names, part.cpus, strict=True))
        nodes, cpus, attempt = compress(part.names), sum(part.cpus), part.job.restarts
        part.step = Step(number, part.wish.name, nodes, len(part.names), part.ntasks, cpus, now, attempt)
        part.step.counts, part.step.output = part.counts, run.stdout
        run.steps.append(part.step)
        run.groups[number] = []


def _nodes(job: Job, wish: StepWish, names: list[str]) -> list[str]:
    wanted = names
    if wish.nodelist:
        wanted = _hosts(job, wish.nodelist, names)
    if wish.exclude:
        left_out = set(_hosts(job, wish.exclude, names))
        wanted = [name for name in wanted if name not in left_out]
    count = wish.nodes or len(wanted)
    if count > len(wanted) or not wanted:
        raise _cannot(job, _NO_NODES)
    return wanted[:count]


def _hosts(job: Job, text: str, names: list[str]) -> list[str]:
    try:
        found = list(expand(text))
    except ValueError:
        raise _cannot(job, "Invalid node name specified") from None
    if any(name not in names for name in found):
        raise _cannot(job, _NO_NODES)
    return [name for name in names if name in found]


def _cannot(job: Job, why: str) -> Refusal:
    return Refusal(f"srun: error: Unable to create step for job {job.id}: {why}")


def plan_of(controller: Controller, session: Session, parts: Sequence[OpenStep], user: str) -> dict[str, Any]:
    """Return what the launcher in the client has to do (:mod:`.launcher`).

    Raises:
        Refusal: the file of ``--multi-prog`` does not fit the step.
    """
    first, wish = parts[0], parts[0].wish
    names = [name for part in parts for name in part.names]
    own = task_environment(
        names,
        [n for part in parts for n in part.counts],
        int(first.step.name),
        [n for part in parts for n in part.cpus],
    )
    whose = [part for part in parts for _ in range(part.ntasks)]
    job_id = first.job.het_id or first.job.id
    every_cpu = compact_counts([cpus for part in parts for cpus in allocated_cpus(part.job, session.machine)])
    programs = None
    if wish.programs is not None:
        programs = programs_of(wish.programs, len(whose), wish.argv[0])
    tasks: list[dict[str, Any]] = []
    for rank, (env, part) in enumerate(zip(own, whose, strict=True)):
        job, wish, node = part.job, part.wish, env["SLURMD_NODENAME"]
        env[MARK] = controller.runner.mark(job.id)
        codes = _codes(job, first.step.name, node, rank, int(env["SLURM_NODEID"]), user)
        if per_task := wish.gpus_per_task or job.spec.gpus_per_task:
            lowest = int(env["SLURM_LOCALID"]) * per_task
            env |= gpu_ids(range(lowest, lowest + per_task))
        elif count := gpus_on_node(job):
            env |= gpu_ids(range(count))
            env["SLURM_STEP_GPUS"] = env["CUDA_VISIBLE_DEVICES"]
        if len(parts) > 1:
            env |= {"SLURM_JOB_NODELIST": compress(names), "SLURM_JOB_NUM_NODES": str(len(names))}
            env["SLURM_JOB_CPUS_PER_NODE"] = every_cpu
        if job.het_id is not None and gpus_on_node(job):
            env["SLURM_GPUS_ON_NODE"] = str(gpus_on_node(job))
        tasks.append({
            "argv": programs[rank] if programs is not None else wish.argv, "env": env, "cwd": wish.cwd, "node": node,
            "stdout": _stream(wish.stdout, rank, codes, wish.cwd),
            "stderr": _stream(wish.stderr, rank, codes, wish.cwd),
        })  # fmt: skip
        if wish.stderr is None and wish.stdout is not None and not wish.stdout.isdecimal():
            tasks[-1]["stderr"] = tasks[-1]["stdout"]
    for task, part in zip(tasks, whose, strict=True):
        part.step.output = task["stdout"] or part.step.output
    wish = first.wish
    env = wish.env
    if first.job.het_id is not None:  # the script's GPUs are those of the first component
        env = {name: value for name, value in env.items() if name not in {*gpu_ids(()), "SLURM_GPUS_ON_NODE"}}
    return {
        "env": env,
        "tasks": tasks, "stdin": _stdin(wish.stdin, wish.cwd), "label": wish.label, "append": wish.append,
        "foreground": wish.pty and len(tasks) == 1, "kill_on_bad_exit": wish.kill_on_bad_exit, "quiet": wish.quiet,
        "step": f"{job_id}.{first.step.name}", "kill_wait_s": controller.kill_wait_s,
    }  # fmt: skip


def _codes(job: Job, step: str, node: str, rank: int, node_rank: int, user: str) -> Mapping[str, str | int]:
    return {
        "A": job.array_job_id or job.id,
        "a": 4294967294 if job.array_task_id is None else job.array_task_id,
        "J": f"{job.id}.{step}", "j": job.id, "N": node, "n": node_rank, "s": step, "t": rank, "u": user,
        "x": job.spec.name,
    }  # fmt: skip


def _stream(pattern: str | None, rank: int, codes: Mapping[str, str | int], cwd: str) -> str | None:
    """Return the file of a task's output, ``None`` for srun's own (srun(1), IO Redirection)."""
    if pattern is None or pattern == "all":
        return None
    if pattern == "none":
        return os.devnull
    if pattern.isdecimal():
        return None if int(pattern) == rank else os.devnull
    return output_path(pattern, cwd, codes)


def _stdin(wish: str | None, cwd: str) -> str | int:
    if wish is None or wish == "all":
        return "all"
    if wish == "none":
        return "none"
    return int(wish) if wish.isdecimal() else output_path(wish, cwd, {})


def register(controller: Controller, run: Run, name: str, groups: list[int]) -> None:
    """Take note of the process groups that a step's tasks lead."""
    for group in groups:
        controller.runner.guard.began(group)
    run.groups[name] = groups


def close_step(controller: Controller, session: Session, run: Run, step: Step, ended: Mapping[str, Any] | None) -> int:
    """Take note that a step has ended and return srun's exit code; ``None`` stands for a srun that was killed.

    ``ended`` is the launcher's word: ``exits`` (exit codes, or signals as negatives), ``cpu_s``, ``max_rss_bytes``.
    """
    exits = None if ended is None else [int(code) for code in ended["exits"]]
    if ended is not None:
        step.cpu_s, step.max_rss_bytes = ended["cpu_s"], ended["max_rss_bytes"]
    step.exits = exits or []
    codes = [code if code >= 0 else 128 - code for code in exits or ()]
    worst = max(codes, default=137 if exits is None else 0)
    stopped = run.outcome is not None or exits is None
    for group in run.groups.pop(step.name, []):
        controller.runner.guard.ended(group)
    run.claims.pop(step.name, None)
    if step.end is None:
        step.end = session.engine.now
        signals = [-code for code in exits or () if code < 0]
        step.exit_code = max((code for code in exits or () if code >= 0), default=0)
        step.signal = max(signals, default=0) or (15 if stopped else 0)
        good = not worst and not stopped
        signalled = stopped or bool(step.signal)
        step.state = (JobState.COMPLETED if good else JobState.CANCELLED if signalled else JobState.FAILED).value
        controller.files.save_steps(run.base_id, run.job_id, run.steps)
    return worst
