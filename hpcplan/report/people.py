"""A page for each user, with nobody else's figures in it."""

from __future__ import annotations

import re
from datetime import tzinfo
from pathlib import Path

import polars as pl

from hpcplan.documents import write_text
from hpcplan.report.build import assemble
from hpcplan.report.model import Report
from hpcplan.report.pages import render
from hpcplan.report.site_facts import SiteFacts

__all__ = ["pages"]


def pages(
    jobs: pl.DataFrame, report: Report, folder: Path, *, zone: tzinfo | None = None, templates: Path | None = None
) -> int:
    """Write ``NAME.html`` into a folder for every user who had jobs in the report's window; return how many.

    The cluster's size is left out, so that utilisation is not measured against one user's jobs. Characters of a name
    that do not belong in a file's name become ``_``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    users = sorted(name for name in report.jobs_table["user"].unique().to_list() if name)
    taken: set[str] = set()
    for user in users:
        own = assemble(
            jobs.filter(pl.col("user") == user), start=report.start, end=report.end, nodes=None,
            price_per_node_hour=None, currency=None, cluster=report.cluster, source=f"the jobs of {user}", faults=None,
            zone=zone, known=SiteFacts(), history=None,
        )  # fmt: skip
        stem = re.sub(r"[^A-Za-z0-9._@+-]", "_", user).lstrip(".") or "_"
        while stem in taken:
            stem += "_"
        taken.add(stem)
        write_text(folder / f"{stem}.html", render(own, "html", zone=zone, templates=templates))
    return len(users)
