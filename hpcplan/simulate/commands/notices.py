"""What slurmstepd writes into the error file of a job that is stopped."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hpcplan.simulate.store import Session
from hpcplan.slurm.records import JobState

if TYPE_CHECKING:
    from hpcplan.simulate.commands.runner import Run

__all__ = ["WHY", "append", "tell_steps", "time_of", "why_stopped"]

WHY: Final = {
    JobState.TIMEOUT: " DUE TO TIME LIMIT",
    JobState.REQUEUED: " DUE TO JOB REQUEUE",
    JobState.PREEMPTED: " DUE TO PREEMPTION",
    JobState.NODE_FAIL: " DUE TO NODE FAILURE, SEE SLURMCTLD LOG FOR DETAILS",
}


def why_stopped(session: Session, job_id: int) -> str:
    """Return slurmstepd's words for why an attempt was stopped, as accounting has it."""
    fresh = (record for record in reversed(session.engine.ended) if record.job_id == job_id)
    last = next(fresh, None) or next(iter(session.accounting.latest_first(job_ids={job_id})), None)
    return "" if last is None else WHY.get(last.state, "")


def tell_steps(run: Run, session: Session) -> None:
    """Write what slurmstepd writes as the steps of a job are told to end."""
    for step in run.steps if run.stderr is not None else ():
        if step.end is None and step.name != "batch":
            said = f"*** STEP {run.job_id}.{step.name} ON {run.node} CANCELLED AT {time_of(session)} ***"
            append(run.stderr or "", f"slurmstepd: error: {said}\n")


def time_of(session: Session) -> str:
    """Return the present time as Slurm writes it."""
    return datetime.fromtimestamp(session.engine.now).strftime("%Y-%m-%dT%H:%M:%S")


def append(path: str, text: str) -> None:
    """Add to a file, if that can be done."""
    try:
        with Path(path).open("a", encoding="utf-8") as stream:
            stream.write(text)
    except OSError:
        return
