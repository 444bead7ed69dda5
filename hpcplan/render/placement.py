"""What a job needs to put its nodes in order once it knows which ones it was given: ``rank-map.json`` and the program.

The program is :mod:`hpcplan.rank_map` itself, copied into the campaign: it needs nothing but Python on the first node.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from hpcplan import rank_map
from hpcplan.documents import read_text
from hpcplan.errors import InputError, Problem
from hpcplan.hostlist import expand
from hpcplan.plan import Neighbourhood, Plan

__all__ = ["PROGRAM_NAME", "RANK_MAP_NAME", "orders_its_nodes", "rank_map_files", "rank_map_spec"]

RANK_MAP_NAME: Final = "rank-map.json"
PROGRAM_NAME: Final = "rank_map.py"


def orders_its_nodes(plan: Plan) -> bool:
    """Return whether the job is to put its nodes in order itself."""
    return plan.placement.distribution == "arbitrary" and plan.placement.traffic is not None and plan.plan.nodes > 1


def rank_map_spec(plan: Plan) -> dict[str, Any]:
    """Return what :func:`hpcplan.rank_map.best_order` needs: the ranks, what they send, and the fabric.

    ``hosts`` is the plan's own order, which is taken as it stands where Slurm gave these very nodes.

    Raises:
        InputError: a hostlist of the fabric that is none.
    """
    sharding, placement = plan.plan, plan.placement
    assert placement.traffic is not None  # orders_its_nodes has seen to it
    traffic = placement.traffic.model_dump(mode="json")
    return {
        "schema_version": 1,
        "nodes": sharding.nodes,
        "gpus_per_node": sharding.gpus_per_node,
        "axes": [[axis, getattr(sharding, axis)] for axis in placement.order if axis != "ep"],
        "ep": sharding.ep,
        "copies": sharding.copies,
        "hosts": list(placement.node_order),
        **traffic,
        "switches": [_switch(number, place) for number, place in enumerate(placement.fabric)],
    }


def _switch(number: int, place: Neighbourhood) -> dict[str, Any]:
    try:
        nodes = expand(place.nodes) if place.nodes else []
    except ValueError as error:
        raise InputError(Problem(str(error), field=f"placement.fabric[{number}].nodes")) from None
    return {**place.model_dump(mode="json", exclude_none=True), "nodes": nodes}


def rank_map_files(plan: Plan) -> dict[str, str]:
    """Return the two files by name and text; none where the job takes its nodes as Slurm names them."""
    if not orders_its_nodes(plan):
        return {}
    program = read_text(Path(str(rank_map.__file__)))
    return {PROGRAM_NAME: program, RANK_MAP_NAME: json.dumps(rank_map_spec(plan), indent=1) + "\n"}
