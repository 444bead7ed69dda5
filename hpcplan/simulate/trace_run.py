"""A trace under a policy: on bare processors, or on the nodes of a site or of a slurm.conf."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final

from hpcplan.errors import InputError, SlurmError, nearest
from hpcplan.simulate.admission import Admission
from hpcplan.simulate.controller import Controller
from hpcplan.simulate.engine import Engine
from hpcplan.simulate.jobs import Arrival, Behaviour, Job, JobSpec
from hpcplan.simulate.machine import Machine
from hpcplan.simulate.outcome import Metrics, Row, metrics
from hpcplan.simulate.policies import POLICIES, Backfill, Fcfs
from hpcplan.simulate.replay import replay
from hpcplan.simulate.reservations import Reservations, refuse_unknown
from hpcplan.simulate.slurm_cluster import SlurmCluster
from hpcplan.simulate.slurm_settings import SlurmSettings
from hpcplan.simulate.traces import Trace, TraceJob
from hpcplan.slurm.records import JobState

__all__ = ["TRACE_POLICIES", "Schedule", "check_policy", "on_nodes", "on_processors"]

TRACE_POLICIES: Final = ("fcfs", "sjf", "priority", "easy", "conservative", "slurm")
_FIRST: Final = 10**9  # what limits are taken from to make priorities of them; above every limit
_REFERENCE: Final = re.compile(r":([^:,?+]+)")


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


def on_processors(trace: Trace, procs: int | None, policy: str, order: str = "submit") -> Schedule:
    """Schedule a trace on ``procs`` equal processors; each job takes its width of them.

    Under ``slurm`` each processor is a node, and slurmctld has its defaults.

    Raises:
        InputError: a job is wider than the machine, the size is not known, or no such policy.
    """
    check_policy(policy)
    if procs is None:
        raise InputError("the trace does not say how large the machine is", hint="--procs, --site or --slurm-conf")
    if policy == "slurm":
        cluster = SlurmCluster(Machine.of_processors(procs), SlurmSettings())
        return on_nodes(trace, cluster, policy, order, names_nodes=False)
    starts = replay(trace.jobs, procs, policy=policy, order=order)  # type: ignore[arg-type]
    whole, cut = JobState.COMPLETED.value, JobState.TIMEOUT.value
    rows = []
    for job, start in zip(trace.jobs, starts, strict=True):
        run_s, limit_s, name = job.run_s, job.limit_s, job.label
        end, state = (start + limit_s, cut) if run_s > limit_s else (start + run_s, whole)
        rows.append(Row(str(job.id) if name is None else name, job.submit_s, start, end, job.procs, None, None, state))
    return Schedule(policy, order, procs, tuple(rows), {})


def on_nodes(
    trace: Trace, cluster: SlurmCluster, policy: str, order: str = "submit", *, names_nodes: bool = True
) -> Schedule:
    """Schedule a trace on the nodes of a cluster; a job that says no nodes gets as many as its processors take.

    Without ``names_nodes`` the rows do not say on which nodes, nor on how many, a job ran.

    Raises:
        InputError: no such policy, or a job depends on one that the trace does not have.
    """
    check_policy(policy)
    plan = _Submissions(trace, cluster, policy, order)
    engine: Engine
    if policy == "slurm":
        engine = Controller(cluster, now=plan.first_s, arrivals=plan)
    else:
        chosen = {"easy": POLICIES["easy"], "conservative": Backfill()}.get(policy, Fcfs())
        engine = Engine(cluster.machine, chosen, now=plan.first_s, arrivals=plan)
    found: dict[int, Row] = {}
    cpus = cluster.machine.total

    def note(job: Job, state: JobState) -> None:
        """Keep the last attempt of a job as its row; the jobs of a trace that never start have no row here."""
        nodes = job.nodes
        width = cpus(nodes, "cpus") if nodes and job.request.whole else job.request.cpus
        size = nodes.bit_count() if nodes and names_nodes else None
        name, submit = plan.submitted[job.id - 1]
        end = engine.now if nodes else None
        found[job.id] = Row(name, submit, job.start_time, end, width, size, job.node_list, state.value)

    engine.on_end, engine.names_nodes = note, names_nodes
    while (time := engine.next_event_time()) is not None:
        engine.step(time)
    machine = cluster.machine
    rows = []
    for job in trace.jobs:
        row = found.get(plan.ids.get(job.name, 0))
        if row is None or row.start_s is None:
            state = "REFUSED" if job.name in plan.refused else "PENDING" if row is None else row.state
            row = Row(job.name, job.submit_s, None, None, job.procs, None, None, state)
        rows.append(row)
    return Schedule(policy, order, machine.total(machine.all_nodes, "cpus"), tuple(rows), plan.refused)


def check_policy(policy: str) -> None:
    """Refuse a policy that there is not.

    Raises:
        InputError: with the nearest name.
    """
    if policy not in TRACE_POLICIES:
        raise InputError(f"no policy is called {policy!r}" + nearest(policy, TRACE_POLICIES))


class _Submissions:
    """The jobs of a trace on their way to an engine, which numbers those that it accepts from 1."""

    def __init__(self, trace: Trace, cluster: SlurmCluster, policy: str, order: str) -> None:
        self.ids: dict[str, int] = {}
        self.submitted: list[tuple[str, int]] = []  # name and submission of each, by id from 1
        self.refused: dict[str, str] = {}
        self._names = {job.name for job in trace.jobs} if any(_depends(job) for job in trace.jobs) else set()
        self._whole_minutes = policy == "slurm"
        self._admission = Admission(
            cluster.machine, whole_nodes=not (self._whole_minutes and cluster.machine.shares_nodes)
        )
        self._shared = self._whole_minutes and cluster.machine.shares_nodes
        self._licenses = dict(cluster.settings.licenses)
        self._reservations = Reservations(cluster.reservations)
        self._as_given = policy == "priority" or (policy == "slurm" and order == "submit")
        self._shortest_first = policy == "sjf" or order == "sjf"
        self._left = iter(sorted(trace.jobs, key=lambda job: job.submit_s))
        self._next = self._following()
        self.first_s = self._next.time if self._next is not None else 0

    @property
    def next_time(self) -> int | None:
        """When the next job comes."""
        return None if self._next is None else self._next.time

    def pop(self) -> Arrival:
        """Return the next job."""
        arrival = self._next
        assert arrival is not None
        self._next = self._following()
        return arrival

    def _following(self) -> Arrival | None:
        """Return the next job that is not refused, numbered."""
        for job in self._left:
            spec = self._spec(job)
            try:
                if self._whole_minutes:
                    refuse_unknown(spec, job.user or "user", self._licenses, self._reservations)
                self._admission.resolve(spec)
                spec = self._with_dependency(spec, job)
            except SlurmError as error:
                self.refused[job.name] = error.message
                continue
            self.submitted.append((job.name, job.submit_s))
            self.ids[job.name] = len(self.submitted)
            return Arrival(job.submit_s, job.user or "user", spec, Behaviour(job.run_s))
        return None

    def _spec(self, job: TraceJob) -> JobSpec:
        limit_s: int | None = job.limit_s if job.ask is None else job.ask.time_limit_s
        if self._whole_minutes and limit_s is not None:
            limit_s = -(-limit_s // 60) * 60
        if job.ask is None:
            priority = None if self._as_given else _FIRST - job.limit_s if self._shortest_first else 1
            return JobSpec(name=job.name, ntasks=job.procs, time_limit_s=limit_s, priority=priority)
        spec = job.ask if limit_s == job.ask.time_limit_s else replace(job.ask, time_limit_s=limit_s)
        if not self._whole_minutes and (spec.licenses or spec.reservation):
            spec = replace(spec, licenses=None, reservation=None)
        if self._shared and not (spec.exclusive or spec.ntasks or spec.ntasks_per_node or spec.cpus_per_task > 1):
            nodes = spec.nodes_min or job.procs  # what sacct prints says nodes and CPUs: it had that share of each
            if job.procs > nodes:
                spec = replace(spec, cpus_per_task=-(-job.procs // nodes), ntasks_per_node=1)
        if self._as_given:
            return spec
        return replace(spec, priority=_FIRST - job.limit_s if self._shortest_first else 1)

    def _with_dependency(self, spec: JobSpec, job: TraceJob) -> JobSpec:
        """Return the specification with the engine's numbers in the place of the trace's names."""
        if spec.dependency is None:
            return spec

        def number(match: re.Match[str]) -> str:
            name = match[1]
            if name not in self._names:
                raise InputError(f"job {job.name} depends on {name!r}, which the trace does not have")
            if name not in self.ids:
                raise SlurmError("Job dependency problem")
            return f":{self.ids[name]}"

        return replace(spec, dependency=_REFERENCE.sub(number, spec.dependency))


def _depends(job: TraceJob) -> bool:
    return job.ask is not None and job.ask.dependency is not None
