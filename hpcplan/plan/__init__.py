"""The Plan: what was chosen, what it promises, how it is cut into jobs, and everything rendering needs to know.

A plan is plain data. It crosses from the planner to the renderer as ``plan.json`` and carries no reference back to the
site or the workload file, only their digests. The same inputs give the same bytes; how long the search took is
therefore shown, never stored.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from pydantic import Field

from hpcplan.plan.jobs import Health, Job, Segment, Stage, Staging
from hpcplan.plan.placement import (
    Exchange,
    ExchangeAxis,
    LinkLoad,
    Neighbourhood,
    Placement,
    PlacementEstimate,
    Pool,
    Traffic,
    TrafficTerm,
)
from hpcplan.plan.sharding import (
    Alternative,
    Breakdown,
    Estimate,
    MemoryBreakdown,
    Precision,
    Recompute,
    Search,
    Sharding,
    TimeBreakdown,
)
from hpcplan.quantities import NonNegative, PositiveInt
from hpcplan.validation import Value, read_model

__all__ = [
    "Alternative",
    "Breakdown",
    "DataShards",
    "Estimate",
    "Exchange",
    "ExchangeAxis",
    "Health",
    "Job",
    "LinkLoad",
    "MemoryBreakdown",
    "Neighbourhood",
    "Placement",
    "PlacementEstimate",
    "Plan",
    "Pool",
    "Precision",
    "Provenance",
    "Recompute",
    "Search",
    "Segment",
    "Sharding",
    "Source",
    "Stage",
    "Staging",
    "TimeBreakdown",
    "Traffic",
    "TrafficTerm",
    "Training",
    "read_plan",
]


class Training(Value):
    """The run as a whole."""

    model: str
    parameters: PositiveInt
    sequence_length: PositiveInt
    global_batch: PositiveInt
    steps: PositiveInt
    tokens: PositiveInt
    checkpoint_interval_steps: PositiveInt
    time_to_train_s: NonNegative
    cost: NonNegative | None = None
    currency: str | None = None
    energy_kwh: NonNegative | None = None


class DataShards(Value):
    """The manifest that says which rank reads what: its file, the SHA-256 of its content, and its sums."""

    manifest: str = Field(description="path of the manifest, as the jobs see it")
    sha256: str
    files: PositiveInt
    lanes: PositiveInt = Field(description="streams that the files are divided over; dp divides them")
    tokens: PositiveInt = Field(description="of one pass over all files")
    imbalance: NonNegative = Field(description="the longest lane over the mean, less 1")


class Source(Value):
    """An input: its name, where it was read, and the SHA-256 of its content after validation."""

    name: str
    path: str
    sha256: str


class Provenance(Value):
    """What made this plan; enough to make it again."""

    hpcplan: str
    site: Source
    workload: Source
    constants: Source
    command: str


class Plan(Value):
    """The chosen sharding with everything that follows from it."""

    schema_version: Literal[1] = 1
    name: str
    plan: Sharding
    estimate: Estimate
    alternatives: tuple[Alternative, ...] = ()
    search: Search
    training: Training
    placement: Placement
    data_shards: DataShards | None = None
    segments: tuple[Segment, ...] = Field(min_length=1)
    stages: tuple[Stage, ...] = Field((), description="jobs beside training")
    after: tuple[str, ...] = Field((), description="stages that must have succeeded before training starts")
    after_any: tuple[str, ...] = Field((), description="stages that must have ended before training starts")
    job: Job
    provenance: Provenance

    def text(self) -> str:
        """Return the text of ``plan.json``: ASCII, so that it reads back the same whatever a name holds."""
        return json.dumps(self.model_dump(mode="json"), indent=2) + "\n"


def read_plan(path: Path) -> Plan:
    """Read ``plan.json``.

    Raises:
        InputError: not a plan; with file, line and field.
    """
    return read_model(path, Plan)
