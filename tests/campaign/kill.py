"""The client killed with SIGKILL, anywhere: after every resume each job exists once and has run once.

    python -m tests.campaign.kill mock 500        500 kills at random, then one at every point, on a mock cluster
    python -m tests.campaign.kill slurm 500       the same on a real Slurm that this starts (as root on Debian)

Each victim is a child that takes turns for a campaign and dies after a random time, or at its n-th journal write or
call of the backend, in the middle or after it. Killing the child does not kill a command of Slurm's that it has
started, so an answer can be lost while the job arrives.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from hpcplan.campaign import advance, cancel, status, submit
from hpcplan.campaign.journal import read_journal
from hpcplan.slurm import Backend, JobRecord
from tests.campaign.tiny import ran, write_tiny_campaign

JOBS = 4
SETTLE_S = 2.0
_BATCH = 20
_CALLS = ("submit", "jobs", "ping", "cancel")


class World:
    """Where campaigns run: a backend, and a way to let everything that is queued run to its end."""

    def __init__(self, backend: Backend, folder: Path, drain: Callable[[], object], *, settle_s: float) -> None:
        self.backend, self.folder, self.drain, self.settle_s = backend, folder, drain, settle_s
        self.count = 0

    def campaign(self, jobs: int = JOBS, *, chained: bool = True) -> Path:
        """Write a new campaign."""
        self.count += 1
        return write_tiny_campaign(self.folder / f"c{self.count}", jobs, name=f"k{self.count}", chained=chained)


def work(world: World, directory: Path, what: str) -> None:
    """What a victim does."""
    if what == "submit":
        submit(directory, world.backend, settle_s=world.settle_s, wait_s=60)
    elif what == "advance":
        submit(directory, world.backend, settle_s=world.settle_s, wait_s=60)
        advance(directory, world.backend, settle_s=world.settle_s)
    else:
        status(directory, world.backend)


def victim(act: Callable[[], object], *, prepare: Callable[[], object] = lambda: None, after_s: float | None) -> bool:
    """Run ``act`` in a child; kill it after so many seconds. Return whether it was killed."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 2)
            prepare()
            act()
            code = 0
        finally:
            os._exit(code)
    if after_s is not None:
        time.sleep(after_s)
        os.kill(pid, signal.SIGKILL)
    _, how = os.waitpid(pid, 0)
    return os.WIFSIGNALED(how) and os.WTERMSIG(how) == signal.SIGKILL


def kill_at(world: World, number: int, moment: str) -> Callable[[], None]:
    """Return what makes this process kill itself at its ``number``-th write or call."""

    def arm() -> None:
        count = 0

        def die_if_due(when: str) -> None:
            nonlocal count
            count += when == moment
            if when == moment and count == number:
                os.kill(os.getpid(), signal.SIGKILL)

        write = os.pwrite

        def torn(descriptor: int, data: bytes, offset: int) -> int:
            nonlocal count
            if moment == "write" and data.startswith(b'{"seq"'):
                count += 1
                if count == number:
                    write(descriptor, data[: len(data) // 2], offset)
                    os.kill(os.getpid(), signal.SIGKILL)
            return write(descriptor, data, offset)

        os.pwrite = torn
        for name in _CALLS:
            setattr(world.backend, name, _wrapped(getattr(world.backend, name), die_if_due))

    return arm


def _wrapped(call: Callable[..., Any], die_if_due: Callable[[str], None]) -> Callable[..., Any]:
    def wrapped(*arguments: Any, **options: Any) -> Any:
        die_if_due("before")
        answer = call(*arguments, **options)
        die_if_due("after")
        return answer

    return wrapped


def check(world: World, directories: Sequence[Path], jobs: int = JOBS) -> None:
    """Resume campaigns, let everything end, and see that every job exists once, completed once and is known."""
    ids = {
        directory: [step.job_id for step in submit(directory, world.backend, settle_s=world.settle_s, wait_s=60)]
        for directory in directories
    }
    world.drain()
    began = min(read_journal(directory)[0].data["at"] for directory in directories) - 60
    stored = _stored(world, began, {job_id for found in ids.values() for job_id in found if job_id is not None})
    for directory in directories:
        result = status(directory, world.backend)
        assert result.state.value == "done", (directory, result.state, [job.state for job in result.jobs])
        assert [job.state for job in result.jobs] == ["COMPLETED"] * jobs, directory
        assert len(set(ids[directory])) == jobs
        duplicates = {entry.data["job_id"] for entry in read_journal(directory) if entry.event == "duplicate"}
        token = f"hpcplan:{result.campaign_id}:"
        found = [one for one in stored if (one.comment or "").startswith(token) and one.job_id not in duplicates]
        assert sorted(Counter(one.comment for one in found).values()) == [1] * jobs, (directory, found)
        if world.backend.name != "mock":
            once = {f"train-{number:04d}": 1 for number in range(1, jobs + 1)}
            assert ran(directory) == once, (directory, ran(directory))


def _stored(world: World, began: int, wanted: set[int]) -> list[JobRecord]:
    """Return what accounting has of jobs that have ended; slurmdbd hears of the last ones a moment late."""
    deadline = time.monotonic() + 60
    while True:
        found = [one for one in world.backend.accounting(began, world.backend.now() + 5) if one.state.final]
        if wanted <= {one.job_id for one in found} or time.monotonic() > deadline:
            return found
        time.sleep(0.5)


def at_random(world: World, kills: int, rng: random.Random, *, say: Callable[[str], None] = lambda text: None) -> int:
    """Kill clients at random until ``kills`` have died, each campaign up to five times; return the campaigns."""
    begun = time.monotonic()
    work(world, world.campaign(), "advance")
    usual_s = time.monotonic() - begun
    done = campaigns = 0
    while done < kills:
        directories = [world.campaign(chained=rng.random() < 0.3) for _ in range(_BATCH)]
        for directory in directories:
            for _ in range(rng.randint(1, 5)):
                act = partial(work, world, directory, rng.choice(["submit", "submit", "advance", "status"]))
                done += victim(act, after_s=rng.uniform(0, 1.2 * usual_s))
        check(world, directories)
        campaigns += len(directories)
        say(f"{done} kills, {campaigns} campaigns, {time.monotonic() - begun:.0f} s")
    return campaigns


def at_every_point(world: World, *, say: Callable[[str], None] = lambda text: None) -> int:
    """Kill a client once at every journal write and every call, before, in the middle, and after; return how many."""
    points: list[Path] = []
    for moment in ("write", "before", "after"):
        number = 0
        while True:
            number += 1
            directory = world.campaign(3)
            act = partial(work, world, directory, "advance")
            if not victim(act, prepare=kill_at(world, number, moment), after_s=None):
                break
            points.append(directory)
        say(f"{moment}: {number - 1} points")
    check(world, points, 3)
    return len(points)


def cancelled_at_every_point(world: World) -> int:
    """Kill a client that cancels once at every point; the next one finishes, and nothing is left in the queue."""
    points = 0
    for moment in ("write", "before", "after"):
        number = 0
        while True:
            number += 1
            directory = world.campaign(3)
            submit(directory, world.backend, settle_s=world.settle_s)
            act = partial(cancel, directory, world.backend, settle_s=world.settle_s)
            killed = victim(act, prepare=kill_at(world, number, moment), after_s=None)
            cancel(directory, world.backend, settle_s=world.settle_s, wait_s=60)
            world.drain()
            assert status(directory, world.backend).state.value in ("cancelled", "done")
            if not killed:
                break
            points += 1
    return points


@contextmanager
def mock_world(folder: Path) -> Iterator[World]:
    """A mock cluster of its own in a folder."""
    from hpcplan.simulate.backend import MockBackend
    from hpcplan.simulate.lifecycle import StartOptions, start_cluster
    from hpcplan.site.load import load_site
    from tests.simulate.clusters import write_site

    before = os.environ.get("HPCPLAN_DATA_DIR")
    os.environ["HPCPLAN_DATA_DIR"] = str(folder / "data")
    store = start_cluster(load_site(write_site(folder)), StartOptions(speed=0.0))
    backend = MockBackend(store)
    try:
        yield World(backend, folder, lambda: backend.advance(until_idle=True), settle_s=0.0)
    finally:
        store.stop()
        if before is None:
            del os.environ["HPCPLAN_DATA_DIR"]
        else:
            os.environ["HPCPLAN_DATA_DIR"] = before


def slurm_world(cluster: Any) -> World:
    """The real test cluster; this process's environment has to point at it."""
    from hpcplan.slurm.command import CommandBackend

    def drain() -> None:
        cluster.wait_until(lambda: not cluster.run("squeue", "--noheader").stdout.strip(), "the queue is empty")

    return World(CommandBackend(), cluster.job_folder(), drain, settle_s=SETTLE_S)


def main(arguments: list[str]) -> int:
    """Run what the module's first lines say, and print one JSON document with the figures."""
    if len(arguments) != 2 or arguments[0] not in ("mock", "slurm") or not re.fullmatch(r"\d+", arguments[1]):
        print(__doc__, file=sys.stderr)
        return 2
    kills, rng = int(arguments[1]), random.Random(7)
    begun = time.monotonic()

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def measure(world: World) -> None:
        campaigns = at_random(world, kills, rng, say=say)
        points = at_every_point(world, say=say)
        cancels = cancelled_at_every_point(world)
        figures = {"on": arguments[0], "kills_at_random": kills, "campaigns": campaigns, "kills_at_each_point": points,
                   "kills_while_cancelling": cancels, "lost": 0, "twice": 0,
                   "seconds": round(time.monotonic() - begun)}  # fmt: skip
        print(json.dumps(figures))

    if arguments[0] == "mock":
        with tempfile.TemporaryDirectory() as folder, mock_world(Path(folder)) as world:
            measure(world)
        return 0
    from tests.slurm.cluster import SlurmCluster, exclusive

    with exclusive():
        cluster = SlurmCluster()
        cluster.start()
        os.environ |= {name: cluster.env[name] for name in ("SLURM_CONF", "PATH")}
        os.environ["HPCPLAN_DATA_DIR"] = str(cluster.directory / "data")
        try:
            measure(slurm_world(cluster))
        finally:
            cluster.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
