"""Another plan for a campaign that is under way: the next-best sharding after it ran out of memory, or one for other
nodes. Training goes on from the newest checkpoint; its steps keep their numbers.

The new plan is rendered into a folder of its own (``plan-02``) inside the campaign's directory. What was rendered
before stays, since jobs may have run from it. The journal says which plan is followed; until it does, nothing has
happened.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from hpcplan.campaign.journal import JournalWriter
from hpcplan.campaign.layout import current_manifest, generation_folder
from hpcplan.campaign.ledger import base_key, fold
from hpcplan.campaign.lock import campaign_lock
from hpcplan.campaign.progress import read_progress
from hpcplan.campaign.retry import unblock
from hpcplan.campaign.status import status
from hpcplan.errors import ConflictError, InfeasibleError
from hpcplan.plan import Alternative, Plan, Segment
from hpcplan.render import render_plan, write_campaign
from hpcplan.render.manifest import Manifest, read_manifest
from hpcplan.slurm.backend import Backend
from hpcplan.slurm.records import JobState

__all__ = ["adopt", "from_step", "next_best", "step_to_go_on_from"]


def step_to_go_on_from(directory: Path) -> int:
    """Return the last step that is safe in the campaign's checkpoints, 0 if there is none."""
    from hpcplan.campaign.ledger import read_ledger

    ledger = read_ledger(directory)
    return read_progress(current_manifest(directory, ledger), directory).step or 0


def from_step(plan: Plan, step: int, *, step_time_ratio: float = 1.0) -> Plan:
    """Return the plan for what is left after ``step``: the same sharding, its chain cut anew.

    ``step_time_ratio`` is how much longer a step takes than the plan's segments were cut for; a job then trains fewer
    steps in the same time limit.

    Raises:
        InfeasibleError: nothing is left, or no step fits into a job any more.
    """
    total = plan.training.steps
    if step >= total:
        raise InfeasibleError(f"training is done: {step} of {total} steps")
    longest = max(plan.segments, key=lambda segment: segment.last_step - segment.first_step)
    most = int((longest.last_step - longest.first_step + 1) / step_time_ratio)
    if most < 1:
        raise InfeasibleError("a step of this sharding takes longer than a job of the chain may last")
    count = math.ceil((total - step) / most)
    return plan.model_copy(update={"segments": _cut(plan, longest, step, count, step_time_ratio)})


def _cut(plan: Plan, like: Segment, step: int, count: int, ratio: float) -> tuple[Segment, ...]:
    per_step_s = like.expected_s / (like.last_step - like.first_step + 1) * ratio
    share, extra = divmod(plan.training.steps - step, count)
    found, first = [], step + 1
    for index in range(1, count + 1):
        length = share + (index <= extra)
        update = {"index": index, "first_step": first, "last_step": first + length - 1,
                  "expected_s": round(min(like.expected_s, length * per_step_s), 1)}  # fmt: skip
        found.append(like.model_copy(update=update))
        first += length
    return tuple(found)


def next_best(plan: Plan) -> Plan | None:
    """Return the plan with its next alternative that needs less memory on no more nodes; ``None`` if there is none.

    Alternatives come best first; those that are passed over are dropped, so that the next time the next one is found.
    """
    rest: Sequence[Alternative] = plan.alternatives
    for position, other in enumerate(rest):
        if other.estimate.memory_bytes < plan.estimate.memory_bytes and other.plan.nodes <= plan.plan.nodes:
            update = {"plan": other.plan, "estimate": other.estimate, "alternatives": tuple(rest[position + 1 :])}
            return plan.model_copy(update=update)
    return None


def adopt(
    directory: Path,
    backend: Backend,
    plan: Plan,
    *,
    why: str,
    stop: bool = False,
    wait_s: float = 10.0,
    sleep: Callable[[float], None] = time.sleep,
) -> int:
    """Let a campaign follow another plan from now on, and return that plan's number; submit it after.

    Jobs of the old plan that still wait are cancelled; those that run are, too, if ``stop`` is given.

    Raises:
        ConflictError: a job runs and ``stop`` is not given, or the campaign was never submitted.
        InputError, SlurmError, SlurmUnreachableError: as :func:`hpcplan.campaign.status`.
    """
    directory = directory.resolve()
    result = status(directory, backend)
    if result.campaign_id is None:
        raise ConflictError(f"{directory}: it was never submitted", hint="render the other plan over it")
    running = [job for job in result.jobs if JobState.parse(job.state).active or job.over_by is not None]
    waiting = [job for job in result.jobs if JobState.parse(job.state).waiting]
    if running and not stop:
        runs = "runs" if running[0].over_by is None else "began and may still run; Slurm has forgotten it"
        raise ConflictError(f"{result.campaign}: {running[0].key} {runs}", hint="wait for its end, or say --stop")
    if any(job.state == JobState.UNKNOWN.value and job.job_id is None for job in result.jobs):
        raise ConflictError(f"{result.campaign}: an answer was lost", hint="hpcplan submit looks for it first")
    with campaign_lock(directory, wait_s=wait_s, sleep=sleep), JournalWriter(directory) as journal:
        ledger = fold(journal.entries, directory)
        if any(ledger.job(job.key).job_id != job.job_id for job in result.jobs):
            raise ConflictError(f"{directory}: somebody else is going on with it just now")
        ids = [job.job_id for job in reversed([*running, *waiting]) if job.job_id is not None]
        if ids:
            journal.append("withdraw", job_ids=ids)
            backend.cancel(ids)
            journal.append("withdrawn", job_ids=ids)
        generation = ledger.generation + 1
        folder = generation_folder(generation)
        write_campaign(
            render_plan(plan, folder=folder), directory / folder, force=True
        )  # of a try that died in between
        unblock(directory)
        carried = _carried(current_manifest(directory, ledger), {job.key: job.state for job in result.jobs})
        journal.append(
            "replanned", generation=generation, folder=folder,
            plan_sha256=read_manifest(directory / folder).plan_sha256,
            why=why, at=backend.now(), carried=carried,
        )  # fmt: skip
    return generation


def _carried(manifest: Manifest, states: dict[str, str]) -> list[str]:
    """Return the keys of finished stages other than training: what they made is still there."""
    done: dict[str, bool] = {}
    for job in manifest.jobs:
        done[job.stage] = done.get(job.stage, True) and states[job.key] == JobState.COMPLETED.value
    return [base_key(job.key) for job in manifest.jobs if job.stage != "train" and done[job.stage]]
