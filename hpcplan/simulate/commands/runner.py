"""Runs the jobs that the scheduler has started, and tells it when they end.

What slurmd does on every node is done here for all of them: the batch script on the first node, signals before the time
limit, SIGTERM and after KillWait SIGKILL at the limit, and no process left behind (slurm.conf(5), KillWait; sbatch(1),
--signal).
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from hpcplan.simulate.commands.environment import allocated_cpus, batch_environment
from hpcplan.simulate.commands.formatting import at_least
from hpcplan.simulate.commands.het_groups import environment_of
from hpcplan.simulate.commands.jobfiles import JobFiles, JobInfo, Step, output_path
from hpcplan.simulate.commands.notices import WHY, append, tell_steps, time_of, why_stopped
from hpcplan.simulate.commands.processes import Batch, Guard, send
from hpcplan.simulate.commands.reaper import MARK, clear
from hpcplan.simulate.commands.signals import early_signal
from hpcplan.simulate.commands.vacating import alive, vacate
from hpcplan.simulate.jobs import Job
from hpcplan.simulate.live import REAL, is_real
from hpcplan.simulate.store import Session
from hpcplan.slurm.records import JobState

__all__ = ["Run", "Runner"]

_SIGNAL_LAG_S: Final = 0.1
_LAUNCH_LAG_S: Final = 0.25  # sbatch returns 0.2 to 0.7 s before a script begins, and clients make its folders then
_LOOKS_S: Final = 0.1
_CANNOT_OPEN: Final = 53  # what slurmd reports where a job's files cannot be opened, as a signal


@dataclass(slots=True)
class Run:
    """One attempt of one job under way. ``groups`` are the process groups of each step's tasks.

    ``claims`` are the CPUs that each running step has on each node.
    """

    job_id: int
    base_id: int
    attempt: int
    node: str
    limit_end: int
    launch_at: float | None = None
    batch: Batch | None = None
    stdout: str | None = None
    stderr: str | None = None
    groups: dict[str, list[int]] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    claims: dict[str, dict[str, int]] = field(default_factory=dict)
    next_step: int = 0
    early: tuple[int, int, bool] | None = None
    outcome: tuple[JobState, int, int] | None = None
    stopped_at: int | None = None
    term_at: float | None = None
    kill_at: float | None = None
    released: bool = False
    exit: tuple[int, int] = (0, 0)
    suspended_at: int | None = None
    warned: bool = False  # that it is preempted and its GraceTime runs
    next_look: float = 0.0  # for the nodes on which nothing is left of it, once it is stopped

    @property
    def everything(self) -> list[int]:
        """All its process groups, the batch script's included."""
        batch = [self.batch.pid] if self.batch is not None and self.batch.ended is None else []
        return [*(group for groups in self.groups.values() for group in groups), *batch]


class Runner:
    """The jobs that really run on one mock cluster; ``wake`` is called when one has ended."""

    def __init__(
        self,
        files: JobFiles,
        mark: str,
        path: str,
        wake: Callable[[], None],
        guard: Guard,
        *,
        kill_wait_s: float = 30.0,
    ) -> None:
        self.files = files
        self.guard = guard
        self.runs: dict[int, Run] = {}
        self._mark = mark
        self._path = path
        self._wake = wake
        self._kill_wait_s = kill_wait_s

    def settle(self, session: Session) -> None:
        """Bring processes and scheduler together: report ends, stop what has to stop, launch what has started."""
        for run in list(self.runs.values()):
            self._settle(run, session)
        started = [job for job in session.engine.running.values() if is_real(job) and job.id not in self.runs]
        for job in started:
            self._launch(job, session)

    @property
    def busy(self) -> bool:
        """Whether processes are looked after."""
        return bool(self.runs)

    # ends -----------------------------------------------------------------------------------------------------------

    def _settle(self, run: Run, session: Session) -> None:
        engine = session.engine
        job = engine.running.get(run.job_id)
        if job is not None and job.restarts != run.attempt:
            job = None
        if (
            job is None and run.outcome is None
        ):  # cancelled, requeued, lost by other hands, or a component of what ended
            why = why_stopped(session, run.job_id)
            words = f"*** JOB {run.job_id} ON {run.node} CANCELLED AT {time_of(session)}{why} ***"
            self._stop(run, JobState.CANCELLED, words, session)
        if job is not None and run.outcome is None and run.suspended_at is None:
            if run.launch_at is not None and time.monotonic() >= run.launch_at and not self._begin(run, job, session):
                return
            self._watch_time(run, job, session)
        if run.term_at is not None and time.monotonic() >= run.term_at:
            run.term_at = None
            send(run.everything, signal.SIGCONT)
            send(run.everything, signal.SIGTERM)
        done = run.batch.ended is not None if run.batch is not None else run.released
        if run.kill_at is not None and time.monotonic() >= run.kill_at:
            send(run.everything, signal.SIGKILL)
            clear(self.mark(run.job_id), 0)
            run.kill_at = time.monotonic() + 1
        if done and (not run.groups or run.outcome is None):
            self._end(run, job, session)
        elif job is not None and run.outcome is not None and time.monotonic() >= run.next_look:
            run.next_look = time.monotonic() + _LOOKS_S
            vacate(run, job, self.mark(run.job_id), session)

    def _watch_time(self, run: Run, job: Job, session: Session) -> None:
        now = session.engine.now
        if job.grace_end is not None and not run.warned:  # slurm.conf(5), GraceTime: its tasks are told at once
            run.warned, run.limit_end = True, min(run.limit_end, job.grace_end)
            tell_steps(run, session)
            self.signal(run, signal.SIGCONT)
            self.signal(run, signal.SIGTERM)
        if run.early is not None and now >= run.limit_end - run.early[1]:
            number, _, to_batch = run.early
            run.early = None
            self.signal(run, number, batch=to_batch, steps=not to_batch)
        if now >= run.limit_end:
            state = JobState.PREEMPTED if run.warned else JobState.TIMEOUT
            words = f"*** JOB {run.job_id} ON {run.node} CANCELLED AT {time_of(session)}{WHY[state]} ***"
            self._stop(run, state, words, session)

    def _stop(self, run: Run, state: JobState, words: str, session: Session) -> None:
        """Ask a job to end: SIGCONT and SIGTERM soon, SIGKILL after KillWait.

        The signals come a moment later than the word, as on Slurm, where they go by another daemon: a job that asks for
        its own requeue must see scontrol return.
        """
        run.outcome = (state, 0, 15 if state is JobState.CANCELLED else 0)
        run.stopped_at = session.engine.now
        run.term_at = time.monotonic() + _SIGNAL_LAG_S
        run.kill_at = run.term_at + self._kill_wait_s
        if run.stderr is not None:
            if not run.warned:
                tell_steps(run, session)
            append(run.stderr, f"slurmstepd: error: {words}\n")
        if run.batch is None:
            run.released = run.released or not run.groups

    def _end(self, run: Run, job: Job | None, session: Session) -> None:
        """Take note that the last process of a job is gone."""
        ended = run.batch.ended if run.batch is not None else None
        batch = [run.batch.pid] if run.batch is not None else []
        send([*run.everything, *batch], signal.SIGKILL)  # what a script leaves in the background ends with it
        clear(self.mark(run.job_id))
        for group in batch:
            self.guard.ended(group)
        outcome = run.outcome
        if outcome is None:
            code, number = (ended.exit_code, ended.signal) if ended is not None else run.exit
            outcome = (JobState.FAILED if code or number else JobState.COMPLETED, code, number)
        for step in run.steps:
            if step.end is None:
                self._close_step(step, run, session, outcome)
        if ended is not None and run.steps:
            run.steps[0].cpu_s, run.steps[0].max_rss_bytes = ended.cpu_s, ended.max_rss_bytes
        self.files.save_steps(run.base_id, run.job_id, run.steps)
        del self.runs[run.job_id]
        if job is None:
            return
        if ended is not None:
            cpus = sum(allocated_cpus(job, session.machine))
            elapsed = max(1, session.engine.now - (job.start_time or 0))
            fraction = min(1.0, ended.cpu_s / (elapsed * cpus))
            job.behaviour = replace(REAL, cpu_fraction=fraction, max_rss_bytes=ended.max_rss_bytes)
        session.engine.finish(job.id, *_as_accounted(outcome))

    def _close_step(self, step: Step, run: Run, session: Session, outcome: tuple[JobState, int, int]) -> None:
        step.end = session.engine.now
        state, step.exit_code, step.signal = outcome
        if run.outcome is not None and run.batch is not None and run.batch.ended is not None:
            state = JobState.CANCELLED
            step.exit_code, step.signal = run.batch.ended.exit_code, run.batch.ended.signal or 15
        elif step.signal:  # a step that a signal ends counts as cancelled, though its job counts as failed
            state = JobState.CANCELLED
        step.state = state.value

    # signals --------------------------------------------------------------------------------------------------------

    def signal(
        self, run: Run, number: int, *, batch: bool = False, steps: bool = True, only: str | None = None
    ) -> None:
        """Send a signal to the tasks of the steps (of one, if ``only`` names it), the batch script, or both."""
        if steps:
            send([group for name, groups in run.groups.items() if only in (None, name) for group in groups], number)
        if batch and run.batch is not None and run.batch.ended is None:
            try:
                os.kill(run.batch.pid, number)
            except ProcessLookupError:
                return

    def cancel(self, run: Run, session: Session) -> None:
        """Ask a running job to end as CANCELLED; it holds its nodes until it has."""
        if run.outcome is None:
            words = f"*** JOB {run.job_id} ON {run.node} CANCELLED AT {time_of(session)} ***"
            self._stop(run, JobState.CANCELLED, words, session)

    def suspend(self, run: Run, session: Session) -> None:
        """Stop the processes of a job; its time limit waits for it."""
        if run.suspended_at is None:
            run.suspended_at = session.engine.now
            send(run.everything, signal.SIGSTOP)

    def resume(self, run: Run, session: Session) -> None:
        """Undo :meth:`suspend`."""
        if run.suspended_at is not None:
            run.limit_end += session.engine.now - run.suspended_at
            run.suspended_at = None
            send(run.everything, signal.SIGCONT)

    def end_step(self, run: Run, name: str) -> None:
        """Ask the tasks of a step to end, and end them after KillWait."""
        groups = list(run.groups.get(name, ()))
        send(groups, signal.SIGCONT)
        send(groups, signal.SIGTERM)
        _after(self._kill_wait_s, lambda: send(self._left(run, name, groups), signal.SIGKILL))

    def _left(self, run: Run, name: str, groups: list[int]) -> list[int]:
        """Return those process groups that are a step's still; the others' numbers may be somebody else's by now."""
        return groups if self.runs.get(run.job_id) is run and name in run.groups else []

    def end_all(self, session: Session, patience_s: float = 2.0) -> None:
        """End every job now, as the cluster stops."""
        for run in self.runs.values():
            self.cancel(run, session)
            run.kill_at = time.monotonic() + patience_s
        deadline = time.monotonic() + patience_s + 3
        while self.runs and time.monotonic() < deadline:
            for run in list(self.runs.values()):
                # Nobody else can take the steps away now: their clients wait for the session that is held here.
                run.groups = {name: left for name, groups in run.groups.items() if (left := alive(groups))}
                self._settle(run, session)
            time.sleep(0.02)

    def kill_all(self) -> None:
        """End every process of every job at once; nobody is left to be told."""
        for run in self.runs.values():
            batch = [run.batch.pid] if run.batch is not None else []
            send([*run.everything, *batch], signal.SIGKILL)
            clear(self.mark(run.job_id))
        self.runs.clear()

    # starts ---------------------------------------------------------------------------------------------------------

    def mark(self, job_id: int) -> str:
        """Return what the processes of a job carry in their environment."""
        return f"{self._mark}:{job_id}"

    def environment(self, job: Job, info: JobInfo, session: Session) -> dict[str, str]:
        """Return the environment of a job's processes: the submission's, and what Slurm adds."""
        env = self.files.environment(info.base_id) | environment_of(job, self.files, session)
        path = env.get("PATH", "/usr/local/bin:/usr/bin:/bin")
        if self._path not in path.split(os.pathsep):
            path = os.pathsep.join([self._path, path])
        return {**env, "PATH": path, MARK: self.mark(job.id)}

    def _launch(self, job: Job, session: Session) -> None:
        base_id = job.array_job_id or job.id
        info = self.files.info(base_id)
        if info is None or not self.files.began(base_id, job.id, job.restarts):
            session.engine.lose(job.id)  # an earlier controller ran it, and took its end with it
            return
        node = session.machine.names_of(job.nodes)[0]
        run = Run(job.id, base_id, job.restarts, node, job.limit_end, early=early_signal(job.spec.signal))
        if info.batch and not job.het_offset:  # of the components only the first runs the script
            run.steps = [_batch_step(job, session, node)]
            run.launch_at = time.monotonic() + _LAUNCH_LAG_S
            _after(_LAUNCH_LAG_S, self._wake)
            earlier = [step for step in self.files.steps(base_id, job.id) if step.attempt < job.restarts]
            run.steps = [*run.steps, *earlier]
            self.files.save_steps(base_id, job.id, run.steps)
        self.runs[job.id] = run

    def _begin(self, run: Run, job: Job, session: Session) -> bool:
        """Begin its script; a job whose files cannot be opened ends."""
        run.launch_at = None
        info = self.files.info(run.base_id)
        if info is not None and self._launch_batch(run, job, info, session):
            return True
        batch = run.steps[0]
        batch.end, batch.state, batch.signal = session.engine.now, JobState.CANCELLED.value, _CANNOT_OPEN
        self.files.save_steps(run.base_id, job.id, run.steps)
        del self.runs[run.job_id]
        session.engine.finish(job.id, JobState.FAILED, 0, _CANNOT_OPEN)
        return False

    def _launch_batch(self, run: Run, job: Job, info: JobInfo, session: Session) -> bool:
        codes = _codes(job, info, run.node)
        default = "slurm-%A_%a.out" if job.array_job_id is not None else "slurm-%j.out"
        stdout = output_path(info.std_out or default, info.work_dir, codes)
        stderr = output_path(info.std_err, info.work_dir, codes) if info.std_err else None
        env = self.environment(job, info, session) | batch_environment(job, session.machine)
        env["HOSTNAME"] = run.node
        run.stdout, run.stderr = stdout, stderr or stdout
        cwd = info.work_dir if Path(info.work_dir).is_dir() else "/tmp"
        try:
            run.batch = Batch(
                [str(self.files.script(info.base_id)), *info.arguments], env=env, cwd=cwd,
                stdin=output_path(info.std_in, info.work_dir, codes), stdout=stdout, stderr=stderr,
                append=info.append or job.restarts > 0, umask=info.umask, wake=self._wake, guard=self.guard,
                make_folders=at_least(session.settings.slurm_version, "23.02"),
            )  # fmt: skip
        except OSError:
            return False
        return True


def _after(seconds: float, do: Callable[[], None]) -> None:
    timer = threading.Timer(seconds, do)
    timer.daemon = True
    timer.start()


def _codes(job: Job, info: JobInfo, node: str) -> dict[str, str | int]:
    """Return what sbatch's %-codes stand for in a job (sbatch(1), FILENAME PATTERN)."""
    return {
        "A": job.array_job_id or job.id,
        "a": 4294967294 if job.array_task_id is None else job.array_task_id,
        "J": job.id,
        "j": job.id,
        "N": node,
        "n": 0,
        "s": "batch",
        "t": 0,
        "u": info.user,
        "x": job.spec.name,
    }


def _batch_step(job: Job, session: Session, node: str) -> Step:
    cpus = allocated_cpus(job, session.machine)[0]
    return Step("batch", "batch", node, 1, 1, cpus, session.engine.now, job.restarts)


def _as_accounted(outcome: tuple[JobState, int, int]) -> tuple[JobState, int, int]:
    """Return what the job's own line in accounting says: that it was stopped is no signal of the script's."""
    state, code, number = outcome
    return outcome if state in (JobState.FAILED, JobState.COMPLETED) else (state, code, 0 if number == 15 else number)
