"""Traces as CSV tables: one job a row, the columns named in the first.

Needed: ``job``, ``submit_s``, ``run_s``, and ``nodes`` or ``procs``. Known besides: ``time_limit_min`` (absent: the
partition's), ``partition``, ``qos``, ``user``, ``account``, ``priority``, ``nice``, ``cpus`` and ``gres`` (both a
node; absent means whole nodes), ``mem`` (MiB a node), ``dependency`` (``afterok:JOB``), ``features``, ``switches``,
``segment``, ``reservation``, ``licenses``, ``begin`` (``now+60``: that long after submission), ``exclude``,
``req_nodes`` (``nodelist`` is what jobs were given, and not read), ``exclusive`` (yes), ``ntasks``,
``ntasks_per_node``, ``mem_per_cpu`` (MiB), ``het_group`` (the same word for all components of a heterogeneous job, rows
that follow one another). ``constraint`` and ``cpus_per_task`` are understood too. Other columns are left alone, and
named in ``notes``.
"""

from __future__ import annotations

import csv
import re
from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from hpcplan.errors import InputError, Problem
from hpcplan.simulate.begin import is_begin
from hpcplan.simulate.jobs import JobSpec
from hpcplan.simulate.traces import Trace, TraceJob, text_lines

__all__ = ["TableJobs", "is_table", "read_table"]

_WORDS: Final = {
    "partition": "partition", "qos": "qos", "account": "account", "features": "constraint", "switches": "switches",
    "reservation": "reservation", "het_group": "het_group", "licenses": "licenses", "begin": "begin",
    "exclude": "exclude", "req_nodes": "nodelist",
}  # fmt: skip
_ALIASES: Final = {  # sbatch's words for the same
    "het": "het_group", "constraint": "features", "feature": "features", "cpus_per_task": "cpus", "mem_mib": "mem",
    "mem_mb": "mem", "reqnodes": "req_nodes", "mem_per_cpu_mib": "mem_per_cpu", "mem_per_cpu_mb": "mem_per_cpu",
}  # fmt: skip
_ASKS: Final = frozenset(
    (
        *_WORDS, "time_limit_min", "nodes", "procs", "priority", "cpus", "segment", "nice", "gres", "mem", "dependency",
        "exclusive", "ntasks", "ntasks_per_node", "mem_per_cpu",
    )
)  # fmt: skip
_OUTCOMES: Final = frozenset(("start_s", "end_s", "wait_s", "state", "nodelist", "exit_code"))  # of a run before
_YES: Final = frozenset(("1", "yes", "true", "y", "exclusive"))
_NO: Final = frozenset(("", "0", "no", "false", "n"))
_DEPENDENCY: Final = re.compile(r"(after|afterany|afterok|afternotok|aftercorr)((?::[^:,?]+)+)")
_REMEMBERED: Final = 4096  # different requests
_MOST: Final = 10**12


def is_table(first_line: str) -> bool:
    """Whether a line is the header of such a table."""
    names = {name.strip().lower() for name in first_line.lstrip("\ufeff").split(",")}
    return bool(names & {"job", "job_id"}) and {"submit_s", "run_s"} <= names


def read_table(path: Path) -> Trace:
    """Read a trace as :class:`TableJobs` does.

    Raises:
        InputError: not readable, a column is missing, or a cell is wrong; with file, line and column.
    """
    source = TableJobs(path)
    return Trace(tuple(source), None, source.skipped)


class TableJobs:
    """The jobs of a table, read as they are asked for; each iteration reads it anew.

    Fractions of a second are cut off, limits are whole minutes rounded up, as sbatch does; jobs without a run time are
    left out, and ``skipped`` counts them.
    """

    procs: int | None = None

    def __init__(self, path: Path) -> None:
        """Read the names of the columns.

        Raises:
            InputError: not readable, or a column is missing.
        """
        self.path = path
        self.skipped = 0
        columns = [name.strip().lower() for name in next(self._rows(), [])]
        self._columns = [_ALIASES.get(name, name) if _ALIASES.get(name) not in columns else name for name in columns]
        missing = [name for name in ("submit_s", "run_s") if name not in self._columns]
        if not {"nodes", "procs"} & {*self._columns}:
            missing.append("nodes")
        if missing or not {"job", "job_id"} & {*self._columns}:
            message = (
                f"has no column {missing[0] if missing else 'job'!r}; a table of jobs needs job, submit_s, nodes, run_s"
            )
            raise InputError(Problem(message, file=str(path), line=1))
        self.may_depend = "dependency" in self._columns
        known = _ASKS | _OUTCOMES | {"job", "job_id", "submit_s", "run_s", "user"}
        unread = [name for name in columns if name and _ALIASES.get(name, name) not in known]
        self.notes: tuple[str, ...] = (f"the columns {', '.join(unread)} of the table are not read",) if unread else ()

    def __iter__(self) -> Iterator[TraceJob]:
        """Yield the jobs in the order of the file.

        Raises:
            InputError: not readable, or a cell is wrong; with file, line and column.
        """
        self.skipped = 0
        names = _Names()
        columns = self._columns
        asking = [position for position, name in enumerate(columns) if name in _ASKS]
        at = {name: position for position, name in reversed([*enumerate(columns)])}
        job_at, submit_at, run_at, user_at = at.get("job"), at["submit_s"], at["run_s"], at.get("user")
        known: dict[tuple[str, ...], tuple[int | None, int, JobSpec]] = {}
        position = 0
        rows = self._rows()
        next(rows, None)
        for cells in rows:
            if len(cells) < len(columns):
                if not cells:
                    continue
                cells += [""] * (len(columns) - len(cells))
            name = cells[at["job_id"]].strip() if job_at is None else cells[job_at].strip()
            if names.had(name):
                raise self._row(cells).error("job", f"{name!r} is there twice")
            try:
                submit_s, run_s = int(cells[submit_at]), int(cells[run_at])
            except ValueError:
                if not cells[run_at].strip():
                    self.skipped += 1
                    continue
                submit_s = run_s = -1
            if not (0 <= submit_s <= _MOST and 0 <= run_s <= _MOST):
                submit_s, run_s = self._row(cells).times()
            kind = tuple([cells[one] for one in asking])
            if (asked := known.get(kind)) is None:
                asked = self._row(cells).asked(name)
                if len(known) >= _REMEMBERED:
                    known.clear()
                if asked[2].dependency is None:  # else it needs its own name
                    known[kind] = asked
            limit_s, width, ask = asked
            position += 1
            yield TraceJob(
                int(name) if name.isdecimal() else position, submit_s, run_s or 1, limit_s or run_s or 1, width,
                name, ask, (cells[user_at].strip() or None) if user_at is not None else None,
            )  # fmt: skip
        if not names:
            raise InputError(Problem("holds no jobs", file=str(self.path)))

    def _rows(self) -> Iterator[list[str]]:
        reader = csv.reader(line.removeprefix("\ufeff") for line in text_lines(self.path))
        for row in reader:
            self._line = reader.line_num
            yield row

    def _row(self, cells: list[str]) -> _Row:
        texts = {name: cell.strip() for name, cell in zip(self._columns, cells, strict=False)}
        return _Row(texts, self.path, self._line)


class _Names:
    """The names that jobs have had. Of numbers that go up, as job ids do, only where they leave some out is kept."""

    def __init__(self) -> None:
        self._firsts, self._lasts = array("q"), array("q")  # of spans of numbers, going up
        self._last = -1
        self._others: set[str] = set()

    def __bool__(self) -> bool:
        return bool(self._firsts or self._others)

    def had(self, name: str) -> bool:
        """Whether a job before this one had the name; from now on one has."""
        if name.isdecimal() and len(name) < 19 and (number := int(name)) > self._last and str(number) == name:
            if not self._firsts or number > self._last + 1:
                self._firsts.append(number)
                self._lasts.append(number)
            self._lasts[-1] = self._last = number
            return False
        if name in self._others or self._in_a_span(name):
            return True
        self._others.add(name)
        return False

    def _in_a_span(self, name: str) -> bool:
        if not name.isdecimal() or len(name) > 18 or str(int(name)) != name:
            return False
        span = bisect_right(self._firsts, int(name)) - 1
        return span >= 0 and int(name) <= self._lasts[span]


class _Row:
    """The cells of one row, and where it stands."""

    def __init__(self, cells: Mapping[str, str], path: Path, line: int) -> None:
        self.cells = cells
        self.path = path
        self.line = line

    def error(self, column: str, message: str) -> InputError:
        return InputError(Problem(message, file=str(self.path), line=self.line, field=column))

    def text(self, column: str) -> str:
        return self.cells.get(column, "")

    def number(self, column: str, *, least: float = 0) -> float | None:
        """Return a cell as a number, ``None`` where it is empty."""
        text = self.text(column)
        if not text:
            return None
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not least <= value <= _MOST:
            raise self.error(column, f"{text!r} is not a number of {least:g} or more")
        return value

    def times(self) -> tuple[int, int]:
        """Return when the job is submitted and how long it would run, in seconds."""
        submit_s, run_s = self.number("submit_s"), self.number("run_s")
        if submit_s is None:
            raise self.error("submit_s", "is missing")
        return int(submit_s), int(run_s or 0)

    def asked(self, name: str) -> tuple[int | None, int, JobSpec]:
        """Return the time limit in seconds if there is one, the width, and all that is asked for."""
        minutes = self.number("time_limit_min", least=0.01)
        limit_s = None if minutes is None else int(-(-minutes // 1)) * 60
        nodes, procs = self.number("nodes", least=1), self.number("procs", least=1)
        if nodes is None and procs is None:
            raise self.error("nodes", "is missing")
        width = int(nodes if nodes is not None else procs or 1)
        return limit_s, width, JobSpec(name=name, time_limit_s=limit_s, **self._asks(nodes, procs))

    def _asks(self, nodes: float | None, procs: float | None) -> dict[str, Any]:
        if re.fullmatch(r"(\d+(@\S+)?)?", self.text("switches")) is None:
            raise self.error("switches", f"{self.text('switches')!r} is not like 1 or 1@30 (minutes)")
        asks: dict[str, Any] = {field: self.text(column) for column, field in _WORDS.items() if self.text(column)}
        if "begin" in asks and not is_begin(asks["begin"]):
            raise self.error("begin", f"{asks['begin']!r} is not like now+60, now+2hours or 2031-01-20T12:34")
        if nodes is not None:
            asks["nodes_min"] = asks["nodes_max"] = int(nodes)
        else:
            asks["ntasks"] = int(procs or 1)
        priority = self.number("priority")
        if priority is not None:
            asks["priority"] = int(priority)
        cpus = self.number("cpus", least=1)
        if cpus is not None:
            asks["cpus_per_task"] = int(cpus)
        segment = self.number("segment", least=1)
        if segment is not None:
            asks["segment"] = int(segment)
        nice = self.number("nice", least=-1e9)
        if nice:
            asks["nice"] = int(nice)
        asks |= self._gres()
        memory = self.number("mem", least=1)
        if memory is not None:
            asks["memory_per_node_bytes"] = int(memory) * 1024**2
        asks |= self._tasks(spread=nodes is None)
        if nodes is not None and "exclusive" not in asks and not {"ntasks", "ntasks_per_node"} & {*asks}:
            if cpus is None and not self.text("gres"):
                asks["exclusive"] = True
            else:
                asks["ntasks_per_node"] = 1
        if self.text("dependency"):
            asks["dependency"] = self._dependency()
        return asks

    def _tasks(self, *, spread: bool) -> dict[str, Any]:
        """Return what is said of tasks (which ``procs`` are if they may ``spread``), of memory, and of whole nodes."""
        asks: dict[str, Any] = {}
        for column in ("ntasks", "ntasks_per_node"):
            count = self.number(column, least=1)
            if count is not None and not (spread and column == "ntasks"):
                asks[column] = int(count)
        memory = self.number("mem_per_cpu", least=1)
        if memory is not None:
            asks["memory_per_cpu_bytes"] = int(memory) * 1024**2
        word = self.text("exclusive").lower()
        if word not in _YES | _NO:
            raise self.error("exclusive", f"{word!r} is neither yes nor no")
        if word in _YES:
            asks["exclusive"] = True
        return asks

    def _gres(self) -> dict[str, Any]:
        text = self.text("gres")
        if not text:
            return {}
        asks: dict[str, Any] = {}
        others: Counter[str] = Counter()
        for word in text.split(","):
            name, *rest = word.strip().removeprefix("gres/").split(":")
            if not name or len(rest) > 2 or (rest and not rest[-1].isdecimal()):
                raise self.error("gres", f"{text!r} is not like gpu:4, gpu:h100:4 or gpu:4,nvme:1")
            count = int(rest[-1]) if rest else 1
            if name != "gpu":
                others[name] += count
            elif count:
                asks |= {"gpus_per_node": count, "gpu_type": rest[0] if len(rest) == 2 else None}
        if others:
            asks["other_gres"] = tuple(sorted((name, count) for name, count in others.items() if count))
        return asks

    def _dependency(self) -> str:
        text = self.text("dependency")
        for word in re.split(r"[,?]", text):
            if word != "singleton" and _DEPENDENCY.fullmatch(word) is None:
                raise self.error("dependency", f"{text!r} is not like afterok:JOB, afterany:JOB:JOB or singleton")
        return text
