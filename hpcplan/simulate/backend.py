"""The mock cluster's face as a :class:`hpcplan.slurm.backend.Backend`: nothing above can tell it from a real one."""

from __future__ import annotations

import getpass
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hpcplan.documents import read_text
from hpcplan.errors import InputError, SlurmError, SlurmUnreachableError
from hpcplan.simulate.cluster_records import node_records, partition_records
from hpcplan.simulate.engine import Engine
from hpcplan.simulate.job_records import live_record
from hpcplan.simulate.jobs import UNLIMITED_S, Behaviour, Job, JobSpec
from hpcplan.simulate.lifecycle import find_store
from hpcplan.simulate.pending import earliest_start, progressing, reasons
from hpcplan.simulate.script import parse_components
from hpcplan.simulate.store import ClusterStore, Session
from hpcplan.slurm.records import (
    ClusterInfo,
    JobRecord,
    JobState,
    NodeRecord,
    PartitionRecord,
    StartEstimate,
    Submission,
)

__all__ = ["Advance", "MockBackend", "Status", "login_name", "pretended_run"]

_DAY_S: Final = 86400
_RUN_WITHOUT_LIMIT_S: Final = 3600
_MAX_SCRIPT_BYTES: Final = 4 * 1024**2  # slurm.conf(5), max_script_size: the default


@dataclass(frozen=True, slots=True)
class Advance:
    """What happened while a mock cluster's clock was moved: seconds passed, and the user's own jobs by state since."""

    now: int
    advanced_s: int
    ended: dict[str, int]
    pending: int
    running: int


@dataclass(frozen=True, slots=True)
class Status:
    """How a mock cluster stands. ``utilisation`` is the share of its usable nodes that are allocated now."""

    name: str
    cluster: str
    directory: str
    running: bool
    policy: str
    load: float | None
    speed: float
    slurm_version: str
    now: int
    started: int
    nodes: dict[str, int]
    utilisation: float | None
    jobs: dict[str, int]
    own_jobs: dict[str, int]


class MockBackend:
    """A mock cluster as a backend; it is looked for (:func:`find_store`) at each call unless ``store`` is given."""

    def __init__(
        self,
        store: ClusterStore | None = None,
        *,
        name: str | None = None,
        user: str | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._name = name
        self._user = user
        self._wall = wall

    @property
    def name(self) -> str:
        """``mock``."""
        return "mock"

    @property
    def user(self) -> str:
        """Who submits: the laptop's user."""
        if self._user is None:
            self._user = login_name()
        return self._user

    # the protocol ---------------------------------------------------------------------------------------------------

    def now(self) -> int:
        """Return the virtual clock in unix seconds."""
        with self._open().session() as session:
            return session.engine.now

    def ping(self) -> ClusterInfo:
        """Return who answers."""
        store = self._open()
        with store.session() as session:
            settings = session.settings
        return ClusterInfo(self.name, settings.cluster, settings.slurm_version, accounting=True)

    def submit(self, submission: Submission) -> int:
        """Submit a script and return its job id, counted from 1."""
        with self._open().session() as session:
            return session.engine.submit_together(self._read(submission, session), self.user)

    def jobs(self, job_ids: Sequence[int] | None = None, *, since: int | None = None) -> list[JobRecord]:
        """Return the jobs of these ids (an array's stands for its tasks, a heterogeneous job's for its components), or
        the user's own; newest attempts only.
        """
        with self._open().session() as session:
            engine = session.engine
            wanted = None if job_ids is None else set(job_ids)
            found: dict[tuple[int, int | None], JobRecord] = {}
            words = reasons(engine)
            for job in engine.jobs.values():
                mine = job.user == self.user if wanted is None else _matches(job, wanted) or job.het_id in wanted
                if mine:
                    found[job.number, job.array_task_id] = live_record(job, engine, words.get(job.id))
            ended = _ended(
                session,
                since=engine.now - _DAY_S if since is None else since,
                job_ids=wanted,
                user=self.user if wanted is None else None,
            )
            for record in ended:
                found.setdefault((record.job_id, record.array_task_id), record)
        return sorted(found.values(), key=lambda one: (one.submitted_id, one.array_task_id or 0, one.job_id))

    def cancel(self, job_ids: Sequence[int]) -> None:
        """Cancel jobs; those that have already ended are not an error."""
        with self._open().session() as session:
            problems = [
                f"scancel: error: Kill job error on job id {job_id}: {why}"
                for job_id, why in self._each(session.engine, job_ids, session.engine.cancel)
                if why not in (_ENDED, _UNKNOWN)
            ]
            _raise(problems)

    def hold(self, job_ids: Sequence[int]) -> None:
        """Keep pending jobs from starting."""
        self._control(job_ids, lambda engine: engine.hold)

    def release(self, job_ids: Sequence[int]) -> None:
        """Let held jobs start again."""
        self._control(job_ids, lambda engine: engine.release)

    def requeue(self, job_ids: Sequence[int]) -> None:
        """Stop running jobs and put them back into the queue."""

        def requeue(engine: Engine) -> Callable[[int], None]:
            def one(job_id: int) -> None:
                if not engine.jobs[job_id].running:
                    raise SlurmError("Job is pending execution")
                if not engine.jobs[job_id].spec.requeue:
                    raise SlurmError("Requested operation is presently disabled")
                engine.requeue(job_id)

            return one

        self._control(job_ids, requeue)

    def nodes(self) -> list[NodeRecord]:
        """Return every node, by name."""
        with self._open().session() as session:
            return node_records(session.engine)

    def partitions(self) -> list[PartitionRecord]:
        """Return every partition, by name."""
        with self._open().session() as session:
            return partition_records(session.machine)

    def accounting(self, start: int, end: int) -> list[JobRecord]:
        """Return all users' jobs, every attempt, that were pending or running between two times.

        A cluster that has been stopped still answers, as slurmdbd does without slurmctld.
        """
        store = self._store or find_store(self._name, stopped=True, wall=self._wall)
        with store.session() if store.running else store.archive() as session:
            engine = session.engine
            words = reasons(engine)
            records = [live_record(job, engine, words.get(job.id)) for job in engine.jobs.values()]
            records += _ended(session, since=start)
        found = [record for record in records if record.submit_time is not None and record.submit_time <= end]
        return sorted(found, key=lambda record: (record.submit_time or 0, record.job_id))

    def estimate_start(self, submission: Submission) -> StartEstimate | None:
        """Return when the script would start if every job used up its limit, ``None`` if that cannot be said."""
        with self._open().session() as session:
            engine = session.engine
            first, *others = engine.preview_together(self._read(submission, session), self.user)
            slot = earliest_start(engine, first, others)
            return None if slot is None else StartEstimate(slot.start, engine.machine.node_list(slot.nodes))

    # what only a mock cluster can do --------------------------------------------------------------------------------

    def set_node_state(self, names: Iterable[str], state: str, reason: str | None = None) -> None:
        """Set nodes to ``drain``, ``down`` or ``resume``, as ``scontrol update nodename=… state=…`` does."""
        with self._open().session() as session:
            try:
                session.engine.set_node_state(names, state, reason)
            except KeyError as error:
                raise SlurmError(f"scontrol: Invalid node name specified: {error.args[0]}") from None
            except ValueError as error:
                raise SlurmError(f"scontrol: Invalid node state specified: {error}") from None

    def advance(self, seconds: int | None = None, *, until_idle: bool = False) -> Advance:
        """Move the clock by ``seconds``, or until none of the user's own jobs can still start or end by itself.

        Jobs that are held, that wait for what will never happen, or for nodes that are down, are not waited for.
        """
        with self._open().session() as session:
            engine = session.engine
            before = engine.now
            if until_idle:
                while self._busy(engine) and (time_ := engine.next_event_time()) is not None:
                    # While one of ours runs, nothing before its end can make us idle.
                    ends = [job.end for job in engine.jobs.values() if job.user == self.user and job.running]
                    if ends:
                        engine.advance(max(time_, min(ends)))
                    else:
                        engine.step(time_)
            else:
                engine.advance(before + max(0, seconds or 0))
            session.jump()
            ended = _count(record.state for record in engine.ended if record.user == self.user)
            mine = [job for job in engine.jobs.values() if job.user == self.user]
            running = sum(job.running for job in mine)
            return Advance(engine.now, engine.now - before, ended, len(mine) - running, running)

    def status(self) -> Status:
        """Return how the cluster stands, also when it has been stopped."""
        store = self._store or find_store(self._name, stopped=True, wall=self._wall)
        with store.session() if store.running else store.archive() as session:
            return self._status(store, session)

    # inside ---------------------------------------------------------------------------------------------------------

    def _open(self) -> ClusterStore:
        if self._store is None:
            return find_store(self._name, wall=self._wall)
        if not self._store.running:
            raise SlurmUnreachableError("no mock cluster runs", hint="start one: hpcplan mock start SITE")
        return self._store

    def _read(self, submission: Submission, session: Session) -> list[tuple[JobSpec, Behaviour]]:
        """Return what each component of a submission asks for and how it will behave; its own options win."""
        overrides: dict[str, object] = {"work_dir": submission.work_dir}
        if submission.dependency is not None:
            overrides["dependency"] = submission.dependency
        if submission.comment is not None:
            overrides["comment"] = submission.comment
        if submission.exclude is not None:
            overrides["exclude"] = submission.exclude
        if submission.hold:
            overrides["hold"] = True
        path = Path(submission.script)
        try:
            text = read_text(path, max_bytes=_MAX_SCRIPT_BYTES)
        except InputError as error:
            raise SlurmError(f"sbatch: error: Unable to open file {path}", hint=error.message) from None
        version = session.settings.slurm_version
        specs = parse_components(text, name=path.name, version=version, everywhere=overrides)
        asked = session.engine.preview_together([(spec, Behaviour(1)) for spec in specs], self.user)
        return [(job.spec, pretended_run(job.spec, job.request.limit_s)) for job in asked]

    def _each(self, engine: Engine, job_ids: Sequence[int], act: Callable[[int], None]) -> list[tuple[int, str]]:
        """Do something to each job, or to each task of an array, and return what was refused and why."""
        refused: list[tuple[int, str]] = []
        for job_id in job_ids:
            members = sorted((job for job in engine.jobs.values() if _matches(job, {job_id})), key=lambda job: job.id)
            if not members:
                refused.append((job_id, _ENDED if 0 < job_id < engine.next_id else _UNKNOWN))
            for job in members:
                if job.id not in engine.jobs:
                    continue
                if job.user != self.user:
                    refused.append((job_id, "Access/permission denied"))
                    continue
                try:
                    act(job.id)
                except SlurmError as error:
                    refused.append((job_id, error.message))
        return refused

    def _control(self, job_ids: Sequence[int], action: Callable[[Engine], Callable[[int], None]]) -> None:
        with self._open().session() as session:
            refused = self._each(session.engine, job_ids, action(session.engine))
            _raise([f"{why} for job {job_id}" for job_id, why in refused])

    def _busy(self, engine: Engine) -> bool:
        mine = [job for job in engine.jobs.values() if job.user == self.user]
        if any(job.running for job in mine):
            return True
        return bool(mine) and not progressing(engine).isdisjoint(job.id for job in mine)

    def _status(self, store: ClusterStore, session: Session) -> Status:
        engine, settings = session.engine, session.settings
        usable = engine.available.bit_count()
        live = [JobState.RUNNING if job.running else JobState.PENDING for job in engine.jobs.values()]
        jobs = _count(live)
        ended = dict(session.ended)
        for record in engine.ended:
            ended[record.state.value] = ended.get(record.state.value, 0) + 1
        own = [record.state for record in _ended(session, user=self.user)]
        own += [
            JobState.RUNNING if job.running else JobState.PENDING
            for job in engine.jobs.values()
            if job.user == self.user
        ]
        return Status(
            name=settings.name,
            cluster=settings.cluster,
            directory=str(store.directory),
            running=store.running,
            policy=settings.policy,
            load=settings.load,
            speed=session.clock.speed,
            slurm_version=settings.slurm_version,
            now=engine.now,
            started=session.started,
            nodes=_count(node.state for node in node_records(engine)),
            utilisation=(engine.busy & engine.available).bit_count() / usable if usable else None,
            jobs={**jobs, **ended},
            own_jobs=_count(own),
        )


_ENDED: Final = "Job/step already completing or completed"
_UNKNOWN: Final = "Invalid job id specified"


def pretended_run(spec: JobSpec, limit_s: int) -> Behaviour:
    """Return how a user's pretended job goes: as its script says (:mod:`hpcplan.simulate.script`), else it succeeds
    after half of its time limit, or after an hour where it has none. What it used stays unknown.
    """
    default_s = _RUN_WITHOUT_LIMIT_S if limit_s >= UNLIMITED_S else limit_s // 2
    runtime_s = max(1, default_s if spec.expected_runtime_s is None else spec.expected_runtime_s)
    if spec.pretend_exit:
        return Behaviour(runtime_s, JobState.FAILED.value, exit_code=spec.pretend_exit)
    return Behaviour(runtime_s)


def login_name() -> str:
    """Return who submits from this process."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return str(os.getuid())


def _matches(job: Job, job_ids: set[int]) -> bool:
    return job.id in job_ids or job.array_job_id in job_ids


def _ended(
    session: Session, *, since: int | None = None, job_ids: set[int] | None = None, user: str | None = None
) -> list[JobRecord]:
    """Return finished attempts, newest first: those of this session, not written yet, and those of the file."""
    fresh = [
        record
        for record in reversed(session.engine.ended)
        if (since is None or (record.end_time or 0) >= since)
        and (user is None or record.user == user)
        and (job_ids is None or record.is_among(job_ids))
    ]
    return [*fresh, *session.accounting.latest_first(since=since, job_ids=job_ids, user=user)]


def _count(states: Iterable[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for state in states:
        counts[str(state)] = counts.get(str(state), 0) + 1
    return dict(sorted(counts.items()))


def _raise(problems: list[str]) -> None:
    if problems:
        raise SlurmError("\n".join(dict.fromkeys(problems)))
