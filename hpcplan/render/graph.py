"""What waits for what, as a picture and as text: the jobs of a rendered campaign and the edges between them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from hpcplan.documents import write_figure
from hpcplan.errors import InputError
from hpcplan.render.manifest import MANIFEST_NAME, Manifest
from hpcplan.units import format_duration

if TYPE_CHECKING:
    import networkx as nx
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text

__all__ = ["draw_jobs", "job_graph", "jobs_as_text"]

_STYLE: Final[dict[str, tuple[Literal["-", "--"], str]]] = {
    "afterok": ("-", "#33608c"),
    "afterany": ("--", "#8c6d33"),
}
_FORMATS: Final = (".svg", ".pdf", ".png")
_COLUMN_IN: Final = 1.9
_ROW_IN: Final = 0.85
_MOST_TITLE: Final = 80
_MOST_ROWS: Final = 12  # of a chain; the middle of a longer one is not drawn


def job_graph(files: Mapping[str, str]) -> nx.DiGraph[str]:
    """Return the graph of jobs, with ``text`` and ``layer`` (how far from the beginning) on each, ``kind`` on edges."""
    import networkx as nx

    manifest = Manifest.model_validate_json(files[MANIFEST_NAME], by_name=True)
    graph: nx.DiGraph[str] = nx.DiGraph()
    for job in manifest.jobs:
        graph.add_node(
            job.key, text=f"{job.nodes} node{'s' if job.nodes > 1 else ''}, at most {format_duration(job.time_limit_s)}"
        )
        graph.add_edges_from(((other, job.key) for other in job.after), kind="afterany")
        graph.add_edges_from(((other, job.key) for other in job.after_ok), kind="afterok")
    for layer, names in enumerate(nx.topological_generations(graph)):
        for name in names:
            graph.nodes[name]["layer"] = layer
    return graph


def jobs_as_text(files: Mapping[str, str]) -> str:
    """Return one line a job: its name, what it asks for, and what it waits for."""
    return "\n".join(_lines(job_graph(files)))


def _lines(graph: nx.DiGraph[str]) -> Iterator[str]:
    width = max(len(name) for name in graph)
    for name in graph:
        waits = [f"{data['kind']} {other}" for other, _, data in graph.in_edges(name, data=True)]
        yield f"{name:{width}}  {graph.nodes[name]['text']}  {', '.join(waits) or 'starts at once'}"


def draw_jobs(title: str, files: Mapping[str, str], file: Path) -> None:
    """Draw the jobs from left to right into an SVG, PDF or PNG; edges are whole (afterok) or dashed (afterany).

    Raises:
        InputError: another kind of picture.
        HpcplanError: the file cannot be written.
    """
    if file.suffix not in _FORMATS:
        raise InputError(f"--graph {file}: must end in {', '.join(_FORMATS)}, or be '-' for text")
    import matplotlib
    from matplotlib.figure import Figure

    graph = _shortened(_without_repeats(job_graph(files)))
    layers = [[n for n in graph if graph.nodes[n]["layer"] == layer] for layer in range(_layers(graph))]
    rows = max(map(len, layers))
    height = rows + (1 if len(layers) > 2 else 0)  # room for what passes over others
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        figure = Figure(figsize=(max(4.0, _COLUMN_IN * len(layers)), _ROW_IN * height + 0.9))
        axes = figure.add_axes((0.0, 0.45 / (_ROW_IN * height + 0.9), 1.0, _ROW_IN * height / (_ROW_IN * height + 0.9)))
        axes.set_axis_off()
        axes.set_xlim(-0.5, len(layers) - 0.5)
        axes.set_ylim(-0.5 * rows, height - 0.5 * rows)
        boxes = {}
        for x, names in enumerate(layers):
            for row, name in enumerate(names):
                boxes[name] = _box(axes, name, graph.nodes[name]["text"], x, 0.5 * (len(names) - 1) - row)
        for source, target, data in graph.edges(data=True):
            _arrow(axes, boxes[source], boxes[target], data["kind"])
        _legend(figure)
        figure.text(0.01, 0.99, _plain(title), fontsize=10, va="top")
        write_figure(file, figure)


def _layers(graph: nx.DiGraph[str]) -> int:
    return 1 + max(int(data["layer"]) for _, data in graph.nodes(data=True))


def _plain(text: str) -> str:
    """Return text that matplotlib does not take for a formula, on one line of a length that fits."""
    line = "".join(char if char.isprintable() else "?" for char in text)
    return (line if len(line) <= _MOST_TITLE else line[: _MOST_TITLE - 1] + "…").replace("$", r"\$")


def _box(axes: Axes, name: str, text: str, x: float, y: float) -> Text:
    style = {"boxstyle": "round,pad=0.4", "facecolor": "#e9f0f7", "edgecolor": "#33608c"}
    label = f"{name}\n{text.replace(', ', chr(10))}"
    return axes.text(x, y, label, ha="center", va="center", fontsize=8, bbox=style)


def _arrow(axes: Axes, source: Text, target: Text, kind: str) -> None:
    """Draw an arrow from box to box; one that would pass behind boxes goes over them in an arc."""
    (x0, y0), (x1, y1) = source.get_position(), target.get_position()
    line, colour = _STYLE[kind]
    bend = -0.3 if x1 - x0 > 1 and y0 == y1 else 0.0
    style = {
        "arrowstyle": "-|>", "linestyle": line, "color": colour, "connectionstyle": f"arc3,rad={bend}", "shrinkA": 0,
        "shrinkB": 0, "patchA": source.get_bbox_patch(), "patchB": target.get_bbox_patch(),
    }  # fmt: skip
    axes.annotate("", xy=(x1, y1), xytext=(x0, y0), arrowprops=style)


def _legend(figure: Figure) -> None:
    from matplotlib.lines import Line2D

    words = {"afterok": "starts after its success (afterok)", "afterany": "starts after its end (afterany)"}
    handles = [Line2D([], [], linestyle=line, color=colour, label=words[k]) for k, (line, colour) in _STYLE.items()]
    figure.legend(handles=handles, loc="lower left", fontsize=8, frameon=False, ncols=2)


def _without_repeats(graph: nx.DiGraph[str]) -> nx.DiGraph[str]:
    """Return the graph without what later segments of training wait for because the first one does."""
    chain = [name for name in graph if name.startswith("train-")]
    shown = graph.copy()
    shown.remove_edges_from([(a, b) for a, b in graph.edges if b in chain[1:] and a not in chain])
    return shown


def _shortened(graph: nx.DiGraph[str]) -> nx.DiGraph[str]:
    """Return the graph without the middle of a long chain, of which one job stands for the rest."""
    chain = [name for name in graph if name.startswith("train-")]
    hidden = chain[3:-2] if len(chain) > _MOST_ROWS else []
    if not hidden:
        return graph
    import networkx as nx

    short = graph.copy()
    first, last = hidden[0], hidden[-1]
    following = [(b, data) for _, b, data in graph.out_edges(last, data=True)]
    short.remove_nodes_from(hidden[1:])
    short.nodes[first]["text"] = f"and {len(hidden) - 1} more, alike"
    short.add_edges_from((first, b, data) for b, data in following)
    for layer, names in enumerate(nx.topological_generations(short)):
        for name in names:
            short.nodes[name]["layer"] = layer
    return short
