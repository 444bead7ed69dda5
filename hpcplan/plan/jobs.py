"""What Slurm is asked for: the chain of jobs, what each runs, and the jobs beside it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from hpcplan.frameworks import Framework
from hpcplan.plan.sharding import Amount
from hpcplan.quantities import NonNegative, PositiveInt
from hpcplan.site.model import Environment
from hpcplan.validation import Value

__all__ = [
    "Health",
    "Job",
    "Segment",
    "Stage",
    "Staging",
]


class Segment(Value):
    """One job of the chain: training steps ``first_step`` to ``last_step`` (counted from 1, both included)."""

    index: PositiveInt
    first_step: PositiveInt
    last_step: PositiveInt
    time_limit_s: PositiveInt
    warning_s: Annotated[int, Field(ge=1, le=65535)] = Field(
        description="how long before the time limit the trainer is told to save and stop"
    )
    expected_s: NonNegative


class Health(Value):
    """What every node must show before the trainer starts; what is None is not looked at.

    ``all_reduce_bytes_per_s`` is the bus bandwidth of an all-reduce over two nodes, as NCCL's tests define it (time of
    2(n-1)/n of the buffer); a node fails below ``least_share`` of it, or of ``interface_bytes_per_s``.
    """

    gpus: PositiveInt | None = None
    interfaces: tuple[str, ...] = Field((), description="InfiniBand devices; all that the node has, if empty")
    interface_bytes_per_s: NonNegative | None = Field(None, description="of each, one way")
    all_reduce_bytes_per_s: NonNegative | None = None
    least_share: Annotated[float, Field(gt=0, le=1)] = 0.5
    spare_nodes: Amount = Field(0, description="asked for beyond the plan's, to stand in for nodes that fail")


class Staging(Value):
    """Copying data nearer to the nodes before training; the next segment finds what is already there.

    ``split`` gives each node a share of the files, of about equal bytes; otherwise each gets all. On a ``shared``
    target (a burst buffer) the nodes copy a share each and everyone sees all.
    """

    sources: tuple[str, ...] = Field(min_length=1, description="absolute paths of files or folders")
    target: str = Field(description="absolute path of the fast storage")
    split: bool = False
    shared: bool = False
    directives: tuple[str, ...] = Field((), description="burst buffer lines: #BB, #BB_LUA or #DW")
    streams: PositiveInt = Field(4, description="files that a node copies at a time")


class Stage(Value):
    """A job beside training: preparing data, evaluating, converting, or an array of runs with different settings.

    ``after`` names stages (``train`` is the training) that must have succeeded, ``after_any`` ones that must have
    ended.
    """

    name: str = Field(pattern=r"^[a-z][a-z0-9-]*$", max_length=40)
    kind: Literal["task", "preprocess", "array"] = "task"
    command: tuple[str, ...] = Field(min_length=1)
    after: tuple[str, ...] = ()
    after_any: tuple[str, ...] = ()
    partition: str
    nodes: PositiveInt = 1
    tasks_per_node: PositiveInt = 1
    cpus_per_task: PositiveInt = 1
    gres: str | None = None
    time_limit_s: PositiveInt
    setup: tuple[str, ...] = ()
    variables: dict[str, str] = Field(default_factory=dict)
    points: tuple[dict[str, str], ...] = Field((), description="of an array: the variables of each of its tasks")
    max_parallel: PositiveInt | None = Field(None, description="of an array: how many of its tasks run at a time")


class Job(Value):
    """What each job of the chain asks Slurm for and runs."""

    name: str
    framework: Framework
    cpus_per_node: PositiveInt
    gres: str | None = Field(None, description="what a node is asked for, as in gpu:8 or gpu:h100:8")
    gpu_request: Literal["gres", "gpus-per-node", "none"] = "gres"
    slurm_version: str | None = None
    account: str | None = None
    qos: str | None = None
    environment: Environment = Environment.model_construct()
    command: tuple[str, ...] = Field((), description="the trainer and its own arguments, one word each")
    setup: tuple[str, ...] = ()
    variables: dict[str, str] = Field(default_factory=dict)
    checkpoint_dir: str = "checkpoints"
    data: tuple[str, ...] = ()
    mpi: str | None = Field(None, description="value of srun --mpi; the site's default if absent")
    health: Health | None = None
    staging: Staging | None = None
    sample_every_s: PositiveInt | None = Field(None, description="how often use of GPUs, CPUs and memory is written")
    model_arguments: dict[str, Any] = Field(default_factory=dict, description="the model's shape, for launchers")
