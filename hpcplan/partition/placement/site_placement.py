"""From a site and a sharding to the placement that a plan carries."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hpcplan.cost.coefficients import Coefficients
from hpcplan.cost.machine import Machine
from hpcplan.cost.recipe import recipe_of
from hpcplan.errors import InputError, Problem, nearest
from hpcplan.partition.placement.ask import Way, ask_slurm, under_same_leaves
from hpcplan.partition.placement.choices import neighbourhoods, slurm_choice
from hpcplan.partition.placement.grid import with_experts
from hpcplan.partition.placement.network import TreeNetwork
from hpcplan.partition.placement.place import WORK, Machinery, Placed, best_placement
from hpcplan.partition.placement.torus import TorusNetwork
from hpcplan.partition.placement.traffic import traffic_of
from hpcplan.plan import Estimate, Placement, PlacementEstimate, Plan, Sharding, Traffic
from hpcplan.site.model import Site
from hpcplan.site.topology import Topology
from hpcplan.workload.model import Workload

__all__ = ["machinery_of", "place_on_site", "placement_of", "plan_machinery"]

_AS_NEAR = 1.01  # a step longer by less than this is as good
_PLANNING_WORK = 2_000_000  # a third of a second: a plan is for a machine whose nodes are yet to be given


def machinery_of(
    site: Site, topology: Topology, group: str, sharding: Sharding, framework: str, traffic: Traffic
) -> Machinery:
    """Return what placements on a node group of a site are made from."""
    hierarchy, hosts = topology.hierarchy, topology.nodes(group)
    efficiency = traffic.network_efficiency
    tree = TreeNetwork(
        hierarchy,
        efficiency=efficiency,
        domain_bytes_per_s=traffic.link_bytes_per_s * sharding.gpus_per_node,
        domain_latency_s=traffic.link_latency_s,
    )
    own = hierarchy.domain[hierarchy.numbers(hosts)]
    _, sizes = np.unique(own[own >= 0], return_counts=True)
    return Machinery(
        network=TorusNetwork(tree, hierarchy, topology.grids, efficiency) if topology.grids else tree,
        topology=topology,
        places=neighbourhoods(topology, hosts),
        traffic=traffic,
        sharding=sharding,
        framework=framework,
        slurm_topology=site.slurm.topology,
        largest_domain=int(sizes.max(initial=1)),
    )


def place_on_site(
    site: Site,
    topology: Topology,
    partition: str,
    group: str,
    machinery: Machinery,
    *,
    free: Sequence[str] | None = None,
    unusable: Sequence[str] = (),
    way: Way = "auto",
    work: int = WORK,
) -> tuple[Placement, Placed]:
    """Return the placement of a sharding on a node group, as a plan carries it, and all that was found.

    Args:
        site: the site.
        topology: its graph.
        partition: of the job.
        group: of the nodes.
        machinery: from :func:`machinery_of`.
        free: nodes to choose from; all of the group if not given.
        unusable: nodes to leave out of those: busy, or drained beside those that the site file calls so.
        way: how to ask Slurm; see :func:`hpcplan.partition.placement.ask.ask_slurm`.
        work: how many flows the local search may look at.

    Raises:
        InputError: nodes that the group does not have.
        InfeasibleError: fewer nodes are left than the sharding needs.
    """
    hosts = topology.nodes(group)
    usable = _usable(topology, group, hosts, free, unusable)
    placed = best_placement(machinery, usable, work=work)
    whole = _usable(topology, group, hosts, None, ())
    ideal_s = placed.step_s if usable == whole else best_placement(machinery, whole, work=work).step_s
    own = set(placed.slurm_hosts) == set(placed.hosts)
    reordered_s = (
        placed.step_s if own else best_placement(machinery, placed.slurm_hosts, order=placed.order, work=work).step_s
    )
    allowed = _left_to_slurm(machinery, placed, usable, work) if way == "exclude" else placed.hosts
    ask = ask_slurm(site, topology.hierarchy, allowed, hosts, way)
    placement = Placement(
        partition=partition,
        node_group=group,
        order=with_experts(placed.order, machinery.sharding),
        switches=ask.switches,
        segment=ask.segment,
        exclude=ask.exclude,
        node_order=ask.node_order,
        distribution="arbitrary" if machinery.sharding.nodes > 1 and machinery.traffic.terms else "block",
        traffic=machinery.traffic,
        fabric=machinery.places,
        prediction=PlacementEstimate(
            step_s=round(placed.step_s, 6),
            ideal_step_s=round(min(ideal_s, placed.step_s), 6),
            slurm_step_s=round(placed.slurm_step_s, 6),
            reordered_step_s=round(max(reordered_s, placed.step_s), 6),
            random_step_s=round(placed.random_step_s, 6),
            bound_step_s=round(placed.bound_step_s, 6),
            proof=placed.proof,
            busiest=placed.busiest,
        ),
    )
    return placement, placed


def _usable(
    topology: Topology, group: str, hosts: Sequence[str], free: Sequence[str] | None, unusable: Sequence[str]
) -> list[str]:
    """Return the hosts to choose from, in the site's order."""
    known = set(hosts)
    for name in (*(free or ()), *unusable):
        if name not in known:
            raise InputError(f"node group {group!r} has no node {name!r}" + nearest(name, known))
    wanted = known if free is None else set(free)
    out = {*unusable, *topology.drained}
    return [host for host in hosts if host in wanted and host not in out]


def _left_to_slurm(machinery: Machinery, placed: Placed, free: Sequence[str], work: int) -> Sequence[str]:
    """Return the nodes that Slurm may choose from: all free ones near the placement, if any choice of them will do."""
    hierarchy = machinery.hierarchy
    near = under_same_leaves(hierarchy, placed.hosts, free)
    numbers = np.sort(hierarchy.numbers(near))
    chosen = slurm_choice(hierarchy, numbers, len(placed.hosts), topology=machinery.slurm_topology)
    names = [hierarchy.names[number] for number in chosen]
    step_s = best_placement(machinery, names, order=placed.order, work=work).step_s
    return near if step_s <= placed.step_s * _AS_NEAR else placed.hosts


def placement_of(
    workload: Workload, site: Site, topology: Topology, partition: str, group: str, sharding: Sharding,
    estimate: Estimate, machine: Machine, coefficients: Coefficients,
) -> Placement:  # fmt: skip
    """Return the placement of a sharding on the empty machine.

    Raises:
        InfeasibleError: fewer nodes than the sharding needs take jobs.
    """
    first = int(topology.hierarchy.numbers(topology.nodes(group)[:1])[0])
    traffic = traffic_of(
        workload.model, workload.training.sequence_length, sharding, estimate, machine, coefficients,
        recipe_of(workload.training),
        node_bytes_per_s=float(topology.hierarchy.up_bytes_per_s[first]),
        node_latency_s=site.node_groups[group].nics.latency_s,
    )  # fmt: skip
    machinery = machinery_of(site, topology, group, sharding, workload.request.framework, traffic)
    return place_on_site(site, topology, partition, group, machinery, work=_PLANNING_WORK)[0]


def plan_machinery(plan: Plan, site: Site, topology: Topology) -> Machinery:
    """Return what placements of a plan on a site are made from.

    Raises:
        InputError: the plan does not say what its ranks send, or the site has no such node group or other nodes.
    """
    group, traffic = plan.placement.node_group, plan.placement.traffic
    if group not in site.node_groups:
        raise InputError(f"site {site.name!r} has no node group {group!r}" + nearest(group, site.node_groups))
    if plan.placement.pools:
        message = "are unequal, and ranks are on them in the plan's order already; only equal nodes can be placed"
        raise InputError(Problem(message, field="placement.pools"))
    if traffic is None:
        message = "is missing: nothing says what the ranks send each other"
        raise InputError(Problem(message, field="placement.traffic"), hint="make the plan again with hpcplan plan")
    accelerators = site.node_groups[group].accelerators
    if accelerators is None or accelerators.count != plan.plan.gpus_per_node:
        has = accelerators.count if accelerators else 0
        message = f"is {plan.plan.gpus_per_node}, but nodes of group {group!r} of site {site.name!r} have {has}"
        raise InputError(Problem(message, field="plan.gpus_per_node"))
    return machinery_of(site, topology, group, plan.plan, plan.job.framework, traffic)
