"""The figures of a tracker for Prometheus: campaigns by state, jobs by state, progress, use, and how Slurm answers."""

from __future__ import annotations

from collections import Counter as Tally

from prometheus_client import CollectorRegistry, Counter, Gauge

from hpcplan.campaign.status import CampaignState
from hpcplan.campaign.track import Round

__all__ = ["Metrics"]

_CAMPAIGN = ("campaign", "campaign_id")


class Metrics:
    """What ``/metrics`` shows; :meth:`observe` is called after each round."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._state = self._gauge("campaign_state", "1 for the state that a campaign is in.", (*_CAMPAIGN, "state"))
        self._jobs = self._gauge("campaign_jobs", "Jobs of a campaign by state.", (*_CAMPAIGN, "state"))
        self._step = self._gauge("campaign_step", "Last step of training that is known to be done.", _CAMPAIGN)
        self._steps = self._gauge("campaign_steps", "Steps of training in all.", _CAMPAIGN)
        self._speed = self._gauge("campaign_speed", "Expected over logged step time; 1 is as planned.", _CAMPAIGN)
        self._remaining = self._gauge("campaign_remaining_seconds", "What is left to compute.", _CAMPAIGN)
        self._gpu_hours = self._gauge("campaign_gpu_hours", "GPU-hours used up.", _CAMPAIGN)
        self._up = self._gauge("slurm_up", "Whether Slurm answered in the last round.", ("backend",))
        self._problems = self._gauge("campaigns_with_problems", "Campaigns that nothing could be done for.", ())
        self._seconds = self._gauge("round_seconds", "How long the last round took.", ())
        self._rounds = Counter("hpcplan_rounds", "Rounds taken.", registry=self.registry)
        self._acts = Counter("hpcplan_acts", "Acts, such as submissions and retries.", registry=self.registry)

    def _gauge(self, name: str, text: str, labels: tuple[str, ...]) -> Gauge:
        return Gauge(f"hpcplan_{name}", text, labels, registry=self.registry)

    def observe(self, found: Round) -> None:
        """Show this round, and forget the one before."""
        for gauge in (self._state, self._jobs, self._step, self._steps, self._speed, self._remaining, self._gpu_hours):
            gauge.clear()
        for turn in found.turns.values():
            status, progress = turn.status, turn.status.progress
            who = (status.campaign, status.campaign_id or "")
            for state in CampaignState:
                self._state.labels(*who, state.value).set(state is status.state)
            for word, count in Tally(job.state for job in status.jobs).items():
                self._jobs.labels(*who, word).set(count)
            self._steps.labels(*who).set(progress.total_steps)
            self._gpu_hours.labels(*who).set(turn.usage.gpu_hours)
            known = ((self._step, progress.furthest), (self._speed, progress.speed),
                     (self._remaining, progress.remaining_s))  # fmt: skip
            for gauge, value in known:
                if value is not None:
                    gauge.labels(*who).set(value)
            self._acts.inc(len(turn.acts))
        for backend, answered in found.answers.items():
            self._up.labels(backend).set(answered)
        self._problems.set(len(found.problems))
        self._seconds.set(found.seconds)
        self._rounds.inc()
