"""Traces as CSV tables: one job a row, the columns named in the first.

Needed: ``job``, ``submit_s``, ``run_s``, and ``nodes`` or ``procs``. Known besides: ``time_limit_min`` (absent: the
partition's), ``partition``, ``qos``, ``user``, ``account``, ``priority``, ``nice``, ``cpus`` and ``gres`` (both a
node; absent means whole nodes), ``mem`` (MiB a node), ``dependency`` (``afterok:JOB``), ``features``, ``switches``,
``segment``, ``reservation``. ``constraint`` and ``cpus_per_task`` are understood too. Other columns are left alone.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from hpcplan.errors import InputError, Problem
from hpcplan.simulate.jobs import JobSpec
from hpcplan.simulate.traces import Trace, TraceJob, text_lines

__all__ = ["is_table", "read_table"]

_WORDS: Final = {
    "partition": "partition", "qos": "qos", "account": "account", "features": "constraint", "switches": "switches",
    "reservation": "reservation",
}  # fmt: skip
_ALIASES: Final = {  # sbatch's words for the same
    "constraint": "features", "feature": "features", "cpus_per_task": "cpus", "mem_mib": "mem", "mem_mb": "mem",
}  # fmt: skip
_DEPENDENCY: Final = re.compile(r"(after|afterany|afterok|afternotok|aftercorr)((?::[^:,?]+)+)")


def is_table(first_line: str) -> bool:
    """Whether a line is the header of such a table."""
    names = {name.strip().lower() for name in first_line.lstrip("\ufeff").split(",")}
    return bool(names & {"job", "job_id"}) and {"submit_s", "run_s"} <= names


def read_table(path: Path) -> Trace:
    """Read a trace; fractions of a second are cut off, limits are whole minutes rounded up, as sbatch does.

    Raises:
        InputError: not readable, a column is missing, or a cell is wrong; with file, line and column.
    """
    reader = csv.DictReader(line.lstrip("\ufeff") for line in text_lines(path))
    columns = [name.strip().lower() for name in reader.fieldnames or []]
    columns = [_ALIASES.get(name, name) if _ALIASES.get(name) not in columns else name for name in columns]
    reader.fieldnames = columns
    missing = [name for name in ("submit_s", "run_s") if name not in columns]
    if "nodes" not in columns and "procs" not in columns:
        missing.append("nodes")
    if missing or not {"job", "job_id"} & {*columns}:
        message = (
            f"has no column {missing[0] if missing else 'job'!r}; a table of jobs needs job, submit_s, nodes, run_s"
        )
        raise InputError(Problem(message, file=str(path), line=1))
    positions: dict[str, int] = {}
    jobs: list[TraceJob] = []
    skipped = 0
    for cells in reader:
        row = _Row({key: (value or "").strip() for key, value in cells.items() if key}, path, reader.line_num)
        name = row.text("job") or row.text("job_id")
        if name in positions:
            raise row.error("job", f"{name!r} is there twice")
        positions[name] = len(jobs)
        if row.text("run_s") == "":
            skipped += 1
            continue
        jobs.append(row.job(name, len(jobs)))
    if not positions:
        raise InputError(Problem("holds no jobs", file=str(path)))
    return Trace(tuple(jobs), None, skipped)


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
        if not least <= value <= 1e12:
            raise self.error(column, f"{text!r} is not a number of {least:g} or more")
        return value

    def job(self, name: str, position: int) -> TraceJob:
        submit_s, run_s = self.number("submit_s"), self.number("run_s")
        if submit_s is None:
            raise self.error("submit_s", "is missing")
        minutes = self.number("time_limit_min", least=0.01)
        limit_s = None if minutes is None else int(-(-minutes // 1)) * 60
        nodes, procs = self.number("nodes", least=1), self.number("procs", least=1)
        if nodes is None and procs is None:
            raise self.error("nodes", "is missing")
        run = max(1, int(run_s or 0))
        return TraceJob(
            id=int(name) if name.isdecimal() else position + 1,
            label=name,
            submit_s=int(submit_s),
            run_s=run,
            limit_s=limit_s or run,
            procs=int(nodes if nodes is not None else procs or 1),
            ask=JobSpec(name=name, time_limit_s=limit_s, **self._asks(nodes, procs)),
            user=self.text("user") or None,
        )

    def _asks(self, nodes: float | None, procs: float | None) -> dict[str, Any]:
        if re.fullmatch(r"(\d+(@\S+)?)?", self.text("switches")) is None:
            raise self.error("switches", f"{self.text('switches')!r} is not like 1 or 1@30 (minutes)")
        asks: dict[str, Any] = {field: self.text(column) for column, field in _WORDS.items() if self.text(column)}
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
        if nodes is not None:
            if cpus is None and not self.text("gres"):
                asks["exclusive"] = True
            else:
                asks["ntasks_per_node"] = 1
        if self.text("dependency"):
            asks["dependency"] = self._dependency()
        return asks

    def _gres(self) -> dict[str, Any]:
        text = self.text("gres")
        if not text:
            return {}
        parts = text.removeprefix("gres/").split(":")
        if parts[0] != "gpu" or len(parts) > 3 or (len(parts) > 1 and not parts[-1].isdecimal()):
            raise self.error("gres", f"{text!r} is not like gpu:4 or gpu:h100:4")
        count = int(parts[-1]) if len(parts) > 1 else 1
        return {"gpus_per_node": count, "gpu_type": parts[1] if len(parts) == 3 else None} if count else {}

    def _dependency(self) -> str:
        text = self.text("dependency")
        for word in re.split(r"[,?]", text):
            if word != "singleton" and _DEPENDENCY.fullmatch(word) is None:
                raise self.error("dependency", f"{text!r} is not like afterok:JOB, afterany:JOB:JOB or singleton")
        return text
