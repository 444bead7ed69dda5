"""What a campaign has used up so far, over all its jobs, attempts and plans."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hpcplan.campaign.layout import current_plan
from hpcplan.campaign.ledger import Ledger, read_ledger
from hpcplan.campaign.policy import Budget
from hpcplan.campaign.status import CampaignStatus
from hpcplan.errors import InputError
from hpcplan.plan import Plan

__all__ = ["Usage", "usage"]

_HOUR_S = 3600.0


@dataclass(frozen=True, slots=True)
class Usage:
    """Node-hours, GPU-hours, and their cost in the plan's currency; ``None`` where the plan does not say."""

    node_hours: float
    gpu_hours: float
    cost: float | None = None

    def exceeds(self, budget: Budget) -> str | None:
        """Return in words which cap is used up, ``None`` if none is."""
        caps = (
            ("GPU-hours", self.gpu_hours, budget.gpu_hours),
            ("node-hours", self.node_hours, budget.node_hours),
            ("cost", self.cost, budget.cost),
        )
        for what, used, cap in caps:
            if cap is not None and used is not None and used >= cap:
                return f"the budget is used up: {used:,.1f} of {cap:,.1f} {what}"
        return None


def usage(directory: Path, result: CampaignStatus) -> Usage:
    """Return what the campaign has used up by its journal, and by what runs now."""
    ledger = read_ledger(directory)
    plan = _plan(directory, ledger)
    gpus_per_node = plan.plan.gpus_per_node if plan is not None else 0
    node_s = gpu_s = 0.0
    for record in ledger.all_ended:
        elapsed = record.elapsed_s() or 0
        nodes = record.nodes or 0
        node_s += elapsed * nodes
        gpu_s += elapsed * (record.gpus if record.gpus is not None else nodes * gpus_per_node)
    for job in result.jobs:
        if ledger.job(job.key).ended is None and job.elapsed_s:
            node_s += job.elapsed_s * (job.nodes or 0)
            gpu_s += job.elapsed_s * (job.nodes or 0) * gpus_per_node
    return Usage(node_s / _HOUR_S, gpu_s / _HOUR_S, _cost(plan, gpu_s))


def _plan(directory: Path, ledger: Ledger) -> Plan | None:
    try:
        return current_plan(directory, ledger)
    except InputError:
        return None


def _cost(plan: Plan | None, gpu_s: float) -> float | None:
    """Return the share of the plan's cost that corresponds to these GPU-seconds."""
    if plan is None or plan.training.cost is None:
        return None
    planned = plan.training.time_to_train_s * plan.plan.gpus
    return plan.training.cost * gpu_s / planned if planned else None
