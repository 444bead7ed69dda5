"""Many simulations of made-up traces at once: over seeds (Monte Carlo) and loads, on all cores or a Dask cluster."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from hpcplan.errors import HpcplanError
from hpcplan.simulate.made_traces import make_trace
from hpcplan.simulate.trace_run import on_nodes, on_processors

if TYPE_CHECKING:
    from hpcplan.simulate.slurm_cluster import SlurmCluster

__all__ = ["Case", "Spread", "run_cases", "spreads"]


@dataclass(frozen=True, slots=True)
class Case:
    """One simulation: a made-up trace under a policy."""

    model: str
    jobs: int
    policy: str
    order: str
    seed: int
    load: float | None
    procs: int | None
    cluster: SlurmCluster | None

    def run(self) -> dict[str, Any]:
        """Return the figures of the schedule."""
        machine = self.cluster.machine if self.cluster is not None else None
        trace = make_trace(self.model, self.jobs, procs=self.procs, machine=machine, seed=self.seed, load=self.load)
        if self.cluster is not None:
            schedule = on_nodes(trace, self.cluster, self.policy, self.order)
        else:
            schedule = on_processors(trace, self.procs, self.policy, self.order)
        return schedule.metrics().as_dict()


@dataclass(frozen=True, slots=True)
class Spread:
    """A figure over several seeds: its mean, and half the width of the 95 % confidence interval of the mean."""

    mean: float
    half_width: float | None


def _run(case: Case) -> dict[str, Any]:
    return case.run()


def run_cases(
    cases: Sequence[Case], *, workers: int | None = None, dask: str | None = None
) -> Iterator[tuple[Case, dict[str, Any]]]:
    """Yield each case with its figures as they come in.

    ``dask`` is the address of a Dask scheduler (``tcp://host:8786``), or ``slurm:8`` for eight jobs that
    dask-jobqueue submits here (as its configuration has it); without it ``workers`` processes work here.

    Raises:
        HpcplanError: Dask is not installed, or its scheduler cannot be reached.
    """
    if dask is not None:
        yield from _on_dask(cases, dask)
        return
    if workers == 1 or len(cases) == 1:
        for case in cases:
            yield case, case.run()
        return
    with ProcessPoolExecutor(workers) as pool:
        waiting = {pool.submit(_run, case): case for case in cases}
        for done in as_completed(waiting):
            yield waiting[done], done.result()


def _on_dask(cases: Sequence[Case], address: str) -> Iterator[tuple[Case, dict[str, Any]]]:
    try:
        import distributed

        dask_: Any = distributed
    except ImportError:
        raise HpcplanError("Dask is not installed", hint="pip install 'hpcplan[dask]'") from None
    cluster = _slurm_workers(int(address[6:])) if re.fullmatch(r"slurm:[1-9]\d{0,4}", address) else None
    try:
        client: Any = dask_.Client(cluster or address, timeout=20)
    except (OSError, TimeoutError, ValueError) as error:
        raise HpcplanError(f"no Dask scheduler answers at {address}: {error}") from None
    submit: Callable[..., Any] = client.submit
    try:
        waiting = {submit(_run, case, pure=False): case for case in cases}
        for future, found in dask_.as_completed(list(waiting), with_results=True):
            yield waiting[future], found
    finally:
        client.close()
        if cluster is not None:
            cluster.close()


def _slurm_workers(jobs: int) -> Any:
    """Return a Dask cluster whose workers are so many Slurm jobs of one core each."""
    try:
        import dask
        import dask_jobqueue

        jobqueue: Any = dask_jobqueue
        configured: Any = dask.config.get("jobqueue.slurm", {})
    except ImportError:
        raise HpcplanError("dask-jobqueue is not installed", hint="pip install 'hpcplan[dask]'") from None
    defaults = {"cores": 1, "processes": 1, "memory": "2GiB"}
    asked = {name: value for name, value in defaults.items() if configured.get(name) is None}
    try:
        cluster: Any = jobqueue.SLURMCluster(job_name="hpcplan-sweep", **asked)
        cluster.scale(jobs=jobs)
    except (OSError, RuntimeError, ValueError) as error:
        raise HpcplanError(f"no Dask workers could be submitted: {error}") from None
    return cluster


def spreads(results: Sequence[tuple[Case, dict[str, Any]]]) -> dict[tuple[str, float | None], dict[str, Spread | None]]:
    """Return the figures by policy and load, over the seeds, in the same order whichever case was done first."""
    groups: dict[tuple[str, float | None], list[dict[str, Any]]] = {}
    for case, found in sorted(results, key=lambda one: (one[0].load or 0.0, one[0].policy, one[0].seed)):
        groups.setdefault((case.policy, case.load), []).append(found)
    return {key: {name: _spread([one[name] for one in rows]) for name in rows[0]} for key, rows in groups.items()}


def _spread(values: Sequence[float | None]) -> Spread | None:
    known = [float(value) for value in values if value is not None]
    if not known:
        return None
    if len(known) == 1:
        return Spread(known[0], None)
    from scipy.stats import t

    return Spread(fmean(known), float(t.ppf(0.975, len(known) - 1)) * stdev(known) / math.sqrt(len(known)))
