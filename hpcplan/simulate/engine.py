"""The engine of a mock cluster or a simulation: the event loop, and what people and administrators ask of it.

What a person does (submit, cancel, hold, drain) happens at the engine's present time and is followed by a scheduling
pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from hpcplan.errors import SlurmError
from hpcplan.simulate.admission import Admission
from hpcplan.simulate.event_loop import REQUEUE_DELAY_S, TOP_PRIORITY, EventLoop, in_order
from hpcplan.simulate.het_jobs import new_components, refuse_part, whole
from hpcplan.simulate.jobs import Arrival, ArrivalSource, Behaviour, Job, JobSpec
from hpcplan.simulate.machine import PartitionShape
from hpcplan.slurm.records import JobState

__all__ = ["REQUEUE_DELAY_S", "TOP_PRIORITY", "ArrivalSource", "Engine"]


class Engine(EventLoop):
    """A cluster in motion that takes requests.

    ``ending`` are the running jobs that have ended but for processes that are left on their nodes.
    """

    ending: frozenset[int] = frozenset()

    def submit(self, spec: JobSpec, behaviour: Behaviour, user: str, *, background: bool = False) -> int:
        """Queue a job (each task of an array is one) at the present time and return its id.

        Raises:
            SlurmError: refused, in sbatch's words; nothing was queued.
        """
        job_id = self._enqueue(Arrival(self.now, user, spec, behaviour), background=background)
        self._schedule()
        return job_id

    def submit_together(self, components: Sequence[tuple[JobSpec, Behaviour]], user: str) -> int:
        """Queue a heterogeneous job and return the id of its first component; the others have the next ones.

        Raises:
            SlurmError: refused, in sbatch's words; nothing was queued.
        """
        if len(components) == 1:
            return self.submit(*components[0], user)
        job_id = self._queue_new(new_components(self, components, user), submissions=len(components))
        self._schedule()
        return job_id

    def preview_together(self, components: Sequence[tuple[JobSpec, Behaviour]], user: str) -> list[Job]:
        """Return the jobs that :meth:`submit_together` would queue without queueing them.

        Raises:
            SlurmError: refused, in sbatch's words.
        """
        return new_components(self, components, user) if len(components) > 1 else [self.preview(*components[0], user)]

    def preview(self, spec: JobSpec, behaviour: Behaviour, user: str) -> Job:
        """Return the job that :meth:`submit` would queue (an array's first task) without queueing it.

        Raises:
            SlurmError: refused, in sbatch's words.
        """
        return self._new_jobs(spec, behaviour, user, background=False)[0]

    def cancel(self, *job_ids: int) -> None:
        """End live jobs as CANCELLED; none takes the place of another before all are.

        Raises:
            SlurmError: one is a component, other than the first, of a heterogeneous job that waits.
        """
        for job_id in job_ids:
            refuse_part(self.jobs[job_id])
        for job_id in job_ids:
            if job_id in self.jobs:  # else it was the component of another one
                self._end(self.jobs[job_id], JobState.CANCELLED)
        self._schedule()

    def hold(self, job_id: int) -> None:
        """Keep a live job from starting, or from starting again after a requeue."""
        for job in whole(self.jobs, self.jobs[job_id]):
            job.held = True
            self._classify(job)
        self.changes += 1  # also of a job that runs
        self._schedule()

    def release(self, job_id: int) -> None:
        """Undo :meth:`hold`. With priority/basic a job goes to the end of the queue, as one does that is new."""
        for job in whole(self.jobs, self.jobs[job_id]):
            if job.held and not job.running and job.spec.priority is None:
                job.priority = self._following_priority(job.spec)
                self.submissions += 1
            job.held = False
            self._classify(job)
        self.changes += 1
        self._schedule()

    def requeue(self, job_id: int) -> None:
        """Stop a running job and put it back into the queue; it may start again after ``REQUEUE_DELAY_S``."""
        self._requeue(self.running[job_id], JobState.REQUEUED)
        self._schedule()

    def set_node_state(self, names: Iterable[str], state: str, reason: str | None = None) -> None:
        """Set nodes to ``drain``, ``down`` or ``resume``; jobs on a node that goes down end or requeue (NODE_FAIL).

        Raises:
            KeyError: a name that no node has.
            ValueError: another state.
        """
        if state not in {"drain", "down", "resume"}:
            raise ValueError(f"{state!r} is not a state that a node can be set to: drain, down or resume")
        names = list(names)
        mask = self.machine.mask_of(names)
        self.down = self.down | mask if state == "down" else self.down & ~mask
        self.drained = self.drained | mask if state == "drain" else self.drained & ~mask
        for name in names:
            self.node_reasons.pop(name, None)
            if state != "resume" and reason:
                self.node_reasons[name] = reason
        if state == "down":
            for job in sorted((job for job in self.running.values() if job.nodes & mask), key=in_order):
                if job.running and job.id in self.jobs:  # else it has gone with the rest of its heterogeneous job
                    self._fail_node(job)
        self.changes += 1
        self._schedule()

    def set_partition(self, part: PartitionShape) -> None:
        """Let a partition be like this from now on, or be there; jobs that wait are held against its limits anew."""
        self._change_partitions({**self.machine.partitions, part.name: part})

    def drop_partition(self, name: str) -> None:
        """Take away a partition that no job is for."""
        self._change_partitions({key: part for key, part in self.machine.partitions.items() if key != name})

    def _change_partitions(self, partitions: dict[str, PartitionShape]) -> None:
        object.__setattr__(self.machine, "partitions", partitions)  # who holds the machine is to see the change
        self._admission = Admission(self.machine, whole_nodes=self._whole_nodes())
        self._know_partitions()
        for job in list(self.jobs.values()):
            if not job.running and job.id in self.jobs:
                self._leave_queue(job)
                try:
                    job.request = self._admission.resolve(job.spec, anew=True)
                except SlurmError:  # its partition can no longer hold it
                    job.request = replace(job.request, limit_reason="BadConstraints")
                self._classify(job)
        self.changes += 1
        self._schedule()
