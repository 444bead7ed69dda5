"""A report as text: HTML, Markdown, JSON, CSV. The same report gives the same bytes.

HTML and Markdown come from templates (``templates/report/``) that a user may override file by file, in the order of
:mod:`hpcplan.resources`. Names in accounting are anybody's text: HTML is escaped throughout, Markdown by its own rules.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence
from datetime import tzinfo
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

from hpcplan import resources
from hpcplan.errors import InputError, Problem
from hpcplan.report import charts, formats, summary
from hpcplan.report.jobs import COLUMNS, job_rows
from hpcplan.report.model import Report
from hpcplan.report.rows import NodeUse
from hpcplan.report.tracking_picture import tracking_chart

__all__ = ["FORMATS", "Format", "eaters", "render"]

Format = Literal["html", "md", "json", "csv"]
FORMATS: Final[tuple[Format, ...]] = ("html", "md", "json", "csv")
_TEMPLATES: Final = {"html": "report/page.html.j2", "md": "report/page.md.j2"}
_MOST_ROWS: Final = 200  # of one table on a page; JSON has them all


def render(report: Report, form: Format, *, zone: tzinfo | None = None, templates: Path | None = None) -> str:
    """Return the report as text; ``templates`` is a folder to look in first, ``zone`` the one that times are shown in.

    Raises:
        InputError: the folder does not exist, or a template in it does not work; with its file and line.
    """
    if form == "json":
        return json.dumps(report.as_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    if form == "csv":
        return _csv(job_rows(report.jobs_table, now=report.end))
    return _from_template(report, _TEMPLATES[form], zone, templates)


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, fieldnames=list(COLUMNS), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def _from_template(report: Report, name: str, zone: tzinfo | None, templates: Path | None) -> str:
    import jinja2

    folders = [str(folder) for folder, _ in resources.folders("templates", templates)]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folders),
        autoescape=jinja2.select_autoescape(enabled_extensions=("html.j2",)),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(
        percent=formats.percent, number=formats.number, duration=formats.duration, coverage=formats.coverage,
        when=partial(formats.when, zone=zone), cell=_markdown_cell,
        figure=formats.figure, change=formats.change, saved=formats.saved,
        step=formats.step, capitalize_first=lambda text: text[:1].upper() + text[1:],
    )  # fmt: skip
    try:
        return environment.get_template(name).render(_content(report, zone))
    except jinja2.TemplateSyntaxError as error:
        raise InputError(Problem(error.message or "is no template", error.filename or name, error.lineno)) from None
    except jinja2.TemplateError as error:
        raise InputError(Problem(f"the template does not work: {error}", file=name)) from None


def _content(report: Report, zone: tzinfo | None) -> dict[str, Any]:
    return {
        "report": report,
        "headline": summary.headline(report),
        "lines": summary.lines(report),
        "use_chart": charts.use_chart(report, zone),
        "queue_chart": charts.queue_chart(report, zone),
        "wait_chart": charts.wait_chart(report.wait_histogram),
        "account_chart": charts.account_chart(report.by_account),
        "node_map": charts.node_map(report, zone),
        "part_map": charts.part_map(report, zone),
        "trend_chart": charts.trend_chart(report, zone),
        "tracking_chart": tracking_chart(report.tracked, zone),
        "eaters": eaters(report),
        "most_rows": _MOST_ROWS,
    }


def eaters(report: Report) -> list[NodeUse]:
    """Return the nodes on which more attempts failed than the cluster's own rate lets one expect, worst first.

    Only those with at least three failures, and twice as many as expected.
    """
    found = [node for node in report.nodes_used if node.failed >= 3 and node.failed >= 2 * node.expected_failed]
    found += [node for node in report.nodes_used if node.node_failures and node not in found]
    return sorted(found, key=lambda node: (-(node.failed - node.expected_failed), node.name))[:20]


def _markdown_cell(value: object) -> str:
    """Return text that stays inside a cell of a Markdown table and is no markup there."""
    text = " ".join(str(value).split())
    return re.sub(r"([\\`*_{}\[\]<>|#~!&])", r"\\\1", text)
