"""What was submitted and how it stands: a directory a person can read, whose journal is the truth.

The functions here print nothing and return plain values; the command line only shows them.
"""

from hpcplan.campaign.cancel import Cancelled, cancel
from hpcplan.campaign.ledger import Ledger, read_ledger
from hpcplan.campaign.overview import Overview, overview
from hpcplan.campaign.registry import Registered, campaigns, find_campaign
from hpcplan.campaign.status import CampaignState, CampaignStatus, JobStatus, Progress, status
from hpcplan.campaign.submit import JobStep, preview, sbatch_line, submit
from hpcplan.campaign.watch import watch

__all__ = [
    "CampaignState",
    "CampaignStatus",
    "Cancelled",
    "JobStatus",
    "JobStep",
    "Ledger",
    "Overview",
    "Progress",
    "Registered",
    "campaigns",
    "cancel",
    "find_campaign",
    "overview",
    "preview",
    "read_ledger",
    "sbatch_line",
    "status",
    "submit",
    "watch",
]
