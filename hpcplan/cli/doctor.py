"""``hpcplan doctor``: what is installed, what answers, what is missing."""

from __future__ import annotations

import click

from hpcplan.cli.output import console, echo_json, format_option, progress, table

__all__ = ["command"]


@click.command()
@format_option
def command(output_format: str) -> int:
    """Say what is installed, which backends answer, and what is missing.

    Exit code 0 if everything needed is there, else 1.

    \b
    Example:  hpcplan doctor --format json
    """
    import dataclasses

    from hpcplan.doctor import examine

    with progress("asking Slurm"):
        findings = examine()
    if output_format == "json":
        echo_json([dataclasses.asdict(finding) for finding in findings])
    else:
        rows = [(f.what, f.verdict, f.detail, f.hint) for f in findings]
        console().print(table(None, ("what", "", "found", "what to do"), rows))
    return int(any(finding.verdict in {"missing", "broken"} for finding in findings))
