"""How far training is and how fast, by the campaign's own files, next to what the plan promised."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from hpcplan.campaign.layout import current_plan, log_path
from hpcplan.campaign.ledger import Ledger
from hpcplan.campaign.trainer_log import TrainerProgress, read_progress_of_log
from hpcplan.errors import InputError
from hpcplan.plan import Estimate
from hpcplan.render.manifest import Manifest

__all__ = ["Progress", "read_progress"]


@dataclass(frozen=True, slots=True)
class Progress:
    """Training as the campaign's own files tell it.

    ``step`` is the last one that is safe in the checkpoints, ``log_step`` the last one in the newest log. Step times
    are in seconds: as logged, and as the plan expects (``low_s`` to ``high_s`` is its 90 % interval). ``speed`` is the
    expected over the logged step time: 1 is as planned, 0.5 half as fast. ``remaining_s`` is what is left to compute.
    ``done`` and ``failed`` are the lines of the markers that end the chain.
    """

    step: int | None
    total_steps: int
    done: str | None
    failed: str | None
    log_step: int | None = None
    step_time_s: float | None = None
    expected_step_time_s: float | None = None
    low_s: float | None = None
    high_s: float | None = None
    speed: float | None = None
    remaining_s: float | None = None

    @property
    def furthest(self) -> int | None:
        """The last step known to be done, safe or not."""
        known = [step for step in (self.step, self.log_step) if step is not None]
        return max(known, default=None)


def read_progress(manifest: Manifest, directory: Path, ledger: Ledger | None = None) -> Progress:
    """Return how far training is; with a ledger, also what the newest log and the plan say."""
    step = _first_line(directory / manifest.step_file)
    safe = int(step) if step is not None and step.isdecimal() and step.isascii() else None
    done, failed = (_first_line(directory / "state" / name) for name in ("done", "failed"))
    if ledger is None:
        return Progress(safe, manifest.total_steps, done, failed)
    log = _newest_log(manifest, directory, ledger)
    estimate = _estimate(directory, ledger)
    expected = None if estimate is None else estimate.iter_time_s
    step_time_s = log.step_time_s
    here = max((known for known in (safe, log.step) if known is not None), default=0)
    pace = step_time_s or expected
    return Progress(
        step=safe,
        total_steps=manifest.total_steps,
        done=done,
        failed=failed,
        log_step=log.step,
        step_time_s=step_time_s,
        expected_step_time_s=expected,
        low_s=None if estimate is None else estimate.low,
        high_s=None if estimate is None else estimate.high,
        speed=None if not step_time_s or not expected else expected / step_time_s,
        remaining_s=None if pace is None or done else max(0, manifest.total_steps - here) * pace,
    )


def _first_line(path: Path) -> str | None:
    try:
        with path.open(encoding="utf-8", errors="replace") as stream:
            return stream.readline(500).strip()
    except OSError:
        return None


def _newest_log(manifest: Manifest, directory: Path, ledger: Ledger) -> TrainerProgress:
    """Return what the log of the last training job that has one says."""
    try:
        with os.scandir(directory) as entries:  # one question, however many jobs there are
            there = {entry.name for entry in entries}
    except OSError:
        return TrainerProgress()
    for path in _logs(manifest, directory, ledger):
        if path.name in there:
            return read_progress_of_log(path)
    return TrainerProgress()


def _logs(manifest: Manifest, directory: Path, ledger: Ledger) -> Iterable[Path]:
    for job in reversed(manifest.jobs):
        job_id = ledger.job(job.key).job_id
        if job.stage == "train" and job_id is not None:
            yield log_path(directory, job, job_id)


def _estimate(directory: Path, ledger: Ledger) -> Estimate | None:
    try:
        return current_plan(directory, ledger).estimate
    except InputError:
        return None  # somebody took plan.json away; the jobs do not need it
