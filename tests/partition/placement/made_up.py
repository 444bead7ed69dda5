"""Made-up shardings, traffic and fabrics for the tests of placement."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

from hpcplan.partition.placement import Machinery, machinery_of
from hpcplan.partition.placement.grid import Order
from hpcplan.plan import Exchange, Sharding, Traffic, TrafficTerm
from hpcplan.render.placement import rank_map_spec
from hpcplan.site.model import Site
from hpcplan.site.topology import build_topology
from tests.render import plans
from tests.site.made_up import site_of

__all__ = ["exchange", "machinery", "sharding", "site", "small_cases", "spec_of", "traffic"]

GPUS = 2  # a node


def site(fabric: dict[str, object], nodes: int, *, domain_nodes: int = 1, gpus: int = GPUS, **more: object) -> Site:
    """Return a site of so many nodes n0, n1, ... of two accelerators."""
    link = {"bandwidth": "100 GB/s", "latency": "1 us", "domain_nodes": domain_nodes}
    accelerators = {"type": "H100-SXM5-80GB", "count": gpus}
    return site_of(fabric, f"n[0-{nodes - 1}]", accelerators=accelerators, intra_node=link, **more)


def sharding(**changes: Any) -> Sharding:
    """Return a sharding of two accelerators a node; nodes follow from the axes."""
    axes: dict[str, Any] = {"tp": 1, "pp": 1, "dp": 1, "cp": 1, "ep": 1, "gpus_per_node": GPUS} | changes
    gpus = axes["tp"] * axes["pp"] * axes["dp"] * axes["cp"]
    return plans.sharding(**axes, vpp=1, gpus=gpus, nodes=gpus // axes["gpus_per_node"])


def exchange(axis: str, pattern: str = "ring", sent_bytes: float = 1e9, rounds: float = 10.0) -> Exchange:
    """Return an exchange."""
    return Exchange.model_validate({"axis": axis, "pattern": pattern, "sent_bytes": sent_bytes, "rounds": rounds})


def traffic(*exchanges: Exchange) -> Traffic:
    """Return traffic that is waited for throughout, one term an exchange, on nodes as ``site`` makes them."""
    terms = tuple(
        TrafficTerm(name=one.axis, exposed=1.0, hidden_s=0.0, scale=1.0, exchanges=(one,)) for one in exchanges
    )
    return Traffic(
        fixed_s=1.0, node_bytes_per_s=10e9, node_latency_s=1e-6, network_efficiency=0.8, link_bytes_per_s=80e9,
        link_latency_s=1e-6, terms=terms,
    )  # fmt: skip


def machinery(of: Site, ranks: Sharding, sends: Traffic, framework: str = "srun") -> Machinery:
    """Return what placements are made from."""
    return machinery_of(of, build_topology(of), "g", ranks, framework, sends)


def spec_of(made: Machinery, order: Order) -> dict[str, Any]:
    """Return what the job's own program reads, for an order of the axes."""
    plan = plans.plan(plan=made.sharding)
    placement = plan.placement.model_copy(
        update={"order": order, "traffic": made.traffic, "fabric": made.places, "distribution": "arbitrary"}
    )
    return rank_map_spec(plan.model_copy(update={"placement": placement}))


AXES = ("tp", "cp", "dp", "pp")


@st.composite
def small_cases(draw: st.DrawFn, max_nodes: int = 5, spare: int = 2) -> tuple[Site, Sharding, Traffic, Sequence[str]]:
    """Return a site (a tree, perhaps with domains), a sharding on some of its nodes, traffic, and the free nodes."""
    sizes = {axis: draw(st.sampled_from([1, 1, 2, 3])) for axis in AXES}
    sizes["tp"] = draw(st.sampled_from([1, 2]))
    blocks = -(-sizes["tp"] * sizes["cp"] * sizes["dp"] * sizes["pp"] // GPUS)
    while blocks > max_nodes or sizes["tp"] * sizes["cp"] * sizes["dp"] * sizes["pp"] % GPUS:
        axis = max(sizes, key=lambda name: sizes[name])
        sizes[axis] = 2 if sizes[axis] == 3 else 1
        if max(sizes.values()) == 1:
            sizes["tp"] = GPUS
        blocks = -(-sizes["tp"] * sizes["cp"] * sizes["dp"] * sizes["pp"] // GPUS)
    replicas = sizes["dp"] * sizes["cp"]
    ep = draw(st.sampled_from([d for d in range(1, replicas + 1) if replicas % d == 0]))
    ranks = sharding(**sizes, ep=ep)
    kinds = [(axis, "ring") for axis in ("tp", "cp") if sizes[axis] > 1]
    kinds += [("dp", "ring")] if replicas > 1 else []
    kinds += [("ep", "all-to-all"), ("edp", "ring")] if ep > 1 else []
    kinds += [("pp", draw(st.sampled_from(["chain", "loop"])))] if sizes["pp"] > 1 else []
    sends = traffic(*(exchange(axis, pattern, draw(st.sampled_from([1e8, 1e9, 5e9]))) for axis, pattern in kinds))
    total = ranks.nodes + draw(st.integers(0, spare))
    leaves: list[int] = []
    while sum(leaves) < total:
        leaves.append(draw(st.integers(1, min(4, total - sum(leaves)))))
    switches: list[dict[str, object]] = []
    first = 0
    for number, size in enumerate(leaves):
        uplink = draw(st.sampled_from(["1 GB/s", "5 GB/s", "20 GB/s"]))
        switches.append({"name": f"leaf{number}", "nodes": f"n[{first}-{first + size - 1}]", "uplink": uplink})
        first += size
    switches.append({"name": "top", "switches": [f"leaf{number}" for number in range(len(leaves))]})
    domain = draw(st.sampled_from([1, 1, 2])) if all(size % 2 == 0 for size in leaves) else 1
    made = site({"switches": switches}, total, domain_nodes=domain)
    free = draw(st.permutations([f"n{number}" for number in range(total)]))[: draw(st.integers(ranks.nodes, total))]
    return made, ranks, sends, free
