"""How long a run takes as a chain of jobs, and what it costs."""

from __future__ import annotations

from collections.abc import Mapping

from hpcplan.cost.money import energy_kwh, money
from hpcplan.plan import Estimate, Segment, Training
from hpcplan.schedule.checkpoint import checkpoint_interval_s, write_time_s
from hpcplan.schedule.segments import cut_into_segments
from hpcplan.site.model import Site
from hpcplan.workload.arithmetic import parameters
from hpcplan.workload.model import Workload

__all__ = ["chain_of", "mean_time_to_failure_s", "training_of"]

_NO_LIMIT_S = 7 * 86400.0  # where neither the partition nor the user limits a job


def chain_of(
    workload: Workload, site: Site, partition: str, nodes: Mapping[str, int], promised: Estimate
) -> tuple[tuple[Segment, ...], int]:
    """Return the jobs, and the steps between checkpoints.

    Args:
        workload: what is trained.
        site: where.
        partition: whose time limit holds.
        nodes: of each node group.
        promised: the step.
    """
    run, request = workload.training, workload.request
    write_s = write_time_s(site, workload.model)
    every_s = request.checkpoint_interval_s
    if every_s is None:
        every_s = checkpoint_interval_s(write_s, mean_time_to_failure_s(site, nodes), 1)
    every = max(1, min(run.steps, round(every_s / promised.iter_time_s)))
    overhead = write_s / every
    limits = (request.walltime_s, site.partitions[partition].max_time_s)
    limit = min((value for value in limits if value is not None), default=_NO_LIMIT_S)
    segments = cut_into_segments(run.steps, promised.iter_time_s + overhead, promised.high + overhead, limit, write_s)
    return tuple(segments), every


def mean_time_to_failure_s(site: Site, nodes: Mapping[str, int]) -> float | None:
    """Return the mean time between failures of the whole job; groups without a figure are taken not to fail."""
    known = [(count, site.node_groups[group].mtbf_s) for group, count in nodes.items()]
    rate = sum(count / mtbf_s for count, mtbf_s in known if mtbf_s is not None)
    return 1 / rate if rate else None


def training_of(
    workload: Workload, site: Site, nodes: Mapping[str, int], segments: tuple[Segment, ...], every: int
) -> Training:
    """Return the run as a whole: its length, cost and energy, where the site has figures for every group."""
    total_s = sum(segment.expected_s for segment in segments)
    costs = [money(site, group, total_s / 3600 * count) for group, count in nodes.items()]
    energies = [energy_kwh(site, group, total_s / 3600 * count) for group, count in nodes.items()]
    cost = None if None in costs else sum(value for value in costs if value is not None)
    energy = None if None in energies else sum(value for value in energies if value is not None)
    return Training(
        model=workload.name,
        parameters=parameters(workload.model),
        sequence_length=workload.training.sequence_length,
        global_batch=workload.training.global_batch,
        steps=workload.training.steps,
        tokens=workload.training.tokens,
        checkpoint_interval_steps=every,
        time_to_train_s=round(total_s, 1),
        cost=None if cost is None else round(cost, 2),
        currency=None if cost is None else site.prices.currency,
        energy_kwh=None if energy is None else round(energy, 1),
    )
