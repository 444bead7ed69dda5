"""An engine as plain data: what has to be saved so that the future stays the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hpcplan.simulate.dependencies import Dependency
from hpcplan.simulate.engine import Engine
from hpcplan.simulate.jobs import Behaviour, Job, JobSpec
from hpcplan.simulate.several_partitions import chosen

__all__ = ["restore", "snapshot"]

_PLAIN = (
    "id", "user", "submit_time", "priority", "background", "array_job_id", "array_task_id", "left_over",
    "het_id", "het_offset", "het_size", "held", "begin_time",
    "eligible_time", "start_time", "node_list", "restarts", "backfilled", "grace_end",
)  # fmt: skip


def snapshot(engine: Engine) -> dict[str, Any]:
    """Return the state of ``engine`` as JSON data, its finished jobs and its source of arrivals left out."""
    return {
        "now": engine.now,
        "next_id": engine.next_id,
        "submissions": engine.submissions,
        "down": hex(engine.down),
        "drained": hex(engine.drained),
        "node_reasons": engine.node_reasons,
        "controller": engine.saved(),
        "jobs": [_job_data(job) for job in engine.jobs.values()],
    }


def restore(engine: Engine, data: Mapping[str, Any]) -> None:
    """Bring a new engine into the state of :func:`snapshot`."""
    engine.now = data["now"]
    engine.next_id = data["next_id"]
    engine.submissions = data["submissions"]
    engine.down = int(data["down"], 16)
    engine.drained = int(data["drained"], 16)
    engine.node_reasons = dict(data["node_reasons"])
    engine.restore(_job(row, engine) for row in data["jobs"])
    if data.get("controller") is not None:
        engine.restore_saved(data["controller"])


def _job_data(job: Job) -> dict[str, Any]:
    data = {name: value for name in _PLAIN if (value := getattr(job, name)) is not None}
    data["spec"] = job.spec.as_dict()
    data["behaviour"] = job.behaviour.as_dict()
    if job.nodes:
        data["nodes"] = hex(job.nodes)
    if job.vacated:
        data["vacated"] = hex(job.vacated)
    if job.running and job.spec.partition is not None and "," in job.spec.partition:
        data["partition"] = job.request.partition
    if job.node_cpus is not None:
        data["node_cpus"] = list(job.node_cpus)
    if job.dependency is not None:
        data["dependency"] = job.dependency.as_dict()
    return data


def _job(data: Mapping[str, Any], engine: Engine) -> Job:
    spec = JobSpec.from_dict(data["spec"])
    fields = {name: data[name] for name in _PLAIN if name in data}
    request = engine.resolve(spec, anew=True)
    return Job(
        **fields,
        spec=spec,
        request=chosen(request, data["partition"]) if "partition" in data else request,
        behaviour=Behaviour.from_dict(data["behaviour"]),
        node_cpus=tuple(data["node_cpus"]) if "node_cpus" in data else None,
        nodes=int(data.get("nodes", "0x0"), 16),
        vacated=int(data.get("vacated", "0x0"), 16),
        dependency=Dependency.from_dict(data["dependency"]) if "dependency" in data else None,
    )
