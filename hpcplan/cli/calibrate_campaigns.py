"""The finished campaigns that ``hpcplan calibrate learn`` learns from: their plans, and how long a step really took."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hpcplan.cli.output import narrate

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from hpcplan.campaign.ledger import Ledger
    from hpcplan.plan import Plan
    from hpcplan.render.manifest import Manifest

__all__ = ["FinishedCampaign", "finished_campaigns"]


@dataclass(frozen=True, slots=True)
class FinishedCampaign:
    """A campaign that is done: what tells it from others, its plan, its step time (s), and when it ended (unix)."""

    key: str
    directory: Path
    plan: Plan
    step_s: float
    end: int


def finished_campaigns(words: Sequence[str], site: str, *, pretended: bool) -> Iterator[FinishedCampaign]:
    """Yield the finished campaigns named, or all that were planned for the site; what is left out is told.

    Those of a mock cluster count where ``pretended`` says so: what they teach is the mock cluster's.

    Raises:
        InputError: one that was named is no campaign, or was planned for another site.
    """
    from hpcplan.campaign import find_campaign, read_ledger
    from hpcplan.campaign.layout import current_manifest, current_plan
    from hpcplan.campaign.registry import campaigns
    from hpcplan.errors import HpcplanError, InputError

    listed = [Path(entry.directory) for entry in campaigns() if entry.exists]
    for directory in [find_campaign(word, Path.cwd())[0] for word in words] if words else listed:
        try:
            ledger = read_ledger(directory)
            plan, manifest = current_plan(directory, ledger), current_manifest(directory, ledger)
        except HpcplanError:
            if words:
                raise
            continue
        if plan.provenance.site.name != site:
            if words:
                raise InputError(f"{directory} was planned for site {plan.provenance.site.name!r}, not for {site!r}")
            continue
        found = _measured(directory, ledger, plan, manifest, pretended)
        if isinstance(found, str):
            narrate(f"{directory}: {found}; left out")
        else:
            step_s, end = found
            yield FinishedCampaign(ledger.campaign_id or str(directory), directory, plan, step_s, end)


def _measured(
    directory: Path, ledger: Ledger, plan: Plan, manifest: Manifest, pretended: bool
) -> tuple[float, int] | str:
    """Return how long a step took and when the campaign ended, or why that is not known."""
    from hpcplan.campaign.progress import read_progress

    state = read_progress(manifest, directory, ledger)
    step_s = _logged_step_s(directory, ledger, manifest)
    if state.done is not None and step_s is not None:
        return step_s, int((directory / "state" / "done").stat().st_mtime)
    if ledger.backend == "mock":  # its jobs pretend to run: they write nothing, but take their time
        if pretended:
            return _pretended(directory, plan, manifest)
        return "it ran on a mock cluster, which runs no training (--backend mock takes what it pretended)"
    return "its jobs have not said that they are done" if state.done is None else "its logs have no step times"


def _logged_step_s(directory: Path, ledger: Ledger, manifest: Manifest) -> float | None:
    """Return the median over the logs of all jobs of training."""
    import statistics

    from hpcplan.campaign.layout import log_path
    from hpcplan.campaign.trainer_log import read_progress_of_log

    times = []
    for job in manifest.jobs:
        job_id = ledger.job(job.key).job_id
        if job.stage == "train" and job_id is not None:
            step_s = read_progress_of_log(log_path(directory, job, job_id)).step_time_s
            times += [step_s] if step_s is not None else []
    return statistics.median(times) if times else None


def _pretended(directory: Path, plan: Plan, manifest: Manifest) -> tuple[float, int] | str:
    """Return the step time that the jobs of a mock cluster pretended, by how long they ran.

    A job that runs longer than expected pretends slower steps; its start-up is as long as ever.
    """
    import statistics

    from hpcplan.campaign import read_ledger, status
    from hpcplan.campaign.status import CampaignState
    from hpcplan.cli.backends import open_backend
    from hpcplan.errors import HpcplanError
    from hpcplan.schedule.segments import STARTUP_S

    try:
        stands = status(directory, open_backend("mock"))
    except HpcplanError as error:
        return f"its mock cluster does not say how it ended ({error.message})"
    if stands.state is not CampaignState.DONE:
        return "its jobs have not all ended well"
    ledger, paces, end = read_ledger(directory), [], 0
    for job in manifest.jobs:
        record = ledger.job(job.key).ended
        elapsed_s = None if record is None else record.elapsed_s()
        if job.stage == "train" and record is not None and elapsed_s and job.expected_s > STARTUP_S:
            paces.append(max(1.0, elapsed_s - STARTUP_S) / (job.expected_s - STARTUP_S))
            end = max(end, record.end_time or 0)
    if not paces:
        return "nothing is known of how long its jobs ran"
    return plan.estimate.iter_time_s * statistics.median(paces), end
