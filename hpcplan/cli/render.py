"""``hpcplan render``: from a plan to the scripts that run it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from hpcplan.cli.output import echo_json, format_option, narrate

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hpcplan.plan import Plan
    from hpcplan.render import Written

__all__ = ["command"]


@click.command()
@click.argument("plan_file", metavar="PLAN", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", "directory", type=click.Path(path_type=Path), metavar="DIR",
    help="The campaign's directory; made if it is not there.",
)  # fmt: skip
@click.option(
    "--templates", "templates_dir", type=click.Path(path_type=Path), metavar="DIR",
    help="Look for templates here first; a file may override single blocks of a shipped one.",
)  # fmt: skip
@click.option(
    "--target", type=click.Choice(["slurm", "kubernetes"]), default="slurm", show_default=True,
    help="kubernetes: a JobSet manifest for the same plan beside the scripts.",
)  # fmt: skip
@click.option(
    "--graph", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
    help="Draw what waits for what, as svg, pdf or png; '-' prints it as text.",
)  # fmt: skip
@click.option("--force", is_flag=True, help="Overwrite files that were edited since they were rendered.")
@format_option
def command(
    plan_file: Path,
    directory: Path | None,
    templates_dir: Path | None,
    target: str,
    graph: Path | None,
    force: bool,
    output_format: str,
) -> None:
    """Turn a plan into sbatch scripts and launcher arguments.

    DIR then holds plan.json, one script for each job of the chain, and jobs.json, which says what waits for what.
    Rendering again leaves unchanged files alone, shows a diff of edited ones and keeps them unless --force is given.

    \b
    Examples:
      hpcplan render plan.json -o campaign
      hpcplan render plan.json -o campaign --templates ~/my-templates
      hpcplan render plan.json --graph stages.svg
    """
    from hpcplan.plan import read_plan
    from hpcplan.render import write_campaign
    from hpcplan.render.files import differences

    if directory is None and graph is None:
        raise click.UsageError("say where to write the scripts (-o DIR), or the picture (--graph FILE)")
    plan = read_plan(plan_file)
    files = _render(plan, plan_file, templates_dir, target)
    if graph is not None:
        _draw(plan, files, graph)
    if directory is None:
        return
    _refuse_submitted(files, directory)
    changes = differences(files, directory)
    written = write_campaign(files, directory, force=force)
    if changes:
        narrate(changes)
    if output_format == "json":
        echo_json(_as_dict(directory, written))
    else:
        _show(directory, written)
    _warn(plan)


def _draw(plan: Plan, files: Mapping[str, str], file: Path) -> None:
    from hpcplan.render.graph import draw_jobs, jobs_as_text

    if str(file) == "-":
        click.echo(jobs_as_text(files))
        return
    draw_jobs(plan.name, files, file)
    narrate(f"wrote {file}")


def _render(plan: Plan, plan_file: Path, templates_dir: Path | None, target: str) -> dict[str, str]:
    """Return the files; what is wrong with the plan is said of its file."""
    import dataclasses

    from hpcplan.errors import InputError
    from hpcplan.render import render_plan

    try:
        return render_plan(plan, templates_dir, kubernetes=target == "kubernetes")
    except InputError as error:
        problems = [dataclasses.replace(one, file=one.file or str(plan_file)) for one in error.problems]
        raise InputError(problems, hint=error.hint) from None


def _refuse_submitted(files: Mapping[str, str], directory: Path) -> None:
    from hpcplan.campaign import read_ledger
    from hpcplan.errors import ConflictError
    from hpcplan.render.files import changed_files

    if not directory.is_dir() or read_ledger(directory).campaign_id is None:
        return
    changed = changed_files(files, directory)
    if changed:
        message = f"{directory}: this campaign was submitted; {', '.join(changed[:5])} would change under its jobs"
        raise ConflictError(message, hint="render into a new directory")


def _as_dict(directory: Path, written: Written) -> dict[str, object]:
    return {
        "directory": str(directory.resolve()),
        "written": list(written.written),
        "unchanged": list(written.unchanged),
        "removed": list(written.removed),
    }


def _show(directory: Path, written: Written) -> None:
    for title, names in (("wrote", written.written), ("unchanged", written.unchanged), ("removed", written.removed)):
        if names:
            shown = ", ".join(names if len(names) <= 8 else [*names[:3], f"… {len(names) - 4} more …", names[-1]])
            click.echo(f"{title}: {shown}")
    narrate(f"next: hpcplan submit {directory}")


def _warn(plan: Plan) -> None:
    from hpcplan.render.scripts import launch_notes

    for note in launch_notes(plan):
        narrate(f"note: {note}")
