"""sreport(1): how much of the cluster was used, by whom, and in jobs of which size."""

from __future__ import annotations

import pwd
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any, Final

from hpcplan.simulate.commands.controller import Controller
from hpcplan.simulate.commands.formatting import at_least
from hpcplan.simulate.commands.options import Words, flags, read_words, usage
from hpcplan.simulate.commands.reply import Call, Refusal
from hpcplan.simulate.commands.sacct import moment_of
from hpcplan.simulate.job_records import live_record
from hpcplan.simulate.store import Session
from hpcplan.slurm.records import JobRecord

__all__ = ["sreport"]

_TABLE: Final = flags(
    "clusters:M tres:T format:o time_format:t",
    "all_clusters:a federation help:h immediate:I local_uid:L noheader:n parsable:p parsable2:P quiet:Q usage "
    "verbose:v version:V",
)
_RULE: Final = "-" * 80
_UNITS: Final = {"seconds": 1, "minutes": 60, "hours": 3600}
_CLUSTER: Final = (
    '"AccountUtilizationByUser", "UserUtilizationByAccount", "UserUtilizationByWckey", "Utilization", and '
    '"WCKeyUtilizationByUser"'
)
_WIDTHS: Final = {
    "Cluster": 9, "Login": 9, "Proper Name": 15, "Account": 15, "TRES Name": 14, "% of cluster": 12, "Energy": 8,
}  # fmt: skip
_GROUPS: Final = (50, 250, 500, 1000)


@dataclass(slots=True)
class _Report:
    """What is asked: the words after the report's name, the time, and how figures are written."""

    session: Session
    call: Call
    words: Words
    given: Mapping[str, str]
    plain: frozenset[str]
    start: int
    end: int
    unit: str
    tres: tuple[str, ...]

    @property
    def span(self) -> str:
        """The time that is reported on."""
        return f"{_iso(self.start)} - {_iso(self.end - 1)}"

    @property
    def named(self) -> bool:
        """Whether TRES were asked for by name, which adds a column."""
        return "tres" in self.words

    def figure(self, seconds: float, whole: float) -> str:
        """Return an amount in the unit asked for; ``whole`` is what percentages are of."""
        share = f"{100 * seconds / whole:.2f}%" if whole else "0.00%"
        name, _, percent = self.unit.partition("per")
        if self.unit == "percent":
            return share
        number = f"{seconds / _UNITS[name]:.0f}"
        return f"{number}({share})" if percent else number

    def usage(self, what: str) -> str:
        """Return the line that says in which units usage is."""
        name = self.unit.removesuffix("per")
        words = "Percentage of Total" if name == "percent" else f"{what} {name.capitalize()}"
        return words if name == self.unit else f"{words}/Percentage of Total"


def sreport(controller: Controller, connection: Any, call: Call) -> int:
    """Print one report."""
    words = read_words("sreport", call.words, _TABLE)
    if "help" in words or "usage" in words:
        call.reply.say(usage("sreport", _TABLE, "REPORT [KEY=VALUE ...]"))
        return 0
    if not words.rest:
        call.reply.out += "sreport: "
        return 0
    kind, report = _report_named(words.rest, call)
    with controller.session() as session:
        report(_asked(session, call, words, kind))
    return call.reply.code


def _report_named(rest: Sequence[str], call: Call) -> tuple[int, Callable[[_Report], None]]:
    """Return how many words name the report, and what makes it.

    Raises:
        Refusal: there is no such report.
    """
    group = rest[0].lower()
    kinds = {name: found for name, found in _REPORTS.items() if len(group) >= 1 and name.startswith(group)}
    if len(kinds) != 1:
        raise Refusal(f"invalid keyword: {rest[0]}")
    ((name, (reports, valid)),) = kinds.items()
    if len(rest) < 2:
        raise Refusal(f"too few arguments for keyword:{rest[0]}")
    close = [made for long, made in reports.items() if long.startswith(rest[1].lower())]
    if not close:
        call.reply.complain(f"Not valid report {rest[1]}", 1)
        raise Refusal(f"Valid {name} reports are, {valid}")
    return 2, close[0]


def _asked(session: Session, call: Call, words: Words, skipped: int) -> _Report:
    given: dict[str, str] = {}
    plain = set()
    for word in words.rest[skipped:]:
        key, equals, value = word.partition("=")
        if equals:
            given[key.lower()] = value
        else:
            plain.add(key.lower())
    if "format" in words:
        given.setdefault("format", words.last("format") or "")
    now = datetime.fromtimestamp(session.engine.now)
    midnight = now.replace(hour=0, minute=0, second=0)
    times = {"start": int((midnight - timedelta(days=1)).timestamp()), "end": int(midnight.timestamp())}
    for name in times:
        text = next((value for key, value in given.items() if name.startswith(key)), None)
        if text is not None:
            try:
                times[name] = moment_of(text, session.engine.now)
            except Refusal as error:
                call.reply.complain(error.message)
    # Usage is rolled up hour by hour. A real slurmdbd leaves the present hour out, which would leave a laptop nothing.
    next_hour = int(now.replace(minute=0, second=0).timestamp()) + 3600
    start = times["start"] // 3600 * 3600
    end = max(start + 3600, min(-(-times["end"] // 3600) * 3600, next_hour))
    tres = tuple(word.lower() for word in (words.last("tres") or "cpu").split(",") if word)
    return _Report(session, call, words, given, frozenset(plain), start, end, _unit(words, call), tres)


def _unit(words: Words, call: Call) -> str:
    text = (words.last("time_format") or "minutes").lower()
    known = {
        "minper": "minutesper", "hourper": "hoursper", "secper": "secondsper", "percent": "percent",
        "minutes": "minutes", "hours": "hours", "seconds": "seconds",
    }  # fmt: skip
    close = [unit for name, unit in known.items() if name == text] or [
        unit for name, unit in known.items() if name.startswith(text[:3]) and not name.endswith("per")
    ]
    if not close:
        call.reply.err += f"unknown time format {text}"
    return close[0] if close else "minutes"


# what was used --------------------------------------------------------------------------------------------------------


def _jobs(report: _Report) -> list[JobRecord]:
    """Return every attempt that ran or waited in the time asked about."""
    session = report.session
    records = [*session.accounting.latest_first(since=report.start), *session.engine.ended]
    records += [live_record(job, session.engine, None) for job in session.engine.jobs.values()]
    users, accounts = (_wanted(report, word) for word in ("users", "accounts"))
    return [
        one
        for one in records
        if (one.submit_time or 0) < report.end
        and (not users or one.user in users)
        and (not accounts or _account(one) in accounts)
    ]


def _wanted(report: _Report, word: str) -> set[str]:
    text = report.given.get(word) or report.given.get(word.removesuffix("s")) or ""
    return {name for name in text.split(",") if name}


def _account(record: JobRecord) -> str:
    return record.account or "root"


def _seconds(report: _Report, record: JobRecord, tres: str) -> float:
    """Return how many seconds of a TRES a job used in the time asked about."""
    if record.start_time is None:
        return 0.0
    end = record.end_time if record.end_time is not None else report.session.engine.now
    overlap = min(end, report.end) - max(record.start_time, report.start)
    return max(0, overlap) * float(record.tres.get(tres, 0))


def _waited(report: _Report, record: JobRecord) -> float:
    """Return how many CPU seconds a job waited for once it was eligible."""
    if record.eligible_time is None:
        return 0.0
    until = record.start_time or record.end_time or report.session.engine.now
    overlap = min(until, report.end) - max(record.eligible_time, report.start)
    return max(0, overlap) * float(record.cpus or 0)


def _capacity(report: _Report, tres: str) -> float:
    """Return the seconds of a TRES that there were since the cluster began."""
    machine = report.session.machine
    kinds = {"cpu": "cpus", "gres/gpu": "gpus", "mem": "memory_bytes"}
    total = len(machine.names) if tres == "node" else machine.total(machine.all_nodes, kinds.get(tres, "cpus"))
    begin = max(report.start, report.session.started)
    return max(0, min(report.end, report.session.engine.now) - begin) * float(total if tres in {*kinds, "node"} else 0)


# reports --------------------------------------------------------------------------------------------------------------


def _utilization(report: _Report) -> None:
    rows = []
    jobs = _jobs(report)
    for tres in report.tres:
        reported = _capacity(report, tres)
        allocated = min(reported, sum(_seconds(report, one, tres) for one in jobs))
        left = reported - allocated
        planned = min(left, sum(_waited(report, one) for one in jobs)) if tres == "cpu" else 0.0
        figures = (allocated, 0.0, 0.0, left - planned, planned)
        whole = reported or 1
        if reported:
            asked = (max(0, report.end - report.start) * reported) / max(1, _elapsed(report))
            rows.append([
                report.session.settings.cluster, tres, *(report.figure(value, whole) for value in figures),
                report.figure(reported, asked),
            ])  # fmt: skip
    header = ["Cluster", "TRES Name", "Allocated", "Down", "PLND Down", "Idle", "Planned", "Reported"]
    _print(report, [f"Cluster Utilization {report.span}", _reported_in(report)], header, rows)


def _elapsed(report: _Report) -> int:
    begin = max(report.start, report.session.started)
    return max(0, min(report.end, report.session.engine.now) - begin)


def _reported_in(report: _Report) -> str:
    return f"Usage reported in {report.usage('TRES' if report.named else 'CPU')}"


def _by(report: _Report, key: Callable[[JobRecord], tuple[str, ...]]) -> dict[tuple[str, ...], dict[str, float]]:
    found: dict[tuple[str, ...], dict[str, float]] = {}
    for one in _jobs(report):
        used = {tres: _seconds(report, one, tres) for tres in report.tres}
        if not any(used.values()):
            continue
        sums = found.setdefault(key(one), dict.fromkeys(report.tres, 0.0))
        for tres, seconds in used.items():
            sums[tres] += seconds
    return found


def _lines(report: _Report, first: Sequence[str], sums: Mapping[str, float]) -> Iterable[list[str]]:
    for tres in report.tres:
        if sums[tres]:
            amount = report.figure(sums[tres], _capacity(report, tres))
            yield [report.session.settings.cluster, *first, *([tres] if report.named else []), amount,
                   *([] if report.named else ["0"])]  # fmt: skip


def _usage_header(report: _Report, *first: str) -> list[str]:
    return ["Cluster", *first, *(["TRES Name", "Used"] if report.named else ["Used", "Energy"])]


def _long_span(report: _Report) -> str:
    return f"{report.span} ({report.end - report.start} secs)"


def _top(report: _Report) -> None:
    text = report.given.get("topcount") or report.given.get("top") or "10"
    count = int(text) if text.isdecimal() else 10
    found = sorted(
        _by(report, lambda one: (one.user or "", _account(one))).items(), key=lambda item: -sum(item[1].values())
    )[:count]
    rows = [
        line for (user, account), sums in found for line in _lines(report, (user, _proper(user), account), sums)
    ]  # fmt: skip
    title = [f"Top {count} Users {_long_span(report)}", _reported_in(report)]
    _print(report, title, _usage_header(report, "Login", "Proper Name", "Account"), rows)


def _by_account(report: _Report) -> None:
    found = _by(report, lambda one: (_account(one), one.user or ""))
    rows: list[list[str]] = []
    accounts = sorted({account for account, _ in found} - {"root"})
    if found and not _wanted(report, "users"):
        rows += _lines(report, ("root", "", ""), _sum(report, found.values()))
    for account in [*(["root"] if any(name == "root" for name, _ in found) else []), *accounts]:
        users = {user: sums for (name, user), sums in sorted(found.items()) if name == account}
        if account != "root" and not _wanted(report, "users"):
            rows += _lines(report, (account, "", ""), _sum(report, users.values()))
        for user, sums in users.items():
            rows += _lines(report, (account, user, _proper(user)), sums)
    title = [f"Cluster/Account/User Utilization {_long_span(report)}", _reported_in(report)]
    _print(report, title, _usage_header(report, "Account", "Login", "Proper Name"), rows)


def _by_user(report: _Report) -> None:
    found = sorted(_by(report, lambda one: (one.user or "", _account(one))).items())
    rows = [line for (user, account), sums in found for line in _lines(report, (user, _proper(user), account), sums)]
    title = [f"Cluster/User/Account Utilization {_long_span(report)}", _reported_in(report)]
    _print(report, title, _usage_header(report, "Login", "Proper Name", "Account"), rows)


def _sum(report: _Report, several: Iterable[Mapping[str, float]]) -> dict[str, float]:
    total = dict.fromkeys(report.tres, 0.0)
    for one in several:
        for tres, seconds in one.items():
            total[tres] += seconds
    return total


def _sizes(report: _Report) -> None:
    asked = [int(word) for word in report.given.get("grouping", "").split(",") if word.isdecimal()]
    edges = [0, *(sorted(asked) or _GROUPS)]
    names = [f"{low}-{high - 1} CPUs" for low, high in pairwise(edges)] + [f">= {edges[-1]} CPUs"]
    counted = "printjobcount" in report.plain
    used = [0.0] * len(names)
    for one in _jobs(report):
        seconds = _seconds(report, one, "cpu")
        if seconds:
            used[max(place for place, edge in enumerate(edges) if (one.cpus or 0) >= edge)] += 1 if counted else seconds
    cells = [f"{value:.0f}" if counted else report.figure(value, _capacity(report, "cpu")) for value in used]
    total = ["Total Count"] if at_least(report.session.settings.slurm_version, "24.11") else []
    count = [str(sum(1 for one in _jobs(report) if _seconds(report, one, "cpu"))) for _ in total]
    rows = [[report.session.settings.cluster, "root", *cells, *count, "100.00%"]] if any(used) else []
    units = "Units are in number of jobs ran" if counted else f"Time reported in {report.usage('').strip()}"
    header = ["Cluster", "Account", *names, *total, "% of cluster"]
    widths = {"Account": 9, **dict.fromkeys(names, 13)}
    _print(report, [f"Job Sizes {_long_span(report)}", units], header, rows, widths=widths)


def _proper(user: str) -> str:
    try:
        return pwd.getpwnam(user).pw_gecos.partition(",")[0] or user
    except KeyError:
        return user


# printing -------------------------------------------------------------------------------------------------------------


def _print(
    report: _Report, title: list[str], header: list[str], rows: list[list[str]], widths: Mapping[str, int] | None = None
) -> None:
    say = report.call.reply.say
    if not report.named and "TRES Name" in header:
        place = header.index("TRES Name")
        header = [*header[:place], *header[place + 1 :]]
        rows = [[*row[:place], *row[place + 1 :]] for row in rows]
    sizes = [{**_WIDTHS, **(widths or {})}.get(name, 8) for name in header]
    header, sizes, rows = _formatted(report, header, sizes, rows)
    parsable = "parsable" in report.words or "parsable2" in report.words
    end = "|" if "parsable" in report.words and "parsable2" not in report.words else ""

    def line(cells: Sequence[str]) -> str:
        if parsable:
            return "|".join(cells) + end
        return "".join(f"{cell[:size]:>{size}} " for cell, size in zip(cells, sizes, strict=True))

    if "noheader" not in report.words:
        for text in (_RULE, *title, _RULE, line(header)):
            say(text)
        if not parsable:
            say("".join("-" * size + " " for size in sizes))
    for row in rows:
        say(line(row))


def _formatted(
    report: _Report, header: list[str], sizes: list[int], rows: list[list[str]]
) -> tuple[list[str], list[int], list[list[str]]]:
    """Return the columns that ``format=`` asks for."""
    text = report.given.get("format")
    if not text:
        return header, sizes, rows
    places, wanted = [], []
    for item in text.split(","):
        name, _, size = item.partition("%")
        key = re.sub(r"[^a-z]", "", name.lower())
        found = [place for place, head in enumerate(header) if re.sub(r"[^a-z]", "", head.lower()).startswith(key)]
        if not key or not found:
            report.call.reply.complain(f" Unknown field '{name}'", 1)
            continue
        places.append(found[0])
        wanted.append(int(size) if size.isdecimal() else sizes[found[0]])
    return [header[place] for place in places], wanted, [[row[place] for place in places] for row in rows]


def _iso(seconds: int) -> str:
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%dT%H:%M:%S")


_REPORTS: Final[dict[str, tuple[dict[str, Callable[[_Report], None]], str]]] = {
    "cluster": ({
        "utilization": _utilization, "accountutilizationbyuser": _by_account, "userutilizationbyaccount": _by_user,
    }, _CLUSTER),
    "user": ({"topusage": _top}, '"Top"'),
    "job": ({"sizesbyaccount": _sizes}, '"SizesByAccount, SizesByAccountAndWcKey, and  SizesByWckey"'),
}  # fmt: skip
