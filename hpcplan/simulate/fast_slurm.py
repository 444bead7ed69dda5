"""Slurm's scheduling of a long trace in compiled code, where numba is installed and the trace is of the usual kind.

The usual kind: whole nodes (select/linear), or shares of nodes (select/cons_tres) but with ``OverSubscribe``,
without switches, reservations, preemption and limits of QOS and accounts; and jobs that ask for nodes, tasks, CPUs,
memory, GRES, a limit, a partition, features, a priority, a time to begin and a dependency at most. The result is the
same as
:class:`~hpcplan.simulate.controller.Controller` gives; everything else is left to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields
from importlib.util import find_spec
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, Final, TypedDict

from hpcplan.simulate.engine import TOP_PRIORITY
from hpcplan.simulate.fast_policy import JobTies, associations_of, has_limits, has_ties, is_singleton, is_tree
from hpcplan.simulate.jobs import Behaviour, Job, JobSpec, Request
from hpcplan.simulate.multifactor import Multifactor
from hpcplan.simulate.outcome import Row
from hpcplan.simulate.switch_tree import parents
from hpcplan.slurm.records import JobState

if TYPE_CHECKING:
    from hpcplan.simulate.compiled.driver import Coming, Switch
    from hpcplan.simulate.slurm_cluster import SlurmCluster
    from hpcplan.simulate.slurm_settings import SlurmSettings
    from hpcplan.simulate.trace_submissions import Submissions
    from hpcplan.simulate.traces import TraceJob

__all__ = [
    "FEW",
    "UnusualJob",
    "clock_at",
    "compiled_rows",
    "is_usual",
    "numba_is_there",
    "rules_of",
    "shape_of",
    "usual_alone",
    "usual_cluster",
    "usual_shares",
    "worth_compiling",
]

_REMEMBERED: Final = 4096  # requests whose factors are kept
# What of a job decides only what it may run on, what its priority is, or nothing here; all else must not be asked for.
_HARMLESS: Final = frozenset(
    (
        "name", "partition", "nodes_min", "nodes_max", "ntasks", "ntasks_per_node", "cpus_per_task", "time_limit_s",
        "gpus", "gpus_per_node", "gpus_per_task", "gpu_type", "memory_per_node_bytes", "memory_per_cpu_bytes",
        "memory_per_gpu_bytes", "account", "qos", "exclude", "constraint", "exclusive", "priority", "output", "error",
        "signal", "requeue", "comment", "open_mode", "work_dir", "expected_runtime_s", "pretend_exit",
        "kill_on_invalid_dep", "other_gres", "switches", "nodelist", "nice", "hold", "begin", "dependency",
    )
)  # fmt: skip
_unusual: Final = attrgetter(*(field.name for field in fields(JobSpec) if field.name not in _HARMLESS))
_DEFAULTS: Final = _unusual(JobSpec())
_GRES_KINDS: Final = 8  # kinds of GRES that compiled code counts, GPUs among them
_MIB: Final = 1024**2
FEW: Final = 2000  # jobs; so few are done before numba is loaded
_COLD: Final = 5_000  # as many jobs as Python schedules while numba compiles, measured: of whole nodes
_COLD_SHARED: Final = 20_000  # and of shared ones


def usual_cluster(cluster: SlurmCluster) -> bool:
    """Whether compiled code can do what this cluster's slurmctld does, and it gives out whole nodes."""
    return not cluster.machine.shares_nodes and _is_simple(cluster)


def usual_shares(cluster: SlurmCluster) -> bool:
    """Whether compiled code can do what this cluster's slurmctld does, and jobs share its nodes."""
    sharing, parts = cluster.machine.sharing, cluster.machine.partitions.values()
    if sharing is None or not cluster.machine.shares_nodes:
        return False
    kinds = {name for group in cluster.machine.groups for name, _ in group.other_gres}
    return (
        sharing.cpus
        and cluster.settings.consumable
        and not any(part.jobs_per_resource > 1 for part in parts)
        and len(kinds) < _GRES_KINDS
        and _is_simple(cluster)
    )


def _is_simple(cluster: SlurmCluster) -> bool:
    settings, policy, sharing = cluster.settings, cluster.policy, cluster.machine.sharing
    return (
        settings.consumable == (sharing is not None and sharing.cpus)
        and not (cluster.block_sizes or cluster.reservations)
        and not has_limits(policy)
        and is_tree(policy)
        and cluster.moments is None
        and settings.preempt_type == "none"
        and all(part.up for part in cluster.machine.partitions.values())
    )


def numba_is_there(tell: Callable[[str], None]) -> bool:
    """Whether compiled code can be had; says so if it cannot."""
    if find_spec("numba") is None:
        tell("with numba (pip install 'hpcplan[fast]') this goes about ten times as fast")
        return False
    return True


def worth_compiling(*, shared: bool = False) -> int:
    """Return how many jobs are worth compiling the scheduler (for ``shared`` nodes), 0 where it is compiled already.

    Fewer are done in Python sooner.
    """
    from hpcplan.simulate.compiled.jit import is_cold

    if not is_cold("advance_shared" if shared else "advance"):
        return 0
    return _COLD_SHARED if shared else _COLD


def is_usual(job: TraceJob, *, shared: bool = False) -> bool:
    """Whether compiled code can do what a job asks for, of ``shared`` nodes."""
    ask = job.ask
    return ask is None or (
        _unusual(ask) == _DEFAULTS and ask.nodes_max in (None, ask.nodes_min) and "," not in (ask.partition or "")
        and not (shared and ask.nodelist)
        and not {"?", "+"} <= {*(ask.dependency or "")}
    )  # fmt: skip


class UnusualJob(Exception):
    """A job of a trace asks for what compiled code cannot do."""


def usual_alone(jobs: Iterable[TraceJob], *, shared: bool, tied: bool, families: bool) -> Iterator[TraceJob]:
    """Yield jobs as they come, on ``shared`` nodes or whole ones.

    Some are ``tied`` to others or to times, or to those of their ``families``.

    Raises:
        UnusualJob: one is not of the usual kind, or has ties of which nothing was known.
    """
    seen: dict[int, JobSpec] = {}  # many jobs of a trace ask for the same, in the same object
    for job in jobs:
        if job.ask is not None and seen.get(id(job.ask)) is not job.ask:
            unknown = (has_ties(job.ask) and not tied) or (is_singleton(job.ask) and not families)
            if unknown or not is_usual(job, shared=shared):
                raise UnusualJob
            if len(seen) >= _REMEMBERED:
                seen.clear()
            seen[id(job.ask)] = job.ask
        yield job


def compiled_rows(
    plan: Submissions, cluster: SlurmCluster, turned_away: list[tuple[int, Row]], *, names_nodes: bool,
    tied: bool = False, families: bool = False,
) -> Iterator[tuple[int, Row]]:  # fmt: skip
    """Yield the rows of a trace with their positions as jobs end; ``turned_away`` collects those that never run.

    Jobs are ``tied`` to others or to times, or to those of their ``families``, if any are.
    """
    from hpcplan.simulate.compiled.driver import Driver

    machine, settings = cluster.machine, cluster.settings
    factors = Multifactor(machine, settings, cluster.policy) if settings.multifactor else None
    fair_share = factors.fair_share if factors is not None else None
    ties = JobTies(plan, families=families) if tied else None
    source = _Source(plan, cluster, factors, ties)
    cpus = {group.cpus for group in machine.groups}
    wants_nodes = names_nodes or len(cpus) > 1
    shared = None
    if machine.shares_nodes:
        from hpcplan.simulate.resources import Capacity

        shared = Capacity(machine)
    driver = Driver(
        rules_of(settings), clock_at(settings, plan.first_s), **shape_of(cluster), factors=source.n_factors,
        wants_nodes=wants_nodes, shared=shared, depends=tied,
        associations=None if fair_share is None else associations_of(fair_share, cluster.policy),
        groups=[] if fair_share is None else [(group.mask, group.cpus) for group in machine.groups],
    )  # fmt: skip
    whole, cut, gone = JobState.COMPLETED.value, JobState.TIMEOUT.value, JobState.CANCELLED.value
    each = next(iter(cpus))
    for number, start, end, timed_out, nodes in driver.run(iter(source)):
        if turned_away:
            yield from turned_away
            turned_away.clear()
        submission = plan.waiting.pop(number)
        _, position, job, _, request = submission
        if ties is not None:
            ties.gone(submission)
        if start is None:
            yield position, Row(job.name, job.submit_s, None, None, job.procs, None, None, gone)
            continue
        if not request.whole:
            width = request.cpus
        else:
            width = each * request.minimum if nodes is None else machine.total(nodes, "cpus")
        size, names = (nodes.bit_count(), machine.node_list(nodes)) if names_nodes and nodes else (None, None)
        yield position, Row(job.name, job.submit_s, start, end, width, size, names, cut if timed_out else whole)
    yield from turned_away
    for _, position, job, _, _ in plan.waiting.values():
        yield position, Row(job.name, job.submit_s, None, None, job.procs, None, None, JobState.PENDING.value)


class _Source:
    """The submissions as the compiled controller takes them."""

    def __init__(
        self, plan: Submissions, cluster: SlurmCluster, factors: Multifactor | None, ties: JobTies | None
    ) -> None:
        self._plan = plan
        self._settings = cluster.settings
        self._policy = cluster.policy
        self._ties = ties
        self._partitions = {name: number for number, name in enumerate(cluster.machine.partitions)}
        self._factors = factors
        self._known: dict[tuple[int, str | None], tuple[Request, list[float], int]] = {}
        self._sharers: dict[tuple[str, str], int] | None = None
        self._shares: dict[int, tuple[Request, tuple[int, ...]]] = {}
        self._users: dict[str, int] = {}
        self._count_users = cluster.settings.bf_max_job_user > 0
        self._by_default = 0  # jobs so far whose priority goes down from job to job
        self._gres: list[str] | None = None  # the GRES that are no GPUs, where jobs share nodes
        if cluster.machine.shares_nodes:
            self._gres = sorted({name for group in cluster.machine.groups for name, _ in group.other_gres})
        self.n_factors = 0
        if factors is not None:
            settings = cluster.settings
            self.n_factors = 2 * (2 + bool(settings.priority_weight_qos) + bool(settings.priority_weight_tres))
            if factors.fair_share is not None:
                self.n_factors += 1
                self._sharers = {key: number for number, key in enumerate(factors.fair_share.usage)}

    def __iter__(self) -> Iterator[Coming]:
        """Yield them."""
        from hpcplan.simulate.compiled.driver import Coming

        ties = self._ties
        while (one := self._plan.next()) is not None:
            number, _, job, spec, request = one
            priority = spec.priority
            if priority is None and self._factors is None:
                priority = TOP_PRIORITY - self._by_default - spec.nice
                self._by_default += not spec.hold  # one that is held gets one when it is released
            user = 0
            if self._count_users:
                user = self._users.setdefault(job.user or "user", len(self._users))
            parts, association = self._none, -1
            if self._factors is not None:
                parts, association = self._parts(spec, request, job.user or "user")
            yield Coming(
                number, job.submit_s, job.run_s, request.limit_s, request.minimum, request.eligible,
                self._partitions[request.partition], user, None if priority is None else max(1, priority),
                request.limit_reason is not None or spec.hold, parts,
                () if self._gres is None else self._share(request), request.required, request.switches,
                self._settings.switch_wait_s(spec.switches) if request.switches else 0, spec.nice, association,
                None if ties is None else ties.of(one),
            )  # fmt: skip

    @property
    def _none(self) -> list[float]:
        return [0.0] * self.n_factors

    def _share(self, request: Request) -> tuple[int, ...]:
        """Return what a job wants that shares nodes, as :class:`~.compiled.driver.Coming` has it."""
        known = self._shares.get(id(request))
        if known is not None and known[0] is request:
            return known[1]
        gres = dict(request.node_gres)
        counts = [request.node_gpus, *(gres.get(name, 0) for name in self._gres or ())]
        memory = request.node_memory_bytes
        share = (
            request.maximum, request.cpus, int(request.spread), int(request.least_loaded), request.node_cpus,
            -1 if memory is None else -(-memory // _MIB), request.memory_per_cpu_bytes,
            *counts, *[0] * (_GRES_KINDS - len(counts)),
        )  # fmt: skip
        if len(self._shares) >= _REMEMBERED:
            self._shares.clear()
        self._shares[id(request)] = request, share
        return share

    def _parts(self, spec: JobSpec, request: Request, user: str) -> tuple[list[float], int]:
        """Return what the factors other than age and fair share add to the priority of such a job, with the factor
        that its usage counts with, and whose usage it is.
        """
        assert self._factors is not None
        key = (id(request), user if self._policy.qos or self._sharers else None)
        known = self._known.get(key)
        if known is None or known[0] is not request:
            found: list[float] = []
            for eligible in (None, 0):
                parts = self._factors.parts(Job(1, spec, request, Behaviour(1), user, 0, 1, eligible_time=eligible), 0)
                del parts["age"]
                parts.pop("fair_share", None)
                found += parts.values()
            association = -1
            if self._sharers is not None:
                qos = self._policy.qos_of(user, spec.account, spec.qos)
                found.append(qos.usage_factor if qos is not None else 1.0)
                association = self._sharers.get((self._policy.account_of(user, spec.account) or "", user), -1)
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            known = self._known[key] = request, found, association
        return known[1], known[2]


class _Shape(TypedDict):
    all_nodes: int
    lines: list[int]
    partitions: list[tuple[int, int]]
    switches: list[Switch]


def shape_of(cluster: SlurmCluster) -> _Shape:
    """Return the nodes, lines, partitions and switches as the compiled controller takes them."""
    from hpcplan.simulate.compiled.driver import Switch

    machine, settings = cluster.machine, cluster.settings
    groups = sorted(machine.groups, key=lambda group: group.weight)
    lines = [group.mask for group in groups]
    if cluster.switches or settings.consumable:  # then it is weights that count, and not lines
        lines = [sum(group.mask for group in same) for _, same in groupby(groups, key=lambda group: group.weight)]
    above = parents(cluster.switches)
    return {
        "all_nodes": machine.all_nodes,
        "lines": lines,
        "partitions": [(part.mask, part.priority_tier) for part in machine.partitions.values()],
        "switches": [
            Switch(one.mask, one.level, -1 if over is None else over)
            for one, over in zip(cluster.switches, above, strict=True)
        ],
    }


def rules_of(settings: SlurmSettings) -> dict[str, int]:
    """Return the numbers that the compiled controller goes by."""
    from hpcplan.simulate.compiled.layout import RULES

    found = {name: int(getattr(settings, name)) for name in RULES if hasattr(settings, name)}
    found["by_id"] = int(settings.builtin and not settings.multifactor)
    found["recalculated"] = int(settings.priority_recalculated)
    fair = settings.multifactor and settings.priority_weight_fair_share
    found["fair_place"] = 2 + bool(settings.priority_weight_qos) if fair else -1
    found["accrue_always"] = int("accrue_always" in settings.priority_flags)
    found["classic"] = int("no_fair_tree" in settings.priority_flags)
    found["first_turn_s"] = settings.first_second(settings.loop_phase_ms)
    return found


def clock_at(settings: SlurmSettings, now: int) -> dict[str, int]:
    """Return how the controller's own numbers stand at the beginning."""
    from hpcplan.simulate.compiled.layout import NEVER
    from hpcplan.simulate.threads import BackfillThread, MainThread

    last_whole_s, last_s, _, _ = MainThread(settings).saved()
    backfill_last_s, wake_ms, changed_s, _, _, _ = BackfillThread(settings).saved()
    return {
        "now": now, "changed": 1, "last_whole_s": last_whole_s, "last_s": last_s, "backfill_last_s": backfill_last_s,
        "backfill_wake_ms": wake_ms, "backfill_changed_s": changed_s,
        **dict.fromkeys(("batch_ms", "main_due_ms", "backfill_due_ms", "period", "shares_s"), NEVER),
    }  # fmt: skip
