"""What waits for what, as a picture and as text: the jobs of a rendered campaign and the edges between them."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from hpcplan.documents import write_bytes
from hpcplan.errors import InputError
from hpcplan.render.manifest import MANIFEST_NAME, Manifest
from hpcplan.units import format_duration

if TYPE_CHECKING:
    import networkx as nx

__all__ = ["draw_jobs", "job_graph", "jobs_as_text"]

_STYLE: Final[dict[str, tuple[Literal["-", "--"], str]]] = {
    "afterok": ("-", "#33608c"),
    "afterany": ("--", "#8c6d33"),
}
_FORMATS: Final = (".svg", ".pdf", ".png")
_MOST_ROWS: Final = 12  # of a chain; the middle of a longer one is not drawn


def job_graph(files: Mapping[str, str]) -> nx.DiGraph[str]:
    """Return the graph of jobs, with ``text`` and ``layer`` (how far from the beginning) on each, ``kind`` on edges."""
    import networkx as nx

    manifest = Manifest.model_validate_json(files[MANIFEST_NAME], by_name=True)
    graph: nx.DiGraph[str] = nx.DiGraph()
    for job in manifest.jobs:
        graph.add_node(job.key, text=f"{job.nodes} nodes, at most {format_duration(job.time_limit_s)}")
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
    import networkx as nx
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    graph = _shortened(job_graph(files))
    layers = max(data["layer"] for _, data in graph.nodes(data=True)) + 1
    places = nx.multipartite_layout(graph, subset_key="layer", align="vertical")
    rows = max(len([n for n in graph if graph.nodes[n]["layer"] == layer]) for layer in range(layers))
    with matplotlib.rc_context({"svg.hashsalt": "hpcplan", "svg.fonttype": "none"}):
        figure = Figure(figsize=(max(4.0, 2.3 * layers), max(2.0, 1.2 * rows + 1)))
        axes = figure.add_subplot(frameon=False)
        axes.set_axis_off()
        axes.margins(0.2, 0.35)
        for kind, (style, colour) in _STYLE.items():
            edges = [(a, b) for a, b, data in graph.edges(data=True) if data["kind"] == kind]
            nx.draw_networkx_edges(
                graph, places, edgelist=edges, ax=axes, style=style, edge_color=colour, arrowsize=14, node_size=3200,
                node_shape="s", connectionstyle="arc3,rad=0.08",
            )  # fmt: skip
        for name, (x, y) in places.items():
            text = f"{name}\n{graph.nodes[name]['text'].replace(', ', chr(10))}"
            box = {"boxstyle": "round,pad=0.4", "facecolor": "#e9f0f7", "edgecolor": "#33608c"}
            axes.text(x, y, text.replace("$", r"\$"), ha="center", va="center", fontsize=8, bbox=box)
        handles = [
            Line2D([], [], linestyle=style, color=colour, label=kind) for kind, (style, colour) in _STYLE.items()
        ]
        figure.legend(handles=handles, loc="lower right", fontsize=8, frameon=False)
        axes.set_title(title.replace("$", r"\$"), fontsize=10, loc="left")
        buffer = io.BytesIO()
        dated = {"Date": None} if file.suffix == ".svg" else {"CreationDate": None} if file.suffix == ".pdf" else {}
        figure.savefig(buffer, format=file.suffix[1:], metadata=dated, bbox_inches="tight")
    write_bytes(file, buffer.getvalue())


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
