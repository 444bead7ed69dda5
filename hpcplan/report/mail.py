"""The report as a message: a body in plain text, pictures as PNG for clients that show no SVG, the page attached."""

from __future__ import annotations

import io
import json
import re
import shutil
import smtplib
import socket
import subprocess
import urllib.error
import urllib.request
from datetime import tzinfo
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from hpcplan.errors import HpcplanError, InputError
from hpcplan.report import formats, summary

if TYPE_CHECKING:
    from hpcplan.report.model import Report

__all__ = ["message", "picture", "plain_text", "post", "send"]

_WIDTH: Final = 74
_WAIT_S: Final = 60.0


def plain_text(report: Report, zone: tzinfo | None = None) -> str:
    """Return the report as short lines: what to read first, what to change, the ten largest users."""
    lines = [
        f"Queue report{' of ' + report.cluster if report.cluster else ''}",
        f"{formats.when(report.start, zone)} to {formats.when(report.end, zone)} ({report.timezone})",
        "",
    ]
    for line in summary.headline(report):
        part = "" if line.coverage in ("all", "–") else f"from {line.coverage}"
        lines.append(f"  {line.name:<24}{line.value:>14}   {part}".rstrip())
    for one in report.compared:
        lines += ["", f"Beside {one.name}:"]
        for key, pair in one.figures.items():
            values = (formats.figure(pair[0], key), formats.figure(pair[1], key), formats.change(pair))
            name = key.removesuffix("_s").replace("_", " ")
            lines.append(f"  {name:<24}{values[0]:>14}{values[1]:>14}{values[2]:>10}")
    lines += ["", "What to change:"]
    for number, piece in enumerate(report.advice, start=1):
        action = piece.action[:1].upper() + piece.action[1:]
        lines += _wrapped(f"{number:>2}. {piece.who}, {piece.kind}: {piece.finding}. {action}.")
    lines += [] if report.advice else ["  Nothing stands out."]
    if report.counterfactual is not None:
        saved = formats.saved(report.counterfactual.saved_wait_hours)
        lines += ["", *_wrapped(f"Replayed with right-sized requests: {saved}.")]
    if report.tracked:
        last = report.tracked[-1]
        times = f"{formats.step(last.predicted_s)} predicted, {formats.step(last.actual_s)} measured"
        state = f"drifting: {last.drift} than predicted" if last.drift else "no drift"
        lines += ["", *_wrapped(f"Steps of the last finished campaign ({last.campaign}): {times}; {state}.")]
    lines += ["", f"  {'user':<20}{'core-hours':>14}{'idle':>12}{'CPU eff.':>12}{'median wait':>14}"]
    for row in report.by_user[:10]:
        name = "(none on record)" if row.name is None else row.name
        held, idle = formats.number(row.core_hours), formats.number(row.idle_core_hours)
        share, wait = formats.percent(row.cpu_efficiency), formats.duration(row.median_wait_s)
        lines.append(f"  {name[:19]:<20}{held:>14}{idle:>12}{share:>12}{wait:>14}")
    for kind, count in report.problems.counts.items():
        lines += ["", f"Not everything could be read: {count:,} x {kind}."]
    return "\n".join(lines) + "\n"


def _wrapped(text: str) -> list[str]:
    import textwrap

    return textwrap.wrap(" ".join(text.split()), _WIDTH, initial_indent="  ", subsequent_indent="      ")


def picture(report: Report, zone: tzinfo | None = None) -> bytes:
    """Return utilisation, queue and waits as one PNG of 900 × 900 pixels."""
    from datetime import datetime

    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.dates import ConciseDateFormatter
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 9), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    above, middle, below = figure.subplots(3, 1)
    times = [datetime.fromtimestamp(moment, zone) for moment in (*report.series.start, report.end)]
    for name, values, size in (
        ("CPUs", report.series.cpus, report.capacity.cpus), ("GPUs", report.series.gpus, report.capacity.gpus),
    ):  # fmt: skip
        if any(values):
            shares = [value / (size or 1) for value in values]
            label, line = f"{name}, share of all" if size else name, "-" if name == "CPUs" else "--"
            above.stairs(shares, times, baseline=None, label=label, linestyle=line)
    above.set_title("Allocated", loc="left")
    middle.stairs(report.series.running, times, baseline=None, label="running")
    middle.stairs(report.series.pending, times, baseline=None, label="pending", linestyle="--")
    middle.set_title("Jobs, mean of each interval", loc="left")
    below.bar(report.wait_histogram.labels, report.wait_histogram.counts)
    below.set_title("How long the jobs that started had waited", loc="left")
    below.set_ylabel("jobs")
    for axes in (above, middle):
        axes.set_ylim(bottom=0)
        axes.margins(x=0)
        dates = ConciseDateFormatter(axes.xaxis.get_major_locator(), tz=zone)  # type: ignore[no-untyped-call]
        axes.xaxis.set_major_formatter(dates)
        if axes.get_legend_handles_labels()[0]:  # above the curves, so that it hides none
            axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, frameon=False)
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return stream.getvalue()


def message(
    report: Report,
    page: str,
    *,
    sender: str,
    recipients: list[str],
    zone: tzinfo | None = None,
    text: str | None = None,
) -> EmailMessage:
    """Return the message: plain text, the picture in line, and the HTML page as an attachment."""
    made = EmailMessage()
    night = formats.when(report.start, zone, "%Y-%m-%d")
    made["Subject"] = " ".join(f"Queue report {report.cluster or ''} {night}".split())
    made["From"], made["To"] = sender, ", ".join(recipients)
    made["Date"], made["Message-ID"] = formatdate(localtime=True), make_msgid("hpcplan", _host())
    made.set_content(text or plain_text(report, zone))
    made.add_attachment(picture(report, zone), "image", "png", filename=f"queue-{night}.png", disposition="inline")
    made.add_attachment(page.encode(), "text", "html", filename=f"queue-{night}.html")
    return made


def _host() -> str:
    """Return this machine's name as mail knows it."""
    name = socket.getfqdn()
    return name if re.fullmatch(r"[A-Za-z0-9.-]+", name) else "localhost"


def send(made: EmailMessage, server: str | None = None) -> None:
    """Send a message: through ``sendmail`` of this machine, or an SMTP server (``host`` or ``host:port``).

    Raises:
        HpcplanError: it was not taken.
    """
    try:
        if server is not None:
            host, _, port = server.partition(":")
            if "@" not in made["From"]:  # which sendmail would complete, and servers refuse
                made.replace_header("From", f"{made['From']}@{_host()}")
            with smtplib.SMTP(host, int(port or 25), timeout=_WAIT_S) as connection:
                connection.send_message(made)
            return
        program = shutil.which("sendmail", path="/usr/sbin:/usr/lib:/usr/bin:/sbin:/bin")
        if program is None:
            raise HpcplanError("mail: this machine has no sendmail", hint="--smtp HOST:PORT names a server")
        subprocess.run([program, "-t", "-oi"], input=bytes(made), check=True, timeout=_WAIT_S, capture_output=True)
    except (OSError, ValueError, smtplib.SMTPException, subprocess.SubprocessError) as error:
        raise HpcplanError(f"mail: not sent: {error}") from None


def post(report: Report, url: str, zone: tzinfo | None = None) -> None:
    """Post the report's figures to a webhook as JSON: ``text``, which chats show, and ``report``, its lists left out.

    Raises:
        InputError: no URL that can be posted to.
        HpcplanError: the other side did not take it.
    """
    if urlsplit(url).scheme not in ("http", "https"):
        raise InputError(f"--webhook: {url!r} is no http or https address")
    figures = {key: value for key, value in report.as_dict().items() if not isinstance(value, list) and key != "series"}
    body = json.dumps({"text": plain_text(report, zone), "report": figures}).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"}, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=_WAIT_S) as answer:
            answer.read(1024)
    except (urllib.error.URLError, OSError, ValueError) as error:
        raise HpcplanError(f"webhook: not taken: {error}") from None
