"""``hpcplan submit``: hand a campaign's jobs to Slurm, each exactly once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hpcplan.cli.backends import backend_option, open_backend, settle_s
from hpcplan.cli.output import console, echo_json, format_option, narrate, progress_bar, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hpcplan.campaign import JobStep
    from hpcplan.slurm.backend import Backend

__all__ = ["command"]

_WORDS = {
    "submit": "would be submitted",
    "look-up": "was asked for before; would be looked for first",
    "submitted": "submitted",
    "found": "found: it had been submitted before",
    "already": "submitted before",
    "later": "later: the queue has no room for it now",
}


@click.command()
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@backend_option
@click.option("--dry-run", is_flag=True, help="Print the sbatch commands and touch nothing.")
@click.option(
    "--resubmit-lost", is_flag=True, help="Submit again where it cannot be told whether the first request arrived."
)
@click.option("--wait", "waiting", is_flag=True, help="Where the queue is full, wait for room until all is submitted.")
@click.option(
    "--run-in", metavar="PATH", help="Where jobs run, as the cluster sees it, if that is not DIR (for slurmrestd)."
)
@format_option
def command(
    directory: Path, backend_name: str, dry_run: bool, resubmit_lost: bool, waiting: bool, run_in: str | None,
    output_format: str,
) -> None:  # fmt: skip
    """Submit a rendered campaign.

    DIR is what 'hpcplan render' wrote. The jobs form a chain: each starts when the one before has ended. Run it again
    after any interruption: what is submitted stays so, and what is missing is added. How many jobs are queued at a time
    and how fast is in DIR/policy.yaml; where Slurm takes no more, the rest is submitted later.

    \b
    Examples:
      hpcplan submit campaign --dry-run
      hpcplan submit campaign
      hpcplan submit campaign --backend mock
    """
    from hpcplan.campaign import preview, submit
    from hpcplan.render import read_manifest

    if dry_run:
        _show_preview(directory, preview(directory), output_format)
        return
    backend = _backend(directory, backend_name)
    with progress_bar("submitting", len(read_manifest(directory).jobs)) as done:
        steps = submit(
            directory, backend, settle_s=settle_s(backend), resubmit_lost=resubmit_lost, run_in=run_in,
            on_step=lambda step: done(),
        )  # fmt: skip
    if waiting:
        steps = _until_all_are_in(directory, backend, steps)
    if output_format == "json":
        echo_json(_as_dict(directory, backend.name, steps))
        return
    console().print(_table(steps))
    if any(step.action == "later" for step in steps):
        narrate(f"hpcplan submit {directory} goes on when there is room; hpcplan track does so by itself")
        return
    narrate(f"next: hpcplan status {directory} --watch")


def _until_all_are_in(directory: Path, backend: Backend, steps: list[JobStep]) -> list[JobStep]:
    """Submit what is left as room comes, politely."""
    import time

    from hpcplan.campaign import polite_interval_s, submit

    while any(step.action == "later" for step in steps):
        time.sleep(polite_interval_s(backend))
        steps = submit(directory, backend, settle_s=settle_s(backend))
    return steps


def _backend(directory: Path, name: str) -> Backend:
    """Return the backend asked for; an interrupted submission goes on with the one it began with."""
    from hpcplan.campaign import read_ledger
    from hpcplan.render import read_manifest

    read_manifest(directory)  # a wrong directory is the first thing to hear of, wherever Slurm is
    recorded = read_ledger(directory).backend
    return open_backend(recorded if name == "auto" and recorded in ("mock", "command", "pyslurm", "rest") else name)


def _as_dict(directory: Path, backend: str | None, steps: Sequence[JobStep]) -> dict[str, Any]:
    from hpcplan.campaign import sbatch_line
    from hpcplan.render import read_manifest

    return {
        "campaign": read_manifest(directory).campaign,
        "directory": str(directory.resolve()),
        "backend": backend,
        "jobs": [
            {
                "stage": step.job.stage,
                "segment": step.job.segment,
                "job_id": step.job_id,
                "action": step.action,
                "after": list(step.job.after),
                "command": sbatch_line(step.submission),
            }
            for step in steps
        ],
    }


def _table(steps: Sequence[JobStep]) -> Any:
    shown = steps if len(steps) <= 12 else [*steps[:5], None, *steps[-3:]]
    rows: list[tuple[object, ...]] = []
    for step in shown:
        if step is None:
            rows.append((f"… {len(steps) - 8} more", "", "", ""))
        else:
            rows.append((step.job.key, step.job_id, _WORDS[step.action], ", ".join(step.job.after)))
    return table(None, ("job", ">id", "", "waits for the end of"), rows)


def _show_preview(directory: Path, steps: Sequence[JobStep], output_format: str) -> None:
    from hpcplan.campaign import sbatch_line

    if output_format == "json":
        echo_json(_as_dict(directory, None, steps))
        return
    for step in steps:
        if step.action == "already":
            narrate(f"{step.job.key}: {_WORDS[step.action]} as job {step.job_id}")
        else:
            narrate(f"{step.job.key}: {_WORDS[step.action]}")
            click.echo(sbatch_line(step.submission))
    narrate("nothing was submitted; <train-01> stands for that job's id, NEW for the campaign's")
