"""A module of the shape that pyslurm 22.5.3 has, over the jobs of a mock cluster; and the commands beside it.

Names, units and errors are those recorded with pyslurm 22.5.3 on a real Slurm 22.05.8: limits in minutes, memory in
MiB, ``requeue_count``, ``RPCError``.
"""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

from hpcplan.errors import SlurmError
from hpcplan.hostlist import expand
from hpcplan.simulate.backend import MockBackend
from hpcplan.slurm import JobRecord, StartEstimate, Submission

MIB = 1024**2


class PyslurmError(Exception):
    pass


class RPCError(PyslurmError):
    pass


def _limit(seconds: int | None) -> int | str:
    return "UNLIMITED" if seconds is None else seconds // 60


def _job(record: JobRecord) -> dict[str, Any]:
    return {
        "id": record.job_id, "name": record.name, "account": record.account, "user_name": record.user,
        "user_id": os.getuid(), "partition": record.partition, "qos": record.qos, "state": str(record.state),
        "state_reason": record.reason or "None", "requeue_count": record.restarts,
        "dependencies": _dependencies(record.dependency), "time_limit": _limit(record.time_limit_s),
        "submit_time": record.submit_time, "eligible_time": record.eligible_time, "start_time": record.start_time,
        "end_time": record.end_time, "exit_code": record.exit_code or 0, "exit_code_signal": record.signal or 0,
        "priority": record.priority, "num_nodes": record.nodes, "cpus": record.cpus,
        "memory": None if record.memory_bytes is None else record.memory_bytes // MIB, "gres_per_node": None,
        "array_id": None, "array_task_id": None, "array_tasks_waiting": None, "cluster": record.cluster,
        "working_directory": record.work_dir, "comment": record.comment, "heterogeneous_id": record.het_job_id or 0,
        "heterogeneous_offset": record.het_offset or 0,
    }  # fmt: skip


def _dependencies(text: str | None) -> dict[str, Any] | None:
    if not text:
        return None
    kind, _, ids = text.partition(":")
    return {"satisfy": "all", "singleton": False, kind: [int(part.partition("(")[0]) for part in ids.split(":")]}


class MadeUpPyslurm:
    """The module. ``mock`` is asked; what pyslurm cannot see (ended attempts) only the database part shows."""

    __version__ = "22.5.3"
    PyslurmError, RPCError = PyslurmError, RPCError

    def __init__(self, mock: MockBackend) -> None:
        self.mock = mock
        self.Jobs = SimpleNamespace(load=self._jobs)
        self.Nodes = SimpleNamespace(load=self._nodes)
        self.Partitions = SimpleNamespace(load=self._partitions)
        self.slurmctld = SimpleNamespace(Config=SimpleNamespace(load=self._config))
        self.db = SimpleNamespace(
            JobFilter=lambda **conditions: SimpleNamespace(**conditions),
            Jobs=SimpleNamespace(load=self._stored),
            Connection=SimpleNamespace(open=lambda: SimpleNamespace(close=lambda: None)),
        )

    def _ask(self, question: Any, *arguments: Any) -> Any:
        try:
            return question(*arguments)
        except SlurmError as error:
            reached = "Unable to contact slurm controller (connect failure)"
            raise RPCError(reached if "runs" in error.message else error.message) from None

    def _config(self) -> Any:
        return SimpleNamespace(cluster=self._ask(self.mock.ping).cluster)

    def _jobs(self) -> dict[int, Any]:
        found = self._ask(self.mock.jobs)
        return {
            record.job_id: SimpleNamespace(
                **_job(record), allocated_nodes=record.node_list or "",
                get_resource_layout_per_node=lambda record=record: {
                    node: {"gres": {}} for node in expand(record.node_list or "")
                },
            )
            for record in found
        }  # fmt: skip

    def _stored(self, chosen: Any) -> dict[int, Any]:
        found = self._ask(self.mock.accounting, chosen.start_time, chosen.end_time)
        ids = getattr(chosen, "ids", None)
        stats = SimpleNamespace(total_cpu_time=0, max_resident_memory=0)
        return {
            record.job_id: SimpleNamespace(**_job(record), nodelist=record.node_list or "", stats=stats)
            for record in found
            if ids is None or record.is_among(ids)
        }

    def Job(self, job_id: int) -> Any:
        def act(what: Any) -> Any:
            return lambda: self._ask(what, [job_id])

        return SimpleNamespace(
            cancel=act(self.mock.cancel), release=act(self.mock.release), requeue=act(self.mock.requeue)
        )

    def _nodes(self) -> dict[str, Any]:
        return {
            node.name: SimpleNamespace(
                name=node.name, state=node.state.upper(), allocated_cpus=node.cpus_allocated,
                effective_cpus=node.cpus, total_cpus=node.cpus, configured_gres={"gpu": node.gpus} if node.gpus else {},
                partitions=list(node.partitions), active_features=list(node.features), reason=node.reason,
                real_memory=None if node.memory_bytes is None else node.memory_bytes // MIB,
            )
            for node in self._ask(self.mock.nodes)
        }  # fmt: skip

    def _partitions(self) -> dict[str, Any]:
        return {
            part.name: SimpleNamespace(
                name=part.name, state=part.state.upper(), nodes=part.nodes, total_nodes=part.total_nodes,
                is_default=part.default, max_time=_limit(part.max_time_s), default_time=_limit(part.default_time_s),
                max_nodes=part.max_nodes or "UNLIMITED",
            )
            for part in self._ask(self.mock.partitions)
        }  # fmt: skip


class MadeUpCommands:
    """What the pyslurm backend leaves to Slurm's commands; sacct is not installed."""

    def __init__(self, mock: MockBackend) -> None:
        self.mock = mock

    def has(self, program: str) -> bool:
        return program != "sacct"

    def submit(self, submission: Submission) -> int:
        return self.mock.submit(submission)

    def cancel(self, job_ids: list[int]) -> None:
        self.mock.cancel(job_ids)

    def hold(self, job_ids: list[int]) -> None:
        self.mock.hold(job_ids)

    def estimate_start(self, submission: Submission) -> StartEstimate | None:
        return self.mock.estimate_start(submission)
