"""Stages and training as a graph: what waits for what, in which order jobs are submitted, and a picture of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final

from hpcplan.errors import Problem, nearest
from hpcplan.plan import Plan

if TYPE_CHECKING:
    import networkx as nx

__all__ = ["TRAIN", "done_files", "stage_graph", "stage_problems", "stages_in_order"]

TRAIN: Final = "train"


def stage_graph(plan: Plan) -> nx.DiGraph[str]:
    """Return the graph of stages: an edge from each to what waits for it, with ``kind`` afterok or afterany."""
    import networkx as nx

    graph: nx.DiGraph[str] = nx.DiGraph()
    graph.add_nodes_from(stage.name for stage in plan.stages)
    graph.add_node(TRAIN)
    for name, after, after_any in _waits(plan):
        graph.add_edges_from(((other, name) for other in after_any), kind="afterany")
        graph.add_edges_from(((other, name) for other in after), kind="afterok")
    return graph


def _waits(plan: Plan) -> Iterator[tuple[str, tuple[str, ...], tuple[str, ...]]]:
    yield TRAIN, plan.after, plan.after_any
    for stage in plan.stages:
        yield stage.name, stage.after, stage.after_any


def stage_problems(plan: Plan) -> Iterator[Problem]:
    """Yield names given twice or not at all, cycles, and stages that training neither waits for nor leads to."""
    names = [TRAIN, *(stage.name for stage in plan.stages)]
    for index, stage in enumerate(plan.stages):
        field = f"stages[{index}]"
        if stage.name in names[: index + 1]:
            yield Problem(f"{stage.name!r} is the name of another stage", field=f"{field}.name")
        if (stage.kind == "array") != bool(stage.points):
            what = "an array needs points" if stage.kind == "array" else "only an array has points"
            yield Problem(what, field=f"{field}.points")
    unknown = False
    for name, after, after_any in _waits(plan):
        place = "" if name == TRAIN else f"stages[{names.index(name) - 1}]."
        for key, others in (("after", after), ("after_any", after_any)):
            for other in others:
                if other not in names:
                    unknown = True
                    yield Problem(f"no stage is called {other!r}" + nearest(other, names), field=f"{place}{key}")
    if not unknown and plan.stages:
        yield from _shape_problems(plan, names)


def _shape_problems(plan: Plan, names: list[str]) -> Iterator[Problem]:
    import networkx as nx

    graph = stage_graph(plan)
    try:
        cycle = [edge[0] for edge in nx.find_cycle(graph)]
    except nx.NetworkXNoCycle:
        pass
    else:
        yield Problem(f"wait for each other in a circle: {' -> '.join([*cycle, cycle[0]])}", field="stages")
        return
    joined = nx.node_connected_component(graph.to_undirected(), TRAIN)
    for name in names[1:]:
        if name not in joined:
            message = f"nothing joins {name!r} to training; say 'after: [train]', or let training wait for it"
            yield Problem(message, field=f"stages[{names.index(name) - 1}].after")


def stages_in_order(plan: Plan) -> list[str]:
    """Return the names of all stages, ``train`` among them, each after those that it waits for."""
    import networkx as nx

    names = [stage.name for stage in plan.stages]
    place: Mapping[str, int] = {name: index for index, name in enumerate([*names, TRAIN])}
    return list(nx.lexicographical_topological_sort(stage_graph(plan), key=place.__getitem__))


def done_files(plan: Plan, name: str) -> list[str]:
    """Return the marker files by which a stage says that it is done, under the state folder."""
    if name == TRAIN:
        return ["done"]
    stage = next(stage for stage in plan.stages if stage.name == name)
    if stage.kind == "array":
        return [f"done-{name}-{index}" for index in range(len(stage.points))]
    return [f"done-{name}"]
