"""``hpcplan template``: the templates that scripts are made from, and those of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from hpcplan.cli.output import console, echo_json, format_option, narrate, table

if TYPE_CHECKING:
    from hpcplan.plan import Plan

__all__ = ["command"]

_templates_option = click.option(
    "--templates",
    "templates_dir",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Look for templates here first.",
)


@click.group()
def command() -> None:
    """List, show, make and check the templates of scripts.

    \b
    Examples:
      hpcplan template list
      hpcplan template new torchrun --block extra_directives
      hpcplan template check --plan plan.json
    """


@command.command("list")
@_templates_option
@format_option
def list_command(templates_dir: Path | None, output_format: str) -> None:
    """List the templates in use, whose they are, and their blocks.

    \b
    Example:  hpcplan template list
    """
    from hpcplan.render.catalogue import list_templates

    found = list_templates(templates_dir)
    if output_format == "json":
        echo_json(
            [
                {"name": one.name, "origin": one.origin, "path": str(one.path), "summary": one.summary,
                 "blocks": list(one.blocks)}
                for one in found
            ]
        )  # fmt: skip
        return
    rows = [(one.name, one.origin, one.summary, ", ".join(one.blocks)) for one in found]
    console().print(table(None, ("template", "whose", "what it is", "blocks"), rows))


@command.command()
@click.argument("name", required=False)
@click.option("--variables", "show_variables", is_flag=True, help="Show what templates may use instead.")
@_templates_option
@format_option
def show(name: str | None, show_variables: bool, templates_dir: Path | None, output_format: str) -> None:
    """Print a template, or with --variables what every template may use.

    \b
    Examples:
      hpcplan template show torchrun
      hpcplan template show --variables
    """
    from hpcplan.render.catalogue import find_template, variables

    if show_variables:
        known = variables()
        if output_format == "json":
            echo_json({key: {"kind": kind, "meaning": meaning} for key, (kind, meaning) in known.items()})
            return
        rows = [(key, kind, meaning) for key, (kind, meaning) in known.items()]
        console().print(table(None, ("name", "kind", "meaning"), rows))
        return
    if name is None:
        raise click.UsageError("name a template, or give --variables")
    template = find_template(name, templates_dir)
    text = template.path.read_text(encoding="utf-8")
    if output_format == "json":
        echo_json({"name": template.name, "origin": template.origin, "path": str(template.path), "text": text})
        return
    narrate(f"{template.path} ({template.origin})")
    click.echo(text, nl=False)


@command.command()
@click.argument("name")
@click.option("--block", help="The block to override; extra_directives, where there is one.")
@click.option(
    "--templates", "templates_dir", type=click.Path(path_type=Path), metavar="DIR",
    help="Your folder of templates; ~/.config/hpcplan/templates if absent.",
)  # fmt: skip
def new(name: str, block: str | None, templates_dir: Path | None) -> None:
    """Begin a template of your own that overrides one block of a shipped one.

    \b
    Example:  hpcplan template new torchrun --block before
    """
    from hpcplan import resources
    from hpcplan.render.catalogue import find_template, new_template

    folder = templates_dir or resources.config_dir() / "templates"
    path = new_template(find_template(name), block, folder)
    click.echo(f"wrote {path}")
    narrate("next: edit it, then hpcplan template check" + (f" --templates {folder}" if templates_dir else ""))


@command.command()
@click.option("--plan", "plan_file", type=click.Path(path_type=Path), metavar="PLAN", help="Also render this plan.")
@_templates_option
@format_option
def check(plan_file: Path | None, templates_dir: Path | None, output_format: str) -> None:
    """Check templates of your own: syntax, blocks that exist, and, with a plan, what they make of it.

    \b
    Example:  hpcplan template check --templates my-templates --plan plan.json
    """
    from hpcplan.errors import InputError
    from hpcplan.plan import read_plan
    from hpcplan.render.catalogue import check_templates, list_templates

    problems = check_templates(templates_dir)
    if problems:
        raise InputError(problems)
    rendered = [] if plan_file is None else _render(read_plan(plan_file), templates_dir)
    own = [one.name for one in list_templates(templates_dir) if one.origin != "shipped"]
    if output_format == "json":
        echo_json({"templates": own, "rendered": rendered})
        return
    count = f"{len(own)} template{'' if len(own) == 1 else 's'}"
    click.echo(f"{count} of your own, nothing wrong" + (f": {', '.join(own)}" if own else ""))
    if rendered:
        click.echo(f"rendered and read by bash -n: {', '.join(rendered)}")


def _render(plan: Plan, templates_dir: Path | None) -> list[str]:
    """Render a plan and have bash read its scripts; return their names.

    Raises:
        InputError: a template is wrong, or makes a script that bash does not understand.
    """
    import subprocess

    from hpcplan.errors import InputError, Problem
    from hpcplan.render import render_plan

    scripts = {
        name: text for name, text in render_plan(plan, templates_dir).items() if name.endswith((".sbatch", ".sh"))
    }
    for name, text in scripts.items():
        found = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True, check=False)
        if found.returncode:
            raise InputError(Problem(f"is no bash: {found.stderr.strip()}", file=name))
    return list(scripts)
