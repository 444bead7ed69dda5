"""What a change would save: the same futures with and without it, and the hours that jobs would wait less.

Both see the same run times and the same submissions (common random numbers), so that the difference is the change's. It
is counted over the jobs that wait now and those submitted within the time looked at.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, get_args

import numpy as np

from hpcplan.errors import InputError, nearest
from hpcplan.schedule.forecast.pool import Coming
from hpcplan.schedule.forecast.snapshot import Policy, QueueJob, QueueSnapshot
from hpcplan.schedule.forecast.wait import Forecaster, Future, future_of
from hpcplan.simulate.machine import Machine, NodeGroupShape

__all__ = ["AHEAD_S", "Change", "Saved", "parse_change", "what_if"]

AHEAD_S: Final = 86400  # submissions of a day
_ROOM: Final = 1.1  # a right-sized limit over the 95th percentile of what the job would run
_MINUTE: Final = 60
_NODES: Final = re.compile(r"([+-]\d{1,6})(?:@(\S+))?")
_KINDS: Final = ("limits", "merge", "nodes", "policy")


@dataclass(frozen=True, slots=True)
class Change:
    """A change of the site: ``limits``, ``merge=A+B``, ``nodes=+8`` (``@PARTITION``), or ``policy=NAME``."""

    text: str
    kind: str
    value: str

    def applied(self, snapshot: QueueSnapshot) -> QueueSnapshot:
        """Return the snapshot as it would be.

        Raises:
            InputError: the change does not go with the snapshot.
        """
        changes: dict[str, Callable[[QueueSnapshot, str], QueueSnapshot]] = {
            "merge": _merged, "nodes": _resized, "policy": _scheduled, "limits": lambda one, _: one,
        }  # fmt: skip
        return changes[self.kind](snapshot, self.value)


@dataclass(frozen=True, slots=True)
class Saved:
    """Hours of waiting, summed over jobs: with nothing changed, and what the change saves, one a sample.

    They are of the ``jobs`` that start with and without the change; ``stopped`` is how many would no longer.
    """

    change: Change
    jobs: int
    base_hours: np.ndarray[Any, np.dtype[np.float64]]
    saved_hours: np.ndarray[Any, np.dtype[np.float64]]
    cut_share: float
    stopped: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON: medians, and the saving's 90 % interval."""
        low, middle, high = (round(float(np.quantile(self.saved_hours, q)), 2) for q in (0.05, 0.5, 0.95))
        return {
            "change": self.change.text,
            "jobs": self.jobs,
            "wait_hours": round(float(np.median(self.base_hours)), 2),
            "saved_hours": {"p05": low, "p50": middle, "p95": high},
            "jobs_cut_short": round(self.cut_share, 4),
            "jobs_never_start": round(self.stopped, 2),
        }


def parse_change(text: str) -> Change:
    """Return the change that a word stands for.

    Raises:
        InputError: it stands for none.
    """
    kind, _, value = text.partition("=")
    right = {
        "limits": value == "",
        "merge": bool(re.fullmatch(r"[^+\s]+\+[^+\s]+", value)),
        "nodes": bool(_NODES.fullmatch(value)) and int(_NODES.fullmatch(value)[1]) != 0,  # type: ignore[index]
        "policy": value in get_args(Policy),
    }
    if kind not in right:
        raise InputError(f"--what-if: {text!r} is no change" + nearest(kind, _KINDS))
    if not right[kind]:
        forms = "limits, merge=A+B, nodes=+8, nodes=-4@batch, or policy=" + "|".join(get_args(Policy))
        raise InputError(f"--what-if: {text!r} is not like {forms}")
    return Change(text, kind, value)


def what_if(
    snapshot: QueueSnapshot, changes: Sequence[Change], *, samples: int = 60, seed: int = 0, ahead_s: int = AHEAD_S
) -> list[Saved]:
    """Return what each change would save.

    Raises:
        InputError: a change does not go with the snapshot, or there is nothing that waits or will be submitted.
    """
    forecaster = Forecaster(snapshot.history, snapshot.jobs, seed=seed, limit_use=snapshot.limit_use)
    base = future_of(snapshot)
    draws = forecaster.futures(base, samples, ahead_s)
    before = [_waits(base, *draw) for draw in draws]
    if not any(before):
        raise InputError("nothing waits, and the history has no submissions to expect more of; nothing can be saved")
    return [_saved(snapshot, change, base, draws, before) for change in changes]


def _saved(
    snapshot: QueueSnapshot,
    change: Change,
    base: Future,
    draws: Sequence[tuple[list[int], list[Coming]]],
    before: Sequence[dict[str, float]],
) -> Saved:
    changed = change.applied(snapshot)
    cut = 0.0
    if change.kind == "limits":
        changed, draws, cut = _right_sized(changed, base, draws)
    elif change.kind == "merge":
        draws = _of_one_partition(draws, change.value)
    future = future_of(changed)
    position = {job.label: index for index, job in enumerate(base.live)}
    old, new, jobs, stopped = [], [], [], []
    for (runs_s, coming), waits in zip(draws, before, strict=True):
        now = _waits(future, [runs_s[position[job.label]] for job in future.live], coming)
        both = waits.keys() & now.keys()
        old.append(sum(waits[label] for label in both) / 3600)
        new.append(sum(now[label] for label in both) / 3600)
        jobs.append(len(both))
        stopped.append(len(waits.keys() - now.keys()))
    saved = np.array(old) - np.array(new)
    return Saved(change, round(float(np.mean(jobs))), np.array(old), saved, cut, float(np.mean(stopped)))


def _waits(future: Future, runs_s: Sequence[int], coming: Sequence[Coming]) -> dict[str, float]:
    """Return the wait from now on of each job, in seconds, by its name; those that never start are left out."""
    starts = future.starts(runs_s, coming)
    names = [(job.label, future.now_s) for job in future.live if job.pending]
    names += [(f"+{number}", max(time, future.now_s)) for number, (time, _, _) in enumerate(coming)]
    return {
        label: float(start - submit) for (label, submit), start in zip(names, starts, strict=True) if start is not None
    }


def _right_sized(
    snapshot: QueueSnapshot, base: Future, draws: Sequence[tuple[list[int], list[Coming]]]
) -> tuple[QueueSnapshot, list[tuple[list[int], list[Coming]]], float]:
    """Give waiting jobs the limits that their users' past says they need, and cut short what needs more."""
    runs = np.array([runs_s for runs_s, _ in draws]).reshape(len(draws), len(base.live))
    sized: dict[str, int] = {}
    for index, job in enumerate(base.live):
        if job.pending:
            sized[job.label] = _limit(float(np.quantile(runs[:, index], 0.95)), job.limit_s)
    shares: dict[object, list[float]] = {}
    for _, coming in draws:
        for _, job, run_s in coming:
            shares.setdefault(job.user, []).append(run_s / job.limit_s)
    usual = {user: float(np.quantile(found, 0.95)) for user, found in shares.items()}
    jobs = tuple(
        job.model_copy(update={"limit_s": sized[job.label]}) if job.label in sized else job for job in snapshot.jobs
    )
    changed, cut, total = [], 0, 0
    for runs_s, coming in draws:
        kept = [min(run_s, sized.get(job.label, run_s)) for run_s, job in zip(runs_s, base.live, strict=True)]
        arriving: list[Coming] = []
        for time, job, run_s in coming:
            limit_s = _limit(usual[job.user] * job.limit_s, job.limit_s)
            arriving.append((time, job.model_copy(update={"limit_s": limit_s}), min(run_s, limit_s)))
        cut += sum(a < b for a, b in zip(kept, runs_s, strict=True))
        cut += sum(a[2] < b[2] for a, b in zip(arriving, coming, strict=True))
        total += len(sized) + len(coming)
        changed.append((kept, arriving))
    return snapshot.model_copy(update={"jobs": jobs}), changed, cut / max(1, total)


def _limit(run_s: float, limit_s: int) -> int:
    return min(limit_s, max(_MINUTE, int(-(-run_s * _ROOM // _MINUTE)) * _MINUTE))


def _scheduled(snapshot: QueueSnapshot, policy: str) -> QueueSnapshot:
    return snapshot.model_copy(update={"policy": policy})


def _machine(snapshot: QueueSnapshot, partition: str | None) -> tuple[Machine, str]:
    assert snapshot.machine is not None
    machine = Machine.from_dict(snapshot.machine)
    name = partition or machine.default_partition()
    if name not in machine.partitions:
        raise InputError(f"--what-if: no partition is called {name!r}" + nearest(name, machine.partitions))
    return machine, name


def _merged(snapshot: QueueSnapshot, value: str) -> QueueSnapshot:
    """Make one partition of two: the first has the nodes and the jobs of both, and of each limit the wider one."""
    if snapshot.machine is None:
        raise InputError("--what-if merge: a pool of processors has no partitions")
    first, second = value.split("+")
    machine, _ = _machine(snapshot, first)
    _machine(snapshot, second)
    one, other = machine.partitions[first], machine.partitions[second]
    both = replace(
        one,
        mask=one.mask | other.mask,
        default=one.default or other.default,
        max_time_s=_wider(one.max_time_s, other.max_time_s),
        max_nodes=_wider(one.max_nodes, other.max_nodes),
        priority_tier=max(one.priority_tier, other.priority_tier),
    )
    parts = {name: part for name, part in machine.partitions.items() if name != second} | {first: both}
    changed = replace(machine, partitions=parts)
    jobs = tuple(_in_partition(job, first, second) for job in snapshot.jobs)
    return snapshot.model_copy(update={"machine": changed.as_dict(), "jobs": jobs})


def _wider(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else max(one, other)


def _in_partition(job: QueueJob, first: str, second: str) -> QueueJob:
    return job.model_copy(update={"partition": first}) if job.partition == second else job


def _of_one_partition(
    draws: Sequence[tuple[list[int], list[Coming]]], value: str
) -> list[tuple[list[int], list[Coming]]]:
    """Let the jobs to come of two partitions be of the first."""
    first, second = value.split("+")
    return [
        (runs_s, [(time, _in_partition(job, first, second), run_s) for time, job, run_s in coming])
        for runs_s, coming in draws
    ]


def _resized(snapshot: QueueSnapshot, value: str) -> QueueSnapshot:
    match = _NODES.fullmatch(value)
    assert match is not None
    count = int(match[1])
    if snapshot.procs is not None:
        used = sum(job.width for job in snapshot.running)
        if snapshot.procs + count < max(1, used):
            raise InputError(f"--what-if nodes={value}: {used} of the {snapshot.procs} processors are in use")
        return snapshot.model_copy(update={"procs": snapshot.procs + count})
    machine, name = _machine(snapshot, match[2])
    return _with_more(snapshot, machine, name, count) if count > 0 else _with_fewer(snapshot, machine, name, -count)


def _with_more(snapshot: QueueSnapshot, machine: Machine, name: str, count: int) -> QueueSnapshot:
    """Add nodes like most of the partition's."""
    part = machine.partitions[name]
    new = ((1 << count) - 1) << len(machine.names)
    like = max(machine.groups, key=lambda group: (group.mask & part.mask).bit_count())
    groups = tuple(_joined(group, new) if group is like else group for group in machine.groups)
    names = (*machine.names, *(f"hpcplan-added{number}" for number in range(1, count + 1)))
    partitions = {**machine.partitions, name: replace(part, mask=part.mask | new)}
    changed = replace(machine, names=names, groups=groups, partitions=partitions)
    return snapshot.model_copy(update={"machine": changed.as_dict()})


def _joined(group: NodeGroupShape, mask: int) -> NodeGroupShape:
    return replace(group, mask=group.mask | mask)


def _with_fewer(snapshot: QueueSnapshot, machine: Machine, name: str, count: int) -> QueueSnapshot:
    """Take the partition's last nodes out of service; what runs on them runs on."""
    from hpcplan.hostlist import compress, expand

    gone = set(expand(snapshot.unusable)) if snapshot.unusable else set()
    left = [node for node in machine.names_of(machine.partitions[name].mask) if node not in gone]
    if count >= len(left):
        raise InputError(f"--what-if nodes=-{count}: partition {name!r} has {len(left)} nodes that can be used")
    return snapshot.model_copy(update={"unusable": compress(sorted(gone | set(left[-count:])))})
