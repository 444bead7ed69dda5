"""The controller of a mock cluster in use: one process that owns its time and its processes, while it is there."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from hpcplan.errors import SlurmUnreachableError
from hpcplan.simulate.commands.jobfiles import JobFiles
from hpcplan.simulate.commands.processes import Guard
from hpcplan.simulate.commands.runner import Runner
from hpcplan.simulate.live import is_real
from hpcplan.simulate.store import ClusterStore, Session

__all__ = ["Controller"]

_TICK_S: Final = 0.1
_IDLE_S: Final = 2.0


class Controller:
    """A store, the jobs that it really runs, and the thread that keeps both going."""

    def __init__(
        self,
        store: ClusterStore,
        bin_directory: Path,
        guard: Guard,
        *,
        pretend: bool,
        kill_wait_s: float = 30.0,
        requeue_delay_s: int | None = None,
        accounts: Sequence[str] = (),
    ) -> None:
        self.store = store
        self.pretend = pretend
        self.kill_wait_s = kill_wait_s
        self.requeue_delay_s = requeue_delay_s
        self.accounts = tuple(accounts)
        self.files = JobFiles(store.directory / "jobs", self.default_account)
        self.bin_directory = bin_directory
        self.runner = Runner(
            self.files, str(store.directory), str(bin_directory), self.wake, guard, kill_wait_s=kill_wait_s
        )
        self.stopped = threading.Event()
        self._lock = threading.RLock()
        self._woken = threading.Event()
        self._speed = 1.0
        self._ended = False

    @property
    def default_account(self) -> str:
        """The account of jobs that name none: the first one given, else that which every cluster has."""
        return self.accounts[0] if self.accounts else "root"

    def wake(self) -> None:
        """Let the thread look at once: something has happened."""
        self._woken.set()

    @contextmanager
    def session(self) -> Iterator[Session]:
        """Hold the cluster; what follows from what is done is settled before it is let go.

        Raises:
            SlurmUnreachableError: it has been stopped.
        """
        with self._lock, self.store.session() as session:
            session.engine.requeue_delay_s = self.requeue_delay_s
            self.runner.settle(session)
            ending = (run.job_id for run in self.runner.runs.values() if run.outcome is not None)
            session.engine.ending = frozenset(ending)
            yield session
            self.runner.settle(session)

    @property
    def speed(self) -> float:
        """How fast the clock goes when nothing really runs."""
        return self._speed

    def start(self, speed: float | None = None) -> None:
        """Begin to keep time; jobs that really run need a clock that goes as fast as the wall's.

        ``speed`` is what the clock is given back in the end, its present one if absent.
        """
        with self._lock, self.store.session() as session:
            self._speed = session.clock.speed if speed is None else speed
            if not self.pretend and session.clock.speed != 1:
                session.clock.speed = 1.0
                session.jump()
        threading.Thread(target=self._keep_time, daemon=True).start()

    def stop(self) -> None:
        """End every job that really runs, and give the clock its speed back."""
        self.stopped.set()
        self.wake()
        with self._lock:
            if self._ended:
                return
            self._ended = True
            try:
                with self.store.session() as session:
                    self.runner.end_all(session)
                    if session.clock.speed != self._speed:
                        session.clock.speed = self._speed
                        session.jump()
            except SlurmUnreachableError:  # the cluster was stopped or deleted under it
                self.runner.kill_all()

    def wait_until(self, done: Callable[[Session], bool], gone: Callable[[float], bool]) -> bool:
        """Wait until ``done``; ``False`` if the controller stops first, or the client that waits is ``gone``."""
        while not self.stopped.is_set():
            with self.session() as session:
                if done(session):
                    return True
            if gone(_TICK_S):
                return False
        return False

    def _keep_time(self) -> None:
        while not self.stopped.is_set():
            try:
                with self.session() as session:
                    busy = self.runner.busy or any(is_real(job) for job in session.engine.jobs.values())
            except SlurmUnreachableError:
                self.stopped.set()
                return
            self._woken.wait(_TICK_S if busy else _IDLE_S)
            self._woken.clear()
