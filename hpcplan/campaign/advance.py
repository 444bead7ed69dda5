"""One turn of keeping a campaign going: look, remember, submit what has room, go on after a failure or give up, tell.

Each turn stands for itself: everything that it decides from is in the campaign's directory and in what Slurm says, and
everything that it decides is in the journal before it is done. So turns may be taken by a service, by a scrontab entry,
by two of them at once, and be cut short anywhere.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hpcplan.campaign.cancel import cancel
from hpcplan.campaign.causes import Cause, failed_nodes, log_end
from hpcplan.campaign.journal import JournalWriter
from hpcplan.campaign.layout import current_manifest, current_plan, log_path, work_dir
from hpcplan.campaign.ledger import Ledger, fold, read_ledger
from hpcplan.campaign.lock import campaign_lock
from hpcplan.campaign.match import has_token, since
from hpcplan.campaign.notify import deliver
from hpcplan.campaign.own_word import OwnWords
from hpcplan.campaign.policy import Policy, nodes_to_exclude, read_policy
from hpcplan.campaign.replan import adopt, from_step, next_best, step_to_go_on_from
from hpcplan.campaign.retry import Failure, failure, retry
from hpcplan.campaign.status import CampaignState, CampaignStatus, status
from hpcplan.campaign.submit import submit
from hpcplan.campaign.usage import Usage, usage
from hpcplan.errors import HpcplanError
from hpcplan.slurm.backend import Backend
from hpcplan.slurm.records import JobState

__all__ = ["Turn", "advance"]

_log = logging.getLogger(__name__)

_LOST_AFTER_S: Final = 30  # a job that was just taken is known to the controller at once
_NOT_LAUNCHED: Final = "launch failed requeued held"  # slurmctld's words for it (job_mgr.c), whatever the release
_LOST_BEFORE_S: Final = 7 * 86400  # accounting may have been purged of older ones


@dataclass(frozen=True, slots=True)
class Turn:
    """What a turn found and did: the campaign's status after it, what it has used up, and each act in words."""

    status: CampaignStatus
    usage: Usage
    acts: tuple[str, ...] = ()


def advance(
    directory: Path,
    backend: Backend,
    *,
    settle_s: float = 5.0,
    sleep: Callable[[float], None] = time.sleep,
) -> Turn:
    """Take one turn for a campaign that was submitted.

    Raises:
        InputError: not a campaign, or its journal or policy is damaged.
        ConflictError: another hpcplan is at work on it, or ``backend`` reaches another cluster.
        SlurmUnreachableError: Slurm does not answer.
        SlurmError, HpcplanError: as :func:`hpcplan.campaign.submit`.
    """
    return _Turn(directory.resolve(), backend, settle_s, sleep).take()


class _Turn:
    def __init__(self, directory: Path, backend: Backend, settle_s: float, sleep: Callable[[float], None]) -> None:
        self.directory, self.backend = directory, backend
        self.settle_s, self.sleep = settle_s, sleep
        self.policy: Policy = read_policy(directory)
        self.acts: list[str] = []
        self.messages: list[Mapping[str, Any]] = []

    def take(self) -> Turn:
        result = status(self.directory, self.backend)
        self._blame_nodes(result)
        if self._lost_any(result):
            result = status(self.directory, self.backend)
        self._release_held(result)
        used = usage(self.directory, result)
        over = used.exceeds(self.policy.budget)
        if over is not None and result.state.moving:
            self._spend_no_more(over)
        elif result.due and result.state.moving:
            self._submit()
        elif result.state is CampaignState.FAILED and over is None:
            self._go_on(result)
        if self.acts:
            result = status(self.directory, self.backend)
        self._tell_how_it_stands(result)
        for message in self.messages:
            self._deliver(message)
        return Turn(result, used, tuple(self.acts))

    def _ledger(self) -> Ledger:
        return read_ledger(self.directory)

    def _note(self, event: str, **data: Any) -> None:
        with campaign_lock(self.directory, sleep=self.sleep), JournalWriter(self.directory) as journal:
            journal.append(event, **data)

    # nodes

    def _blame_nodes(self, result: CampaignStatus) -> None:
        """Write down which nodes failed under jobs that ended so, once a job, while Slurm still says so."""
        ledger = self._ledger()
        failed = [job for job in result.jobs if job.state in _NODE_STATES and job.job_id not in {None, *ledger.blamed}]
        if not failed:
            return
        nodes = self.backend.nodes()
        manifest = {job.key: job for job in current_manifest(self.directory, ledger).jobs}
        before = nodes_to_exclude(ledger, self.policy)
        for job in failed:
            record = ledger.job(job.key).ended
            log = log_end(log_path(self.directory, manifest[job.key], job.job_id or 0))
            bad = failed_nodes(record, nodes, log) if record is not None else []
            self._note("node-failed", nodes=bad, job=job.key, job_id=job.job_id, at=self.backend.now())
        after = nodes_to_exclude(self._ledger(), self.policy)
        if after != before:
            self._say("node-excluded", f"{after} failed too often and will not be used any more", f"excluded:{after}")

    # jobs that Slurm took and lost

    def _lost_any(self, result: CampaignStatus) -> bool:
        """Write down jobs that Slurm gave an id and knows nothing of, neither the controller nor accounting.

        A controller that is killed forgets what it took in the last seconds, and gives the ids to others. A job that
        has left word of its begin, or a log, was started all the same, so it is not started again. Where jobs run in a
        directory that is not this one (``submit --run-in``) that cannot be seen, and nothing is started again.
        """
        ledger = self._ledger()
        if ledger.cancelled or work_dir(self.directory, ledger) != str(self.directory):
            return False
        now = self.backend.now()
        gone = [
            ledger.job(job.key)
            for job in result.jobs
            if job.state == JobState.UNKNOWN.value and job.job_id is not None and job.over_by is None
        ]
        gone = [known for known in gone if _LOST_AFTER_S < now - (known.answered_at or now) < _LOST_BEFORE_S]
        if gone:
            manifest = {job.key: job for job in current_manifest(self.directory, ledger).jobs}
            words = OwnWords(self.directory)
            words.look_anew()
            gone = [one for one in gone if words.of(manifest[one.key], one) is None]
        if not gone or not self.backend.ping().accounting:
            return False
        records = self.backend.jobs(None, since=since([ledger.opened_at], now))
        keys = [known.key for known in gone if not any(has_token(record, known.token) for record in records)]
        if keys:
            self._note("lost", jobs=keys, at=now)
            self.acts.append(f"found that Slurm has lost {', '.join(keys)}")
        return bool(keys)

    # jobs that Slurm holds

    def _release_held(self, result: CampaignStatus) -> None:
        """Release jobs that Slurm has put back and holds since a node could not launch them: nobody else will."""
        ledger = self._ledger()
        most = self.policy.retry.node_failure
        held = [
            job
            for job in result.jobs
            if job.state == JobState.PENDING.value
            and (job.reason_code or "").replace("_", " ").lower().startswith(_NOT_LAUNCHED)
            and ledger.releases.get(job.key, 0) < most
        ]
        if held and not ledger.cancelled:
            keys = [job.key for job in held]
            self._note("release", jobs=keys, at=self.backend.now())
            self.backend.release([job.job_id for job in held if job.job_id is not None])
            self.acts.append(f"released {', '.join(keys)}, which a node could not launch")

    # going on

    def _submit(self) -> None:
        before = set(self._ledger().job_ids)
        steps = submit(self.directory, self.backend, settle_s=self.settle_s, sleep=self.sleep)
        new = [step.job.key for step in steps if step.job_id is not None and step.job_id not in before]
        if new:
            self.acts.append(f"submitted {', '.join(new[:3])}{f' and {len(new) - 3} more' if len(new) > 3 else ''}")

    def _spend_no_more(self, over: str) -> None:
        self._give_up(Cause.CANCELLED, over)
        cancel(self.directory, self.backend, settle_s=self.settle_s, sleep=self.sleep)

    def _give_up(self, cause: Cause, why: str) -> None:
        if self._ledger().stopped is None:
            self._note("stopped", cause=cause.value, why=why, at=self.backend.now())
            self.acts.append(f"stopped: {why}")
            self._say("stopped", why, f"stopped:{len(self._ledger().all_ended)}:{why}")

    def _go_on(self, result: CampaignStatus) -> None:
        ledger = self._ledger()
        found = failure(self.directory, current_manifest(self.directory, ledger), ledger)
        if found is None or ledger.stopped is not None:
            return
        lost = found.record is not None and found.record.state is JobState.UNKNOWN
        cause = "nobody knows how it ended" if lost else found.cause.value
        why = f"{found.key} (job {found.job_id}): {cause}"
        if found.cause is Cause.OUT_OF_MEMORY and self.policy.retry.out_of_memory == "next-best":
            self._take_next_best(why)
        elif ledger.retries.get(found.cause.value, 0) >= self.policy.retry.limit(found.cause):
            times = ledger.retries.get(found.cause.value, 0)
            self._give_up(found.cause, f"{why}; {f'gone on with {times} times already' if times else 'not retried'}")
        elif found.cause is Cause.TIMEOUT and not self._came_further(ledger, result):
            self._give_up(found.cause, f"{why}; no step was saved since the last time")
        else:
            self._retry(found, why)

    def _came_further(self, ledger: Ledger, result: CampaignStatus) -> bool:
        """Whether a step was saved since the last time that the campaign was gone on with, as far as is known."""
        if ledger.last_retry_step is None or result.progress.step is None:
            return True
        return result.progress.step > ledger.last_retry_step

    def _retry(self, found: Failure, why: str) -> None:
        keys = retry(self.directory, self.backend, cause=found.cause, why=why, sleep=self.sleep)
        self.acts.append(f"retries {', '.join(keys)} after {found.cause.value}")
        self._say("retry", f"going on after {why}", f"retry:{found.job_id}")
        self._submit()

    def _take_next_best(self, why: str) -> None:
        plan = current_plan(self.directory, self._ledger())
        other = next_best(plan)
        if other is None:
            self._give_up(Cause.OUT_OF_MEMORY, f"{why}; the plan has no sharding left that needs less memory")
            return
        ratio = max(1.0, other.estimate.iter_time_s / plan.estimate.iter_time_s)
        renewed = from_step(other, step_to_go_on_from(self.directory), step_time_ratio=ratio)
        number = adopt(self.directory, self.backend, renewed, why=why, sleep=self.sleep)
        sharding = other.plan
        text = f"plan {number} after {why}: tp {sharding.tp}, pp {sharding.pp}, dp {sharding.dp}, zero {sharding.zero}"
        self.acts.append(f"follows {text}")
        self._say("replanned", text, f"replanned:{number}")
        self._submit()

    # telling

    def _tell_how_it_stands(self, result: CampaignStatus) -> None:
        topic = {CampaignState.DONE: "done", CampaignState.FAILED: "failed", CampaignState.CANCELLED: "cancelled"}
        if result.state in topic:
            ids = [job.job_id for job in result.jobs]
            text = f"{result.campaign} is {result.state.value}"
            self._say(topic[result.state], text, f"{result.state.value}:{result.generation}:{ids[-1]}")

    def _say(self, event: str, text: str, about: str) -> None:
        """Tell once what this is about, if the policy wants it told; the journal has it first."""
        notify = self.policy.notify
        if event not in notify.on or not (notify.command or notify.webhook):
            return
        with campaign_lock(self.directory, sleep=self.sleep), JournalWriter(self.directory) as journal:
            ledger = fold(journal.entries, self.directory)
            if about in ledger.notified:
                return
            journal.append("notify", about=about, text=text)
        campaign = {"campaign": ledger.name, "campaign_id": ledger.campaign_id, "directory": str(self.directory)}
        self.messages.append({"event": event, "text": text, "about": about, **campaign, "at": self.backend.now()})

    def _deliver(self, message: Mapping[str, Any]) -> None:
        for problem in deliver(self.policy.notify, message, self.directory):
            _log.warning("%s: nobody was told: %s", self.directory, problem)
            try:
                self._note("notify-failed", about=message["about"], message=problem)
            except HpcplanError as error:
                _log.warning("%s", error)


_NODE_STATES = frozenset(
    state.value for state in (JobState.NODE_FAIL, JobState.BOOT_FAIL, JobState.LAUNCH_FAILED, JobState.RECONFIG_FAIL)
)
