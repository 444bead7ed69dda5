"""Where ranks go: the partition and its nodes, what they send each other, and how a placement was judged."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from hpcplan.quantities import NonNegative, PositiveInt
from hpcplan.validation import Value

__all__ = [
    "Exchange",
    "ExchangeAxis",
    "LinkLoad",
    "Neighbourhood",
    "Placement",
    "PlacementEstimate",
    "Pool",
    "Traffic",
    "TrafficTerm",
]


class Pool(Value):
    """The nodes of one kind in a job over unequal ones; each is a component of a heterogeneous job."""

    node_group: str
    partition: str
    nodes: PositiveInt
    gpus_per_node: PositiveInt
    cpus_per_node: PositiveInt
    gres: str | None = None
    micro_batch: PositiveInt | None = Field(None, description="sequences, where the pools' differ")
    layers: PositiveInt | None = Field(None, description="of the model, where the pools share them")
    data_share: NonNegative | None = Field(None, description="of the training data that passes through here, 0 to 1")


ExchangeAxis = Literal["tp", "cp", "ep", "dp", "edp", "rdp", "redp", "pp"]


class Exchange(Value):
    """Messages of one kind, a step: in groups of ranks along an axis, by a pattern.

    ``dp`` are the ranks that ZeRO divides over, ``rdp`` those of different groups that hold the same; ``edp`` and
    ``redp`` are the same for experts.

    Each rank passes ``sent_bytes`` to its successor in a ring; to all others in equal parts, of which it keeps its own
    (all-to-all); or to the next stage and as much back (chain; in a loop the first stage follows the last). ``rounds``
    counts the messages whose latency is waited for.
    """

    axis: ExchangeAxis
    pattern: Literal["ring", "all-to-all", "chain", "loop"]
    sent_bytes: NonNegative
    rounds: NonNegative


class TrafficTerm(Value):
    """Exchanges behind one term of the step time, and how much of their time is waited for.

    ``scale`` x the time that they keep links busy is their whole time; of that the share ``exposed`` is waited for,
    and of the rest what exceeds ``hidden_s``; ``weight`` counts the pipeline bubble's share of it.
    """

    name: str
    weight: NonNegative = 1.0
    exposed: NonNegative
    hidden_s: NonNegative
    scale: NonNegative
    exchanges: tuple[Exchange, ...]


class Traffic(Value):
    """What a step sends, for the prediction of a placement: the step is ``fixed_s`` and what is waited for."""

    fixed_s: float
    node_bytes_per_s: NonNegative = Field(description="of one node's network interfaces, one way")
    node_latency_s: NonNegative
    network_efficiency: NonNegative
    link_bytes_per_s: NonNegative = Field(description="of one accelerator inside a domain, one way, as reached")
    link_latency_s: NonNegative
    terms: tuple[TrafficTerm, ...] = ()


class Neighbourhood(Value):
    """A switch, or an NVLink domain (``domain``), over nodes or over others that name it as their parent."""

    name: str
    parent: str | None = None
    nodes: str | None = Field(None, description="a hostlist")
    uplink_bytes_per_s: NonNegative | None = Field(None, description="no limit if absent")
    latency_s: NonNegative = 0.0
    domain: bool = False


class LinkLoad(Value):
    """One direction of a link: what it carries a step, how long that keeps it busy, and which term sends most of it.

    ``alike`` counts the links that carry as much of the same, this one among them.
    """

    source: str
    target: str
    bytes: NonNegative
    busy_s: NonNegative
    mostly: str
    alike: PositiveInt = 1


class PlacementEstimate(Value):
    """The predicted step of a placement, beside others, in seconds; see the explanation of placement.

    ``ideal_step_s`` has the whole machine empty to choose from; ``slurm_step_s`` is Slurm's choice of the same free
    nodes in its own order, ``reordered_step_s`` that choice in the best order; ``random_step_s`` the median of some
    random ones; ``bound_step_s`` what no order of nodes can beat.
    """

    step_s: NonNegative
    ideal_step_s: NonNegative
    slurm_step_s: NonNegative
    reordered_step_s: NonNegative
    random_step_s: NonNegative
    bound_step_s: NonNegative
    proof: Literal["bound", "exhaustive", "none"] = Field(
        "none", description="why no order of nodes is better: it reaches the bound, or all were tried"
    )
    busiest: tuple[LinkLoad, ...] = ()


class Placement(Value):
    """Where ranks go: the partition, and the order of the axes from the fastest-varying rank upwards.

    ``node_order`` lists hosts where the plan was made for given nodes; ``switches`` asks Slurm for at most that many
    leaf switches, ``segment`` for pieces of that many nodes inside one block each, ``exclude`` for none of these nodes.
    With ``distribution`` ``arbitrary`` the job puts its nodes in order itself, by ``traffic`` and ``fabric``, once it
    knows which ones it was given.
    """

    partition: str
    node_group: str
    order: tuple[Literal["tp", "cp", "ep", "dp", "pp"], ...] = ("tp", "cp", "dp", "pp")
    switches: PositiveInt | None = None
    segment: PositiveInt | None = None
    exclude: str | None = Field(None, description="a hostlist")
    node_order: tuple[str, ...] = ()
    pools: tuple[Pool, ...] = Field((), description="the parts of a job over unequal nodes, in the order of ranks")
    distribution: Literal["block", "arbitrary"] = "block"
    traffic: Traffic | None = None
    fabric: tuple[Neighbourhood, ...] = ()
    prediction: PlacementEstimate | None = None
