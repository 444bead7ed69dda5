"""Many campaigns at a glance, with one question to each Slurm."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from hpcplan.campaign.layout import current_manifest
from hpcplan.campaign.ledger import Ledger, read_ledger
from hpcplan.campaign.match import since
from hpcplan.campaign.progress import read_progress
from hpcplan.campaign.registry import Registered
from hpcplan.campaign.status import CampaignState, assess
from hpcplan.errors import HpcplanError
from hpcplan.render.manifest import Manifest
from hpcplan.slurm.backend import Backend
from hpcplan.slurm.records import JobRecord

__all__ = ["Overview", "overview"]


@dataclass(frozen=True, slots=True)
class Overview:
    """One campaign: its state, its jobs where its directory can be read, and what keeps more from being known."""

    entry: Registered
    state: CampaignState
    submitted: int | None = None
    total: int | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True)
class _Readable:
    entry: Registered
    manifest: Manifest
    ledger: Ledger

    @property
    def settled(self) -> bool:
        """Whether the journal knows the end of every job, so that nobody need be asked."""
        return all(self.ledger.job(job.key).ended is not None for job in self.manifest.jobs)


def overview(entries: Iterable[Registered], open_backend: Callable[[str], Backend]) -> list[Overview]:
    """Return how campaigns stand, in their order. What cannot be known is ``unknown``, with a note; nothing is raised.

    Args:
        entries: the campaigns, from :func:`hpcplan.campaign.campaigns`.
        open_backend: returns the backend of a name; asked once a name, and only where a campaign is not settled.
    """
    entries = list(entries)
    results: dict[str, Overview] = {}
    readable: list[_Readable] = []
    for entry in entries:
        try:
            directory = Path(entry.directory)
            ledger = read_ledger(directory)
            readable.append(_Readable(entry, current_manifest(directory, ledger), ledger))
        except HpcplanError as error:
            note = error.message if entry.exists else "its directory is gone"
            results[entry.campaign_id] = Overview(entry, CampaignState.UNKNOWN, note=note)
    answers = {
        name: _ask([one for one in readable if one.entry.backend == name and not one.settled], name, open_backend)
        for name in {one.entry.backend for one in readable}
    }
    results |= {one.entry.campaign_id: _judge(one, *answers[one.entry.backend]) for one in readable}
    return [results[entry.campaign_id] for entry in entries]


def _ask(
    campaigns: list[_Readable], name: str, open_backend: Callable[[str], Backend]
) -> tuple[list[JobRecord], str | None]:
    """Return what Slurm says of all these campaigns' jobs, or why it says nothing."""
    ids = sorted({job_id for one in campaigns for job_id in one.ledger.job_ids})
    if not ids:
        return [], None
    try:
        backend = open_backend(name)
        start = since((one.ledger.opened_at for one in campaigns), backend.now())
        return backend.jobs(ids, since=start), None
    except HpcplanError as error:
        return [], error.message


def _judge(one: _Readable, records: list[JobRecord], failure: str | None) -> Overview:
    jobs = len(one.manifest.jobs)
    submitted = len(one.ledger.job_ids)
    if failure is not None and not one.settled:
        return Overview(one.entry, CampaignState.UNKNOWN, submitted, jobs, failure)
    directory = Path(one.entry.directory)
    result = assess(one.manifest, one.ledger, records, read_progress(one.manifest, directory, one.ledger), directory)
    return Overview(one.entry, result.state, submitted, jobs)
