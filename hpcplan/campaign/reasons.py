"""Slurm's reasons, in words that say what to wait for or what to change.

Source: the table of reason codes in Slurm's documentation (job_reason_codes) and squeue(1), "JOB REASON CODES".
"""

from __future__ import annotations

import re
from typing import Final

from hpcplan.slurm.records import JobState

__all__ = ["explain_reason", "explain_state"]

_REASONS: Final[dict[str, str]] = {
    "AccountingPolicy": "a limit of the account or QOS stands against it",
    "AccountNotAllowed": "the account may not use this partition",
    "BadConstraints": "no node can ever have what it asks for",
    "BeginTime": "its earliest start time has not come, or it was requeued and waits its turn",
    "BurstBufferOperation": "a burst buffer operation failed",
    "BurstBufferResources": "waiting for room in the burst buffer",
    "BurstBufferStageIn": "data is being copied into the burst buffer",
    "Cleaning": "being cleaned up after it was requeued",
    "Constraints": "no node with the features it asks for is free",
    "DeadLine": "its deadline cannot be met",
    "Dependency": "waiting for the job before it to end",
    "DependencyNeverSatisfied": "what it waits for can no longer happen; it will never start",
    "FedJobLock": "waiting for the other clusters of the federation",
    "FrontEndDown": "no front-end node is up",
    "InactiveLimit": "it did nothing for longer than the site allows",
    "InvalidAccount": "the account is not valid",
    "InvalidQOS": "the QOS is not valid",
    "JobArrayTaskLimit": "as many tasks of its array run as are allowed to",
    "JobHeldAdmin": "held by an administrator",
    "JobHeldUser": "held; release it with scontrol release",
    "JobHoldMaxRequeue": "held after too many requeues; the site's limit is reached",
    "JobLaunchFailure": "it could not be launched: a bad node, file system or program",
    "Licenses": "waiting for a licence",
    "MaxMemPerLimit": "it asks for more memory than the partition allows",
    "NodeDown": "a node that it needs is down",
    "NonZeroExitCode": "its script ended with an error",
    "NvidiaImexChannels": "waiting for an NVIDIA IMEX channel",
    "OutOfMemory": "it ran out of memory",
    "PartitionConfig": "it asks for something the partition is not set up for",
    "PartitionDown": "the partition is down",
    "PartitionInactive": "the partition is inactive and starts no jobs",
    "PartitionNodeLimit": "it asks for more nodes than the partition has or allows",
    "PartitionTimeLimit": "its time limit is above the partition's",
    "Priority": "jobs with higher priority go first",
    "Prolog": "the nodes are being prepared",
    "QOSJobLimit": "as many jobs as its QOS allows are queued or running",
    "QOSNotAllowed": "its QOS may not be used in this partition or by this account",
    "QOSResourceLimit": "its QOS has used up a resource",
    "QOSTimeLimit": "its QOS has used up its time",
    "QOSUsageThreshold": "the usage of its account is beyond what the QOS demands",
    "RaisedSignal": "it was killed by a signal",
    "ReqNodeNotAvail": "nodes that it needs are down, drained or reserved",
    "Reservation": "its reservation has not begun",
    "ReservationDeleted": "its reservation was deleted",
    "ReservationInvalid": "its reservation does not fit it",
    "Resources": "first in line; waiting for nodes to become free",
    "SchedDefer": "the scheduler only starts jobs in turns here",
    "SystemFailure": "Slurm, a file system or the network failed",
    "TimeLimit": "it reached its time limit",
}
_SENTENCES: Final = (
    ("Nodes required for job are DOWN, DRAINED", "nodes that it needs are down, drained or reserved"),
    ("launch failed requeued held", "held after it failed to launch; release it with scontrol release"),
    ("job requeued in held state", "held after it was requeued; release it with scontrol release"),
    ("user env retrieval failed", "held: the user's environment could not be read on the node"),
)
_RESOURCE: Final = {
    "BB": "burst buffer", "Billing": "billing units", "CPU": "CPUs", "Cpu": "CPUs", "Energy": "energy",
    "GRES": "GPUs or other GRES", "Jobs": "running jobs", "License": "licences", "Mem": "memory", "Memory": "memory",
    "Node": "nodes", "SubmitJob": "queued jobs", "SubmitJobs": "queued jobs", "Unknown": "a resource",
    "Wall": "wall time", "WallDuration": "wall time",
}  # fmt: skip
_LIMIT: Final = re.compile(
    r"(?P<who>Assoc|QOS)?(?P<kind>Grp|Max|Min)(?P<what>[A-Z][A-Za-z]*?)"
    r"(?P<minutes>RunMinutes|RunMins|Minutes)?(?P<per>Per(?:Job|Node|User|Account))?(?P<tail>Limit|NotSatisfied)?"
)
_PER: Final = {None: "", "PerJob": " for one job", "PerNode": " on one node", "PerUser": " for one user",
               "PerAccount": " for one account"}  # fmt: skip
_STATES: Final[dict[JobState, str]] = {
    JobState.BOOT_FAIL: "its nodes could not be booted",
    JobState.CANCELLED: "it was cancelled",
    JobState.COMPLETING: "it has ended; its nodes are being cleaned up",
    JobState.CONFIGURING: "its nodes are being made ready",
    JobState.DEADLINE: "its deadline passed",
    JobState.FAILED: "its script ended with an error",
    JobState.LAUNCH_FAILED: "it could not be launched",
    JobState.NODE_FAIL: "a node failed under it",
    JobState.OUT_OF_MEMORY: "it ran out of memory",
    JobState.PREEMPTED: "a job with higher priority took its nodes",
    JobState.RECONFIG_FAIL: "its nodes could not be reconfigured",
    JobState.REQUEUED: "it was put back into the queue",
    JobState.REQUEUE_HOLD: "held after it was requeued",
    JobState.REVOKED: "another cluster of the federation took it",
    JobState.SPECIAL_EXIT: "held after it ended in a way that the site marks as special",
    JobState.STOPPED: "stopped by a signal; it keeps its nodes",
    JobState.SUSPENDED: "suspended; another job has its nodes",
    JobState.TIMEOUT: "it reached its time limit",
}


def explain_reason(reason: str | None) -> str | None:
    """Return what a reason code means, ``None`` for none; a code that nobody documents comes back as it is."""
    if not reason or reason in {"None", "(null)", "N/A"}:
        return None
    for beginning, sentence in _SENTENCES:
        if reason.lower().startswith(beginning.lower()):
            return sentence
    code = reason.split(",")[0].split("(")[0].strip()  # ReqNodeNotAvail, UnavailableNodes:n[1-3]
    details = reason[len(code) :].strip(", ")
    words = _REASONS.get(code) or _limit(code)
    if words is None:
        return reason
    return f"{words} ({details})" if details else words


def _limit(code: str) -> str | None:
    """Explain codes that are built from parts, such as AssocGrpCPURunMinutesLimit or QOSMaxNodePerUserLimit."""
    match = _LIMIT.fullmatch(code.replace("MemoryPer", "MemPer"))
    if match is None or match["what"] not in _RESOURCE:
        return None
    owner = {"Assoc": "the account's", "QOS": "the QOS's", None: "the QOS's"}[match["who"]]
    what = _RESOURCE[match["what"]]
    if match["minutes"]:
        what = f"{what} x minutes" + (" of running jobs" if match["minutes"] != "Minutes" else "")
    if match["kind"] == "Min":
        return f"it asks for less than {owner} minimum of {what}"
    if match["kind"] == "Grp":
        return f"{owner} limit on {what} is used up"
    return f"{owner} limit on {what}{_PER[match['per']]} stands against it"


def explain_state(state: JobState) -> str | None:
    """Return what a state means, where it needs saying."""
    return _STATES.get(state)
