"""A plan full of hostile text: no directive and no command comes out of it, and the trainer gets every byte."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hpcplan.errors import InputError
from hpcplan.plan import Plan
from hpcplan.render import render_plan

HOSTILE = [
    "'", '"', "$(touch $STAGE/owned)", "`touch $STAGE/owned`", "a\n#SBATCH --account=root\nb", "#SBATCH --nodes=999",
    "; touch $STAGE/owned;", "}\ntouch $STAGE/owned\n{", "'; touch $STAGE/owned; '", "\\", "$'x'", "{{ 7 * 7 }}",
    "{% raw %}", "\t\x01\x1b[2J", "日本語 ‮ \U0001f600", "x" * 10_000, "", "--help", "[0]=x", "=x", ")", "EOF", "\r\n",
]  # fmt: skip
hostile = st.one_of(
    st.sampled_from(HOSTILE), st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=50)
)
MAKERS = ("plan", "torchrun_plan", "srun_plan")


def poisoned(plan: Plan, texts: list[str]) -> Plan:
    """Return the plan with hostile text everywhere that a workload or a site could put text."""
    first, second, third = texts
    job = plan.job.model_copy(
        update={
            "name": first,
            "command": ("trainer", second, *(() if second.startswith("--") else (third,))),
            "variables": {"HOSTILE": first, "MORE": third},
            "data": (first, second),
            "checkpoint_dir": "checkpoints/" + second.replace("/", "_")[:20].strip("."),
            "environment": plan.job.environment.model_copy(update={"modules": (), "setup": (), "container": None}),
        }
    )
    training = plan.training.model_copy(update={"model": third})
    return plan.model_copy(update={"name": first, "job": job, "training": training})


def directives(script: str) -> list[str]:
    return [line for line in script.splitlines() if line.startswith("#SBATCH")]


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(hostile, min_size=3, max_size=3), maker=st.sampled_from(MAKERS))
def test_no_text_adds_or_changes_a_directive(texts: list[str], maker: str, plans: ModuleType) -> None:
    plan = getattr(plans, maker)()
    clean = directives(render_plan(plan)["train-01.sbatch"])
    dirty = directives(render_plan(poisoned(plan, texts))["train-01.sbatch"])
    assert [line for line in dirty if "--job-name" not in line] == [line for line in clean if "--job-name" not in line]
    assert len(dirty) == len(clean)


RECORDER = """#!/usr/bin/env python3
import json, os, sys
names = ("HOSTILE", "MORE", "HPCPLAN_CAMPAIGN", "HPCPLAN_CHECKPOINT_DIR")
json.dump([sys.argv[1:], [os.environ[name] for name in names]], open(os.environ["STAGE"] + "/seen", "w"))
"""


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(hostile, min_size=3, max_size=3))
def test_trainer_gets_every_byte_of_its_words_and_variables(texts: list[str], plans: ModuleType, stage: Any) -> None:
    check_run(texts, plans, stage)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_reaches_the_trainer_and_does_nothing_else(text: str, plans: ModuleType, stage: Any) -> None:
    check_run([text, text, text], plans, stage)


def check_run(texts: list[str], plans: ModuleType, stage: Any) -> None:
    import json

    (stage.directory / "seen").unlink(missing_ok=True)
    for marker in ("done", "failed"):
        (stage.directory / "state" / marker).unlink(missing_ok=True)
    stage.executable(stage.bin / "trainer", RECORDER)
    plan = poisoned(plans.srun_plan(), texts)
    status, output = stage.run(render_plan(plan)["train-01.sbatch"])
    assert status == 0, output
    words, variables = json.loads((stage.directory / "seen").read_text())
    assert words == list(plan.job.command[1:])
    assert variables == [texts[0], texts[2], texts[0], f"{stage.directory}/{plan.job.checkpoint_dir}"]
    assert not (stage.directory / "owned").exists()


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"account": "a\n#SBATCH --qos=high"}, "job.account"),
        ({"qos": "x y"}, "job.qos"),
        ({"gres": "gpu:8 --exclusive"}, "job.gres"),
        ({"variables": {"A B": "x"}}, "job.variables.A B"),
        ({"variables": {"X;touch owned": "x"}}, "job.variables.X;touch owned"),
        ({"command": ("a\0b",)}, r"job.command[0]"),
        ({"setup": ("true\nfalse",)}, r"job.setup[0]"),
        ({"checkpoint_dir": "\ud800"}, "job.checkpoint_dir"),
    ],
)
def test_what_cannot_be_made_safe_is_refused_by_field(changes: dict[str, Any], field: str, plans: ModuleType) -> None:
    plan = plans.plan()
    bad = plan.model_copy(update={"job": plan.job.model_copy(update=changes)})
    with pytest.raises(InputError) as caught:
        render_plan(bad)
    assert [problem.field for problem in caught.value.problems] == [field]
