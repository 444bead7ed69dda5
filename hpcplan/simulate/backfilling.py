"""What a controller's backfill thread does when it has a pass, and how jobs are preempted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hpcplan.simulate.grace import preempt
from hpcplan.simulate.preemption import victims
from hpcplan.simulate.slurm_backfill import BackfillPass

if TYPE_CHECKING:
    from hpcplan.simulate.controller import Controller
    from hpcplan.simulate.exact_backfill import ExactBackfillPass
    from hpcplan.simulate.jobs import Job

__all__ = ["backfill", "preempt_for"]

_MESSAGE_TIMEOUT_S: Final = 10  # slurm.conf(5), MessageTimeout, as it is by default
Ends = list[tuple[int, int, int]]


def backfill(controller: Controller) -> tuple[bool, bool]:
    """Have a pass; whether idle nodes were promised in it, and whether jobs compete for nodes (see :mod:`.threads`)."""
    available = controller.available
    running = controller._promised.copy()
    if available != controller.machine.all_nodes:
        running = [(limit_end, job_id, nodes & available) for limit_end, job_id, nodes in running]
    pass_: BackfillPass
    settings, placement, now = controller.settings, controller.placement, controller.now
    exact = controller._resources is not None or controller.reservations or controller._preemption.possible
    if exact or settings.consumable:
        pass_ = _exact_pass(controller, available, running)
    else:
        pass_ = BackfillPass(settings, placement, now, available & ~controller.busy, available, running)
    pass_.completing = controller._completing.nodes
    queue = controller._ordered()
    if controller._constrained or controller._several_partitions:
        pass_.may_start = controller._may_backfill

    def start(job: Job, nodes: int) -> None:
        controller._start(job, nodes, backfilled=True)

    if controller._het_jobs:
        from hpcplan.simulate.het_backfill import run_with_components

        started = run_with_components(pass_, queue, start)
    else:
        started = pass_.run(queue, start)
    if started:
        controller._drop_started()
    return pass_.plans_idle(), pass_.competing


def _exact_pass(controller: Controller, available: int, running: Ends) -> ExactBackfillPass:
    settings, placement, now = controller.settings, controller.placement, controller.now
    pass_: ExactBackfillPass
    if controller._resources is None:
        from hpcplan.simulate.exact_backfill import WholeNodesPass

        pass_ = WholeNodesPass(settings, placement, now, available & ~controller.busy, available, running)
    else:
        from hpcplan.simulate.shared_backfill import SharedBackfillPass

        holdings = controller._holdings
        pass_ = SharedBackfillPass(settings, placement, now, available, running, controller._resources, holdings)
    pass_.reservations = tuple(controller.reservations.by_name.values())
    if controller._preemption.possible:
        pass_.preempt = lambda job, usable: preempt_for(controller, job, usable)
    return pass_


def preempt_for(controller: Controller, job: Job, usable: int) -> int:
    """Stop running jobs so that ``job`` can start on some of ``usable`` once they are cleaned up; on which."""
    candidates = controller._preemption.candidates(job, controller.running.values(), controller.now)
    if not candidates:
        return 0
    resources = controller._resources

    def open_to(gone: list[Job]) -> int:
        nodes = controller.free
        for one in gone:
            nodes |= one.nodes
        return nodes & usable & job.request.eligible

    def fits(gone: list[Job]) -> int:
        if resources is None:
            return controller.placement.choose(job.request, open_to(gone))
        state = resources.copy()
        for one in gone:
            state.give_back(controller._holdings[one.id])
        return state.choose(job.request, controller.placement, usable)

    nodes = fits(candidates)
    chosen = victims(candidates, fits, open_to if resources is None else None) if nodes else []
    patience_s = controller.settings.kill_wait_s + _MESSAGE_TIMEOUT_S
    if controller._preempting.get(job.id, controller.now - patience_s) > controller.now - patience_s:
        return nodes  # those that it has had stopped may be on their way out still
    if chosen:
        controller._preempting[job.id] = controller.now
        nodes = fits(chosen)  # those that it will have, no longer the first of all that it might
    for one in chosen:
        one = controller.jobs.get(one.het_id or one.id, one)
        if one.id not in controller.running:
            continue  # it went with another component
        preempt(controller, one)
    controller._triggered |= bool(chosen)
    return nodes
