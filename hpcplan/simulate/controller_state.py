"""What of a controller has to be saved beside its jobs: its timers, ends not yet seen, reservations, usage."""

from __future__ import annotations

from bisect import insort
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hpcplan.simulate.reservations import Reservation, Reservations

if TYPE_CHECKING:
    from hpcplan.simulate.controller import Controller

__all__ = ["restore_saved", "saved"]


def saved(controller: Controller) -> dict[str, Any]:
    """Return what has to be saved beside the jobs so that the future stays the same, as data for JSON."""
    ended = sorted(controller._completing.job_ids & controller._holdings.keys())
    fair_share = controller._multifactor.fair_share if controller._multifactor is not None else None
    return {
        "triggered": controller._triggered,
        "passed_over": controller._passed_over,
        "untold": controller.changes - controller._unseen != controller._visible_changes,
        "threads": [controller._main.saved(), controller._backfill.saved()],
        "began_ms": sorted(controller._began_ms.items()),
        "completing": controller._completing.saved(),
        "told": sorted(controller._told),
        "holdings": [[job_id, controller._holdings[job_id].saved()] for job_id in ended],
        "switch_waits": controller._switch_waits,
        "reservations": [one.as_dict() for one in controller.reservations.by_name.values()],
        "period": controller._multifactor.period if controller._multifactor is not None else None,
        "usage": fair_share.as_dict() if fair_share is not None else None,
    }


def restore_saved(controller: Controller, data: Mapping[str, Any]) -> None:
    """Go on from what :func:`saved` gave, the jobs having been restored."""
    controller._triggered = data["triggered"]
    controller._passed_over = data["passed_over"]
    controller._unseen = 0  # changes count from zero in each process
    controller._visible_changes = -1 if data["untold"] else controller.changes
    controller._main.restore(data["threads"][0])
    controller._backfill.restore(data["threads"][1])
    controller._began_ms = dict(data["began_ms"])
    controller._switch_waits = [(until, job_id) for until, job_id in data["switch_waits"]]
    controller.reservations = Reservations(Reservation.from_dict(one) for one in data["reservations"])
    controller._next_reservation = controller.reservations.next_change(controller.now)
    controller._told = set(data["told"])
    holdings = dict(data["holdings"])
    for ended in controller._completing.restore(data["completing"]):
        insort(controller._promised, ended)
        _, job_id, nodes = ended
        if controller._resources is None:
            controller.busy |= nodes
        else:
            from hpcplan.simulate.resources import Holding

            controller._holdings[job_id] = Holding.from_saved(holdings[job_id])
            controller._resources.take(controller._holdings[job_id])
            controller.busy = controller._resources.full()
    if controller._multifactor is not None:
        controller._multifactor.period = data["period"]
        if controller._multifactor.fair_share is not None and data["usage"] is not None:
            controller._multifactor.fair_share.restore(data["usage"])
