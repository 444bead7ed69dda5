"""A mock cluster on disk, so that separate commands see one cluster.

A directory holds ``site.json`` (the site, as it was at the start), ``cluster.json`` (what the cluster is and whether it
runs), ``state.json`` (the clock and the live jobs) and ``accounting.jsonl`` (the finished ones). Every command takes
the lock, lets the engine catch up with the clock, does its work and saves: first the accounting, then, in one rename,
the state that says how much of it counts. A command that is killed anywhere leaves the cluster as it was before.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hpcplan.documents import write_text
from hpcplan.errors import ConflictError, HpcplanError, SlurmUnreachableError
from hpcplan.simulate.accounting import Accounting
from hpcplan.simulate.background import Background
from hpcplan.simulate.dependents import History
from hpcplan.simulate.live import LiveEngine
from hpcplan.simulate.machine import Machine
from hpcplan.simulate.policies import Policy, policy_named
from hpcplan.simulate.snapshot import restore, snapshot
from hpcplan.slurm.records import JobState

if TYPE_CHECKING:
    from hpcplan.simulate.slurm_cluster import SlurmCluster

__all__ = ["Clock", "ClusterStore", "Session", "Settings"]

_FORMAT: Final = 3
_DAY_S: Final = 86400
_BF_MAX_JOB_TEST: Final = 500  # slurm.conf(5), bf_max_job_test: the default since 21.08
Wall = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Settings:
    """What a mock cluster is. ``load`` is the other users' share of all node time; ``None`` is nobody else."""

    name: str
    cluster: str
    site_sha256: str
    slurm_version: str
    policy: str = "backfill"
    load: float | None = None
    seed: int = 1
    history_s: int = 0


@dataclass(slots=True)
class Clock:
    """The virtual clock, which showed ``virtual`` at ``wall`` (both unix seconds) and runs ``speed`` times as fast."""

    wall: float
    virtual: int
    speed: float

    def now(self, wall: float) -> int:
        """Return the virtual time at a wall time; it does not run backwards when the wall clock is set back."""
        return self.virtual + max(0, int((wall - self.wall) * self.speed))

    def set(self, wall: float, virtual: int) -> None:
        """Let the clock show ``virtual`` at ``wall``."""
        self.wall, self.virtual = wall, virtual


@dataclass(slots=True)
class Session:
    """A cluster while its lock is held: the engine has caught up with the clock."""

    settings: Settings
    machine: Machine
    engine: LiveEngine
    clock: Clock
    accounting: Accounting
    ended: dict[str, int]
    started: int
    wall: float
    moved: bool = False
    machine_changed: bool = False

    def jump(self) -> None:
        """Let the clock show the engine's time from now on, after it was moved by hand."""
        self.clock.set(self.wall, self.engine.now)
        self.moved = True


class ClusterStore:
    """The directory of one mock cluster. ``wall`` gives the wall clock's time in unix seconds."""

    def __init__(self, directory: Path, *, wall: Wall = time.time) -> None:
        self.directory = directory
        self.wall = wall

    # what it is -----------------------------------------------------------------------------------------------------

    @property
    def exists(self) -> bool:
        """Whether there is a cluster in the directory, running or stopped."""
        return self._path("cluster.json").is_file() and self._path("state.json").is_file()

    @property
    def running(self) -> bool:
        """Whether the cluster there has been started and not stopped."""
        return self.exists and bool(self._read("cluster.json")["running"])

    def settings(self) -> Settings:
        """Return what the cluster is."""
        return Settings(**self._read("cluster.json")["settings"])

    # start and stop -------------------------------------------------------------------------------------------------

    def create(
        self, settings: Settings, machine: Machine, site_json: str, *, speed: float, slurm: SlurmCluster | None = None
    ) -> None:
        """Make the cluster and start it, its history of ``history_s`` already behind it.

        ``slurm`` is how the policy ``slurm`` schedules: as Slurm's defaults have it, if absent.

        Raises:
            ConflictError: there is a cluster in the directory, or something else.
            HpcplanError: the directory cannot be written.
        """
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise HpcplanError(f"{self.directory}: cannot be made: {error.strerror or error}") from None
        with self._lock():
            if self.exists:
                raise ConflictError(f"{self.directory}: a mock cluster is there already")
            ours = {"lock", "site.json", "machine.json", "state.json", "accounting.jsonl", "cluster.json"}
            ours |= {"jobs", "controller.json", "controller.lock", "controller.log"}  # of its commands
            names = {path.name for path in self.directory.iterdir() if not path.name.startswith(".")}
            if foreign := sorted(names - ours):
                raise ConflictError(f"{self.directory}: holds other files, such as {foreign[0]!r}")
            wall = self.wall()
            start = int(wall)
            begin = start - settings.history_s
            background = (
                Background(machine, load=settings.load, seed=settings.seed, start=begin) if settings.load else None
            )
            accounting = Accounting(self._path("accounting.jsonl"), 0)
            described = machine.as_dict()
            if settings.policy == "slurm":
                from hpcplan.simulate import slurm_cluster
                from hpcplan.simulate.slurm_settings import SlurmSettings

                slurm = slurm or slurm_cluster.SlurmCluster(machine, SlurmSettings())
                described["slurm"] = slurm.as_dict()
            engine = _engine(settings, machine, described, now=begin, arrivals=background)
            session = Session(settings, machine, engine, Clock(wall, start, speed), accounting, {}, begin, wall)
            session.moved = True
            engine.advance(start)
            write_text(self._path("site.json"), site_json)
            write_text(self._path("machine.json"), json.dumps(described))
            self._save(session)
            self._set_running(settings, running=True)

    def resume(self, *, speed: float | None = None) -> None:
        """Start a stopped cluster where it was: no time has passed for it.

        Raises:
            ConflictError: it runs.
        """
        with self._lock():
            if self.running:
                raise ConflictError(f"mock cluster {self.settings().name!r} is running already")
            session = self._load()
            session.jump()
            session.clock.speed = speed if speed is not None else session.clock.speed
            self._save(session)
            self._set_running(session.settings, running=True)

    def stop(self) -> None:
        """Stop the cluster: its clock stands still, its jobs and its accounting stay.

        Raises:
            SlurmUnreachableError: it does not run.
        """
        with self._lock():
            session = self._caught_up()
            session.jump()
            self._save(session)
            self._set_running(session.settings, running=False)

    def purge(self) -> None:
        """Delete the cluster with its accounting.

        Raises:
            HpcplanError: the directory cannot be deleted.
        """
        with self._lock():
            try:
                self._path("cluster.json").unlink(missing_ok=True)  # from here on there is no cluster
                shutil.rmtree(self.directory)
            except OSError as error:
                raise HpcplanError(f"{self.directory}: cannot be deleted: {error.strerror or error}") from None

    # every command --------------------------------------------------------------------------------------------------

    @contextmanager
    def session(self) -> Iterator[Session]:
        """Hold the lock, let the engine catch up, and save what happened, also when Slurm's word to a request is no.

        Raises:
            SlurmUnreachableError: the cluster does not run.
        """
        with self._lock():
            session = self._caught_up()
            try:
                yield session
            except HpcplanError:
                self._save(session)
                raise
            self._save(session)

    @contextmanager
    def archive(self) -> Iterator[Session]:
        """Hold the lock on a stopped cluster to read it as it was left; nothing is saved.

        Raises:
            SlurmUnreachableError: there is no cluster.
        """
        with self._lock():
            if not self.exists:
                raise _unreachable(f"there is no mock cluster in {self.directory}")
            yield self._load()

    def _path(self, name: str) -> Path:
        return self.directory / name

    def _read(self, name: str) -> dict[str, Any]:
        path = self._path(name)
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise SlurmUnreachableError(f"{path}: cannot be read: {error.strerror or error}") from None
        except ValueError:
            raise HpcplanError(f"{path}: is damaged", hint=f"delete {self.directory} and start again") from None
        if not isinstance(data, dict) or data.get("format", _FORMAT) != _FORMAT:
            message = f"{path}: was written by another version of hpcplan"
            raise HpcplanError(message, hint=f"delete {self.directory} and start again")
        return data

    @contextmanager
    def _lock(self) -> Iterator[None]:
        try:
            descriptor = os.open(self._path("lock"), os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:
            raise _unreachable(f"no mock cluster runs in {self.directory}") from None
        except OSError as error:
            raise SlurmUnreachableError(f"{self._path('lock')}: cannot be opened: {error.strerror or error}") from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _caught_up(self) -> Session:
        if not self.running:
            raise _unreachable(f"no mock cluster runs in {self.directory}")
        session = self._load()
        session.engine.advance(session.clock.now(session.wall))
        return session

    def _load(self) -> Session:
        data = self._read("state.json")
        settings = self.settings()
        described = self._read("machine.json")
        machine = Machine.from_dict(described)
        accounting = Accounting(self._path("accounting.jsonl"), data["accounting_bytes"])
        background = None
        if settings.load:
            background = Background(machine, load=settings.load, seed=settings.seed, start=0, state=data["background"])

        def history(job_id: int) -> list[tuple[int, int | None, JobState]]:
            rows = [*reversed(list(accounting.latest_first(job_ids={job_id}))), *engine.ended]
            return [
                (row.job_id, row.array_task_id, row.state) for row in rows if job_id in (row.job_id, row.array_job_id)
            ]

        engine = _engine(settings, machine, described, arrivals=background, history=history)
        restore(engine, data["engine"])
        return Session(
            settings, machine, engine, Clock(**data["clock"]), accounting, data["ended"], data["started"], self.wall()
        )

    def _save(self, session: Session) -> None:
        """Write what has changed; the time that has merely gone by is not worth a write."""
        engine = session.engine
        if not (engine.changes or session.moved):
            return
        if session.machine_changed:
            described = {**self._read("machine.json"), **session.machine.as_dict()}
            write_text(self._path("machine.json"), json.dumps(described))
            session.machine_changed = False
        session.accounting.append(engine.ended)
        for record in engine.ended:
            session.ended[record.state.value] = session.ended.get(record.state.value, 0) + 1
        engine.ended.clear()
        background = engine.arrivals
        state = {
            "format": _FORMAT,
            "started": session.started,
            "clock": asdict(session.clock),
            "ended": session.ended,
            "accounting_bytes": session.accounting.length,
            "background": background.as_dict() if isinstance(background, Background) else None,
            "engine": snapshot(engine),
        }
        write_text(self._path("state.json"), json.dumps(state, separators=(",", ":")))
        engine.changes, session.moved = 0, False

    def _set_running(self, settings: Settings, *, running: bool) -> None:
        data: Mapping[str, Any] = {"format": _FORMAT, "running": running, "settings": asdict(settings)}
        write_text(self._path("cluster.json"), json.dumps(data, indent=2) + "\n")


def _engine(
    settings: Settings,
    machine: Machine,
    described: Mapping[str, Any],
    *,
    now: int = 0,
    arrivals: Background | None,
    history: History = lambda job_id: (),
) -> LiveEngine:
    """Return an empty engine with the cluster's policy."""
    if settings.policy == "slurm":
        from hpcplan.simulate.live_controller import LiveController, at_once
        from hpcplan.simulate.slurm_cluster import SlurmCluster

        cluster = at_once(SlurmCluster.from_dict(described["slurm"], machine))
        return LiveController(cluster, now=now, name=settings.cluster, arrivals=arrivals, history=history)
    policy = _policy(settings, machine)
    return LiveEngine(machine, policy, now=now, cluster=settings.cluster, arrivals=arrivals, history=history)


def _policy(settings: Settings, machine: Machine) -> Policy:
    """Return the policy; ``bf_window`` reaches as far as the longest limit, as slurm.conf(5) advises."""
    longest = max((part.max_time_s or 7 * _DAY_S for part in machine.partitions.values()), default=_DAY_S)
    return policy_named(settings.policy, bf_window_s=max(_DAY_S, longest), bf_max_job_test=_BF_MAX_JOB_TEST)


def _unreachable(message: str) -> SlurmUnreachableError:
    return SlurmUnreachableError(message, hint="start one: hpcplan mock start SITE")
