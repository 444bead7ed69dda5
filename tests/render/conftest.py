"""A stage on which rendered scripts really run: bash, with stand-ins for srun, scontrol and torchrun on PATH."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

SRUN = """#!/bin/bash
# One task of the step, in this very process, so that signals to srun reach it as srun would pass them on.
echo "$*" >"$STAGE/srun.args"
while [[ $1 == --* ]]; do shift; done
export SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_NODEID=0 SLURM_NTASKS=${FAKE_NTASKS:-1}
exec "$@"
"""
SCONTROL = """#!/bin/bash
[[ $1 == show && $2 == hostnames ]] || exit 2
printf '%s\\n' n1 n2
"""
TORCHRUN = """#!/bin/bash
# Records its words, then runs $STAGE/worker in a session of its own, as torchrun starts its workers.
printf '%s\\0' "$@" >"$STAGE/torchrun.words"
if [[ -x $STAGE/worker ]]; then
  setsid "$STAGE/worker" &
  wait $! && exit 0
  exit 1
fi
"""


class Stage:
    """A directory in which one script runs as Slurm would run it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.bin = directory / "bin"
        self.bin.mkdir()
        (directory / "jobs.json").touch()
        known = "#!/bin/sh\nexit 0\n"  # every name resolves: no test waits for a name server
        for name, text in (("srun", SRUN), ("scontrol", SCONTROL), ("torchrun", TORCHRUN), ("getent", known)):
            self.executable(self.bin / name, text)

    def executable(self, path: Path, text: str) -> None:
        path.write_text(text, encoding="utf-8")
        path.chmod(0o755)

    def environment(self, extra: Mapping[str, str]) -> dict[str, str]:
        return {
            "PATH": f"{self.bin}:{os.environ['PATH']}",
            "HOME": str(self.directory),
            "STAGE": str(self.directory),
            "SLURM_JOB_ID": "70123",
            "SLURM_JOB_NODELIST": "n[1-2]",
            "SLURMD_NODENAME": "n1",
            "SLURM_JOB_NUM_NODES": "2",
            **extra,
        }

    def start(self, script: str, *arguments: str, **extra: str) -> subprocess.Popen[str]:
        """Start a script; its text is on disk under another name, as in Slurm's spool."""
        path = self.directory / "slurm_script"
        path.write_text(script, encoding="utf-8")
        return subprocess.Popen(
            ["bash", str(path), *arguments], cwd=self.directory, env=self.environment(extra), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # bash cannot trap what nohup ignores
        )  # fmt: skip

    def run(self, script: str, *arguments: str, **extra: str) -> tuple[int, str]:
        """Run a script to its end; return its status and what it said."""
        with self.start(script, *arguments, **extra) as process:
            output, _ = process.communicate(timeout=60)
        return process.returncode, output

    def state(self, name: str) -> str | None:
        """Return what a file of the state directory says."""
        path = self.directory / "state" / name
        return path.read_text(encoding="utf-8").strip() if path.exists() else None


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)
