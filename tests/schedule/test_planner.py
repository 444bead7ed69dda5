"""From a workload and a site to a plan."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from hpcplan.errors import InfeasibleError, InputError
from hpcplan.plan import Plan, read_plan
from hpcplan.schedule.planner import Planned, make_plan
from hpcplan.site import load_site
from hpcplan.workload import LoadedWorkload, Workload, load_workload


def loaded(name: str, **changes: dict[str, Any]) -> LoadedWorkload:
    found = load_workload(name)
    data = found.workload.model_dump()
    for part, fields in changes.items():
        data[part] |= fields
    return dataclasses.replace(found, workload=Workload.model_validate(data))


def plan(name: str = "llama3-8b", site: str = "superpod-h100", **options: Any) -> Planned:
    changes = options.pop("changes", {"training": {"tokens": 20_000_000_000}})
    return make_plan(loaded(name, **changes), load_site(site), **options)


def test_the_same_inputs_give_the_same_bytes_and_the_file_reads_back(tmp_path: Path) -> None:
    first, second = plan(nodes=(4, 4)).plan, plan(nodes=(4, 4)).plan
    assert first.text() == second.text()
    path = tmp_path / "plan.json"
    path.write_text(first.text())
    assert read_plan(path) == first


def test_a_plan_with_hostile_names_reads_back(tmp_path: Path) -> None:
    nasty = "a\"b'c\\ \u2028 \x7f $(x) \U0001f600 #SBATCH\n"
    made = plan(nodes=(1, 1), changes={"launch": {"command": ["x", nasty], "variables": {"K": nasty}}}).plan
    path = tmp_path / "plan.json"
    path.write_text(made.text())
    assert read_plan(path) == made


def test_the_breakdown_adds_up_to_what_is_promised() -> None:
    made = plan(nodes=(8, 8)).plan
    for estimate in (made.estimate, *(other.estimate for other in made.alternatives)):
        assert sum(estimate.breakdown.time.model_dump().values()) == pytest.approx(estimate.iter_time_s)
        assert sum(estimate.breakdown.memory.model_dump().values()) == estimate.memory_bytes
        assert estimate.low < estimate.iter_time_s < estimate.high


def test_a_plan_says_what_it_was_made_from() -> None:
    made = plan(nodes=(2, 2), command="hpcplan plan ...").plan
    assert made.provenance.site.sha256 == load_site("superpod-h100").sha256
    assert made.provenance.workload.name == "llama3-8b"
    assert len(made.provenance.constants.sha256) == 64


def test_the_chain_obeys_partition_and_wish() -> None:
    day = plan(nodes=(4, 4), changes={"training": {"tokens": 10**11}}).plan
    assert max(segment.time_limit_s for segment in day.segments) <= 86400
    short = plan(nodes=(4, 4), changes={"training": {"tokens": 10**11}, "request": {"walltime_s": 7200.0}}).plan
    assert max(segment.time_limit_s for segment in short.segments) <= 7200
    assert len(short.segments) > len(day.segments)
    assert short.segments[-1].last_step == short.training.steps


def test_the_json_carries_the_promised_keys() -> None:
    data = plan(nodes=(2, 2)).as_dict()
    assert {"tp", "pp", "vpp", "dp", "cp", "ep", "micro_batch", "zero", "recompute", "nodes", "gpus"} <= set(
        data["plan"]
    )
    assert {"iter_time_s", "memory_bytes", "tokens_per_s", "mfu", "low", "high", "breakdown"} == set(data["estimate"])
    assert {"candidates", "feasible", "pruned", "seconds"} <= set(data["search"])
    assert {"alternatives", "provenance"} <= set(data)


def test_a_mixed_partition_is_planned_on_the_kind_of_node_that_is_best() -> None:
    made = plan(site="mixed-lab", nodes=(1, 4))
    alone = {
        group: plan(
            site="mixed-lab",
            nodes=(1, 4),
            changes={"training": {"tokens": 2 * 10**10}, "request": {"node_group": group}},
        ).plan
        for group in ("a100", "h100")
    }
    best = min(alone, key=lambda group: alone[group].estimate.iter_time_s)
    assert made.plan.placement.node_group == best
    assert made.plan.estimate == alone[best].estimate
    assert {other.node_group for other in made.plan.alternatives} <= {"a100", "h100"}


@pytest.mark.parametrize(
    ("wish", "expected"),
    [
        ({"partition": "bach"}, "has no partition 'bach'; did you mean 'batch'"),
        ({"node_group": "dgy"}, "has no node group 'dgy'; did you mean 'dgx'"),
        ({"partition": "debug", "nodes": "4"}, "4 nodes were asked for; partition 'debug' allows 2"),
        ({"nodes": "500"}, "500 nodes were asked for; node group 'dgx' has 128"),
    ],
)
def test_a_wish_the_site_cannot_grant_is_refused(wish: dict[str, Any], expected: str) -> None:
    with pytest.raises(InputError) as caught:
        plan(changes={"request": wish})
    assert expected in str(caught.value)


def test_a_walltime_too_short_for_a_step_binds() -> None:
    with pytest.raises(InfeasibleError, match="walltime limit binds"):
        plan(nodes=(1, 1), changes={"request": {"walltime_s": 60.0}})


def test_switches_are_asked_for_where_slurm_knows_them() -> None:
    assert plan(nodes=(32, 32)).plan.placement.switches == 1
    assert plan(nodes=(64, 64)).plan.placement.switches == 2
    assert plan(site="jean-zay-a100", nodes=(4, 4)).plan.placement.switches is None


def test_what_megatron_lm_cannot_run_is_said() -> None:
    wish = {"training": {"tokens": 10**9}}
    assert any("ALiBi" in note for note in plan("bloom-176b", "jean-zay-a100", nodes=(48, 48), changes=wish).notes)
    wish["request"] = {"framework": "srun"}  # type: ignore[assignment]
    assert not any("ALiBi" in note for note in plan("bloom-176b", "jean-zay-a100", nodes=(48, 48), changes=wish).notes)


def test_a_plan_is_frozen() -> None:
    made: Plan = plan(nodes=(1, 1)).plan
    with pytest.raises(ValueError, match="frozen"):
        made.name = "other"  # type: ignore[misc]
