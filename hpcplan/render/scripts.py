"""A Plan becomes the text of its files: sbatch scripts, launcher configuration, ``plan.json`` and ``jobs.json``."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hpcplan.errors import InputError, Problem
from hpcplan.plan import Plan
from hpcplan.render.check import check_plan
from hpcplan.render.context import ScriptContext, script_contexts
from hpcplan.render.kubernetes import JOBSET_NAME, render_jobset
from hpcplan.render.launchers import launch_of
from hpcplan.render.manifest import MANIFEST_NAME, PLAN_NAME, build_manifest
from hpcplan.render.placement import rank_map_files
from hpcplan.render.versions import too_new

if TYPE_CHECKING:
    import jinja2

__all__ = ["launch_notes", "render_plan", "template_name", "template_variables"]

_TRAINED: Final = 0.95  # a link below this share of its rate was not trained to full width or speed
_STAGE_TEMPLATES: Final = {"task": "stage", "preprocess": "preprocess", "array": "array"}


def template_name(context: ScriptContext) -> str:
    """Return the template of a script: ``sbatch/megatron-lm.sbatch.j2``."""
    stage = context.stage_spec
    name = context.plan.job.framework if stage is None else _STAGE_TEMPLATES[stage.kind]
    return f"sbatch/{name}.sbatch.j2"


def launch_notes(plan: Plan) -> tuple[str, ...]:
    """Return what a person should know who runs the plan with its framework."""
    return launch_of(plan).notes


def render_plan(
    plan: Plan, templates_dir: Path | None = None, *, kubernetes: bool = False, folder: str = ""
) -> dict[str, str]:
    """Return file names and their text. The same plan and templates give the same bytes; nothing is written.

    With ``kubernetes`` there is a JobSet for the same plan beside the scripts. Jobs run in the campaign's directory;
    ``folder`` says where in it these files will be, if not at its top.

    Raises:
        InputError: the plan does not hold together, its framework or the site's Slurm cannot do what it asks for (with
            the field), or a template is wrong (with its file and line).
    """
    from hpcplan.render.environment import template_environment

    check_plan(plan)
    environment = template_environment(templates_dir, slurm_version=plan.job.slurm_version)
    contexts = script_contexts(plan, folder)
    files = {PLAN_NAME: plan.text()}
    for context in contexts:
        files[context.script_name] = _script(environment, context)
    configs = _configs(environment, contexts[0])
    files |= configs | dict(_beside(environment, contexts[0]))
    if kubernetes:
        files[JOBSET_NAME] = render_jobset(environment, contexts[0], template_variables(contexts[0]), configs)
    return {**files, MANIFEST_NAME: build_manifest(plan, contexts, files).text()}


def _script(environment: jinja2.Environment, context: ScriptContext) -> str:
    from hpcplan.render.environment import render_template

    name = template_name(context)
    text = render_template(environment, name, template_variables(context))
    version = context.plan.job.slurm_version
    for line, option, since in too_new(text, version):
        shown = option if option == "hetjob" else f"--{option}"
        message = f"{shown} came with Slurm {since}; the site has {version or 'an unknown version'}"
        hint = f'write it inside {{% if supports("{option}") %}}'
        raise InputError(Problem(f"line {line} of {context.script_name}: {message}", file=name), hint=hint)
    return text


def _configs(environment: jinja2.Environment, context: ScriptContext) -> dict[str, str]:
    """Return the launcher's configuration files."""
    from hpcplan.render.environment import render_template

    variables = template_variables(context)
    return {
        name: render_template(environment, f"launchers/{name}.j2", {**variables, "config": config})
        for name, config in launch_of(context.plan).configs.items()
    }


def _beside(environment: jinja2.Environment, context: ScriptContext) -> Iterator[tuple[str, str]]:
    """Yield the programs that the scripts start on each node."""
    from hpcplan.render.environment import render_template, source_text

    variables = template_variables(context)
    if context.health is not None:
        rate = context.health.interface_bytes_per_s or 0
        least = {"least_gbps": round(_TRAINED * rate * 8 / 1e9)}
        yield "check-node.sh", render_template(environment, "node/check-node.sh.j2", {**variables, **least})
        if context.health.all_reduce_bytes_per_s and context.nodes > 1 and len(context.components) == 1:
            yield "all_reduce.py", source_text(environment, "node/all_reduce.py")
    if context.orders_nodes:
        yield from rank_map_files(context.plan).items()
    if context.staging is not None:
        yield "stage-data.sh", render_template(environment, "node/stage-data.sh.j2", variables)
    if context.sample_every_s is not None:
        yield "sample.sh", source_text(environment, "node/sample.sh")


def template_variables(context: ScriptContext) -> Mapping[str, Any]:
    """Return what a template is given, by name."""
    return {field.name: getattr(context, field.name) for field in dataclasses.fields(context)}
