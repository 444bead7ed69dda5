"""What is known of a job, and from whom: Slurm now, the journal, or the job's own word where Slurm has forgotten.

Slurm's word stands as long as it has one. A controller that was killed forgets what it had not saved: that it has a
job, that one was started, or that one has ended. Then the job's own word counts, and whoever is told hears whose it is.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

from hpcplan.campaign.match import Wanted, is_ours
from hpcplan.campaign.own_word import OwnWord, OwnWords
from hpcplan.campaign.reasons import explain_reason, explain_state
from hpcplan.slurm.records import JobRecord, JobState

__all__ = ["Known", "Source", "known_of"]

Source = Literal["slurm", "job", "limit"]
"""Who told of a job: Slurm, its own script, or its time limit, after which it can only be over."""

_CONTRADICTS_S: Final = 60  # Slurm kills what runs into its limit, and hears of an end, within less
_UNNOTICED_S: Final = 300


class Known(NamedTuple):
    """A job's record and who told it. ``slurm`` is what Slurm says where the job's own word contradicts it; ``over_by``
    is by when a job has ended of which nobody knows more than that it began.
    """

    record: JobRecord | None = None
    by: Source = "slurm"
    slurm: JobState | None = None
    began: int | None = None
    over_by: int | None = None
    ended_unnoticed: int | None = None

    @property
    def lost(self) -> bool:
        """Whether it is over and nobody knows how it ended."""
        return self.by == "limit"

    def reason(self) -> str | None:
        """Return in plain words why it stands as it does, and whose word that is where it is not Slurm's."""
        if self.lost:
            return "it began, left no word of its end, and its time limit has passed: how it ended is lost"
        record = self.record
        if record is None:
            if self.over_by is not None:
                return "Slurm no longer knows this job; it began and may still run, until its time limit has passed"
            return "Slurm no longer knows this job"
        words = _reason(record)
        if self.by == "job":
            slurm = "Slurm has forgotten it" if self.slurm is None else f"Slurm, which forgot that, says {self.slurm}"
            return f"{words + ', ' if words else ''}by its own word; {slurm}"
        if self.ended_unnoticed is not None:
            return f"by its own word it has ended with exit code {self.ended_unnoticed}; Slurm has not noticed"
        return words


def _reason(record: JobRecord) -> str | None:
    if record.state.waiting:
        return explain_reason(record.reason) or explain_state(record.state)
    words = explain_state(record.state)
    if record.state is JobState.FAILED and record.exit_code:
        return f"{words} (exit code {record.exit_code})"
    return words


def known_of(wanted: Wanted, live: JobRecord | None, words: OwnWords, *, asked: bool, now: int | None) -> Known:
    """Return what is known of a job.

    Args:
        wanted: the job.
        live: what Slurm says of its id, if anything; it may be another job's.
        words: where jobs have left their own.
        asked: whether Slurm has answered at all; if not, nothing is said to be forgotten.
        now: the cluster's clock.
    """
    ledger = wanted.ledger
    if ledger.job_id is None:
        return Known()
    if live is not None and is_ours(live, wanted):
        return _against(live, wanted, words, now)
    if ledger.ended is not None:
        return _remembered(wanted, words, now)
    own = words.of(wanted.job, ledger)
    if own is None:
        return Known()
    if own.record is not None:
        return Known(own.record, by="job")
    if asked and now is not None and now > own.over_by:
        return Known(_lost(wanted, own), by="limit")
    return Known(began=own.began, over_by=own.over_by)


def _remembered(wanted: Wanted, words: OwnWords, now: int | None) -> Known:
    ledger = wanted.ledger
    assert ledger.ended is not None
    if ledger.ended_by == "slurm":
        return _against(ledger.ended, wanted, words, now)
    own = words.ended(wanted.job, ledger) if ledger.ended_by == "limit" else None
    if own is not None:
        return Known(own.record, by="job")
    slurm = JobState.parse(ledger.slurm_said) if ledger.slurm_said else None
    return Known(ledger.ended, by=ledger.ended_by, slurm=slurm)


def _against(slurm: JobRecord, wanted: Wanted, words: OwnWords, now: int | None) -> Known:
    """Return Slurm's word, unless the job's own shows that Slurm forgot that it had ended."""
    if slurm.state is JobState.COMPLETED or slurm.state.waiting:
        return Known(slurm)
    own = words.ended(wanted.job, wanted.ledger)
    if own is None or own.record is None or own.ended_at is None:
        return Known(slurm)
    if own.restarts < slurm.restarts and own.record.state is not JobState.COMPLETED:
        return Known(slurm)  # what completed runs no second time, however often it is started
    if not slurm.state.final:
        unnoticed = slurm.state.active and now is not None and now > own.ended_at + _UNNOTICED_S
        return Known(slurm, ended_unnoticed=own.record.exit_code if unnoticed else None)
    late = slurm.end_time is not None and slurm.end_time > own.ended_at + _CONTRADICTS_S
    return Known(own.record, by="job", slurm=slurm.state) if late else Known(slurm)


def _lost(wanted: Wanted, own: OwnWord) -> JobRecord:
    return JobRecord(
        job_id=wanted.ledger.job_id or 0, state=JobState.UNKNOWN, name=wanted.job.job_name, cluster=wanted.cluster,
        comment=wanted.ledger.token, start_time=own.began, time_limit_s=wanted.job.time_limit_s, nodes=wanted.job.nodes,
        restarts=own.restarts,
    )  # fmt: skip
