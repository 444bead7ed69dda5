"""A trace under a policy: on bare processors, or on the nodes of a site or of a slurm.conf."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final

from hpcplan.errors import InputError, SlurmError, nearest
from hpcplan.simulate.admission import resolve
from hpcplan.simulate.controller import Controller
from hpcplan.simulate.engine import Engine
from hpcplan.simulate.jobs import Arrival, Behaviour, JobSpec
from hpcplan.simulate.machine import Machine
from hpcplan.simulate.outcome import Metrics, Row, metrics
from hpcplan.simulate.policies import POLICIES, Backfill, Fcfs
from hpcplan.simulate.replay import replay
from hpcplan.simulate.slurm_cluster import SlurmCluster
from hpcplan.simulate.slurm_settings import SlurmSettings
from hpcplan.simulate.traces import Trace, TraceJob
from hpcplan.slurm.records import JobRecord, JobState

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
        found = on_nodes(trace, SlurmCluster(Machine.of_processors(procs), SlurmSettings()), policy, order)
        return replace(found, rows=tuple(replace(row, nodes=None, nodelist=None) for row in found.rows))
    starts = replay(trace.jobs, procs, policy=policy, order=order)  # type: ignore[arg-type]
    rows = []
    for job, start in zip(trace.jobs, starts, strict=True):
        state = JobState.TIMEOUT if job.run_s > job.limit_s else JobState.COMPLETED
        end = start + min(job.run_s, job.limit_s)
        rows.append(Row(job.name, job.submit_s, start, end, job.procs, None, None, state.value))
    return Schedule(policy, order, procs, tuple(rows), {})


def on_nodes(trace: Trace, cluster: SlurmCluster, policy: str, order: str = "submit") -> Schedule:
    """Schedule a trace on the nodes of a cluster; a job that says no nodes gets as many as its processors take.

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
    ended: dict[int, JobRecord] = {}
    while (time := engine.next_event_time()) is not None:
        engine.step(time)
        ended.update((record.job_id, record) for record in engine.ended)
        engine.ended.clear()
    machine = cluster.machine
    rows = []
    for job in trace.jobs:
        record = ended.get(plan.ids.get(job.name, 0))
        rows.append(_row(job, record, job.name in plan.refused))
    return Schedule(policy, order, machine.total(machine.all_nodes, "cpus"), tuple(rows), plan.refused)


def check_policy(policy: str) -> None:
    """Refuse a policy that there is not.

    Raises:
        InputError: with the nearest name.
    """
    if policy not in TRACE_POLICIES:
        raise InputError(f"no policy is called {policy!r}" + nearest(policy, TRACE_POLICIES))


def _row(job: TraceJob, record: JobRecord | None, refused: bool) -> Row:
    if record is None or record.start_time is None:
        state = "REFUSED" if refused else "PENDING" if record is None else record.state.value
        return Row(job.name, job.submit_s, None, None, job.procs, None, None, state)
    return Row(
        job.name, job.submit_s, record.start_time, record.end_time, record.cpus or job.procs, record.nodes,
        record.node_list, record.state.value,
    )  # fmt: skip


class _Submissions:
    """The jobs of a trace on their way to an engine, which numbers those that it accepts from 1."""

    def __init__(self, trace: Trace, cluster: SlurmCluster, policy: str, order: str) -> None:
        self.ids: dict[str, int] = {}
        self.refused: dict[str, str] = {}
        self._names = {job.name for job in trace.jobs}
        self._arrivals: list[Arrival] = []
        self._next = 0
        for job in sorted(trace.jobs, key=lambda job: job.submit_s):
            spec = self._spec(job, policy, order)
            try:
                resolve(spec, cluster.machine)
                spec = self._with_dependency(spec, job)
            except SlurmError as error:
                self.refused[job.name] = error.message
                continue
            self.ids[job.name] = len(self.ids) + 1
            self._arrivals.append(Arrival(job.submit_s, job.user or "user", spec, Behaviour(job.run_s)))
        self.first_s = self._arrivals[0].time if self._arrivals else 0

    @property
    def next_time(self) -> int | None:
        """When the next job comes."""
        return self._arrivals[self._next].time if self._next < len(self._arrivals) else None

    def pop(self) -> Arrival:
        """Return the next job."""
        self._next += 1
        return self._arrivals[self._next - 1]

    def _spec(self, job: TraceJob, policy: str, order: str) -> JobSpec:
        spec = job.ask or JobSpec(name=job.name, ntasks=job.procs, time_limit_s=job.limit_s)
        if policy == "slurm" and spec.time_limit_s is not None:
            spec = replace(spec, time_limit_s=-(-spec.time_limit_s // 60) * 60)
        if policy == "priority" or (policy == "slurm" and order == "submit"):
            return spec
        shortest_first = policy == "sjf" or order == "sjf"
        return replace(spec, priority=_FIRST - job.limit_s if shortest_first else 1)

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
