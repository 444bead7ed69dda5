"""How the shapes of Slurm's JSON changed from one version of its API to the next, v0.0.39 to v0.0.45.

The fields of each document by their paths, the newest shape being what the others are told by. From the answers of a
real 25.11.7 to ``--json=v0.0.41`` … ``v0.0.44``, those of slurmrestd 23.02 and 24.05, and the tables of fields of the
releases between.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

__all__ = ["INFINITE", "Number", "reshape"]

INFINITE: Final = float("inf")
Rewrite = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Number:
    """A number of Slurm's that may be unset (``None``) or infinite; ``real`` where it is one with a point."""

    value: float | None
    real: bool = False

    @property
    def plain(self) -> float:
        """The number as those parsers have it that know no unset ones."""
        known = 0 if self.value is None or self.value == INFINITE else self.value
        return float(known) if self.real else int(known)


@dataclass(frozen=True, slots=True)
class _Change:
    """What a version of the API began with (``new``), ended (``gone``), and how what it changed was ``before``, or is
    ``after``.
    """

    since: int
    new: str = ""
    gone: str = ""
    before: dict[Rewrite, str] = field(default_factory=dict)
    after: dict[Rewrite, str] = field(default_factory=dict)


def _bare(value: Any) -> Any:
    return value.plain


def _word(value: Any) -> Any:
    return value[0]


def _second(value: Any) -> Any:
    return value[1]


def _nothing(value: Any) -> Any:
    return ""


def _status(value: Any) -> Any:
    """Return an exit as wait(2) has it."""
    return Number((_bare(value["return_code"]) << 8) + _bare(value["signal"]["id"]))


def _exit_in_words(value: Any) -> Any:
    """Return an exit with its signal only where there was one."""
    found = {"status": value["status"][0], "return_code": _bare(value["return_code"])}
    number = _bare(value["signal"]["id"])
    return {**found, "signal": {"signal_id": number, "name": value["signal"]["name"]}} if number else found


def _step_id(value: Any) -> Any:
    job, _, step = value.partition(".")
    head = job.partition("+")[0].partition("_")[0]
    return {"job_id": int(head), "step_id": step}


def _sensors(value: Any) -> Any:
    nothing = Number(None)
    return {"consumed_energy": nothing, "temperature": nothing, "energy_update_time": 0, "current_watts": 0}


def _watts(value: Any) -> Any:
    """Return what a node without power management told of it."""
    names = "current_watts total_energy new_maximum_watts peak_watts lowest_watts new_job_time state time_start_day"
    return {"maximum_watts": Number(None), **dict.fromkeys(names.split(), 0)}


def _resources(value: Any) -> Any:
    """Return the nodes of a job with sockets and cores by their numbers, as up to v0.0.40."""
    if not value:
        return {}
    nodes = [
        {
            "sockets": {
                str(socket["index"]): {
                    "cores": {str(core["index"]): core["status"][0].lower() for core in socket["cores"]}
                }
                for socket in node["sockets"]
                if any(core["status"] != ["UNALLOCATED"] for core in socket["cores"])
            },
            "nodename": node["name"],
            "cpus_used": node["cpus"]["used"],
            "memory_used": node["memory"]["used"],
            "memory_allocated": node["memory"]["allocated"],
        }
        for node in value["nodes"]["allocation"]
    ]
    cpus = value["cpus"]
    return {
        "nodes": value["nodes"]["list"], "allocated_cores": cpus, "allocated_cpus": cpus, "allocated_hosts": len(nodes),
        "allocated_nodes": nodes,
    }  # fmt: skip


_TIMES: Final = (
    "accrue_time deadline eligible_time end_time last_sched_evaluation preempt_time preemptable_time pre_sus_time "
    "resize_time start_time submit_time suspend_time"
)
_PARTITION: Final = (
    _Change(45, new="flags partition.exclusive partition.oversubscribe preempt_mode"),
    _Change(43, new="topology"),
    _Change(41, new="select_type"),
    _Change(
        40,
        new="defaults.partition_memory_per_cpu defaults.partition_memory_per_node maximums.partition_memory_per_cpu "
        "maximums.partition_memory_per_node maximums.oversubscribe partition",
    ),
)
_CHANGES: Final[dict[str, tuple[_Change, ...]]] = {
    "jobs": (  # of squeue and scontrol
        _Change(45, new="container_type memory_update_delay memory_update_margin", gone="power"),
        _Change(44, new="step_id submit_line"),
        _Change(
            43, new="licenses_allocated segment_size stdin_expanded stdout_expanded stderr_expanded",
            before={_second: "standard_input standard_output standard_error"},
            after={_word: "standard_input standard_output standard_error"},
        ),
        _Change(
            42, new="priority_by_partition required_switches",
            gone="minimum_switches exclusive oversubscribe show_flags",
        ),
        _Change(41, before={_resources: "job_resources"}),
        _Change(40, before={_bare: _TIMES, _word: "job_state", _status: "exit_code derived_exit_code"}),
    ),
    "accounting": (  # the jobs of sacct
        _Change(45, new="sluid exclusive oversubscribe original_sluid steps.submit_line", gone="steps.pid"),
        _Change(
            43,
            new="reservation.requested segment_size steps.step.stderr steps.step.stdin steps.step.stdout "
            "steps.step.stderr_expanded steps.step.stdin_expanded steps.step.stdout_expanded steps.time.limit",
        ),
        _Change(42, new="qosreq restart_cnt", after={_nothing: "association.account association.user"}),
        _Change(41, new="time.planned stdin_expanded stdout_expanded stderr_expanded stdout stderr stdin"),
        _Change(
            40, new="association.id", gone="required.memory",
            before={
                _bare: "steps.time.end steps.time.start", _word: "state.current steps.state", _step_id: "steps.step.id",
                _exit_in_words: "exit_code derived_exit_code steps.exit_code",
            },
        ),
    ),
    "steps": (
        _Change(45, new="container_type sluid"),
        _Change(43, new="stderr stdin stdout stdin_expanded stdout_expanded stderr_expanded"),
        _Change(40, before={_bare: "time.running time.start", _word: "state", _step_id: "id"}),
    ),
    "nodes": (
        _Change(45, new="suspend_time", gone="external_sensors power tres_weighted"),
        _Change(43, new="tls_cert_last_renewal cert_flags topology"),
        _Change(41, new="gpu_spec res_cores_per_gpu", before={_sensors: "external_sensors", _watts: "power"}),
        _Change(
            40, new="instance_id instance_type",
            before={_bare: "boot_time last_busy reason_changed_at slurmd_start_time", Number: "cpu_load"},
        ),
    ),
    "sinfo": (
        _Change(45, new="reason_set_by_user", gone="reason.user"),
        _Change(42, new="resource_spec"),
        *(
            _Change(one.since, new=" ".join(f"partition.{path}" for path in one.new.split()))
            for one in _PARTITION
        ),
    ),
    "partitions": _PARTITION,
    "reservations": (
        _Change(45, gone="watts"),
        _Change(40, before={_bare: "end_time start_time"}),
    ),
    "licenses": (_Change(44, new="Nodes"), ),
    "pings": (_Change(42, new="responding primary"), ),
}  # fmt: skip


def reshape(row: dict[str, Any], kind: str, version: int) -> dict[str, Any]:
    """Return a row of a document as a version of the API has it; it is changed in place.

    It is given with all that any version has; a step id in the dress of v0.0.40 and later.
    """
    for change in _CHANGES[kind]:
        since = version >= change.since
        _each(row, change.gone if since else change.new, None)
        for rewrite, paths in (change.after if since else change.before).items():
            _each(row, paths, rewrite)
    return row


def _each(row: dict[str, Any], paths: str, rewrite: Rewrite | None) -> None:
    """Rewrite what is at the paths, or drop it."""
    for path in paths.split():
        *above, last = path.split(".")
        for owner in _owners([row], above):
            if last not in owner:
                continue
            if rewrite is None:
                del owner[last]
            else:
                owner[last] = rewrite(owner[last])


def _owners(rows: list[Any], above: list[str]) -> list[Any]:
    """Return the objects at a path; a list on the way stands for its elements."""
    for name in above:
        found = [row[name] for row in rows if name in row]
        rows = [one for value in found for one in (value if isinstance(value, list) else [value])]
    return rows
