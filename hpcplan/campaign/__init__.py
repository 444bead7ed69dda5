"""What was submitted and how it stands: a directory a person can read, whose journal is the truth.

The functions here print nothing and return plain values; the command line only shows them.
"""

from hpcplan.campaign.advance import Turn, advance
from hpcplan.campaign.cancel import Cancelled, cancel
from hpcplan.campaign.causes import Cause
from hpcplan.campaign.ledger import Ledger, read_ledger
from hpcplan.campaign.overview import Overview, overview
from hpcplan.campaign.policy import Policy, read_policy
from hpcplan.campaign.progress import Progress
from hpcplan.campaign.registry import Registered, campaigns, find_campaign
from hpcplan.campaign.replan import adopt, from_step, next_best, step_to_go_on_from
from hpcplan.campaign.retry import retry
from hpcplan.campaign.status import CampaignState, CampaignStatus, JobStatus, status
from hpcplan.campaign.submit import JobStep, preview, sbatch_line, submit
from hpcplan.campaign.track import Round, Tracker
from hpcplan.campaign.watch import polite_interval_s, watch

__all__ = [
    "CampaignState",
    "CampaignStatus",
    "Cancelled",
    "Cause",
    "JobStatus",
    "JobStep",
    "Ledger",
    "Overview",
    "Policy",
    "Progress",
    "Registered",
    "Round",
    "Tracker",
    "Turn",
    "adopt",
    "advance",
    "campaigns",
    "cancel",
    "find_campaign",
    "from_step",
    "next_best",
    "overview",
    "polite_interval_s",
    "preview",
    "read_ledger",
    "read_policy",
    "retry",
    "sbatch_line",
    "status",
    "step_to_go_on_from",
    "submit",
    "watch",
]
