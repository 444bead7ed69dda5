"""What of a controller has to be saved beside its jobs: its timers, ends not yet seen, reservations, usage."""

from __future__ import annotations

import heapq
from bisect import insort
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hpcplan.simulate.reservations import Reservation, Reservations

if TYPE_CHECKING:
    from hpcplan.simulate.controller import Controller

__all__ = ["restore_saved", "saved"]


def saved(controller: Controller) -> dict[str, Any]:
    """Return what has to be saved beside the jobs so that the future stays the same, as data for JSON."""
    ending = [
        [
            seen_ms,
            limit_end,
            hex(nodes),
            job_id,
            None if (one := controller._holdings.get(job_id)) is None else one.saved(),
        ]
        for seen_ms, (limit_end, job_id, nodes) in controller._completing
    ]
    fair_share = controller._multifactor.fair_share if controller._multifactor is not None else None
    return {
        "triggered": controller._triggered,
        "untold": controller.changes - controller._unseen != controller._visible_changes,
        "threads": [controller._main.saved(), controller._backfill.saved()],
        "began_ms": sorted(controller._began_ms.items()),
        "completing": ending,
        "switch_waits": controller._switch_waits,
        "reservations": [one.as_dict() for one in controller.reservations.by_name.values()],
        "period": controller._multifactor.period if controller._multifactor is not None else None,
        "usage": fair_share.as_dict() if fair_share is not None else None,
    }


def restore_saved(controller: Controller, data: Mapping[str, Any]) -> None:
    """Go on from what :func:`saved` gave, the jobs having been restored."""
    controller._triggered = data["triggered"]
    controller._unseen = 0  # changes count from zero in each process
    controller._visible_changes = -1 if data["untold"] else controller.changes
    controller._main.restore(data["threads"][0])
    controller._backfill.restore(data["threads"][1])
    controller._began_ms = dict(data["began_ms"])
    controller._switch_waits = [(until, job_id) for until, job_id in data["switch_waits"]]
    controller.reservations = Reservations(Reservation.from_dict(one) for one in data["reservations"])
    controller._next_reservation = controller.reservations.next_change(controller.now)
    for seen_ms, limit_end, mask, job_id, holding in data["completing"]:
        ended = (limit_end, job_id, int(mask, 16))
        heapq.heappush(controller._completing, (seen_ms, ended))
        insort(controller._promised, ended)
        if controller._resources is None:
            controller.busy |= ended[2]
        else:
            from hpcplan.simulate.resources import Holding

            controller._holdings[job_id] = Holding.from_saved(holding)
            controller._resources.take(controller._holdings[job_id])
            controller.busy = controller._resources.full()
    if controller._multifactor is not None:
        controller._multifactor.period = data["period"]
        if controller._multifactor.fair_share is not None and data["usage"] is not None:
            controller._multifactor.fair_share.restore(data["usage"])
