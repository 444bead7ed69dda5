"""The placement with the shortest predicted step: the order of the axes, the nodes, and the order of the nodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from hpcplan.cost.shardings import Ints
from hpcplan.errors import InfeasibleError
from hpcplan.partition.placement.choices import fabric_of, random_choices, slurm_choice
from hpcplan.partition.placement.grid import Grid, Order, orders_of
from hpcplan.partition.placement.improve import exhaust, improve, permutations_of
from hpcplan.partition.placement.network import Network
from hpcplan.partition.placement.predict import Predictor, busiest
from hpcplan.partition.placement.torus import snake
from hpcplan.plan import LinkLoad, Neighbourhood, Sharding, Traffic
from hpcplan.rank_map import packings
from hpcplan.site.hierarchy import Hierarchy
from hpcplan.site.topology import Topology

__all__ = ["WORK", "Machinery", "Placed", "best_placement"]

_MOST_TRIED = 50_000  # ordered choices that are tried one by one, over all orders of the axes
WORK = 8_000_000  # flows looked at by the local search: about two seconds
_KEPT = 3  # starting points of the local search
_SAMPLES = 20
_BUSIEST = 8
_REACHED = 1e-6  # relative to the bound
_WORTH = 1e-3  # less than this is no reason to search on, or for another order than the framework's own


@dataclass(frozen=True, slots=True)
class Machinery:
    """What placements are made for: the links, the tree that packing goes by, and what a step sends."""

    network: Network
    topology: Topology
    places: tuple[Neighbourhood, ...]
    traffic: Traffic
    sharding: Sharding
    framework: str
    slurm_topology: bool
    largest_domain: int  # nodes of one accelerator domain, 1 where there are none

    @property
    def hierarchy(self) -> Hierarchy:
        """Of the site: its hosts by number."""
        return self.topology.hierarchy

    def predictor(self, order: Order) -> Predictor:
        """Return the predictor for an order of the axes."""
        return Predictor(self.traffic, Grid.of(self.sharding, order), self.network)


@dataclass(frozen=True, slots=True)
class Placed:
    """The best placement found, and what others come to; times are predicted steps in seconds."""

    order: Order
    hosts: tuple[str, ...]
    step_s: float
    slurm_step_s: float
    random_step_s: float
    bound_step_s: float
    proof: Literal["bound", "exhaustive", "none"]
    links: tuple[LinkLoad, ...]
    orders: dict[Order, float]  # the best step of each order of the axes
    slurm_hosts: tuple[str, ...]

    @property
    def busiest(self) -> tuple[LinkLoad, ...]:
        """The links that are busy longest, equal ones once."""
        return busiest(self.links, _BUSIEST)


def best_placement(
    machinery: Machinery, free: Sequence[str], *, order: Order | None = None, work: int = WORK, seed: int = 0
) -> Placed:
    """Return the placement of the ranks on some of the ``free`` hosts with the shortest predicted step.

    Few ordered choices are all tried. Else, for every order of the axes that the framework can run, choices that keep
    1, 2, 4, ... consecutive nodes under the lowest switches are compared with Slurm's own, and the best of them are
    improved by local search. Slurm's choice with the framework's default order is always among those compared. Another
    order than the default is taken where it shortens the step by more than a thousandth.

    Raises:
        InfeasibleError: fewer hosts are free than the sharding needs.
    """
    count = machinery.sharding.nodes
    if len(free) < count:
        raise InfeasibleError(f"{count} nodes are needed, and {len(free)} are free")
    numbers = np.sort(machinery.hierarchy.numbers(free))
    names = [machinery.hierarchy.names[number] for number in numbers]
    orders = orders_of(machinery.framework, machinery.sharding) if order is None else [order]
    predictors = {order: machinery.predictor(order) for order in orders}
    slurm = slurm_choice(machinery.hierarchy, numbers, count, topology=machinery.slurm_topology)
    nearest = machinery.network.nearest_s(numbers)
    bounds = {order: p.bound_s(machinery.largest_domain, nearest) for order, p in predictors.items()}
    found = _search(machinery, predictors, bounds, numbers, names, slurm, work, seed)
    chosen_order = next(one for one in orders if found.steps[one] <= _least(found.steps) * (1 + _WORTH))
    hosts, step = found.hosts[chosen_order], found.steps[chosen_order]
    first = predictors[orders[0]]
    chosen = predictors[chosen_order]
    drawn = first.quality(random_choices(numbers, count, _SAMPLES, seed)).step_s
    bound = min(bounds.values())
    proof: Literal["bound", "exhaustive", "none"] = "exhaustive" if found.all_tried else "none"
    if step <= bound * (1 + _REACHED):
        proof = "bound"
    return Placed(
        order=chosen_order,
        hosts=tuple(machinery.hierarchy.names[number] for number in hosts),
        step_s=step,
        slurm_step_s=float(first.quality(slurm[None]).step_s[0]),
        random_step_s=float(np.median(drawn)),
        bound_step_s=min(bound, step),
        proof=proof,
        links=tuple(chosen.links(hosts)),
        orders=found.steps,
        slurm_hosts=tuple(machinery.hierarchy.names[number] for number in slurm),
    )


@dataclass(frozen=True, slots=True)
class _Found:
    hosts: dict[Order, Ints]
    steps: dict[Order, float]
    all_tried: bool


def _least(steps: dict[Order, float]) -> float:
    return min(steps.values())


def _search(
    machinery: Machinery, predictors: dict[Order, Predictor], bounds: dict[Order, float], numbers: Ints,
    names: list[str], slurm: Ints, work: int, seed: int,
) -> _Found:  # fmt: skip
    count = machinery.sharding.nodes
    if permutations_of(len(numbers), count, _MOST_TRIED // len(predictors)) is not None:
        tried = {order: exhaust(predictor, numbers, count) for order, predictor in predictors.items()}
        return _Found({o: h for o, (h, _) in tried.items()}, {o: s for o, (_, s) in tried.items()}, all_tried=True)
    starts = _starts(machinery, numbers, names, slurm)
    hosts: dict[Order, Ints] = {}
    steps: dict[Order, float] = {}
    for order, predictor in predictors.items():
        each = np.concatenate([predictor.quality(start[None]).step_s for start in starts])
        at = int(each.argmin())
        hosts[order], steps[order] = starts[at], float(each[at])
    promising = sorted(predictors, key=lambda order: steps[order])[:_KEPT]
    promising = [order for order in promising if bounds[order] < _least(steps) * (1 - _WORTH)]
    for order in promising:
        share = work // len(promising)
        hosts[order], steps[order] = improve(
            predictors[order], hosts[order], numbers, work=share, bound_s=bounds[order] * (1 + _WORTH), seed=seed
        )
    return _Found(hosts, steps, all_tried=False)


def _starts(machinery: Machinery, numbers: Ints, names: list[str], slurm: Ints) -> list[Ints]:
    """Return the choices to compare, each once: Slurm's, then the packed ones."""
    fabric, count = fabric_of(machinery.places, names), machinery.sharding.nodes
    of_slurm = [machinery.hierarchy.names[number] for number in slurm]
    pools = [names] if len(names) == count else [names, of_slurm]
    choices = [machinery.hierarchy.numbers(one) for pool in pools for one in packings(fabric, pool, count).values()]
    choices += _around_toruses(machinery.topology, numbers, count)
    unique = {tuple(choice.tolist()): choice for choice in (slurm, *choices)}
    return list(unique.values())


def _around_toruses(topology: Topology, numbers: Ints, count: int) -> list[Ints]:
    """Return, for each torus, its most compact free nodes in an order that goes from neighbour to neighbour."""
    found: list[Ints] = []
    for grid in topology.grids:
        chosen = grid.choose(count, np.flatnonzero(np.isin(grid.hosts, numbers)))
        if chosen is not None:
            found.append(grid.hosts[snake(grid, chosen)])
    return found
