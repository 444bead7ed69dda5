"""What jobs say of themselves: the word of its begin and its end that each rendered script leaves in ``state/jobs``.

``train-01-1234.began`` and ``train-01-1234.ended`` (of an array's task ``sweep-1234_7.…``) are lines of ``name=value``:
``token`` (of the request, by which a word is known to be of this job and not of another that was given the same id),
``job_id``, ``restarts``, ``node`` (of the script), ``tasks`` (of an array), ``began``, ``ended`` (unix seconds, by that
node's clock), ``exit_code``, and ``how``: ``ended`` on its own, ``warned`` of its time limit, ``stopped`` by Slurm, or
``requeued`` by itself.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Final

from hpcplan.campaign.causes import log_end
from hpcplan.campaign.ledger import JobLedger, base_key
from hpcplan.render.manifest import ManifestJob
from hpcplan.slurm.records import JobRecord, JobState

__all__ = ["GRACE_S", "OwnWord", "OwnWords"]

GRACE_S: Final = 600  # beyond its time limit: Slurm's KillWait and OverTimeLimit, and clocks that differ
_MAX_BYTES: Final = 4096
_TASK: Final = re.compile(r"_\d+$")
_STOPPED: Final = re.compile(r"\*\*\* JOB \S+ ON \S+ CANCELLED AT \S+(?: DUE TO (TIME LIMIT|PREEMPTION|NODE FAILURE))?")
_STATE_OF_STOP: Final = {
    "TIME LIMIT": JobState.TIMEOUT, "PREEMPTION": JobState.PREEMPTED, "NODE FAILURE": JobState.NODE_FAIL,
    None: JobState.CANCELLED,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class OwnWord:
    """What one job has left of itself: how it ended, or that it began and by when it has ended in any case."""

    began: int | None
    over_by: int
    record: JobRecord | None = None
    restarts: int = 0

    @property
    def ended_at(self) -> int | None:
        """When it ended, by its own word."""
        return None if self.record is None else self.record.end_time


class OwnWords:
    """The words in a campaign's directory. The folder is listed once, when the first is asked for."""

    def __init__(self, directory: Path, cluster: str | None = None) -> None:
        self._directory, self._cluster = directory, cluster
        self._folder = directory / "state" / "jobs"

    def look_anew(self) -> None:
        """Make sure that the next look is not at what an NFS client remembers of these folders: a file that is made and
        removed in them makes it ask the server.
        """
        for folder in (self._directory, self._folder):
            with contextlib.suppress(OSError), tempfile.NamedTemporaryFile(dir=folder, prefix=".look-"):
                pass
        for cached in ("_files", "_words", "_ended", "_ended_arrays", "_logs"):
            self.__dict__.pop(cached, None)

    @cached_property
    def _files(self) -> Sequence[str]:
        return _listed(self._folder)

    @cached_property
    def _words(self) -> Mapping[str, Sequence[str]]:
        """The jobs and tasks that have left word, by the job's name: its own, or its array's."""
        names = {name.rpartition(".")[0] for name in self._files if name.endswith((".began", ".ended"))}
        return _by_job(names)

    @cached_property
    def _ended(self) -> frozenset[str]:
        return frozenset(name.removesuffix(".ended") for name in self._files if name.endswith(".ended"))

    @cached_property
    def _logs(self) -> Mapping[str, Sequence[str]]:
        return _by_job(name.removesuffix(".out") for name in _listed(self._directory) if name.endswith(".out"))

    def of(self, job: ManifestJob, known: JobLedger) -> OwnWord | None:
        """Return what a job says of itself, ``None`` where it has left no sign of having begun."""
        if known.job_id is None:
            return None
        return self._said(job, known) or self._by_log(job, known.job_id)

    def ended(self, job: ManifestJob, known: JobLedger) -> OwnWord | None:
        """Return what a job says of its end; no file of one is looked into that has left no word of it."""
        name = f"{base_key(job.key)}-{known.job_id}"
        found = self._said(job, known) if name in self._ended or name + "_" in self._ended_arrays else None
        return found if found is not None and found.record is not None else None

    @cached_property
    def _ended_arrays(self) -> frozenset[str]:
        return frozenset(name.rpartition("_")[0] + "_" for name in self._ended if "_" in name)

    def _said(self, job: ManifestJob, known: JobLedger) -> OwnWord | None:
        name = f"{base_key(job.key)}-{known.job_id}"
        names = self._words.get(name, ())
        if list(names) == [name]:
            return self._one(name, job, known)
        return self._array([task for task in names if task != name], job, known)

    def _one(self, name: str, job: ManifestJob, known: JobLedger) -> OwnWord | None:
        began, ended = (self._read(name, what, known) for what in ("began", "ended"))
        latest = max((_number(lines, "restarts") or 0 for lines in (began, ended) if lines), default=0)
        begin = _number(began or ended, "began")
        if begin is None:
            return None
        if not ended or (_number(ended, "restarts") or 0) < latest:
            return OwnWord(begin, begin + job.time_limit_s + GRACE_S, restarts=latest)
        end, code = _number(ended, "ended"), _number(ended, "exit_code")
        if end is None or code is None:
            return OwnWord(begin, begin + job.time_limit_s + GRACE_S, restarts=latest)
        if ended.get("how") == "requeued":
            return OwnWord(begin, end + GRACE_S, restarts=latest)
        begin = _number(ended, "began") or begin
        record = JobRecord(
            job_id=known.job_id or 0,
            state=self._state(ended.get("how"), code, self._log(name, job)),
            name=job.job_name,
            cluster=self._cluster,
            comment=known.token,
            start_time=begin,
            end_time=max(begin, end),
            time_limit_s=job.time_limit_s,
            exit_code=code,
            restarts=latest,
            nodes=job.nodes,
        )
        return OwnWord(begin, end, record, restarts=latest)

    def _log(self, name: str, job: ManifestJob) -> Path:
        return self._directory / f"{job.job_name}-{name.rpartition('-')[2]}.out"

    def _state(self, how: str | None, code: int, log: Path) -> JobState:
        if code == 0:
            return JobState.COMPLETED
        said = _STOPPED.findall(log_end(log)) if how == "stopped" else []
        return _STATE_OF_STOP[said[-1] or None] if said else JobState.FAILED

    def _array(self, names: Iterable[str], job: ManifestJob, known: JobLedger) -> OwnWord | None:
        """Return what the tasks of an array say together: it has ended when each of them has."""
        words = [word for name in names if (word := self._one(name, job, known)) is not None]
        if not words:
            return None
        counts = [_number(self._read(name, what, known), "tasks") for name in names for what in ("began", "ended")]
        begins = [word.began for word in words if word.began is not None]
        over_by = max(word.over_by for word in words)
        records = [word.record for word in words if word.record is not None]
        if len(records) < max((count for count in counts if count), default=len(words) + 1):
            return OwnWord(min(begins, default=None), over_by)
        worst = next((record for record in records if record.state is not JobState.COMPLETED), records[0])
        last = max(record.end_time or 0 for record in records)
        return OwnWord(min(begins), last, replace(worst, start_time=min(begins), end_time=last))

    def _read(self, name: str, what: str, known: JobLedger) -> Mapping[str, str] | None:
        """Return the lines of one file, if they are this request's."""
        if what == "ended" and name not in self._ended:
            return None
        try:
            with (self._folder / f"{name}.{what}").open(encoding="utf-8", errors="replace") as stream:
                lines = stream.read(_MAX_BYTES).splitlines()
        except OSError:
            return None
        pairs = dict(line.partition("=")[::2] for line in lines)
        return pairs if known.token is not None and pairs.get("token") == known.token else None

    def _by_log(self, job: ManifestJob, job_id: int) -> OwnWord | None:
        """Return that a job has begun, of one that left only a log; where it still ran, it wrote later than that."""
        times = []
        for name in self._logs.get(f"{job.job_name}-{job_id}", ()):
            with contextlib.suppress(OSError):
                times.append(int((self._directory / f"{name}.out").stat().st_mtime))
        return OwnWord(None, max(times) + job.time_limit_s + GRACE_S) if times else None


def _listed(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in entries]
    except OSError:
        return []


def _by_job(names: Iterable[str]) -> Mapping[str, Sequence[str]]:
    """Return ``sweep-12_3`` under ``sweep-12``, and ``train-01-7`` under its own name."""
    found: dict[str, list[str]] = {}
    for name in sorted(names):
        array = _TASK.sub("", name)
        found.setdefault(array, []).append(name)
    return found


def _number(lines: Mapping[str, str] | None, name: str) -> int | None:
    text = (lines or {}).get(name, "")
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 16 else None
