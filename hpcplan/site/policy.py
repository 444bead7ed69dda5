"""How a site is run: partitions, quality of service, the scheduler, the launch environment, prices."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from hpcplan.quantities import Bandwidth, Bytes, Duration, EnergyPrice, PositiveInt
from hpcplan.site.fields import Words
from hpcplan.site.running import BurstBuffer
from hpcplan.validation import Value

__all__ = [
    "Container",
    "Environment",
    "Partition",
    "Prices",
    "Qos",
    "SchedulerPolicy",
    "SlurmSettings",
    "Storage",
]

PreemptMode = Literal["off", "cancel", "requeue", "suspend", "gang", "suspend,gang"]


class Partition(Value):
    """A Slurm partition over node groups."""

    nodes: Words = Field(description="names of node groups")
    default: bool = False
    state: Literal["up", "down", "drain", "inactive"] = Field("up", description="whether it takes and starts jobs")
    max_time_s: Duration | None = Field(None, alias="max_time", description="no limit if absent")
    default_time_s: Duration | None = Field(None, alias="default_time", description="for jobs that name no limit")
    max_nodes: PositiveInt | None = Field(None, description="of one job")
    min_nodes: PositiveInt | None = Field(None, description="of one job")
    qos: Words = Field((), description="those allowed here")
    partition_qos: str | None = Field(None, description="whose limits hold for every job here")
    accounts: Words = Field((), description="those allowed here; all if absent")
    default_memory_per_cpu_bytes: Bytes | None = Field(None, alias="default_memory_per_cpu")
    default_memory_per_node_bytes: Bytes | None = Field(None, alias="default_memory_per_node")
    default_cpus_per_gpu: PositiveInt | None = None
    priority_tier: Annotated[int, Field(ge=0)] = Field(1, description="higher tiers start first and may preempt lower")
    preempt_mode: PreemptMode | None = Field(None, description="what preemption does to jobs here")
    grace_time_s: Annotated[float, Field(ge=0)] | None = Field(
        None, description="seconds that a preempted job has before it is stopped"
    )
    exclusive: bool = Field(True, description="jobs get whole nodes")


class Qos(Value):
    """A quality of service, as far as plans depend on it."""

    priority: Annotated[int, Field(ge=0)] = 0
    max_time_s: Duration | None = Field(None, alias="max_time", description="of one job")
    max_nodes: PositiveInt | None = Field(None, description="of one job")
    max_gpus_per_user: PositiveInt | None = None
    max_jobs_per_user: PositiveInt | None = None
    preempts: Words = Field((), description="whose jobs it may preempt")


class SchedulerPolicy(Value):
    """How the controller decides, in the words of slurm.conf(5)."""

    scheduler: Literal["backfill", "builtin"] = "backfill"
    priority: Literal["multifactor", "basic"] = "multifactor"
    parameters: dict[str, str] = Field(
        default_factory=dict, description="SchedulerParameters by name, as in `{bf_window: 2880}`; '' for flags"
    )
    weights: dict[str, Annotated[int, Field(ge=0)]] = Field(
        default_factory=dict, description="PriorityWeight* by factor, as in `{age: 1000, fairshare: 10000}`"
    )
    preempt_type: Literal["none", "qos", "partition_prio"] = "none"
    preempt_mode: PreemptMode = "off"


class Container(Value):
    """How containers are started: Pyxis (``srun --container-image``) or Apptainer."""

    runtime: Literal["pyxis", "apptainer"]
    image: str
    mounts: Words = ()


class Environment(Value):
    """What a job needs on this site before the trainer starts."""

    modules: Words = Field((), description="for `module load`")
    setup: Words = Field((), description="shell lines, run once a node before the trainer")
    variables: dict[str, str] = Field(default_factory=dict, description="environment, such as NCCL_IB_HCA")
    container: Container | None = None


class SlurmSettings(Value):
    """How this site's Slurm wants to be asked."""

    version: str | None = Field(None, pattern=r"^\d{2}\.\d{2}(\.\d+)?$", description="such as 23.11; unknown if absent")
    cluster: str | None = None
    gpu_request: Literal["gres", "gpus-per-node", "none"] = Field(
        "gres", description="how jobs ask for accelerators: --gres, --gpus-per-node, or not at all"
    )
    account: str | None = Field(None, description="where the workload names none")
    qos: str | None = Field(None, description="where the workload names none")
    mpi: str | None = Field(None, description="what srun --mpi takes here, as in pmix; the site's default if absent")
    topology: bool = Field(False, description="topology/tree or topology/block is on, so --switches means something")


class Prices(Value):
    """What it costs, in one currency."""

    currency: str = "USD"
    energy_per_kwh: EnergyPrice | None = Field(None, alias="energy")
    pue: Annotated[float, Field(ge=1)] = 1.0
    source: str | None = None


class Storage(Value):
    """A file system that the nodes share; bandwidths are what all nodes together get."""

    path: str
    read_bytes_per_s: Bandwidth = Field(alias="read")
    write_bytes_per_s: Bandwidth = Field(alias="write")
    burst_buffer: BurstBuffer | None = None
