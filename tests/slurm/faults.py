"""Many jobs submitted and tracked to the end while one part of Slurm after the other fails: each runs once and is known
to have completed, also those that a killed controller has forgotten.

    python -m tests.slurm.faults 1000     start a real Slurm (as root on Debian), and print the figures as JSON

The controller is killed and restarted, slurmdbd is away for a while, MariaDB is restarted, munge is down, and the
network path from the client to the controller is cut: the client reaches it through a forwarder of this test.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from hpcplan.campaign import CampaignStatus, Round, Tracker
from hpcplan.campaign.journal import read_journal
from hpcplan.slurm import JobState
from hpcplan.slurm.command import CommandBackend
from tests.campaign.tiny import ran, write_tiny_campaign
from tests.slurm.cluster import SlurmCluster

FINAL = {state.value for state in JobState if state.final}


class Forwarder:
    """A TCP path that can be cut: while it is, connections are taken and nothing comes through."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._open = threading.Event()
        self._open.set()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        self._open.clear()

    def mend(self) -> None:
        self._open.set()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if not self._open.is_set():
                threading.Thread(target=self._swallow, args=(near,), daemon=True).start()
                continue
            try:
                far = socket.create_connection(("127.0.0.1", self._target), timeout=5)
                far.settimeout(None)
            except OSError:
                near.close()
                continue
            for pair in ((near, far), (far, near)):
                threading.Thread(target=self._pump, args=pair, daemon=True).start()

    def _swallow(self, near: socket.socket) -> None:
        self._open.wait()
        near.close()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                self._open.wait()
                sink.sendall(data)
        except OSError:
            pass
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                end.close()


@dataclass
class Watched:
    """What the rounds showed: no end that was once seen may ever be taken back."""

    rounds: int = 0
    without_answer: int = 0
    ends: dict[str, str] = field(default_factory=dict)
    taken_back: list[str] = field(default_factory=list)
    acts: Counter[str] = field(default_factory=Counter)
    latest: CampaignStatus | None = None

    def all_known(self, jobs: int) -> bool:
        """Whether every job is known to have ended."""
        return self.latest is not None and not self.latest.due and len(self.ends) == jobs

    def __call__(self, found: Round) -> None:
        self.rounds += 1
        self.without_answer += not all(found.answers.values())
        for turn in found.turns.values():
            self.latest = turn.status
            self.acts.update(act.split()[0] for act in turn.acts)
            for job in turn.status.jobs:
                if job.key in self.ends and job.state != self.ends[job.key]:
                    self.taken_back.append(f"{job.key}: {self.ends[job.key]}, then {job.state}")
                if job.state in FINAL:
                    self.ends[job.key] = job.state


def run(
    cluster: SlurmCluster, jobs: int, *, away_s: float, say: Callable[[str], None] = lambda text: None
) -> dict[str, object]:
    """Run it, and return the figures; what they must be is asserted here."""
    conf = Path(cluster.env["SLURM_CONF"])
    port = int(re.search(r"^SlurmctldPort=(\d+)", conf.read_text(), re.MULTILINE)[1])  # type: ignore[index]
    forwarder = Forwarder(port)
    client = conf.with_name("client.conf")
    client.write_text(conf.read_text().replace(f"SlurmctldPort={port}", f"SlurmctldPort={forwarder.port}"))
    backend = CommandBackend({**os.environ, "SLURM_CONF": str(client), "PATH": cluster.env["PATH"]})
    directory = write_tiny_campaign(cluster.job_folder() / "many", jobs, chained=False, seconds=0.2)
    from hpcplan.campaign import submit

    first = min(jobs, max(4, jobs // 20))
    (directory / "policy.yaml").write_text(f"submit: {{max_queued: {first}}}\n")
    submit(directory, backend, settle_s=2)
    (directory / "policy.yaml").unlink()
    watched = Watched()
    tracker = Tracker(
        lambda: [directory], lambda name: backend, interval_s=lambda one: 1.0, settle_s=lambda one: 2.0,
        on_round=watched,
    )  # fmt: skip
    begun = time.monotonic()
    thread = threading.Thread(target=tracker.run, kwargs={"until_done": False}, daemon=True)
    thread.start()
    try:
        _faults(cluster, forwarder, directory, jobs, away_s, say)
        deadline = time.monotonic() + 420 + jobs  # a job whose end was forgotten may be known at its limit only, 300 s
        while not watched.all_known(jobs):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(watched.ends)} of {jobs} ended\n{_open(watched)}\n{cluster.logs()}")
            time.sleep(0.5)
    finally:
        tracker.stop()
        forwarder.mend()
        thread.join(120)
        forwarder.close()
    seconds = time.monotonic() - begun
    return _check(cluster, directory, watched, jobs, seconds)


def _faults(
    cluster: SlurmCluster, forwarder: Forwarder, directory: Path, jobs: int, away_s: float, say: Callable[[str], None]
) -> None:
    """Let one part fail after the other."""

    def after(share: float) -> None:
        while sum(entry.event == "submitted" for entry in read_journal(directory)) < share * jobs:
            time.sleep(0.2)

    def down(name: str, *, kill: bool = False) -> None:
        say(f"{name} goes away")
        cluster.stop_daemon(name, kill=kill)
        time.sleep(away_s)
        cluster.start_daemon(name)
        say(f"{name} is back")

    after(0.2)
    down("slurmctld", kill=True)
    after(0.35)
    down("slurmdbd")
    after(0.5)
    down("mariadbd")
    if not cluster.runs("slurmdbd"):  # 22.05 may give up without its database; a service manager starts it again
        say("slurmdbd has given up, and is started again")
        cluster.start_daemon("slurmdbd")
    after(0.65)
    say("munge goes away")
    cluster.stop_daemon("munged")
    time.sleep(away_s)
    cluster.start_munge()
    say("munge is back")
    after(0.8)
    say("the path to the controller is cut")
    forwarder.cut()
    time.sleep(away_s + 12)  # longer than MessageTimeout
    forwarder.mend()
    say("the path is mended")


def _open(watched: Watched) -> str:
    """Return what is known of the jobs that have not ended as far as is known."""
    jobs = watched.latest.jobs if watched.latest is not None else ()
    return "\n".join(f"{job.key} ({job.job_id}): {job.state}, {job.reason}" for job in jobs if job.state not in FINAL)


def _check(cluster: SlurmCluster, directory: Path, watched: Watched, jobs: int, seconds: float) -> dict[str, object]:
    assert watched.taken_back == []
    keys = {f"train-{number:04d}" for number in range(1, jobs + 1)}
    starts = ran(directory)
    assert set(starts) == keys, f"lost: {sorted(keys - set(starts))}"
    twice = {key: times for key, times in starts.items() if times != 1}
    assert not twice, twice
    assert watched.ends == dict.fromkeys(keys, "COMPLETED"), Counter(watched.ends.values())
    journal = read_journal(directory)
    events = Counter(entry.event for entry in journal)
    identity = {entry.data["job"]: entry.data["job_id"] for entry in journal if entry.event == "submitted"}
    assert len({entry.data["token"] for entry in journal if entry.event == "submit"}) >= jobs
    assert watched.latest is not None
    told_by = {job.key: job.known_from for job in watched.latest.jobs}
    of_slurm = [str(identity[key]) for key, who in told_by.items() if who == "slurm"]

    def stored() -> dict[str, set[str]]:
        """Return what accounting has of each id; a controller that was killed gives ids that it forgot to others."""
        options = ("-a", "-X", "-D", "-n", "-P", "-j", ",".join(of_slurm), "-o", "JobIDRaw,State")
        ends: dict[str, set[str]] = {}
        for line in cluster.run("sacct", *options).stdout.splitlines():
            job_id, state = line.split("|", 1)
            ends.setdefault(job_id, set()).add(state)
        return ends

    def agrees() -> bool:
        try:
            ends = stored()
        except subprocess.CalledProcessError:  # slurmdbd is still busy with what it missed
            return False
        return all("COMPLETED" in ends.get(job_id, ()) for job_id in of_slurm)

    cluster.wait_until(agrees, "accounting says of every end that the status has from Slurm what the status says")
    forgotten = [entry for entry in journal if entry.event == "ended" and entry.data.get("by") == "job"]
    return {
        "jobs": jobs, "lost": 0, "twice": 0, "seconds": round(seconds), "rounds": watched.rounds,
        "rounds_without_answer": watched.without_answer, "answers_found_by_token": sum(
            bool(entry.data.get("found")) for entry in journal if entry.event == "submitted"
        ), "submissions_without_answer": events["submit-failed"], "lost_by_the_controller": events["lost"],
        "ends_known_by_the_jobs_own_word": sum(who == "job" for who in told_by.values()),
        "ends_that_slurm_made_up": sum("slurm" in entry.data for entry in forgotten),
        "starts_that_the_controller_forgot": sum(
            "nothing is done twice" in log.read_text(errors="replace") for log in directory.glob("*.out")
        ),
        "ids_that_it_gave_twice": jobs - len(set(identity.values())),
        "ends_taken_back": 0,
    }  # fmt: skip


def main(arguments: list[str]) -> int:
    """Run what the module's first lines say."""
    from tests.slurm.cluster import exclusive

    if len(arguments) != 1 or not arguments[0].isdecimal():
        print(__doc__, file=sys.stderr)
        return 2
    with exclusive():
        cluster = SlurmCluster()
        cluster.start()
        os.environ |= {name: cluster.env[name] for name in ("SLURM_CONF", "PATH")}
        os.environ["HPCPLAN_DATA_DIR"] = str(cluster.directory / "data")
        began = time.monotonic()
        try:
            found = run(
                cluster, int(arguments[0]), away_s=15,
                say=lambda text: print(f"[{time.monotonic() - began:5.0f} s] {text}", file=sys.stderr, flush=True),
            )  # fmt: skip
            print(json.dumps(found))
        finally:
            cluster.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
