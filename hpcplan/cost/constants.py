"""The cost model's constants: numbers that no data sheet gives, each with its source (``site_configs/constants``)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from hpcplan.quantities import Fraction, NonNegative
from hpcplan.resources import shipped
from hpcplan.validation import Value, digest, read_model

__all__ = ["Constants", "LoadedConstants", "Number", "Share", "default_constants"]


class Number(Value):
    """A constant and where it comes from."""

    value: NonNegative
    source: str


class Share(Value):
    """A constant between 0 and 1 and where it comes from."""

    value: Fraction
    source: str


class Shares(Value):
    """Constants between 0 and 1 by name, and where they come from."""

    values: dict[str, Fraction] = Field(min_length=1)
    source: str


class Constants(Value):
    """The schema of a constants file; the comments beside each value in the shipped file say what it means."""

    name: str
    description: str
    matmul_efficiency: Shares
    matmul_half_rows: Number
    matmul_half_inner: Number
    attention_efficiency: Share
    memory_efficiency: Share
    kernel_launch_s: Number
    intra_node_efficiency: Share
    inter_node_efficiency: Share
    message_half_bytes: Number
    data_parallel_overlap: Share
    pipeline_overlap: Share
    expert_imbalance: Number
    straggler: Number
    framework_bytes: Number
    activation_fragmentation: Number
    logit_bytes: Number
    interval: Share


@dataclass(frozen=True, slots=True)
class LoadedConstants:
    """Constants and the file they were read from."""

    constants: Constants
    path: Path

    @property
    def sha256(self) -> str:
        """The digest of the content after validation."""
        return digest(self.constants)


def default_constants() -> LoadedConstants:
    """Return the shipped constants."""
    path = shipped("sites") / "constants" / "default.yaml"
    return LoadedConstants(read_model(path, Constants), path)
