"""The program that jobs carry to put their nodes in order: alone, on old Pythons, never worse than Slurm's order."""

from __future__ import annotations

import ast
import json
import random
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings

from hpcplan import rank_map
from hpcplan.partition.placement import best_placement
from hpcplan.plan import Sharding, Traffic
from hpcplan.rank_map import Fabric, best_order, divisors, main, packings
from hpcplan.site.model import Site
from tests.partition.placement.made_up import exchange, machinery, sharding, site, small_cases, spec_of, traffic

SOURCE = Path(rank_map.__file__)
DEFAULT = ("tp", "cp", "dp", "pp")


def test_it_needs_nothing_but_an_old_python_and_its_library() -> None:
    tree = ast.parse(SOURCE.read_text(encoding="utf-8"), feature_version=(3, 6))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported <= {"json", "math", "sys", "typing"}
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    hints = [
        hint for f in functions for hint in [f.returns, *(argument.annotation for argument in f.args.args)] if hint
    ]
    plain = {"Fabric", "Flows", "str", "int", "float", "None", "_Place"}
    assert all(isinstance(hint, ast.Constant) or ast.unparse(hint) in plain for hint in hints), "3.6 evaluates these"
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.NamedExpr)]


def cluster(tmp_path: Path, nodes: int = 8) -> tuple[Path, list[str]]:
    """Write the rank map of a job with heavy data parallelism over two leaves; return it and its nodes, interleaved."""
    levels = [{"name": "leaf", "size": nodes // 2, "uplink": "5 GB/s"}, {"name": "top", "size": 2}]
    ranks = sharding(tp=2, dp=nodes // 2, pp=2)
    sends = traffic(exchange("tp", "ring", 40e9), exchange("dp", "ring", 5e9), exchange("pp", "chain", 1e8))
    path = tmp_path / "rank-map.json"
    path.write_text(json.dumps(spec_of(machinery(site({"levels": levels}, nodes), ranks, sends), DEFAULT)))
    half = nodes // 2
    return path, [f"n{number + side * half}" for number in range(half) for side in (0, 1)]


def test_it_runs_alone_and_prints_the_order(tmp_path: Path) -> None:
    path, hosts = cluster(tmp_path)
    program = shutil.copy(SOURCE, tmp_path / "rank_map.py")
    run = subprocess.run(
        [sys.executable, "-I", "-S", program, path, *hosts], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    order = run.stdout.split()
    assert sorted(order) == sorted(hosts)
    assert [len({int(host[1:]) < 4 for host in order[at : at + 4]}) for at in (0, 4)] == [1, 1]
    assert "s a step predicted" in run.stderr


def test_it_takes_the_plans_own_order_where_slurm_gave_these_nodes(tmp_path: Path) -> None:
    path, hosts = cluster(tmp_path)
    spec = json.loads(path.read_text())
    spec["hosts"] = [f"n{number}" for number in (7, 6, 5, 4, 3, 2, 1, 0)]
    assert best_order(spec, hosts)[0] == spec["hosts"]


def test_what_is_wrong_is_said_and_leaves_slurms_order(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, hosts = cluster(tmp_path)
    assert main([str(path), *hosts[:-1]]) == 1
    assert main([str(path), *hosts[:-1], hosts[0]]) == 1
    assert main([str(tmp_path / "none.json"), *hosts]) == 1
    path.write_text("{")
    assert main([str(path), *hosts]) == 1
    assert main([]) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("the nodes stay in Slurm's order") == 5
    assert "the plan is for 8 nodes" in shown.err


def test_nodes_that_the_fabric_does_not_know_still_get_an_order(tmp_path: Path) -> None:
    path, hosts = cluster(tmp_path)
    spec = json.loads(path.read_text())
    order, step, given_s = best_order(spec, [*hosts[:-1], "new1"])
    assert sorted(order) == sorted([*hosts[:-1], "new1"])
    assert step <= given_s


@given(small_cases(max_nodes=10, spare=3))
@settings(max_examples=50)
def test_it_is_never_worse_than_the_order_that_comes_in(case: tuple[Site, Sharding, Traffic, Sequence[str]]) -> None:
    of, ranks, sends, free = case
    hosts = list(free[: ranks.nodes])
    made = machinery(of, ranks, sends, "torchtitan")
    order, step, given_s = best_order(spec_of(made, DEFAULT), hosts)
    assert sorted(order) == sorted(hosts)
    assert step <= given_s * (1 + 1e-9)
    best = best_placement(made, hosts)
    assert best.step_s <= step * (1 + 1e-3), "the planner looks at more"


def test_a_thousand_nodes_in_any_order_are_packed_as_the_planner_would() -> None:
    levels = [{"name": "leaf", "size": 32, "uplink": "40 GB/s"}, {"name": "top", "size": 32}]
    sends = traffic(exchange("tp", "ring", 40e9), exchange("dp", "ring", 5e9), exchange("pp", "chain", 1e8))
    made = machinery(site({"levels": levels}, 1024), sharding(tp=2, dp=32, pp=32), sends, "torchtitan")
    hosts = [f"n{number}" for number in range(1024)]
    random.Random(1).shuffle(hosts)
    order, step, given_s = best_order(spec_of(made, DEFAULT), hosts)
    leaves = [int(host[1:]) // 32 for host in order]
    assert all(len(set(leaves[at : at + 32])) == 1 for at in range(0, 1024, 32))
    assert step < given_s / 2
    assert step == pytest.approx(best_placement(made, hosts).step_s, rel=2e-3)


def test_packing_keeps_units_together_and_fills_the_tightest_place_last() -> None:
    sizes = {"a": 3, "b": 2, "c": 5}
    leaves = [
        {"name": name, "parent": "top", "nodes": [f"{name}{i}" for i in range(1, n + 1)]} for name, n in sizes.items()
    ]
    fabric = Fabric([*leaves, {"name": "top"}], [host for leaf in leaves for host in leaf["nodes"]])
    hosts = list(fabric.leaf)
    assert packings(fabric, hosts, 2)[1] == ["b1", "b2"]
    assert packings(fabric, hosts, 6)[2] == ["c1", "c2", "c3", "c4", "b1", "b2"]
    assert packings(fabric, hosts, 10)[2] == ["c1", "c2", "c3", "c4", "a1", "a2", "b1", "b2", "c5", "a3"]
    assert packings(fabric, hosts, 12) == {}


def test_divisors_are_all_and_in_order() -> None:
    assert divisors(36) == [1, 2, 3, 4, 6, 9, 12, 18, 36]
    assert divisors(1) == [1]
