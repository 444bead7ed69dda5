"""What a campaign does by itself: ``policy.yaml`` in its directory, which a person may edit at any time.

Without the file, the defaults below hold. The file is read anew each time something is decided.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field

from hpcplan.campaign.causes import Cause
from hpcplan.campaign.ledger import Ledger
from hpcplan.hostlist import compress
from hpcplan.quantities import NonNegative, PositiveInt
from hpcplan.validation import Value, read_model

__all__ = [
    "POLICY_NAME",
    "Budget",
    "Notify",
    "Policy",
    "Retry",
    "Submit",
    "Throttle",
    "nodes_to_exclude",
    "read_policy",
]

POLICY_NAME: Final = "policy.yaml"
Times = Annotated[int, Field(ge=0, le=1000)]
Topic = Literal["done", "failed", "cancelled", "retry", "replanned", "stopped", "node-excluded"]


class Retry(Value):
    """How often a campaign that has ended without being done is gone on with, by why it ended; 0 is never."""

    node_failure: Times = 5
    preemption: Times = 20
    timeout: Times = Field(5, description="as long as training went on since the last time")
    out_of_memory: Times | Literal["next-best"] = Field(
        "next-best", description="next-best takes the plan's next sharding that needs less memory"
    )
    application_error: Times = 0
    unknown: Times = Field(0, description="an end that nobody knows (LOST), or that nothing explains")

    def limit(self, cause: Cause) -> int:
        """Return how often a cause may be met with the same plan."""
        return {
            Cause.NODE_FAILURE: self.node_failure,
            Cause.PREEMPTION: self.preemption,
            Cause.TIMEOUT: self.timeout,
            Cause.OUT_OF_MEMORY: 0 if self.out_of_memory == "next-best" else self.out_of_memory,
            Cause.APPLICATION_ERROR: self.application_error,
            Cause.CANCELLED: 0,
            Cause.UNKNOWN: self.unknown,
        }[cause]


class Budget(Value):
    """What a campaign may use up, over all its jobs and attempts; its jobs are cancelled when it is used up."""

    gpu_hours: NonNegative | None = None
    node_hours: NonNegative | None = None
    cost: NonNegative | None = Field(None, description="in the plan's currency, by what the plan says that it costs")


class Submit(Value):
    """How fast jobs are handed to Slurm."""

    max_queued: PositiveInt | None = Field(None, description="jobs of this campaign in the queue at a time")
    per_minute: PositiveInt | None = Field(None, description="submissions a minute")


class Notify(Value):
    """Whom to tell: a command that gets a JSON document on its standard input, or a URL that it is posted to."""

    command: tuple[str, ...] = ()
    webhook: str | None = Field(None, pattern=r"^https?://\S+$")
    on: tuple[Topic, ...] = ("done", "failed", "stopped", "replanned", "node-excluded")


class Policy(Value):
    """A campaign's policy; every part has defaults."""

    retry: Retry = Retry.model_construct()
    exclude_nodes_after: PositiveInt | None = Field(2, description="failures under this campaign's jobs; null: never")
    budget: Budget = Budget.model_construct()
    submit: Submit = Submit.model_construct()
    notify: Notify = Notify.model_construct()


def read_policy(directory: Path) -> Policy:
    """Return a campaign's policy, the defaults where it has no file.

    Raises:
        InputError: the file is wrong; with file, line and field.
    """
    path = directory / POLICY_NAME
    return read_model(path, Policy) if path.exists() else Policy()


def nodes_to_exclude(ledger: Ledger, policy: Policy) -> str | None:
    """Return the nodes that have failed too often under this campaign, as a list for Slurm; ``None`` for none."""
    limit = policy.exclude_nodes_after
    if limit is None:
        return None
    bad = sorted(node for node, times in ledger.node_failures.items() if times >= limit)
    return compress(bad) if bad else None


class Throttle:
    """Spaces submissions by the policy; ``sleep`` is called between two of them."""

    def __init__(
        self, policy: Submit, sleep: Callable[[float], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.max_queued = policy.max_queued
        self._interval_s = 60.0 / policy.per_minute if policy.per_minute else 0.0
        self._sleep, self._clock = sleep, clock
        self._next: float | None = None

    def wait(self) -> None:
        """Return when the next submission may be made."""
        now = self._clock()
        if self._next is not None and now < self._next:
            self._sleep(self._next - now)
            now = self._next
        self._next = now + self._interval_s
