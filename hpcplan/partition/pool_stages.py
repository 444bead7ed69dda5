"""Sharing the layers over unequal pools: each pool holds whole stages of one pipeline, faster ones with more layers.

With m micro-batches, the step is that of the slowest stage at work, plus one micro-batch through all others:
max_i ((m - b) t_i + u_i) + b (sum_i t_i + h), where t_i is a stage's time for a micro-batch, u_i its gradient exchange
and optimizer, b the cost model's factor for the bubble, and h what it counts of embedding and output layer in each
stage that a micro-batch passes. All times are the cost model's; equal pools have its price of the whole. The sum
depends on the cut, too, so for each pace that the slowest stage may keep, dynamic programming finds the cut with the
least sum; paces are tried from the fastest that any cut has until no slower one can win. Every order of the pools,
degree of tensor and data parallelism, micro-batch, ZeRO stage and recomputation is tried, the most promising first,
until the bound of the next is no better: exact.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import permutations, product
from math import gcd

import numpy as np

from hpcplan.cost.shardings import NONE, Floats, Shardings
from hpcplan.errors import InfeasibleError
from hpcplan.partition.candidates import divides_heads, divisors
from hpcplan.partition.explain import TERMS
from hpcplan.partition.frameworks import capabilities
from hpcplan.partition.pools import Member, PooledPlan
from hpcplan.partition.stages import BUSY, LayerCosts, layer_costs, span_sums
from hpcplan.workload.model import Workload

__all__ = ["fixed_layers", "share_layers"]


@dataclass(frozen=True, slots=True)
class _Table:
    """Layers [i, j) as one stage: arrays of shape (layers + 1, layers + 1), infinite where none or too many."""

    time_s: Floats
    tail_s: Floats
    memory_bytes: Floats


@dataclass(frozen=True, slots=True)
class _Question:
    """One order of pools and one sharding (row ``i`` of ``shardings``): what remains is the cut."""

    order: tuple[int, ...]
    i: int
    bound_s: float


@dataclass(frozen=True, slots=True)
class _Answer:
    """A cut: where each stage ends, and its step."""

    question: _Question
    ends: tuple[int, ...]
    step_s: float


def _shardings(workload: Workload, members: Sequence[Member]) -> Shardings | None:
    """Return what all stages have in common, as shardings of one stage: (tp, dp, micro-batch, ZeRO, recompute, SP)."""
    can, shape, batch = capabilities(workload.request.framework), workload.model, workload.training.global_batch
    if "pp" not in can.axes:
        return None
    domain = gcd(*(int(member.kind.machine.gpus_per_domain) for member in members))
    shared = gcd(*(member.gpus for member in members))
    rows: list[tuple[int, ...]] = []
    for tp in divisors(gcd(domain, shared)) if "tp" in can.axes else [1]:
        if not divides_heads(shape, tp):
            continue
        for dp in divisors(shared // tp):
            stages = sum(member.gpus for member in members) // (tp * dp)
            if batch % dp or stages > shape.layers:
                continue
            split = can.sequence_parallel if tp > 1 else (0,)
            zero = [z for z in can.zero if z in can.zero_in_pipeline] if dp > 1 else [0]
            experts = divisors(gcd(dp, shape.experts.count)) if shape.experts and "ep" in can.axes else [1]
            for size, z, again, sp, ep in product(divisors(batch // dp), zero, can.recompute, split, experts):
                if again == NONE or z >= can.recompute_from:
                    rows.append((tp, dp, ep, size, batch // dp // size, z, again, sp))
    if not rows:
        return None
    names = ("tp", "dp", "ep", "micro_batch", "micro_batches", "zero", "recompute", "sequence_parallel")
    return Shardings.of(**{name: list(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)})


class _Problem:
    """The costs of layers on every pool, for all shardings at once."""

    def __init__(self, workload: Workload, members: Sequence[Member], s: Shardings) -> None:
        self.workload, self.members = workload, list(members)
        self.stages = [member.gpus // (s.tp * s.dp) for member in members]  # of each pool, arrays of (shardings,)
        self.s = s = dataclasses.replace(s, pp=np.asarray(sum(self.stages), dtype=np.int64))
        self.costs: list[LayerCosts] = [layer_costs(workload, member.kind, s) for member in members]
        self.layers = workload.model.layers
        kinds = [member.kind for member in members]
        self.bubble = max(float(np.asarray(kind.coefficients.bubble)) for kind in kinds)
        times = [kind.price(workload, s).time for kind in kinds]  # of the whole, as if all nodes were of that kind
        self.hop_s: Floats = np.max([time.pipeline_transfer for time in times], axis=0)
        self.overhead_s: Floats = np.max([time.overhead for time in times], axis=0)
        self.ends_s: Floats = (
            self.bubble
            * (s.pp - 1)
            * np.max([costs.ends["tensor_parallel"] + costs.ends["compute"] / s.pp for costs in self.costs], axis=0)
        )

    @property
    def fixed_s(self) -> Floats:
        """What of a step no cut changes."""
        return np.asarray(self.hop_s + self.overhead_s + self.ends_s)

    def bounds(self) -> Floats:
        """Return what no cut of each sharding can beat.

        Weigh the stages of pool k by 1 / W_k, the inverse of its time for the whole model. The slowest stage takes at
        least the weighted mean, and each layer adds to that at least what it adds on the pool where that is least.
        """
        parts = [self._parts(costs) for costs in self.costs]
        whole = [sum(part) for part in parts]
        weights = sum(stages / time for stages, time in zip(self.stages, whole, strict=True))
        share = sum(np.min([part / w for part, w in zip(column, whole, strict=True)], axis=0)
                    for column in zip(*parts, strict=True))  # fmt: skip
        least = sum(np.min(column, axis=0) for column in zip(*parts, strict=True))
        m = self.s.micro_batches
        steady = np.maximum(m - self.bubble, 0.0) * share / weights
        return np.asarray(steady + np.minimum(self.bubble, m) * least + self.fixed_s)

    @staticmethod
    def _parts(costs: LayerCosts) -> list[Floats]:
        """Return the time of all plain layers, all routed ones, and the output layer, for one micro-batch."""
        counts = (costs.dense, costs.layers - costs.dense, 1)
        return [
            np.asarray(count * sum(part[name] for name in BUSY))
            for count, part in zip(counts, (costs.plain, costs.routed, costs.ends), strict=True)
        ]

    def tables(self, question: _Question) -> list[_Table]:
        """Return the table of every stage, in pipeline order."""
        i, m = question.i, int(self.s.micro_batches[question.i])
        pools = [pool for pool in question.order for _ in range(int(self.stages[pool][i]))]
        found: list[_Table] = []
        for stage, pool in enumerate(pools):
            kind = self.members[pool].kind
            held = min(m, len(pools) - stage)
            costs, first, last = self.costs[pool], stage == 0, stage == len(pools) - 1
            busy = self._spans(costs, i, BUSY, last)
            tail = self._spans(costs, i, ("tail",), first or last)
            need = self._spans(costs, i, ("states",), False) + held * self._spans(costs, i, ("kept",), False)
            need = need + float(costs.once_bytes[i] + first * costs.first_bytes[i] + last * costs.last_bytes[i])
            fits = need <= kind.free_bytes(self.workload.request.memory_headroom)
            found.append(_Table(np.where(fits, busy, np.inf), np.where(fits, tail, np.inf), need))
        return found

    def _spans(self, costs: LayerCosts, i: int, names: Sequence[str], end: bool) -> Floats:
        """Return sums over [a, b) of some costs of a layer, with those of the output layer added."""
        plain, routed, ends = (
            sum(float(part[name][i]) for name in names) for part in (costs.plain, costs.routed, costs.ends)
        )
        return span_sums([plain] * costs.dense + [routed] * (costs.layers - costs.dense)) + (ends if end else 0.0)

    def solve(self, question: _Question, incumbent_s: float) -> _Answer | None:
        """Return the best cut if its step is shorter than ``incumbent_s``."""
        i = question.i
        m, fixed = float(self.s.micro_batches[i]), float(self.fixed_s[i])
        tables = self.tables(question)
        paces = [np.maximum(m - self.bubble, 0.0) * t.time_s + t.tail_s for t in tables]
        fill = min(self.bubble, m)
        best: _Answer | None = None
        values = _distinct(np.concatenate([pace[np.isfinite(pace)] for pace in paces]))
        least = self._fastest_pace(paces)
        least_sum, _ = _least_sum([t.time_s for t in tables], self.layers)
        for pace in values[values >= least * (1 - 1e-12)] if np.isfinite(least) else []:
            if pace + fill * least_sum + fixed >= incumbent_s:
                break
            limit = pace * (1 + 1e-12)
            allowed = [np.where(p <= limit, t.time_s, np.inf) for p, t in zip(paces, tables, strict=True)]
            _, ends = _least_sum(allowed, self.layers)
            step = self._step(paces, tables, ends, fill) + fixed
            if step < incumbent_s:
                incumbent_s, best = step, _Answer(question, tuple(ends), step)
        return best

    def _step(self, paces: Sequence[Floats], tables: Sequence[_Table], ends: Sequence[int], fill: float) -> float:
        spans = [*zip([0, *ends[:-1]], ends, strict=True)]
        slowest = max(float(pace[span]) for pace, span in zip(paces, spans, strict=True))
        return slowest + fill * sum(float(t.time_s[span]) for t, span in zip(tables, spans, strict=True))

    def step_of(self, question: _Question, sizes: Sequence[int]) -> float:
        """Return the step (s) of a given cut, infinite where it does not fit."""
        tables = self.tables(question)
        m, fixed = float(self.s.micro_batches[question.i]), float(self.fixed_s[question.i])
        paces = [np.maximum(m - self.bubble, 0.0) * t.time_s + t.tail_s for t in tables]
        ends = np.cumsum(sizes).tolist()
        return self._step(paces, tables, ends, min(self.bubble, m)) + fixed

    def _fastest_pace(self, paces: Sequence[Floats]) -> float:
        best = np.full(self.layers + 1, np.inf)
        best[0] = 0.0
        for pace in paces:
            best = np.maximum(best[:, None], pace).min(axis=0)
        return float(best[-1])


def _distinct(values: Floats) -> Floats:
    """Return values in order, of those that differ by rounding alone the largest."""
    values = np.unique(values)
    return values[np.append(np.diff(values) > 1e-11 * values[1:], True)] if len(values) else values


def _least_sum(times: Sequence[Floats], layers: int) -> tuple[float, list[int]]:
    """Return the least sum over stages, and where each ends."""
    best = np.full(layers + 1, np.inf)
    best[0] = 0.0
    choice: list[Floats] = []
    for time in times:
        reached = best[:, None] + time
        choice.append(reached.argmin(axis=0))
        best = reached.min(axis=0)
    ends = [layers]
    for stage in range(len(times) - 1, 0, -1):
        ends.insert(0, int(choice[stage][ends[0]]))
    return float(best[-1]), ends


def _questions(problem: _Problem) -> Iterator[_Question]:
    """Yield all questions, the most promising first."""
    bounds = problem.bounds()
    orders = [*permutations(range(len(problem.members)))]
    for i in np.argsort(bounds, kind="stable"):
        for order in orders:
            yield _Question(order, int(i), float(bounds[i]))


def share_layers(workload: Workload, members: Sequence[Member]) -> PooledPlan:
    """Return the pipeline over the pools with the shortest step.

    Raises:
        InfeasibleError: the framework has no pipelines, nothing divides, or no cut fits the memory.
    """
    s = _shardings(workload, members)
    if s is None:
        raise InfeasibleError(
            f"no pipeline over these pools with {workload.request.framework}: stages of equal size must fill each "
            f"pool, and their replicas divide {workload.training.global_batch} sequences"
        )
    problem = _Problem(workload, members, s)
    best: _Answer | None = None
    incumbent = np.inf
    for question in _questions(problem):
        if question.bound_s >= incumbent:
            break
        found = problem.solve(question, incumbent)
        if found is not None:
            best, incumbent = found, found.step_s
    if best is None:
        raise InfeasibleError("memory binds: no cut of the layers into stages fits the pools")
    return _plan(problem, best, float(problem.bounds().min()))


def fixed_layers(workload: Workload, plan: PooledPlan, weights: Sequence[float]) -> float | None:
    """Return the step (s) when layers follow ``weights`` as nearly as can be, ``None`` if they do not fit."""
    s = Shardings.of(
        tp=plan.tp, dp=plan.dp, ep=plan.ep, micro_batch=plan.micro_batch[0], micro_batches=plan.micro_batches,
        zero=plan.zero, recompute=plan.recompute, sequence_parallel=plan.sequence_parallel,
    )  # fmt: skip
    problem = _Problem(workload, plan.members, s)
    each = [weight for weight, stages in zip(weights, plan.stages, strict=True) for _ in range(stages)]
    ideal = np.array(each) / sum(each) * workload.model.layers
    sizes = np.maximum(1, np.floor(ideal)).astype(int)
    for stage in np.argsort(-(ideal - sizes), kind="stable")[: workload.model.layers - int(sizes.sum())]:
        sizes[stage] += 1  # largest remainders first
    if sizes.sum() != workload.model.layers:
        return None
    step = problem.step_of(_Question(tuple(range(len(plan.members))), 0, 0.0), sizes.tolist())
    return step if np.isfinite(step) else None


def _plan(problem: _Problem, best: _Answer, bound_s: float) -> PooledPlan:
    i, order, s = best.question.i, best.question.order, problem.s
    tables = problem.tables(best.question)
    spans = [*zip([0, *best.ends[:-1]], best.ends, strict=True)]
    owner = [place for place, pool in enumerate(order) for _ in range(int(problem.stages[pool][i]))]
    times = [float(t.time_s[span]) for t, span in zip(tables, spans, strict=True)]
    needs = [float(t.memory_bytes[span]) for t, span in zip(tables, spans, strict=True)]

    def of_pools(values: Sequence[float]) -> tuple[float, ...]:
        return tuple(max(v for v, at in zip(values, owner, strict=True) if at == place) for place in range(len(order)))

    return PooledPlan(
        along="pipeline",
        members=tuple(problem.members[pool] for pool in order),
        tp=int(s.tp[i]),
        pp=len(spans),
        dp=int(s.dp[i]),
        ep=int(s.ep[i]),
        micro_batch=(int(s.micro_batch[i]),) * len(order),
        micro_batches=int(s.micro_batches[i]),
        zero=int(s.zero[i]),
        recompute=int(s.recompute[i]),
        sequence_parallel=int(s.sequence_parallel[i]),
        stages=tuple(int(problem.stages[pool][i]) for pool in order),
        stage_layers=tuple(end - start for start, end in spans),
        stage_s=of_pools(times),
        memory_bytes=of_pools(needs),
        step_s=best.step_s,
        bound_s=bound_s,
        terms=_terms(problem, best, owner, spans, tables, times),
    )


def _terms(
    problem: _Problem,
    best: _Answer,
    owner: Sequence[int],
    spans: Sequence[tuple[int, int]],
    tables: Sequence[_Table],
    times: Sequence[float],
) -> dict[str, float]:
    """Return the step term by term, as those of the slowest stage; what others take of filling is the bubble."""
    i, order = best.question.i, best.question.order
    m = float(problem.s.micro_batches[i])
    tails = [float(table.tail_s[span]) for table, span in zip(tables, spans, strict=True)]
    paces = [(m - problem.bubble) * t + tail for t, tail in zip(times, tails, strict=True)]
    slowest = int(np.argmax(paces))
    pool, span = order[owner[slowest]], spans[slowest]
    last = slowest == len(spans) - 1
    terms = dict.fromkeys(TERMS, 0.0)
    for name in BUSY:
        terms[name] = m * float(problem._spans(problem.costs[pool], i, (name,), last)[span])
    terms["data_parallel"] = tails[slowest]
    terms["pipeline_transfer"] = float(problem.hop_s[i])
    terms["overhead"] = float(problem.overhead_s[i])
    terms["pipeline_bubble"] = best.step_s - reduce(lambda a, b: a + b, terms.values())
    return terms
