"""sstat(1), sdiag(1), sshare(1)."""

from __future__ import annotations

from typing import Any, Final

from hpcplan.simulate.commands.controller import Controller
from hpcplan.simulate.commands.formatting import long_date
from hpcplan.simulate.commands.options import flags, read_words, say_cluster, usage
from hpcplan.simulate.commands.reply import Call, Refusal
from hpcplan.simulate.commands.rows import read_target
from hpcplan.simulate.commands.squeue import controller_rows
from hpcplan.slurm.records import JobState

__all__ = ["sdiag", "sshare", "sstat"]

_SSTAT: Final = flags(
    "fields:o format jobs:j", "allsteps:a helpformat:e help:h noconvert noheader:n parsable:p parsable2:P pidformat:i "
    "usage verbose:v version:V"
)  # fmt: skip
_SDIAG: Final = flags(
    "cluster:M", "all:a help:h reset:r sort-by-id:i sort-by-time:t sort-by-time2:T usage version:V json"
)
_SSHARE: Final = flags(
    "accounts:A clusters:M format:o users:u",
    "all:a help:h long:l noheader:n parsable:p parsable2:P usage verbose:v version:V partition:m Users:U",
)
_SSTAT_NAMES: Final = (
    "AveCPU AveCPUFreq AveDiskRead AveDiskWrite AvePages AveRSS AveVMSize ConsumedEnergy ConsumedEnergyRaw "
    "JobID MaxDiskRead MaxDiskReadNode MaxDiskReadTask MaxDiskWrite MaxDiskWriteNode MaxDiskWriteTask MaxPages "
    "MaxPagesNode MaxPagesTask MaxRSS MaxRSSNode MaxRSSTask MaxVMSize MaxVMSizeNode MaxVMSizeTask MinCPU "
    "MinCPUNode MinCPUTask Nodelist NTasks Pids ReqCPUFreq ReqCPUFreqMin ReqCPUFreqMax ReqCPUFreqGov "
    "TRESUsageInAve TRESUsageInMax TRESUsageInMaxNode TRESUsageInMaxTask TRESUsageInMin TRESUsageInMinNode "
    "TRESUsageInMinTask TRESUsageInTot TRESUsageOutAve TRESUsageOutMax TRESUsageOutMaxNode TRESUsageOutMaxTask "
    "TRESUsageOutMin TRESUsageOutMinNode TRESUsageOutMinTask TRESUsageOutTot"
)
_SSTAT_FIELDS: Final = _SSTAT_NAMES.split()
_SSTAT_USUAL: Final = (
    "JobID MaxVMSize MaxVMSizeNode MaxVMSizeTask AveVMSize MaxRSS MaxRSSNode MaxRSSTask AveRSS MaxPages "
    "MaxPagesNode MaxPagesTask AvePages MinCPU MinCPUNode MinCPUTask AveCPU NTasks AveCPUFreq ReqCPUFreqMin "
    "ReqCPUFreqMax ReqCPUFreqGov ConsumedEnergy MaxDiskRead MaxDiskReadNode MaxDiskReadTask AveDiskRead "
    "MaxDiskWrite MaxDiskWriteNode MaxDiskWriteTask AveDiskWrite TRESUsageInAve TRESUsageInMax "
    "TRESUsageInMaxNode TRESUsageInMaxTask TRESUsageInMin TRESUsageInMinNode TRESUsageInMinTask TRESUsageInTot "
    "TRESUsageOutAve TRESUsageOutMax TRESUsageOutMaxNode TRESUsageOutMaxTask TRESUsageOutMin "
    "TRESUsageOutMinNode TRESUsageOutMinTask TRESUsageOutTot"
)
_SSTAT_DEFAULT: Final = _SSTAT_USUAL.replace(" ", ",")


def sstat(controller: Controller, connection: Any, call: Call) -> int:
    """Print what running steps use; what a mock cluster does not measure while they run is empty."""
    words = read_words("sstat", call.words, _SSTAT)
    if "help" in words or "usage" in words:
        call.reply.say(usage("sstat", _SSTAT))
        return 0
    if "helpformat" in words:
        for start in range(0, len(_SSTAT_FIELDS), 4):
            call.reply.say("".join(f"{name:<20}" for name in _SSTAT_FIELDS[start : start + 4]).removesuffix(" "))
        return 0
    texts = [*words.every("jobs"), *words.rest]
    if not texts:
        raise Refusal("sstat: error: You didn't give me any jobs to stat.")
    known = {name.lower(): name for name in _SSTAT_FIELDS}
    names = []
    for item in (words.last("fields") or words.last("format") or _SSTAT_DEFAULT).split(","):
        name = item.partition("%")[0].strip().lower()
        if name not in known:
            raise Refusal(f'sstat: error: Invalid field requested: "{item}"')
        names.append(name)
    lines = []
    with controller.session() as session:
        rows = controller_rows(controller, session, whole_arrays=False)
        for text in texts:
            target = read_target(text)
            if target is None:
                raise Refusal(f"sstat: fatal: Bad job/step specified: {text}")
            for row in rows:
                record = row.record
                if not target.matches(record.job_id, record.array_job_id, record.array_task_id):
                    continue
                for step in row.steps:
                    shown = step.name == target.step if target.step else step.name != "batch" or "allsteps" in words
                    if step.end is None and shown:
                        cells = {
                            "jobid": f"{row.name}.{step.name}",
                            "ntasks": str(step.ntasks),
                            "nodelist": step.node_list,
                        }
                        lines.append([cells.get(name, "") for name in names])
    between = "|" if "parsable" in words or "parsable2" in words else ""
    end = "|" if "parsable" in words else ""
    header = [known[name] for name in names]
    if between:
        out = [] if "noheader" in words else [header]
        for cells_ in [*out, *lines]:
            call.reply.say(between.join(cells_) + end)
        return 0
    if "noheader" not in words:
        call.reply.say("".join(f"{name:>10} " for name in header))
        call.reply.say("---------- " * len(header))
    for cells_ in lines:
        call.reply.say("".join(f"{text[:10]:>10} " for text in cells_))
    return 0


def sdiag(controller: Controller, connection: Any, call: Call) -> int:
    """Print the controller's counters."""
    words = read_words("sdiag", call.words, _SDIAG)
    if "help" in words or "usage" in words:
        call.reply.say(usage("sdiag", _SDIAG))
        return 0
    if "reset" in words:
        call.reply.say("Reset scheduling statistics")
        return 0
    with controller.session() as session:
        now, since = session.engine.now, session.started
        live = list(session.engine.jobs.values())
        running = sum(job.running for job in live)
        ended = dict(session.ended)
        for record in session.engine.ended:
            ended[record.state.value] = ended.get(record.state.value, 0) + 1
        backfilled = sum(bool(job.backfilled) for job in live)
    stars = "*" * 55
    done = {state: ended.get(state.value, 0) for state in JobState}
    finished = done[JobState.COMPLETED] + done[JobState.FAILED] + done[JobState.TIMEOUT]
    for line in (
        stars, f"sdiag output at {long_date(now)} ({now})", f"Data since      {long_date(since)} ({since})", stars,
        "Server thread count:  1", "Agent queue size:     0", "Agent count:          0", "Agent thread count:   0",
        "DBD Agent queue size: 0", "",
        f"Jobs submitted: {len(live) + sum(ended.values())}", f"Jobs started:   {running + finished}",
        f"Jobs completed: {finished}", f"Jobs canceled:  {done[JobState.CANCELLED]}", "Jobs failed:    0", "",
        f"Job states ts:  {long_date(now)} ({now})", f"Jobs pending:   {len(live) - running}",
        f"Jobs running:   {running}", "",
        "Backfilling stats", f"\tTotal backfilled jobs (since last slurm start): {backfilled}",
    ):  # fmt: skip
        call.reply.say(line)
    return 0


def sshare(controller: Controller, connection: Any, call: Call) -> int:
    """Print the tree of accounts, of which a mock cluster has one, without shares that differ."""
    words = read_words("sshare", call.words, _SSHARE)
    if "help" in words or "usage" in words:
        call.reply.say(usage("sshare", _SSHARE))
        return 0
    header = ["Account", "User", "RawShares", "NormShares", "RawUsage", "EffectvUsage", "FairShare"]
    rows = [["root", "", "", "", "0", "0.000000", ""], [" root", call.user, "1", "", "0", "0.000000", "0.000000"]]
    for account in controller.accounts:
        rows.append([f" {account}", "", "1", "", "0", "0.000000", ""])
        rows.append([f"  {account}", call.user, "1", "", "0", "0.000000", "0.000000"])
    if "Users" in words:
        rows = [[row[0].strip(), *row[1:]] for row in rows if row[1]]
    if (named := words.last("format")) is not None:
        wanted = [name.partition("%")[0].strip().lower() for name in named.split(",")]
        places = [index for name in wanted for index, known in enumerate(header) if known.lower() == name]
        header, *rows = ([row[place] for place in places] for row in (header, *rows))
    say_cluster(call, words)
    lines = [] if "noheader" in words else [header]
    if "parsable" in words or "parsable2" in words:
        for row in [*lines, *rows]:
            call.reply.say("|".join(row) + ("|" if "parsable" in words else ""))
        return 0
    sizes = {"Account": 20, "NormShares": 11, "RawUsage": 11, "EffectvUsage": 13}
    widths = [sizes.get(name, 10) for name in header]

    def say(row: list[str]) -> None:
        first = f"{row[0]:<{widths[0]}}"
        call.reply.say(
            " ".join([first, *(f"{text:>{width}}" for text, width in zip(row[1:], widths[1:], strict=True))]) + " "
        )

    for row in lines:
        say(row)
        call.reply.say(" ".join("-" * width for width in widths) + " ")
    for row in rows:
        say(row)
    return 0
