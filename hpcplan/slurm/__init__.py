"""One face to Slurm: the :class:`Backend` protocol, its records, and the real implementations.

The implementations are imported where they are used (``hpcplan.slurm.command``, ``hpcplan.slurm.pyslurm``); this
module stays light.
"""

from hpcplan.slurm.backend import Backend
from hpcplan.slurm.records import (
    ClusterInfo,
    JobRecord,
    JobState,
    NodeRecord,
    PartitionRecord,
    StartEstimate,
    Submission,
)

__all__ = [
    "Backend",
    "ClusterInfo",
    "JobRecord",
    "JobState",
    "NodeRecord",
    "PartitionRecord",
    "StartEstimate",
    "Submission",
]
