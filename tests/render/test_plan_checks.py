"""A plan that was edited by hand and no longer holds together is refused before anything is rendered."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest

from hpcplan.errors import InputError
from hpcplan.plan import Placement
from hpcplan.render import render_plan


def fields(plan: Any) -> list[str | None]:
    with pytest.raises(InputError) as caught:
        render_plan(plan)
    return [problem.field for problem in caught.value.problems]


def test_ranks_must_be_as_many_as_gpus(plans: ModuleType) -> None:
    assert fields(plans.plan(plan=plans.sharding(dp=2, micro_batches=512))) == ["plan.gpus"]
    assert fields(plans.plan(plan=plans.sharding(nodes=15))) == ["plan.gpus"]


def test_micro_batches_must_make_the_global_batch(plans: ModuleType) -> None:
    assert fields(plans.plan(plan=plans.sharding(micro_batches=255))) == ["training.global_batch"]


def test_segments_must_follow_each_other_and_cover_training(plans: ModuleType) -> None:
    first, second, third = plans.segments(950, 950, 600)
    assert fields(plans.plan(segments=(first, second))) == ["segments"]
    gap = third.model_copy(update={"first_step": 1950})
    assert fields(plans.plan(segments=(first, second, gap))) == ["segments[2]"]
    again = second.model_copy(update={"index": 1})
    assert fields(plans.plan(segments=(first, again, third))) == ["segments[1].index"]


def test_a_plan_for_given_nodes_names_as_many(plans: ModuleType) -> None:
    placement = Placement(partition="batch", node_group="dgx", node_order=("n1", "n2"))
    assert fields(plans.plan(placement=placement)) == ["placement.node_order"]


def test_a_trainer_must_be_named(plans: ModuleType) -> None:
    plan = plans.srun_plan()
    assert fields(plan.model_copy(update={"job": plan.job.model_copy(update={"command": ()})})) == ["job.command"]


def test_the_warning_comes_when_the_plan_says(plans: ModuleType) -> None:
    long = render_plan(plans.plan())["train-01.sbatch"]
    assert "#SBATCH --signal=B:USR1@240\n" in long
    short = render_plan(plans.plan(segments=plans.segments(2500, time_limit_s=300, expected_s=100.0)))
    assert "#SBATCH --signal=B:USR1@150\n" in short["train-01.sbatch"]


@pytest.mark.parametrize(
    ("gpu_request", "gres", "line"),
    [
        ("gres", "gpu:h100:8", "#SBATCH --gres=gpu:h100:8"),
        ("gpus-per-node", "gpu:h100:8", "#SBATCH --gpus-per-node=h100:8"),
        ("gpus-per-node", "gpu:8", "#SBATCH --gpus-per-node=8"),
        ("gpus-per-node", "npu:8", "#SBATCH --gres=npu:8"),
        ("none", "gpu:8", None),
        ("gres", None, None),
    ],
)
def test_gpus_are_asked_for_as_the_site_wants(
    gpu_request: str, gres: str | None, line: str | None, plans: ModuleType
) -> None:
    script = render_plan(plans.plan(job=plans.job(gpu_request=gpu_request, gres=gres)))["train-01.sbatch"]
    asked = [text for text in script.splitlines() if "--gres" in text or "--gpus" in text]
    assert asked == ([line] if line else [])


def test_an_apptainer_image_wraps_every_task(plans: ModuleType) -> None:
    from hpcplan.site.model import Container, Environment

    container = Container(runtime="apptainer", image="/images/torch 2.5.sif", mounts=("/data:/data",))
    environment = Environment(container=container, variables={"A": "b"})
    script = render_plan(plans.plan(job=plans.job(environment=environment)))["train-01.sbatch"]
    assert '  apptainer exec "$gpu_option" --pwd "$campaign_dir"' in script
    assert "  --bind /data:/data\n  '/images/torch 2.5.sif'\n)" in script
    assert '"${inside[@]}" bash -c "$(declare -f wait_for node_rank set_variables run_task); run_task"' in script
