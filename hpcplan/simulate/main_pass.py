"""One pass of slurmctld's main scheduler (``_schedule`` of Slurm 22.05; slurm.conf(5), ``SchedulerParameters``).

It goes down the queue and starts what fits. The first job of a partition that has to wait holds the partition's nodes
up for all behind it; backfill alone gets past it.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from hpcplan.simulate.backfilling import preempt_for
from hpcplan.simulate.slurm_backfill import waited_s

if TYPE_CHECKING:
    from hpcplan.simulate.controller import Controller
    from hpcplan.simulate.jobs import Job

__all__ = ["main_pass"]


def main_pass(controller: Controller, *, whole: bool) -> bool:
    """Have a pass, over the ``whole`` queue or its head; whether jobs were passed over because nodes were held up.

    The head is one job more than ``default_queue_depth``, as slurmctld counts.
    """
    settings, now, reservations = controller.settings, controller.now, controller.reservations
    masks, preempting = controller._partition_masks, controller._preemption.possible
    queue = controller._ordered()
    usable = controller.free
    looked_at: Counter[str] = Counter()
    usable_in: dict[str, int] = {}  # reservations whose first waiting job holds up the others
    not_held_up = controller.available
    passed_over = False
    tested = started = 0
    for position, job in enumerate(queue):
        request = job.request
        mask = masks[request.partition]
        passed_over |= (not_held_up & mask).bit_count() < request.minimum
        if not usable and not (preempting or reservations):
            passed_over |= position + 1 < len(queue)
            break
        if controller._several_partitions and not controller.waits(job):
            continue  # it was started in another partition
        if job.het_id is not None:  # only the backfill scheduler starts them; they hold up their partition
            usable &= ~mask
            continue
        if started == settings.sched_max_job_start > 0:
            break
        looked_at[request.partition] += 1
        if 0 < settings.partition_job_depth < looked_at[request.partition]:
            continue
        if not whole and tested > settings.default_queue_depth:
            break
        tested += 1
        if controller._constrained and controller.waits_for(job) is not None:
            continue
        there = usable
        if job.spec.reservation is not None:
            there = usable_in.get(job.spec.reservation, controller.free)
        nodes = controller._choose(request, reservations.usable(job, now, there))
        if nodes:
            controller._start(job, nodes, backfilled=False)
            usable &= controller.free
            started += 1
            continue
        if preempting:
            usable &= ~preempt_for(controller, job, reservations.usable(job, now, not_held_up))
        unreserved = reservations.usable(job, now, controller.available)
        if job.spec.reservation is not None:
            usable_in[job.spec.reservation] = 0
            continue
        if unreserved != controller.available and not controller.placement.fits(request, unreserved):
            continue  # it would run into a reservation wherever it went, and holds up nobody
        if request.required and request.required.bit_count() >= request.minimum:
            usable &= ~request.required  # no more jobs on the nodes that it insists on; the rest go on
        elif _holds_up(controller, job) and controller.placement.fits(request, controller.available):
            usable &= ~mask
            not_held_up &= ~mask
    controller._drop_started()
    return passed_over


def _holds_up(controller: Controller, job: Job) -> bool:
    """Whether a job that waits has waited long enough, and is important enough, to hold up others."""
    settings = controller.settings
    if job.priority < settings.bf_min_prio_reserve:
        return False
    return waited_s(job, controller.now) >= settings.bf_min_age_reserve_s
