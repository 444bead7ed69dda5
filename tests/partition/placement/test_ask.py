"""What Slurm is asked: switches on a tree, segments of blocks, nodes by name or by leaving all others out."""

from __future__ import annotations

import pytest

from hpcplan.hostlist import expand
from hpcplan.partition.placement import options_of, place_on_site
from hpcplan.plan import Placement
from hpcplan.site.model import Site
from hpcplan.site.topology import build_topology
from tests.partition.placement.made_up import exchange, machinery, sharding, site, traffic

BLOCKS = {"kind": "blocks", "levels": [{"name": "block", "size": 4, "uplink": "5 GB/s"}, {"name": "top", "size": 4}]}
TREE = {"levels": BLOCKS["levels"]}


def asked(of: Site, *, dp: int = 6, **options: object) -> Placement:
    made = machinery(of, sharding(tp=2, dp=dp), traffic(exchange("tp", "ring", 40e9), exchange("dp", "ring", 5e9)))
    return place_on_site(of, build_topology(of), "p", "g", made, **options)[0]  # type: ignore[arg-type]


def with_slurm(fabric: dict[str, object], **slurm: object) -> Site:
    made = site(fabric, 16)
    return made.model_copy(update={"slurm": made.slurm.model_copy(update=slurm)})


def test_a_tree_is_asked_for_switches_and_only_where_slurm_knows_it() -> None:
    assert options_of(asked(with_slurm(TREE, topology=True))) == ["--switches=2"]
    assert options_of(asked(with_slurm(TREE, topology=False))) == []
    assert asked(with_slurm(TREE)).distribution == "arbitrary", "the job orders what it is given"


@pytest.mark.parametrize(
    ("version", "words"), [("24.05", ["--segment=4"]), ("25.11", ["--segment=4"]), ("23.11", []), (None, [])]
)
def test_blocks_are_asked_for_segments_from_24_05_on(version: str | None, words: list[str]) -> None:
    assert options_of(asked(with_slurm(BLOCKS, topology=True, version=version), dp=8)) == words


def test_a_segment_divides_the_nodes_and_fits_into_a_block() -> None:
    assert asked(with_slurm(BLOCKS, topology=True, version="24.05"), dp=6).segment in (2, 3)
    assert asked(with_slurm(BLOCKS, topology=True, version="24.05"), dp=5).segment is None


def test_given_nodes_are_asked_for_by_name() -> None:
    free = expand("n[1-3,8-11]")
    placement = asked(with_slurm(TREE, topology=True), dp=4, free=free, way="nodelist")
    assert set(placement.node_order) == {"n8", "n9", "n10", "n11"}
    assert options_of(placement) == ["--nodelist=n[8-11]"]


def test_leaving_out_keeps_all_free_nodes_under_the_same_switches() -> None:
    free = expand("n[0-2,4-7,12]")
    placement = asked(with_slurm(TREE, topology=True), dp=3, free=free, way="exclude")
    assert placement.node_order == ()
    assert placement.exclude is not None
    left = set(expand("n[0-15]")) - set(expand(placement.exclude))
    assert left in ({"n0", "n1", "n2"}, {"n4", "n5", "n6", "n7"})
    assert options_of(placement) == [f"--exclude={placement.exclude}"]


def test_leaving_out_leaves_no_choice_where_slurm_would_choose_badly() -> None:
    """Of two racks of 6 nodes, 4 of each are wanted; Slurm would fill one."""
    of = site(
        {"levels": [{"name": "rack", "size": 6, "uplink": "5 GB/s"}, {"name": "top", "size": 2}]}, 12, domain_nodes=6
    )
    made = machinery(
        of, sharding(dp=16, ep=8), traffic(exchange("ep", "all-to-all", 50e9), exchange("dp", "ring", 1e8))
    )
    placement, placed = place_on_site(of, build_topology(of), "p", "g", made, way="exclude")
    racks = [int(host[1:]) // 6 for host in placed.hosts]
    assert sorted(racks) == [0] * 4 + [1] * 4
    assert placement.exclude is not None
    assert set(expand(placement.exclude)) == set(expand("n[0-11]")) - set(placed.hosts)


def test_a_placement_survives_being_written_in_a_plan() -> None:
    placement = asked(with_slurm(TREE, topology=True))
    assert Placement.model_validate_json(placement.model_dump_json()) == placement
    assert {place.name for place in placement.fabric} == {"block1", "block2", "block3", "block4", "top1"}
