"""Accounting becomes a report: how long jobs waited, what they held, used and wasted, and what to change.

>>> from hpcplan.report import build_report, render, read_sacct
>>> table, faults = read_sacct(["sacct.txt"])  # doctest: +SKIP
>>> report = build_report(table, start=1714521600, end=1714608000, faults=faults)  # doctest: +SKIP
>>> page = render(report, "html")  # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import tzinfo
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import polars as pl

    from hpcplan.report.faults import Faults
    from hpcplan.report.model import Report
    from hpcplan.report.pages import Format
    from hpcplan.report.site_facts import Sampled, SiteFacts
    from hpcplan.slurm.records import JobRecord, NodeRecord

__all__ = ["build_report", "job_table", "jobs_of", "read_sacct", "render"]


def build_report(
    records: Iterable[JobRecord] | pl.DataFrame,
    *,
    start: int,
    end: int,
    nodes: Sequence[NodeRecord] | None = None,
    price_per_node_hour: Mapping[str, float] | None = None,
    currency: str | None = None,
    cluster: str | None = None,
    source: str = "accounting",
    faults: Faults | None = None,
    zone: tzinfo | None = None,
    known: SiteFacts | None = None,
    history: pl.DataFrame | None = None,
) -> Report:
    """Return how the queue was used in ``[start, end)``, unix seconds.

    Args:
        records: a backend's ``accounting(start, end)``, or a job table (:func:`job_table`, :func:`read_sacct`).
        start: first second of the window.
        end: first second behind it; jobs that had not ended by then count as running or pending.
        nodes: a backend's ``nodes()``; without them capacity, and so utilisation, is unknown.
        price_per_node_hour: host name to the price of an hour of that node; without it there is no cost.
        currency: what the prices are in.
        cluster: its name; by default the one that the records carry.
        source: where the records came from, for the reader.
        faults: what could not be read, for the appendix.
        zone: the zone that the pages show times in; this machine's by default.
        known: what accounting does not know of the site: power, fairshare's targets, the plans' predictions.
        history: a job table that reaches further back, for the trend and the comparison; else the records' own past.

    Raises:
        InputError: the window is empty.
    """
    from hpcplan.report.build import assemble
    from hpcplan.report.site_facts import SiteFacts

    return assemble(
        records, start=start, end=end, nodes=nodes, price_per_node_hour=price_per_node_hour, currency=currency,
        cluster=cluster, source=source, faults=faults, zone=zone, known=known or SiteFacts(), history=history,
    )  # fmt: skip


def render(report: Report, form: Format, *, zone: tzinfo | None = None, templates: Path | None = None) -> str:
    """Return the report as ``html``, ``md``, ``json`` or ``csv`` (one row a job); see :mod:`hpcplan.report.pages`."""
    from hpcplan.report.pages import render as text_of

    return text_of(report, form, zone=zone, templates=templates)


def read_sacct(
    paths: Sequence[Path | str], *, columns: str | None = None, zone: tzinfo | None = None
) -> tuple[pl.DataFrame, Faults]:
    """Return the job table of files that sacct wrote, and what in them could not be read.

    Args:
        paths: output of ``sacct --parsable`` or ``--parsable2`` with any delimiter, plain or gzip; ``-`` is stdin.
        columns: sacct's ``--format`` for files that have no header.
        zone: where sacct ran, as it writes local times; this machine's zone by default.

    Raises:
        InputError: a file that is missing, unreadable, empty, or not sacct's parsable output.
    """
    from hpcplan.report.faults import Faults
    from hpcplan.report.sacct import read_dumps
    from hpcplan.report.sacct_rows import split_columns

    faults = Faults()
    named = None if columns is None else split_columns(columns)
    return read_dumps(paths, faults, columns=named, zone=zone), faults


def job_table(records: Iterable[JobRecord]) -> pl.DataFrame:
    """Return a backend's records as a job table (:data:`hpcplan.report.table.SCHEMA`), each attempt once."""
    from hpcplan.report.table import from_records, merge

    return merge([from_records(records)])


def jobs_of(
    table: pl.DataFrame, job_ids: Iterable[str] = (), *, user: str | None = None, now: int | None = None,
    samples: Mapping[tuple[str, int], Sampled] | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """Return one dictionary a job with its efficiencies as fractions, ``None`` where unknown.

    ``samples``: see site_facts.SiteFacts.
    """
    from hpcplan.report.jobs import job_rows, select
    from hpcplan.report.sampled import filled

    return job_rows(filled(select(table, job_ids, user), samples), now=now)
