"""A Plan becomes the text of its files: one sbatch script a segment, ``plan.json`` and ``jobs.json``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from hpcplan.plan import Plan
from hpcplan.render.check import check_plan
from hpcplan.render.context import ScriptContext, script_contexts
from hpcplan.render.manifest import MANIFEST_NAME, PLAN_NAME, build_manifest

__all__ = ["render_plan", "template_name"]


def template_name(plan: Plan) -> str:
    """Return the template of the plan's framework: ``sbatch/megatron-lm.sbatch.j2``."""
    return f"sbatch/{plan.job.framework}.sbatch.j2"


def render_plan(plan: Plan, templates_dir: Path | None = None) -> dict[str, str]:
    """Return file names and their text. The same plan and templates give the same bytes; nothing is written.

    Raises:
        InputError: the plan does not hold together or its framework cannot do what it asks for (with the field), or a
            template is wrong (with its file and line).
    """
    from hpcplan.render.environment import render_template, template_environment

    check_plan(plan)
    environment = template_environment(templates_dir, slurm_version=plan.job.slurm_version)
    contexts = script_contexts(plan)
    name = template_name(plan)
    files = {context.script_name: render_template(environment, name, _variables(context)) for context in contexts}
    files = {PLAN_NAME: plan.text(), **files}
    return {**files, MANIFEST_NAME: build_manifest(plan, contexts, files).text()}


def _variables(context: ScriptContext) -> dict[str, Any]:
    return {field.name: getattr(context, field.name) for field in dataclasses.fields(context)}
