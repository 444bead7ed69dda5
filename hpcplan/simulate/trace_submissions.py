"""The jobs of a trace on their way to a cluster: what each would ask sbatch for, and which it would refuse."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from typing import Final, NamedTuple

from hpcplan.errors import InputError, SlurmError
from hpcplan.simulate.admission import Admission
from hpcplan.simulate.jobs import Arrival, Behaviour, JobSpec, Request
from hpcplan.simulate.outcome import Row
from hpcplan.simulate.reservations import Reservations, refuse_unknown
from hpcplan.simulate.slurm_cluster import SlurmCluster
from hpcplan.simulate.traces import TraceJob
from hpcplan.slurm.records import JobState

__all__ = ["Submission", "Submissions", "awaited"]

_FIRST: Final = 10**9  # what limits are taken from to make priorities of them; above every limit
_REMEMBERED: Final = 4096  # kinds of jobs of which nothing but their size and limit is known
_REFERENCE: Final = re.compile(r":([^:,?+]+)")


class Submission(NamedTuple):
    """A job that a cluster accepts, at its position in the order of submission; they are numbered from 1."""

    number: int
    position: int
    job: TraceJob
    spec: JobSpec
    request: Request


class Submissions:
    """The accepted jobs of a trace, one after another; also a source of arrivals for an engine.

    ``waiting`` are those that have been handed out, until somebody takes them away; ``refused`` says of jobs that
    sbatch would refuse, by their names, why; ``never_runs`` is told the positions and rows of those, and of jobs that
    wait for ever.
    """

    def __init__(
        self,
        jobs: Iterable[TraceJob],
        cluster: SlurmCluster,
        policy: str,
        order: str,
        *,
        names: Collection[str] = (),
        refused: dict[str, str],
        never_runs: Callable[[int, Row], None],
    ) -> None:
        """Take over the jobs, in the order of submission; ``names`` are of those that others wait for."""
        self.waiting: dict[int, Submission] = {}
        self.refused = refused
        self._never_runs = never_runs
        self._names = names
        self._numbers: dict[str, int] = {}
        self._count = 0
        self._whole_minutes = policy == "slurm"
        self._shared = self._whole_minutes and cluster.machine.shares_nodes
        self._named = cluster.moments is not None  # what was recorded is told by the names of jobs
        self._admission = Admission(cluster.machine, whole_nodes=not self._shared)
        self._licenses = dict(cluster.settings.licenses)
        self._reservations = Reservations(cluster.reservations)
        self._as_given = policy == "priority" or (policy == "slurm" and order == "submit")
        self._shortest_first = policy == "sjf" or order == "sjf"
        self._plain: dict[tuple[int, int], tuple[JobSpec, Request]] = {}
        self._asked: dict[tuple[int, int, int, str | None], tuple[JobSpec, JobSpec, Request]] = {}
        self._left = enumerate(jobs)
        self._next: Submission | None = None
        self.first_s = 0
        self.next()
        if self._next is not None:
            self.first_s = self._next.job.submit_s

    @property
    def next_time(self) -> int | None:
        """When the next job comes."""
        return None if self._next is None else self._next.job.submit_s

    def is_awaited(self, job: TraceJob) -> bool:
        """Whether others of the trace wait for a job."""
        return job.name in self._names

    def pop(self) -> Arrival:
        """Return the next job, with the components that follow it if it is a heterogeneous one."""
        one = self.next()
        assert one is not None
        others = []
        if one.spec.het_group is not None:
            kind = (one.spec.het_group, one.job.submit_s)
            while self._next is not None and (self._next.spec.het_group, self._next.job.submit_s) == kind:
                other = self.next()
                assert other is not None
                others.append((other.spec, Behaviour(other.job.run_s)))
        user = one.job.user or "user"
        return Arrival(one.job.submit_s, user, one.spec, Behaviour(one.job.run_s), tuple(others))

    def next(self) -> Submission | None:
        """Return the next job that is accepted, ``None`` after the last."""
        result = self._next
        self._next = self._following()
        if result is None:
            return None
        goes = result.spec.kill_on_invalid_dep and result.spec.dependency is not None
        if result.request.limit_reason is None or goes:
            self.waiting[result.number] = result
        else:  # a limit of its partition keeps it waiting for ever
            job = result.job
            row = Row(job.name, job.submit_s, None, None, job.procs, None, None, JobState.PENDING.value)
            self._never_runs(result.position, row)
        return result

    def _following(self) -> Submission | None:
        for position, job in self._left:
            try:
                spec, request = self._accepted(job)
            except SlurmError as error:
                self.refused[job.name] = error.message
                self._never_runs(position, Row(job.name, job.submit_s, None, None, job.procs, None, None, "REFUSED"))
                continue
            self._count += 1
            if self._named:
                spec = replace(spec, name=job.name)
            if job.name in self._names:
                self._numbers[job.name] = self._count
            return Submission(self._count, position, job, spec, request)
        return None

    def _accepted(self, job: TraceJob) -> tuple[JobSpec, Request]:
        """Return what a job asks for, and what that is on this machine.

        Raises:
            SlurmError: sbatch would refuse it.
        """
        ask = job.ask
        if ask is not None:
            held = (id(ask), job.procs, job.limit_s, job.user)
            asked = self._asked.get(held)
            if asked is not None and asked[0] is ask:
                return asked[1], asked[2]
            spec = self._spec(job, ask)
            if self._whole_minutes:
                refuse_unknown(spec, job.user or "user", self._licenses, self._reservations)
            request = self._admission.resolve(spec)
            if spec.dependency is not None:
                return self._with_dependency(spec, job), request
            if len(self._asked) >= _REMEMBERED:
                self._asked.clear()
            self._asked[held] = ask, spec, request
            return spec, request
        kind = (job.procs, job.limit_s)
        known = self._plain.get(kind)
        if known is None:
            limit_s = -(-job.limit_s // 60) * 60 if self._whole_minutes else job.limit_s
            priority = None if self._as_given else _FIRST - job.limit_s if self._shortest_first else 1
            spec = JobSpec(name="job", ntasks=job.procs, time_limit_s=limit_s, priority=priority)
            if len(self._plain) >= _REMEMBERED:
                self._plain.clear()
            known = self._plain[kind] = (spec, self._admission.resolve(spec))
        return known

    def _spec(self, job: TraceJob, ask: JobSpec) -> JobSpec:
        limit_s = ask.time_limit_s
        if self._whole_minutes and limit_s is not None:
            limit_s = -(-limit_s // 60) * 60
        spec = ask if limit_s == ask.time_limit_s else replace(ask, time_limit_s=limit_s)
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
            if name not in self._numbers:
                raise SlurmError("Job dependency problem")
            return f":{self._numbers[name]}"

        return replace(spec, dependency=_REFERENCE.sub(number, spec.dependency))


def awaited(jobs: Iterable[TraceJob]) -> set[str]:
    """Return the names of the jobs that others of a trace wait for; ``jobs`` is gone through twice if there are any."""
    asked = {name for job in jobs if job.ask is not None for name in _REFERENCE.findall(job.ask.dependency or "")}
    return {job.name for job in jobs if job.name in asked} if asked else asked
