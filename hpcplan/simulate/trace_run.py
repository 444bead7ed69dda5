"""A trace under a policy: on bare processors, or on the nodes of a site or of a slurm.conf.

:func:`rows_on_processors` and :func:`rows_on_nodes` take jobs as their times come and give rows as soon as those before
them are known, so that a trace of any length needs no more memory than the jobs that wait and run.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from typing import Final

from hpcplan.errors import InputError, nearest
from hpcplan.garbage import without_collection
from hpcplan.simulate.controller import Controller
from hpcplan.simulate.engine import Engine
from hpcplan.simulate.fast_policy import bonds_among
from hpcplan.simulate.fast_slurm import (
    FEW,
    UnusualJob,
    compiled_rows,
    is_usual,
    numba_is_there,
    usual_alone,
    usual_cluster,
    usual_shares,
    worth_compiling,
)
from hpcplan.simulate.jobs import Job
from hpcplan.simulate.machine import Machine
from hpcplan.simulate.outcome import Metrics, Row, metrics
from hpcplan.simulate.policies import POLICIES, Backfill, Fcfs
from hpcplan.simulate.replay import starts_in_time
from hpcplan.simulate.slurm_cluster import SlurmCluster
from hpcplan.simulate.slurm_settings import SlurmSettings
from hpcplan.simulate.trace_order import in_order
from hpcplan.simulate.trace_submissions import Submissions, awaited
from hpcplan.simulate.traces import Trace, TraceJob
from hpcplan.slurm.records import JobState

__all__ = [
    "TRACE_POLICIES", "Schedule", "UnusualJob", "check_policy", "on_nodes", "on_processors", "pool_of", "rows_on_nodes",
    "rows_on_processors",
]  # fmt: skip

TRACE_POLICIES: Final = ("fcfs", "sjf", "priority", "easy", "conservative", "slurm")
_COMPILES: Final = "compiling the scheduler, once for this version: some ten seconds to half a minute"
_TOO_FEW: Final = "scheduled in Python: compiling the scheduler, which is done once, would take longer than so few jobs"
Tell = Callable[[str], None]
Placed = tuple[int, Row]  # a job's position in the order of submission, and its row


def _silent(text: str) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Schedule:
    """The rows of a simulation in the order of the trace, and the processors that there were.

    ``refused`` says of jobs that sbatch would refuse, by their names, why.
    """

    policy: str
    order: str
    procs: int
    rows: tuple[Row, ...]
    refused: dict[str, str]

    def metrics(self) -> Metrics:
        """Return the figures of the schedule."""
        return metrics(self.rows, self.procs)


def on_processors(
    trace: Trace, procs: int | None, policy: str, order: str = "submit", *, tell: Tell = _silent
) -> Schedule:
    """Schedule a trace on ``procs`` equal processors; each job takes its width of them.

    Under ``slurm`` each processor is a node, and slurmctld has its defaults.

    Raises:
        InputError: a job is wider than the machine, the size is not known, or no such policy.
    """
    check_policy(policy)
    size = pool_of(procs)
    refused: dict[str, str] = {}
    jobs, positions = _by_submission(trace.jobs)
    rows = rows_on_processors(jobs, size, policy, order, refused, tell=tell)
    with nullcontext() if policy == "slurm" else without_collection():
        return Schedule(policy, order, size, _in_trace_order(rows, positions), refused)


def on_nodes(
    trace: Trace, cluster: SlurmCluster, policy: str, order: str = "submit", *, tell: Tell = _silent
) -> Schedule:
    """Schedule a trace on the nodes of a cluster; a job that says no nodes gets as many as its processors take.

    Raises:
        InputError: no such policy, or a job depends on one that the trace does not have.
    """
    refused: dict[str, str] = {}
    jobs, positions = _by_submission(trace.jobs)
    rows = rows_on_nodes(jobs, cluster, policy, order, refused, names=awaited(jobs), tell=tell)
    machine = cluster.machine
    return Schedule(policy, order, machine.total(machine.all_nodes, "cpus"), _in_trace_order(rows, positions), refused)


def rows_on_processors(
    jobs: Iterable[TraceJob], procs: int, policy: str, order: str, refused: dict[str, str], *, tell: Tell = _silent
) -> Iterator[Row]:
    """Yield the rows of :func:`on_processors` for jobs in the order of their submission; ``refused`` is filled.

    Raises:
        InputError: a job is wider than the machine, or no such policy.
    """
    check_policy(policy)
    if policy == "slurm":
        cluster = SlurmCluster(Machine.of_processors(procs), SlurmSettings())
        return rows_on_nodes(jobs, cluster, policy, order, refused, names_nodes=False, tell=tell)
    return in_order(_on_pool(jobs, procs, policy, order))


def rows_on_nodes(
    jobs: Iterable[TraceJob],
    cluster: SlurmCluster,
    policy: str,
    order: str,
    refused: dict[str, str],
    *,
    names: Collection[str] = (),
    names_nodes: bool = True,
    compiled: bool = True,
    tell: Tell = _silent,
) -> Iterator[Row]:
    """Yield the rows of :func:`on_nodes` for jobs in the order of their submission; ``refused`` is filled.

    ``names`` are those of the trace that others wait for (:func:`.trace_submissions.awaited`). Without ``names_nodes``
    the rows do not say on which nodes, nor on how many, a job ran; without ``compiled`` they do not come from compiled
    code. ``tell`` is told what makes it take longer than it might.

    Raises:
        InputError: no such policy, or a job depends on one that the trace does not have.
        UnusualJob: compiled code has begun, and cannot do what a later job asks for.
    """
    check_policy(policy)
    fast = False
    tied = families = False
    if policy == "slurm" and compiled and (usual_cluster(cluster) or usual_shares(cluster)):
        shared = cluster.machine.shares_nodes
        first = jobs if (whole := isinstance(jobs, Sequence)) else list(islice(jobs := iter(jobs), FEW + 1))
        fast = len(first) > FEW and all(map(partial(is_usual, shared=shared), first))
        tied, families = bonds_among(first, names)
        if not whole:
            jobs = chain(first, jobs)
        if fast and (fast := numba_is_there(tell)) and (least := worth_compiling(shared=shared)):
            fast, jobs = _more_than(least, jobs)
            tell(_COMPILES if fast else _TOO_FEW)
        if fast and not whole:
            jobs = usual_alone(jobs, shared=shared, tied=tied, families=families)
    turned_away: list[Placed] = []
    plan = Submissions(
        jobs, cluster, policy, order, names=names, refused=refused,
        never_runs=lambda position, row: turned_away.append((position, row)),
    )  # fmt: skip
    if fast:
        return in_order(
            compiled_rows(plan, cluster, turned_away, names_nodes=names_nodes, tied=tied, families=families)
        )
    return in_order(_on_engine(plan, cluster, policy, turned_away, names_nodes=names_nodes))


def _more_than(least: int, jobs: Iterable[TraceJob]) -> tuple[bool, Iterable[TraceJob]]:
    """Return whether there are so many jobs and more, and the jobs."""
    if isinstance(jobs, Sequence):
        return len(jobs) > least, jobs
    jobs = iter(jobs)
    first = list(islice(jobs, least + 1))
    return len(first) > least, chain(first, jobs)


def check_policy(policy: str) -> None:
    """Refuse a policy that there is not.

    Raises:
        InputError: with the nearest name.
    """
    if policy not in TRACE_POLICIES:
        raise InputError(f"no policy is called {policy!r}" + nearest(policy, TRACE_POLICIES))


def pool_of(procs: int | None) -> int:
    """Return the size of the machine.

    Raises:
        InputError: it is not known.
    """
    if procs is None:
        raise InputError("the trace does not say how large the machine is", hint="--procs, --site or --slurm-conf")
    return procs


def _on_pool(jobs: Iterable[TraceJob], procs: int, policy: str, order: str) -> Iterator[Placed]:
    whole, cut = JobState.COMPLETED.value, JobState.TIMEOUT.value
    found = starts_in_time(jobs, procs, policy=policy, order=order)  # type: ignore[arg-type]
    new = tuple.__new__  # what a named tuple's own constructor calls, at twice the cost
    for rank, (number, submit, run_s, limit_s, width, label, _, _), start in found:
        end, state = (start + limit_s, cut) if run_s > limit_s else (start + run_s, whole)
        name = str(number) if label is None else label
        yield rank, new(Row, (name, submit, start, end, width, None, None, state))


def _on_engine(
    plan: Submissions, cluster: SlurmCluster, policy: str, turned_away: list[Placed], *, names_nodes: bool
) -> Iterator[Placed]:
    """Yield rows as jobs end for good; of those that are left at the end, what became of their last attempt."""
    engine: Engine
    if policy == "slurm":
        engine = Controller(cluster, now=plan.first_s, arrivals=plan)
    else:
        chosen = {"easy": POLICIES["easy"], "conservative": Backfill()}.get(policy, Fcfs())
        engine = Engine(cluster.machine, chosen, now=plan.first_s, arrivals=plan)
    attempts: dict[int, Row] = {}
    noted: list[tuple[int, Row]] = []
    cpus = cluster.machine.total

    def note(job: Job, state: JobState) -> None:
        """Keep the last attempt of a job as its row."""
        nodes, own = job.nodes, plan.waiting[job.id].job
        width = own.procs if not nodes else cpus(nodes, "cpus") if job.request.whole else job.request.cpus
        size = nodes.bit_count() if nodes and names_nodes else None
        end = engine.now if nodes else None
        row = Row(own.name, own.submit_s, job.start_time, end, width, size, job.node_list, state.value)
        noted.append((job.id, row))

    engine.on_end, engine.names_nodes = note, names_nodes
    while (time := engine.next_event_time()) is not None:
        engine.step(time)
        yield from _taken(turned_away)
        for number, row in noted:
            if number in engine.jobs:
                attempts[number] = row
            else:
                attempts.pop(number, None)
                yield plan.waiting.pop(number).position, row
        noted.clear()
    yield from _taken(turned_away)
    for number, one in plan.waiting.items():
        job, last = one.job, attempts.get(number)
        if last is None or last.start_s is None:
            state = "PENDING" if last is None else last.state
            last = Row(job.name, job.submit_s, None, None, job.procs, None, None, state)
        yield one.position, last


def _taken(rows: list[Placed]) -> list[Placed]:
    result = rows.copy()
    rows.clear()
    return result


def _by_submission(jobs: Sequence[TraceJob]) -> tuple[Sequence[TraceJob], list[int] | None]:
    """Return the jobs in the order of submission, and the position of each in the trace, ``None`` where it is the same.

    Jobs of the same second keep the order of the trace.
    """
    times = [job.submit_s for job in jobs]
    if all(map(int.__le__, times, times[1:])):
        return jobs, None
    positions = sorted(range(len(jobs)), key=times.__getitem__)
    return [jobs[position] for position in positions], positions


def _in_trace_order(rows: Iterable[Row], positions: list[int] | None) -> tuple[Row, ...]:
    if positions is None:
        return tuple(rows)
    result: list[Row | None] = [None] * len(positions)
    for position, row in zip(positions, rows, strict=True):
        result[position] = row
    return tuple(row for row in result if row is not None)
