"""A mock cluster whose commands are on the PATH of this process, for the tests of one module."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from hpcplan.simulate.commands.attach import Entered, EnterOptions, enter
from hpcplan.simulate.lifecycle import StartOptions, start_cluster
from hpcplan.site.load import load_site
from tests.simulate.clusters import SITE, write_site

REQUEUE_DELAY_S = 1
KILL_WAIT_S = 1.0


@dataclass
class MockSlurm:
    """A cluster of six nodes b1 to b6 (64 CPUs, 8 GPUs) and s1, s2; ``folder`` is where its commands are typed."""

    entered: Entered
    folder: Path

    @property
    def env(self) -> dict[str, str]:
        """The environment in which its commands are found."""
        return self.entered.environment(os.environ)

    def run(self, *words: str, stdin: str = "", check: bool = False, **env: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            list(words), env={**self.env, **env}, cwd=self.folder, input=stdin, capture_output=True, text=True,
            timeout=60, check=check,
        )  # fmt: skip

    def out(self, *words: str, **env: str) -> str:
        """Return what a command that succeeds prints."""
        answer = self.run(*words, **env)
        assert answer.returncode == 0, answer.stderr
        return answer.stdout.rstrip("\n")

    def submit(self, *words: str, script: str | None = None) -> str:
        """Submit a command (the last word, wrapped) or a script on stdin, and return the job's id."""
        if script is not None:
            answer = self.run("sbatch", "--parsable", *words, stdin=script)
        else:
            answer = self.run("sbatch", "--parsable", *words[:-1], "--wrap", words[-1])
        assert answer.returncode == 0, answer.stderr
        return answer.stdout.strip()

    def state(self, job: str) -> str:
        """Return the state of a job as accounting has it."""
        return self.out("sacct", "-X", "-n", "-P", "-j", job, "-o", "State")

    def wait_for(self, job: str, *states: str, patience_s: float = 20) -> str:
        """Wait until a job's state begins with one of these, and return it."""
        return self.until(
            lambda: next((word for word in self.state(job).split("\n") if word.split(" ")[0] in states), ""), patience_s
        )

    def until(self, found: Callable[[], str], patience_s: float = 20) -> str:
        """Wait until ``found`` finds something, and return it."""
        deadline = time.monotonic() + patience_s
        while time.monotonic() < deadline:
            if text := found():
                return text
            time.sleep(0.05)
        raise AssertionError("in vain\n" + self.run("squeue", "-a").stdout + self.run("sacct").stdout)

    def read(self, name: str) -> str:
        """Return what a file in the folder holds, nothing where there is none."""
        path = self.folder / name
        return path.read_text() if path.exists() else ""


@pytest.fixture(scope="module")
def mock_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MockSlurm]:
    """A cluster that really runs jobs, gone at the end."""
    folder = tmp_path_factory.mktemp("mock")
    site = load_site(str(write_site(folder, SITE.replace('"23.11"', '"22.05.8"'))))
    store = start_cluster(site, StartOptions(speed=1.0), directory=folder / "cluster")
    options = EnterOptions(purge=True, kill_wait_s=KILL_WAIT_S, requeue_delay_s=REQUEUE_DELAY_S)
    work = folder / "work"
    work.mkdir()
    with enter(store, options) as entered:
        yield MockSlurm(entered, work)


@pytest.fixture
def slurm(mock_cluster: MockSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MockSlurm]:
    """The cluster for one test, in a folder of its own; what the test leaves in its queue is cancelled."""
    mock_cluster.folder = tmp_path
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith(("SLURM_", "SBATCH_", "SRUN_", "SQUEUE_", "SACCT_")):
            monkeypatch.delenv(name)
    for name in ("PATH", "HPCPLAN_MOCK", "HPCPLAN_MOCK_COMMANDS"):
        monkeypatch.setenv(name, mock_cluster.env[name])
    yield mock_cluster
    mock_cluster.run("scancel", "--me")
    mock_cluster.until(lambda: "" if mock_cluster.out("squeue", "-h") else "empty")
