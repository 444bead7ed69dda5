"""What the mock cluster keeps of a job that was submitted with its commands: script, environment, paths and steps.

A folder ``jobs/ID`` in the cluster's directory, readable by its owner alone (an environment may hold secrets); the
tasks of an array share that of the array.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from hpcplan.documents import write_text
from hpcplan.slurm.records import JobState

__all__ = ["JobFiles", "JobInfo", "Step", "output_path"]

_PATTERN: Final = re.compile(r"%(\d{0,2})([%AaJjNnstux])")


@dataclass(slots=True)
class JobInfo:
    """What a job's records lack: how it was submitted. Paths still hold their %-codes.

    ``het`` is, of a component of a heterogeneous job: the id of the first, which one it is, how many there are.
    """

    base_id: int
    command: str | None
    submit_line: str
    work_dir: str
    user: str
    uid: int = 0
    gid: int = 0
    umask: int = 0o022
    std_in: str = "/dev/null"
    std_out: str | None = None
    std_err: str | None = None
    append: bool = False
    batch: bool = True
    real: bool = True
    ntasks: int = 1
    ntasks_given: bool = False
    cpus_per_task_given: bool = False
    arguments: list[str] = field(default_factory=list)
    spec: dict[str, Any] = field(default_factory=dict)
    het: tuple[int, int, int] | None = None


@dataclass(slots=True)
class Step:
    """One step of a job as accounting keeps it; ``name`` is ``batch`` or a number.

    ``counts`` are its tasks on each node, ``output`` the file that they print into, ``exits`` how each ended (a signal
    is negative).
    """

    name: str
    job_name: str
    node_list: str
    nodes: int
    ntasks: int
    cpus: int
    start: int
    attempt: int = 0
    end: int | None = None
    state: str = JobState.RUNNING.value
    exit_code: int = 0
    signal: int = 0
    max_rss_bytes: int | None = None
    cpu_s: float | None = None
    counts: list[int] = field(default_factory=list)
    output: str | None = None
    exits: list[int] = field(default_factory=list)


class JobFiles:
    """The folder of all jobs of one cluster; those that name no account are on ``default_account``."""

    def __init__(self, directory: Path, default_account: str = "root") -> None:
        self.directory = directory
        self.default_account = default_account
        self._known: dict[int, JobInfo | None] = {}

    def create(self, info: JobInfo, script: str, env: Mapping[str, str]) -> None:
        """Keep what a new job (or array) needs to run; its id must be new.

        Raises:
            HpcplanError: it cannot be written.
        """
        folder = self.directory / str(info.base_id)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for old in folder.iterdir():  # an earlier cluster in this directory, or a submission that was not taken
            old.unlink()
        write_text(folder / "slurm_script", script)
        (folder / "slurm_script").chmod(0o700)
        write_text(folder / "environment.json", json.dumps(dict(env)))
        write_text(folder / "job.json", json.dumps(asdict(info)))
        self._known[info.base_id] = info

    def info(self, base_id: int) -> JobInfo | None:
        """Return what was kept of a job, ``None`` for one that was not submitted with the commands."""
        if base_id not in self._known:
            try:
                text = (self.directory / str(base_id) / "job.json").read_text(encoding="utf-8")
            except OSError:
                return None
            data = json.loads(text)
            self._known[base_id] = JobInfo(**{**data, "het": tuple(data["het"]) if data.get("het") else None})
        return self._known[base_id]

    def script(self, base_id: int) -> Path:
        """Return where the script is kept."""
        return self.directory / str(base_id) / "slurm_script"

    def environment(self, base_id: int) -> dict[str, str]:
        """Return the environment that the job was submitted with."""
        text = (self.directory / str(base_id) / "environment.json").read_text(encoding="utf-8")
        return dict(json.loads(text))

    def steps(self, base_id: int, job_id: int) -> list[Step]:
        """Return the steps of a job, of all its attempts."""
        try:
            text = self._steps(base_id, job_id).read_text(encoding="utf-8")
        except OSError:
            return []
        return [Step(**row) for row in json.loads(text)]

    def save_steps(self, base_id: int, job_id: int, steps: list[Step]) -> None:
        """Keep the steps of a job.

        Raises:
            HpcplanError: they cannot be written.
        """
        write_text(self._steps(base_id, job_id), json.dumps([asdict(step) for step in steps]))

    def began(self, base_id: int, job_id: int, attempt: int) -> bool:
        """Take note that an attempt is launched; whether this is the first time."""
        try:
            os.close(os.open(self.directory / str(base_id) / f"began-{job_id}-{attempt}", os.O_CREAT | os.O_EXCL))
        except OSError:
            return False
        return True

    def _steps(self, base_id: int, job_id: int) -> Path:
        return self.directory / str(base_id) / f"steps-{job_id}.json"


def output_path(pattern: str, work_dir: str, codes: Mapping[str, str | int]) -> str:
    """Return the file that a name with %-codes means (sbatch(1), FILENAME PATTERN).

    A number between ``%`` and a code that gives digits pads with zeros; a code that means nothing here is left alone.
    """
    if "\\" in pattern:
        name = pattern.replace("\\", "")
    else:

        def one(match: re.Match[str]) -> str:
            width, code = match[1], match[2]
            if code == "%":
                return "%"
            value = codes.get(code)
            if value is None:
                return match[0]
            text = str(value)
            return text.zfill(min(10, int(width))) if width and text.isdecimal() else text

        name = _PATTERN.sub(one, pattern)
    return str(Path(work_dir) / name)
