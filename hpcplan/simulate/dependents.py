"""Who waits for whom: settles conditions at submission and as jobs start and end, without recursion."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import replace

from hpcplan.simulate.dependencies import Condition, Dependency, Status, parse_dependency
from hpcplan.simulate.jobs import Job
from hpcplan.slurm.records import JobState

__all__ = ["Dependents", "History"]

History = Callable[[int], Sequence[tuple[int, int | None, JobState]]]
"""Given a job or array id, the (id, array task, final state) of its jobs that have ended, oldest first."""


class Dependents:
    """An index from jobs to those that wait for them. ``jobs`` are the engine's live jobs by id."""

    def __init__(self, jobs: Mapping[int, Job], history: History) -> None:
        self._jobs = jobs
        self._history = history
        self._waiting: defaultdict[Hashable, set[int]] = defaultdict(set)
        self._news: deque[tuple[Hashable, JobState | None]] = deque()

    def resolve(self, job: Job, now: int) -> None:
        """Settle what is known of a new job's conditions; :meth:`watch` sees to the rest.

        Raises:
            SlurmError: ``--dependency`` cannot be read.
        """
        if not job.spec.dependency:
            return
        parsed = parse_dependency(job.spec.dependency)
        conditions: list[Condition] = []
        for condition in parsed.conditions:
            for one, state in self._expand(job, condition):
                self._settle_at_submission(job, one, state, now)
                conditions.append(one)
        job.dependency = Dependency(conditions, parsed.any_of)

    def watch(self, job: Job) -> None:
        """Remember what a job waits for."""
        for condition in job.dependency.conditions if job.dependency else ():
            if condition.status is Status.UNFULFILLED:
                key: Hashable = job.family if condition.job_id is None else condition.job_id
                self._waiting[key].add(job.id)

    def started(self, job: Job) -> None:
        """Take note that a job started."""
        if job.id in self._waiting:
            self._news.append((job.id, None))

    def ended(self, job: Job, state: JobState) -> None:
        """Take note that a job ended for good."""
        for key in (job.id, job.family):
            if key in self._waiting:
                self._news.append((key, state))

    def renamed(self, before: int, job: Job) -> None:
        """Take note that a task of an array has a job id of its own, and no longer that of ``before``."""
        self.watch(job)
        for waiting in self._waiting.pop(before, ()):
            other = self._jobs.get(waiting)
            for condition in other.dependency.conditions if other is not None and other.dependency else ():
                if condition.job_id == before:
                    condition.job_id = job.id
            self._waiting[job.id].add(waiting)

    def settle(self, now: int) -> Iterator[Job]:
        """Apply the news and yield each waiting job that they concern; what the caller does may make more news."""
        while self._news:
            key, state = self._news.popleft()
            waiting = [self._jobs.get(job_id) for job_id in sorted(self._waiting[key])]
            live = [job for job in waiting if job is not None and not job.running and job.dependency is not None]
            self._waiting[key] = {job.id for job in live}
            for job in live:
                if job.running or job.id not in self._jobs or job.dependency is None:
                    continue
                for condition in job.dependency.conditions:
                    if condition.status is Status.UNFULFILLED:
                        self._apply(job, condition, key, state, now)
                yield job
            if state is not None and not isinstance(key, tuple):
                self._waiting.pop(key, None)

    def _apply(self, job: Job, condition: Condition, key: Hashable, state: JobState | None, now: int) -> None:
        if condition.job_id is None and key == job.family:
            self._check_singleton(job, condition)
        elif condition.job_id == key and state is not None:
            condition.ended(state)
            _delay(job, condition, now)
        elif condition.job_id == key and condition.kind == "after":
            condition.status = Status.MET
            _delay(job, condition, now)

    def _expand(self, job: Job, condition: Condition) -> Iterator[tuple[Condition, JobState | None]]:
        """Yield one condition for each job that the target stands for, an array's tasks or the job itself, and the
        state that it ended in; ``None`` if it lives, UNKNOWN if there is none.
        """
        target = condition.job_id
        if target is None:
            yield replace(condition), None
            return
        live = self._jobs.get(target)
        tasks: dict[tuple[int, int | None], JobState | None] = {}
        if live is None or live.array_job_id is not None:
            for job_id, task, state in self._history(target):
                tasks[job_id, task] = state
        for other in self._jobs.values():
            if other.id != job.id and target in (other.id, other.array_job_id):
                tasks[other.id, other.array_task_id] = None
                if other.array_job_id == target and condition.task_id is None:
                    condition = replace(condition, target=f"{target}_*")
        wanted = job.array_task_id if condition.kind == "aftercorr" else condition.task_id
        chosen = sorted(key for key in tasks if wanted is None or key[1] == wanted)
        for job_id, task in chosen:
            yield replace(condition, job_id=job_id), tasks[job_id, task]
        if not chosen:
            yield replace(condition), JobState.UNKNOWN

    def _settle_at_submission(self, job: Job, condition: Condition, state: JobState | None, now: int) -> None:
        if condition.job_id is None:
            self._check_singleton(job, condition)
        elif state is JobState.UNKNOWN:
            condition.status = Status.MET  # as slurmctld has it: a job that is gone holds up nobody
        elif state is not None:
            condition.ended(state)
        elif condition.kind == "after" and self._jobs[condition.job_id].running:
            condition.status = Status.MET
            _delay(job, condition, now)

    def _check_singleton(self, job: Job, condition: Condition) -> None:
        earlier = any(
            other.submitted < job.submitted
            and other.family == job.family
            and (job.het_id is None or other.het_id != job.het_id)
            for other in self._jobs.values()
        )
        condition.status = Status.UNFULFILLED if earlier else Status.MET


def _delay(job: Job, condition: Condition, now: int) -> None:
    """Let ``after:ID+MINUTES`` count from now."""
    if condition.delay_s and condition.status is Status.MET:
        job.begin_time = max(job.begin_time or 0, now + condition.delay_s)
