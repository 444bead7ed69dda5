"""A schedule as a picture: who ran where and when, how much of the machine was used, and how many jobs waited."""

from __future__ import annotations

import heapq
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hpcplan.documents import write_figure
from hpcplan.errors import InputError
from hpcplan.hostlist import expand

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from hpcplan.simulate.outcome import Row
    from hpcplan.simulate.trace_run import Schedule

__all__ = ["Sketch", "check_suffix", "draw_schedule", "draw_sketch"]

_FORMATS: Final = ("svg", "png", "pdf")
_MAX_GANTT: Final = 5000  # jobs; of more, only the curves can be told apart
_MAX_SPANS: Final = 4096  # of a curve
_COLOURS: Final = ("#4878a8", "#7aa6c9", "#33608c", "#93b8a0", "#5f9270", "#c9a25e", "#b9802a", "#8d83b5")


class Sketch:
    """What a picture needs of the rows of a schedule, taken as they go by; that is the same however many there are."""

    def __init__(self) -> None:
        self.rows: list[Row] = []  # those that ran, as long as they are few enough for a Gantt chart
        self.count = 0
        self.busy = _Curve()
        self.waiting = _Curve()

    def of(self, rows: Iterable[Row]) -> Iterator[Row]:
        """Yield the rows, which must come in the order of submission."""
        for row in rows:
            yield row
            if row.start_s is None or row.end_s is None:
                continue
            if not self.count:
                self.busy.begin_s = self.waiting.begin_s = row.submit_s
            self.count += 1
            if self.count <= _MAX_GANTT:
                self.rows.append(row)
            elif self.rows:
                self.rows = []
            self.waiting.add(row.submit_s, 1)
            self.waiting.add(row.start_s, -1)
            self.busy.add(row.start_s, row.procs)
            self.busy.add(row.end_s, -row.procs)


class _Curve:
    """A number that changes with time, as its mean in each of up to some thousand equal spans."""

    def __init__(self) -> None:
        self.begin_s = 0
        self.span_s = 1
        self._within: list[int] = []  # what changes within a span add to it, times seconds
        self._changes: list[int] = []

    def add(self, time_s: int, change: int) -> None:
        """Add a change at ``begin_s`` or later."""
        span, after_s = divmod(time_s - self.begin_s, self.span_s)
        while span >= _MAX_SPANS:
            self._widen()
            span, after_s = divmod(time_s - self.begin_s, self.span_s)
        missing = span + 1 - len(self._changes)
        if missing > 0:
            self._changes += [0] * missing
            self._within += [0] * missing
        self._changes[span] += change
        self._within[span] += change * (self.span_s - after_s)

    def _widen(self) -> None:
        """Make one span of each two."""
        if len(self._changes) % 2:
            self._changes.append(0)
            self._within.append(0)
        firsts, seconds = self._changes[::2], self._changes[1::2]
        pairs = zip(firsts, self._within[::2], self._within[1::2], strict=True)
        self._within = [one + change * self.span_s + other for change, one, other in pairs]
        self._changes = [one + other for one, other in zip(firsts, seconds, strict=True)]
        self.span_s *= 2

    def points(self) -> tuple[list[int], list[float]]:
        """Return when each span begins, and the mean in it."""
        level, means = 0, []
        for change, within in zip(self._changes, self._within, strict=True):
            means.append(level + within / self.span_s)
            level += change
        return [self.begin_s + span * self.span_s for span in range(len(means))], means


def draw_schedule(schedule: Schedule, path: Path) -> None:
    """Write the picture to ``path``; its suffix says the format (svg, png, pdf).

    Raises:
        InputError: another suffix, or no job started.
        HpcplanError: the file cannot be written.
    """
    check_suffix(path)
    sketch = Sketch()
    for _ in sketch.of(sorted(schedule.rows, key=lambda row: row.submit_s)):
        pass
    draw_sketch(sketch, path, procs=schedule.procs, policy=schedule.policy, order=schedule.order)


def check_suffix(path: Path) -> str:
    """Return the format that a picture's name asks for.

    Raises:
        InputError: it is none of those that there are.
    """
    kind = path.suffix.lstrip(".").lower()
    if kind not in _FORMATS:
        raise InputError(f"{path}: a picture's name must end with .{', .'.join(_FORMATS)}")
    return kind


def draw_sketch(sketch: Sketch, path: Path, *, procs: int, policy: str, order: str) -> None:
    """Write the picture of the rows that have gone by to ``path``.

    Raises:
        InputError: another suffix, or no job started.
        HpcplanError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    check_suffix(path)
    if not sketch.count:
        raise InputError("no job of the trace started: there is nothing to draw")
    gantt = bool(sketch.rows)
    figure = Figure(figsize=(10, 6.4 if gantt else 3.6), layout="constrained")
    heights = [3.0, 1.0, 0.8] if gantt else [1.0, 0.8]
    panels = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights)
    unit_s, unit = _unit(sketch)
    if gantt:
        rows = sketch.rows
        _gantt(panels[0], rows, unit_s)
        busy = _steps((row.start_s, row.end_s, row.procs) for row in rows)
        waiting = _steps((row.submit_s, row.start_s, 1) for row in rows)
    else:
        busy, waiting = sketch.busy.points(), sketch.waiting.points()
    _fill(panels[-2], busy, unit_s, "#33608c")
    panels[-2].axhline(procs, color="#8a8a8a", linewidth=0.8)
    panels[-2].set_ylabel("busy\nprocessors")
    _fill(panels[-1], waiting, unit_s, "#c2571a")
    panels[-1].set_ylabel("jobs\nwaiting")
    panels[-1].set_xlabel(f"time ({unit})")
    shortest = ", shortest first" if order == "sjf" else ""
    panels[0].set_title(f"{policy}{shortest}: {sketch.count:,} jobs", loc="left")
    write_figure(path, figure, salt="schedule")


def _unit(sketch: Sketch) -> tuple[int, str]:
    times, _ = sketch.busy.points()
    span = times[-1] - sketch.busy.begin_s
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


def _steps(spans: Iterable[tuple[int | None, int | None, int]]) -> tuple[list[int], list[float]]:
    """Return the times at which a sum over spans changes, and what it is from then on."""
    changes: Counter[int] = Counter()
    for begin, end, amount in spans:
        changes[begin or 0] += amount
        changes[end or 0] -= amount
    times = sorted(changes)
    level, levels = 0, []
    for time in times:
        level += changes[time]
        levels.append(float(level))
    return times, levels


def _fill(axes: Axes, curve: tuple[list[int], list[float]], unit_s: int, colour: str) -> None:
    times, levels = curve
    axes.fill_between([time / unit_s for time in times], levels, step="post", color=colour, alpha=0.75, linewidth=0)
    axes.set_ylim(bottom=0)
