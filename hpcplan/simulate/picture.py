"""A schedule as a picture: who ran where and when, how much of the machine was used, and how many jobs waited."""

from __future__ import annotations

import heapq
import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hpcplan.documents import write_bytes
from hpcplan.errors import InputError
from hpcplan.hostlist import expand

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from hpcplan.simulate.outcome import Row
    from hpcplan.simulate.trace_run import Schedule

__all__ = ["draw_schedule"]

_FORMATS: Final = ("svg", "png", "pdf")
_MAX_GANTT: Final = 5000  # jobs; of more, only the curves can be told apart
_COLOURS: Final = ("#4878a8", "#7aa6c9", "#33608c", "#93b8a0", "#5f9270", "#c9a25e", "#b9802a", "#8d83b5")


def draw_schedule(schedule: Schedule, path: Path) -> None:
    """Write the picture to ``path``; its suffix says the format (svg, png, pdf).

    Raises:
        InputError: another suffix, or no job started.
        HpcplanError: the file cannot be written.
    """
    import matplotlib
    from matplotlib.figure import Figure

    kind = path.suffix.lstrip(".").lower()
    if kind not in _FORMATS:
        raise InputError(f"{path}: a picture's name must end with .{', .'.join(_FORMATS)}")
    rows = [row for row in schedule.rows if row.start_s is not None and row.end_s is not None]
    if not rows:
        raise InputError("no job of the trace started: there is nothing to draw")
    gantt = len(rows) <= _MAX_GANTT
    figure = Figure(figsize=(10, 6.4 if gantt else 3.6), layout="constrained")
    heights = [3.0, 1.0, 0.8] if gantt else [1.0, 0.8]
    panels = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights)
    unit_s, unit = _unit(rows)
    if gantt:
        _gantt(panels[0], rows, unit_s)
    _steps(panels[-2], ((row.start_s, row.end_s, row.procs) for row in rows), unit_s, "#33608c")
    panels[-2].axhline(schedule.procs, color="#8a8a8a", linewidth=0.8)
    panels[-2].set_ylabel("busy\nprocessors")
    _steps(panels[-1], ((row.submit_s, row.start_s, 1) for row in rows), unit_s, "#c2571a")
    panels[-1].set_ylabel("jobs\nwaiting")
    panels[-1].set_xlabel(f"time ({unit})")
    order = ", shortest first" if schedule.order == "sjf" else ""
    panels[0].set_title(f"{schedule.policy}{order}: {len(rows):,} jobs", loc="left")
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "schedule"}):
        figure.savefig(buffer, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else None)
    write_bytes(path, buffer.getvalue())


def _unit(rows: Iterable[Row]) -> tuple[int, str]:
    span = max(row.end_s or 0 for row in rows) - min(row.submit_s for row in rows)
    for seconds, name in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if span > 4 * seconds:
            return seconds, name
    return 1, "seconds"


def _gantt(axes: Axes, rows: list[Row], unit_s: int) -> None:
    from matplotlib.collections import PolyCollection

    boxes, colours = [], []
    named = any(row.nodelist for row in rows)
    places = _on_nodes(rows) if named else _on_processors(rows)
    highest = 0
    for number, (row, lowest, width) in enumerate(places):
        left, right = (row.start_s or 0) / unit_s, (row.end_s or 0) / unit_s
        boxes.append([(left, lowest), (right, lowest), (right, lowest + width), (left, lowest + width)])
        colours.append(_COLOURS[_colour(row.job_id, number) % len(_COLOURS)])
        highest = max(highest, lowest + width)
    axes.add_collection(PolyCollection(boxes, facecolors=colours, edgecolors="white", linewidths=0.3))
    axes.set_ylim(0, highest)
    axes.autoscale_view(scaley=False)
    axes.set_ylabel("nodes" if named else "processors")


def _colour(name: str, number: int) -> int:
    """Return a number for a job's colour, the same wherever the job is drawn and in every run."""
    return int(name) if name.isdecimal() else sum(name.encode()) if name else number


def _on_nodes(rows: list[Row]) -> Iterator[tuple[Row, int, int]]:
    """Yield (row, lowest node, number of nodes) for each run of neighbours that a job has."""
    hosts = {row.nodelist: expand(row.nodelist) for row in rows if row.nodelist}
    names = sorted({name for found in hosts.values() for name in found}, key=_natural)
    index = {name: position for position, name in enumerate(names)}
    for row in rows:
        places = sorted(index[name] for name in hosts.get(row.nodelist or "", ()))
        yield from ((row, lowest, width) for lowest, width in _runs(places))


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def _runs(places: list[int]) -> Iterator[tuple[int, int]]:
    first = 0
    for position in range(1, len(places) + 1):
        if position == len(places) or places[position] != places[position - 1] + 1:
            yield places[first], position - first
            first = position


def _on_processors(rows: list[Row]) -> Iterator[tuple[Row, int, int]]:
    """The same for jobs that only have a number of processors: each is given the lowest that are free."""
    free: list[tuple[int, int]] = [(0, max(row.procs for row in rows) + sum(row.procs for row in rows))]
    running: list[tuple[int, int, list[tuple[int, int]]]] = []
    for number, row in enumerate(sorted(rows, key=lambda row: row.start_s or 0)):
        while running and running[0][0] <= (row.start_s or 0):
            free = _joined([*free, *heapq.heappop(running)[2]])
        taken, left, wanted = [], [], row.procs
        for lowest, width in free:
            part = min(width, wanted)
            if part:
                taken.append((lowest, part))
            if width > part:
                left.append((lowest + part, width - part))
            wanted -= part
        free = left
        heapq.heappush(running, (row.end_s or 0, number, taken))
        yield from ((row, lowest, width) for lowest, width in taken)


def _joined(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    result: list[tuple[int, int]] = []
    for lowest, width in sorted(spans):
        if result and sum(result[-1]) == lowest:
            result[-1] = (result[-1][0], result[-1][1] + width)
        else:
            result.append((lowest, width))
    return result


def _steps(axes: Axes, spans: Iterable[tuple[int | None, int | None, int]], unit_s: int, colour: str) -> None:
    changes: Counter[int] = Counter()
    for begin, end, amount in spans:
        changes[begin or 0] += amount
        changes[end or 0] -= amount
    times = sorted(changes)
    level, levels = 0, []
    for time in times:
        level += changes[time]
        levels.append(level)
    axes.fill_between([time / unit_s for time in times], levels, step="post", color=colour, alpha=0.75, linewidth=0)
    axes.set_ylim(bottom=0)
