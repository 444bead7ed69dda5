"""From an allocation to plans: one a workload, for the nodes that it was given."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from hpcplan.plan import Plan
from hpcplan.schedule.planner import make_plan
from hpcplan.schedule.sharing.curves import Pricing
from hpcplan.schedule.sharing.portfolio import Wanted
from hpcplan.schedule.sharing.simulate import Run

__all__ = ["plans_of"]


def plans_of(
    pricing: Pricing, wanted: Sequence[Wanted], runs: Sequence[Run], *, constants_folder: Path | None = None,
    command: str = "", on_plan: Callable[[], None] = lambda: None,
) -> list[tuple[str, Plan]]:  # fmt: skip
    """Return a plan for each workload by its name, in the order in which they start.

    A workload whose nodes change under way begins with the first of them; when they change, ``hpcplan replan`` makes
    the plan for the next.
    """
    found: list[tuple[str, Plan]] = []
    for run in sorted(runs, key=lambda run: (run.start_s, run.job)):
        each, option = wanted[run.job], run.pieces[0].option
        workload = each.loaded.workload
        place = pricing.places(workload)[option.pool]
        request = workload.request.model_copy(
            update={"partition": place.partition, "node_group": option.pool, "nodes": (option.nodes, option.nodes)}
        )
        chosen = dataclasses.replace(each.loaded, workload=workload.model_copy(update={"request": request}))
        planned = make_plan(chosen, pricing.site, constants_folder=constants_folder, command=command)
        found.append((each.name, planned.plan))
        on_plan()
    return found
