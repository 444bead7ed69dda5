"""What hpcplan knows of its own jobs beside accounting: their plans, and what they sampled."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hpcplan.report.site_facts import Sampled

__all__ = ["OwnJobs", "own_jobs"]


@dataclass(slots=True)
class OwnJobs:
    """What hpcplan knows of its own jobs beside accounting: see report.model.SiteFacts."""

    predicted_s: dict[str, float] = field(default_factory=dict)
    samples: dict[tuple[str, int], Sampled] = field(default_factory=dict)


def own_jobs() -> OwnJobs:
    """Return what the plans of the campaigns on this account's list expect of their jobs, and what these sampled."""
    from hpcplan.resources import data_dir

    found = OwnJobs()
    if not any((data_dir() / "campaigns").glob("*.json")):
        return found  # nothing to read: saves the time that the campaigns' code takes to load
    from hpcplan.campaign.ledger import job_token
    from hpcplan.campaign.registry import campaigns
    from hpcplan.campaign.samples import read_samples
    from hpcplan.errors import HpcplanError
    from hpcplan.plan import read_plan
    from hpcplan.render.manifest import PLAN_NAME
    from hpcplan.report.site_facts import Sampled

    for entry in campaigns():
        directory = Path(entry.directory)
        for job_id, one in read_samples(directory).items():
            found.samples[entry.campaign_id, job_id] = Sampled(
                one.first, one.last, one.nodes, one.gpus, one.gpu_used, one.gpu_power_w
            )
        try:
            plan = read_plan(directory / PLAN_NAME)
        except HpcplanError:
            continue  # its directory has gone, or is another release's
        for segment in plan.segments:
            found.predicted_s[job_token(entry.campaign_id, "train", segment.index)] = segment.expected_s
    return found
