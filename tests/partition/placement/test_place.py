"""Placements: the optimum on small cases by brute force, never worse than Slurm's order, what experts would do."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given, settings

from hpcplan.errors import InfeasibleError, InputError
from hpcplan.partition.placement import best_placement, place_on_site
from hpcplan.partition.placement.choices import slurm_choice
from hpcplan.partition.placement.grid import Order, orders_of, with_experts
from hpcplan.partition.placement.improve import improve
from hpcplan.partition.placement.place import Machinery
from hpcplan.plan import Sharding, Traffic
from hpcplan.rank_map import Fabric, block_flows, step_seconds
from hpcplan.site.model import Site
from hpcplan.site.topology import build_topology
from tests.partition.placement.made_up import exchange, machinery, sharding, site, small_cases, spec_of, traffic

Case = tuple[Site, Sharding, Traffic, Sequence[str]]
DEFAULT: Order = ("tp", "cp", "dp", "pp")
TENSOR = exchange("tp", "ring", 40e9)


def by_hand(made: Machinery, order: Order, hosts: Sequence[str]) -> float:
    """Return the step by the plain program that jobs carry, flow by flow."""
    spec = spec_of(made, with_experts(order, made.sharding))
    flows = [[block_flows(spec, one) for one in term["exchanges"]] for term in spec["terms"]]
    return step_seconds(spec, Fabric(spec["switches"], list(hosts)), list(hosts), flows)


def two_leaves(uplink: str = "5 GB/s", nodes: int = 8, **more: object) -> Site:
    half = nodes // 2
    return site(
        {"levels": [{"name": "leaf", "size": half, "uplink": uplink}, {"name": "top", "size": 2}]}, nodes, **more
    )  # type: ignore[arg-type]


@given(small_cases(max_nodes=4, spare=1))
@settings(max_examples=25)
def test_small_cases_come_out_at_the_optimum(case: Case) -> None:
    of, ranks, sends, free = case
    made = machinery(of, ranks, sends)
    placed = best_placement(made, free)
    orders = orders_of("srun", ranks)
    least = min(by_hand(made, order, hosts) for order, hosts in product(orders, permutations(free, ranks.nodes)))
    assert placed.step_s == pytest.approx(least, rel=2e-3), (
        "another order of the axes than the default must be worth it"
    )
    assert placed.step_s == pytest.approx(by_hand(made, placed.order, placed.hosts))
    assert placed.bound_step_s <= least * (1 + 1e-9)
    assert placed.proof in ("exhaustive", "bound")


@given(small_cases(max_nodes=4, spare=1))
@settings(max_examples=25)
def test_local_search_alone_mostly_reaches_the_optimum_and_never_goes_back(case: Case) -> None:
    of, ranks, sends, free = case
    made = machinery(of, ranks, sends)
    numbers = np.sort(made.hierarchy.numbers(free))
    start = made.hierarchy.numbers(list(free[: ranks.nodes]))
    hosts, step = improve(made.predictor(DEFAULT), start, numbers, work=10**6, bound_s=0.0)
    names = [made.hierarchy.names[number] for number in hosts]
    assert len(set(names)) == ranks.nodes
    assert set(names) <= set(free)
    assert step <= by_hand(made, DEFAULT, free[: ranks.nodes]) * (1 + 1e-9)
    swapped = [
        step_of
        for i in range(len(names))
        for j in range(i)
        for step_of in [by_hand(made, DEFAULT, [names[{i: j, j: i}.get(k, k)] for k in range(len(names))])]
    ]
    assert step <= min(swapped, default=np.inf) * (1 + 1e-6), "no swap of two nodes shortens it"


@given(small_cases(max_nodes=12, spare=6))
@settings(max_examples=60)
def test_a_placement_is_never_worse_than_slurms_own_order(case: Case) -> None:
    of, ranks, sends, free = case
    made = machinery(of, ranks, sends)
    placed = best_placement(made, free, work=20_000)
    assert placed.step_s <= placed.slurm_step_s * (1 + 1e-9)
    assert placed.slurm_step_s == pytest.approx(by_hand(made, DEFAULT, placed.slurm_hosts))
    assert placed.bound_step_s <= placed.step_s
    assert len(set(placed.hosts)) == ranks.nodes
    assert set(placed.hosts) <= set(free)
    assert placed == best_placement(made, free, work=20_000), "the same question has the same answer"


def test_a_tree_keeps_heavy_groups_under_one_leaf() -> None:
    """Data parallelism is heavy, the pipeline light: each data-parallel group takes one leaf, as an expert would."""
    ranks = sharding(tp=2, dp=4, pp=2)
    made = machinery(
        two_leaves("5 GB/s"), ranks, traffic(TENSOR, exchange("dp", "ring", 5e9), exchange("pp", "chain", 1e8))
    )
    scattered = [f"n{number}" for number in (0, 4, 1, 5, 2, 6, 3, 7)]
    placed = best_placement(made, scattered, work=0)
    groups = [{host in ("n0", "n1", "n2", "n3") for host in placed.hosts[first : first + 4]} for first in (0, 4)]
    assert placed.order == DEFAULT
    assert [len(sides) for sides in groups] == [1, 1]
    assert placed.random_step_s > placed.step_s * 1.5


def test_the_order_of_the_axes_follows_the_traffic() -> None:
    """With a heavy pipeline and light gradients, the pipeline is the one that stays under a leaf."""
    ranks = sharding(tp=2, dp=2, pp=4)
    made = machinery(
        two_leaves("1 GB/s"), ranks, traffic(TENSOR, exchange("dp", "ring", 1e7), exchange("pp", "loop", 5e9))
    )
    placed = best_placement(made, [f"n{number}" for number in range(8)])
    assert placed.order.index("pp") < placed.order.index("dp")
    megatron = machinery(
        two_leaves("1 GB/s"),
        ranks,
        traffic(TENSOR, exchange("dp", "ring", 1e7), exchange("pp", "loop", 5e9)),
        "megatron-lm",
    )
    assert best_placement(megatron, [f"n{number}" for number in range(8)]).order == ("tp", "cp", "pp", "dp")


def test_racks_of_18_give_16_nodes_each_to_expert_groups_of_64() -> None:
    """On NVL72 racks experts know to use 16 of 18 nodes, so that no expert-parallel group leaves its rack."""
    of = site(
        {"levels": [{"name": "rack", "size": 18, "uplink": "40 GB/s"}, {"name": "spine", "size": 3}]}, 54,
        domain_nodes=18, gpus=4,
    )  # fmt: skip
    ranks = sharding(dp=128, ep=64, gpus_per_node=4)
    made = machinery(of, ranks, traffic(exchange("ep", "all-to-all", 30e9), exchange("dp"), exchange("edp")))
    placed = best_placement(made, [f"n{number}" for number in range(54)])
    racks = [int(host[1:]) // 18 for host in placed.hosts]
    assert [len(set(racks[first : first + 16])) for first in (0, 16)] == [1, 1]
    assert placed.slurm_step_s > placed.step_s * 2, "Slurm fills a rack with 18 and so splits the second group"


def test_the_lowest_switch_with_enough_free_nodes_is_used() -> None:
    ranks = sharding(tp=2, dp=3)
    made = machinery(two_leaves("1 GB/s"), ranks, traffic(exchange("dp")))
    assert set(best_placement(made, ["n0", "n1", "n5", "n6", "n7"]).hosts) == {"n5", "n6", "n7"}


def test_a_torus_gets_a_ring_of_neighbours() -> None:
    of = site({"kind": "torus", "toruses": [{"name": "t", "dims": [4, 4], "nodes": "n[0-15]", "link": "10 GB/s"}]}, 16)
    made = machinery(of, sharding(tp=2, dp=16), traffic(TENSOR, exchange("dp", "ring", 8e9)))
    placed = best_placement(made, [f"n{number}" for number in range(16)])
    assert placed.busiest[0].bytes == 16e9, "every edge of the ring has a link of its own, for its two tensor ranks"
    assert placed.random_step_s > placed.step_s * 1.2


def test_part_of_a_torus_is_better_than_slurms_nodes_and_random_ones() -> None:
    of = site({"kind": "torus", "toruses": [{"name": "t", "dims": [8, 8], "nodes": "n[0-63]", "link": "10 GB/s"}]}, 64)
    sends = traffic(TENSOR, exchange("dp", "ring", 8e9), exchange("pp", "chain", 4e9))
    placed = best_placement(machinery(of, sharding(tp=2, dp=4, pp=4), sends), [f"n{number}" for number in range(64)])
    assert placed.step_s < placed.slurm_step_s * 0.9
    assert placed.step_s < placed.random_step_s * 0.8


def test_a_dragonfly_keeps_heavy_groups_inside_its_groups() -> None:
    levels = [{"name": "router", "size": 2, "uplink": "20 GB/s"}, {"name": "group", "size": 2, "uplink": "5 GB/s"}]
    of = site({"kind": "dragonfly", "levels": [*levels, {"name": "all", "size": 4}]}, 16)
    made = machinery(
        of, sharding(tp=2, dp=4, pp=4), traffic(TENSOR, exchange("dp", "ring", 5e9), exchange("pp", "chain", 1e8))
    )
    mixed = [f"n{4 * group + member}" for member in range(4) for group in range(4)]
    placed = best_placement(made, mixed)
    assert [len({int(host[1:]) // 4 for host in placed.hosts[at : at + 4]}) for at in (0, 4, 8, 12)] == [1, 1, 1, 1]
    assert placed.random_step_s > placed.step_s * 1.2


def test_too_few_free_nodes_are_said() -> None:
    made = machinery(two_leaves(), sharding(tp=2, dp=4), traffic(exchange("dp")))
    with pytest.raises(InfeasibleError, match="4 nodes are needed, and 3 are free"):
        best_placement(made, ["n0", "n1", "n2"])


def test_slurm_takes_the_tightest_leaf_or_run() -> None:
    topology = build_topology(two_leaves())
    free = np.array([0, 1, 2, 4, 5])
    assert slurm_choice(topology.hierarchy, free, 2, topology=True).tolist() == [4, 5]
    assert slurm_choice(topology.hierarchy, free, 4, topology=True).tolist() == [0, 1, 2, 4]
    assert slurm_choice(topology.hierarchy, free, 2, topology=False).tolist() == [4, 5]
    assert slurm_choice(topology.hierarchy, free, 3, topology=False).tolist() == [0, 1, 2]


def test_nodes_that_are_busy_or_drained_are_left_out_and_unknown_ones_refused() -> None:
    of = two_leaves()
    topology = build_topology(of)
    made = machinery(of, sharding(tp=2, dp=3), traffic(exchange("dp")))
    placement, placed = place_on_site(of, topology, "p", "g", made, unusable=["n0", "n1"])
    assert set(placed.hosts) == {"n4", "n5", "n6"}
    assert placement.prediction is not None
    assert placement.prediction.ideal_step_s <= placement.prediction.step_s
    with pytest.raises(InputError, match="no node 'n9'"):
        place_on_site(of, topology, "p", "g", made, free=["n9"])
