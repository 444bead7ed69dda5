"""``hpcplan list``: the campaigns submitted from this account."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from hpcplan.cli.output import console, echo_json, format_option, narrate, progress, table

if TYPE_CHECKING:
    from hpcplan.campaign import Overview

__all__ = ["command"]


@click.command()
@format_option
def command(output_format: str) -> None:
    """List the campaigns submitted from this account.

    The newest comes first. Where Slurm does not answer, a state is what the journal knows, or 'unknown'.

    \b
    Example:  hpcplan list --format json
    """
    from hpcplan.campaign import campaigns, overview
    from hpcplan.cli.backends import open_backend

    with progress("asking Slurm"):
        found = [_as_dict(one) for one in overview(campaigns(), open_backend)]
    if output_format == "json":
        echo_json(found)
        return
    if not found:
        narrate("no campaign was submitted yet; begin with: hpcplan plan, hpcplan render, hpcplan submit")
        return
    columns = ("campaign", "state", "jobs", "submitted", "cluster", "backend", "directory", "note")
    rows = [(e["campaign"], e["state"], _jobs(e), _moment(e["created"]), e["cluster"], e["backend"], e["directory"],
             e["note"])
            for e in found]  # fmt: skip
    console().print(table(None, columns, rows))


def _as_dict(one: Overview) -> dict[str, Any]:
    entry = one.entry
    return {
        "campaign": entry.name,
        "id": entry.campaign_id,
        "state": one.state.value,
        "jobs": {"submitted": one.submitted, "total": one.total},
        "created": entry.created_at,
        "backend": entry.backend,
        "cluster": entry.cluster,
        "directory": entry.directory,
        "note": one.note,
    }


def _jobs(entry: dict[str, Any]) -> str:
    jobs = entry["jobs"]
    return "?" if jobs["total"] is None else f"{jobs['submitted']} of {jobs['total']}"


def _moment(unix_s: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(unix_s))
