"""``hpcplan history``: what the journal says was done."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import click

from hpcplan.cli.output import console, echo_json, format_option, narrate, table

if TYPE_CHECKING:
    from hpcplan.campaign.journal import Entry

__all__ = ["command"]


@click.command()
@click.argument("campaign", required=False)
@click.option("-n", "--last", type=click.IntRange(min=1), metavar="N", help="The last N entries alone.")
@format_option
def command(campaign: str | None, last: int | None, output_format: str) -> None:
    """Show what was done with a campaign, and when.

    Times are UTC. Slurm is not asked: this is the campaign's journal, one line an entry.

    \b
    Examples:
      hpcplan history
      hpcplan history llama3-70b -n 20
    """
    from pathlib import Path

    from hpcplan.campaign import find_campaign
    from hpcplan.campaign.journal import read_journal

    directory, note = find_campaign(campaign, Path.cwd())
    if note is not None:
        narrate(note)
    entries = read_journal(directory)[-last if last else None :]
    if output_format == "json":
        echo_json([{"seq": e.seq, "time": e.time, "event": e.event, **e.data} for e in entries])
        return
    if not entries:
        narrate(f"{directory}: nothing was done with it yet")
        return
    rows = [(entry.seq, entry.time.replace("T", " ").rstrip("Z"), entry.event, _words(entry)) for entry in entries]
    console().print(table(None, (">entry", "time (UTC)", "event", "what"), rows))


def _words(entry: Entry) -> str:
    data = entry.data
    writer = _WORDS.get(entry.event)
    if writer is not None:
        return writer(data)
    return ", ".join(f"{name} {value}" for name, value in data.items() if name not in ("at", "token", "script_sha256"))


def _ended(data: Any) -> str:
    record = data["record"]
    code = f", exit code {record['exit_code']}" if record.get("exit_code") else ""
    where = f" on {record['node_list']}" if record.get("node_list") else ""
    whose = _WHOSE.get(data.get("by"), "")
    state = "its end is lost" if data.get("by") == "limit" else record["state"]
    return f"{data['job']} (job {record['job_id']}): {state}{code}{where}{whose}"


def _ids(data: Any) -> str:
    ids = [str(job_id) for job_id in data["job_ids"]]
    return f"jobs {', '.join(ids[:6])}{f' and {len(ids) - 6} more' if len(ids) > 6 else ''}" if ids else "no job"


_WHOSE: Final = {"job": ", by its own word"}
_WORDS: Final[dict[str, Callable[[Any], str]]] = {
    "opened": lambda data: f"{data['name']} on {data['cluster']} with the {data['backend']} backend",
    "submit": lambda data: f"{data['job']}{', after ' + data['dependency'] if data.get('dependency') else ''}",
    "submitted": lambda data: f"{data['job']} is job {data['job_id']}{' (found)' if data.get('found') else ''}",
    "submit-failed": lambda data: f"{data['job']}: {data['message']}",
    "cancel": _ids,
    "cancelled": _ids,
    "withdraw": _ids,
    "withdrawn": _ids,
    "ended": _ended,
    "retry": lambda data: f"{', '.join(data['jobs'])}: {data['why']}",
    "replanned": lambda data: f"plan {data['generation']} in {data['folder']}: {data['why']}",
    "node-failed": lambda data: f"{', '.join(data['nodes']) or 'no node known'} under {data['job']}",
    "stopped": lambda data: str(data["why"]),
    "notify": lambda data: str(data["text"]),
    "notify-failed": lambda data: str(data["message"]),
}
