"""Columns of files without a header: those that sacct itself and the tools built on it ask for, tried one by one.

A layout is taken only if it is the only one that splits the first rows and finds every typed cell readable; what was
taken is said to the user. Any other file needs ``--columns``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

__all__ = ["LAYOUTS", "fitting"]

_SLURM2SQL: Final = (
    "JobName,User,Group,Account,SubmitLine,State,Timelimit,Elapsed,Submit,Start,End,Partition,ExitCode,NodeList,"
    "Priority,ReqNodes,NNodes,AllocNodes,ReqTRES,NTasks,AllocTRES,TRESUsageInTot,TRESUsageOutTot,NCPUS,ReqCPUS,"
    "AllocCPUS,CPUTime,TotalCPU,UserCPU,SystemCPU,MinCPU,MinCPUNode,MinCPUTask,ReqMem,AveRSS,MaxRSS,MaxRSSNode,"
    "MaxRSSTask,MaxPages,MaxVMSize,AveDiskRead,AveDiskWrite,MaxDiskRead,MaxDiskWrite,Comment,JobID,JobIDRaw,"
    "ConsumedEnergyRaw,TRESUsageInAve,TRESUsageOutTot"
)
_JOBINFO: Final = (
    "JobID,JobName,User,Partition,NodeList,NNodes,NCPUS,NTasks,State,Submit,Start,End,Timelimit,Elapsed,TotalCPU,"
    "CPUTime,UserCPU,SystemCPU,ReqMem,MaxRSS,MaxVMSize,ReqTRES,AllocTRES,TRESUsageInMax,TRESUsageInTot,"
    "TRESUsageOutTot,MaxDiskRead,MaxDiskWrite,MaxRSSNode,MaxRSSTask,MaxVMSizeNode,MaxVMSizeTask,MaxDiskReadNode,"
    "MaxDiskReadTask,MaxDiskWriteNode,MaxDiskWriteTask,Comment"
)
_OURS: Final = (
    "JobID,JobIDRaw,JobName,User,Account,Partition,QOS,State,Submit,Eligible,Start,End,Elapsed,Timelimit,NNodes,"
    "AllocCPUS,NTasks,ReqMem,ReqTRES,AllocTRES,TotalCPU,MaxRSS,TRESUsageInTot,NodeList"
)
_REPORTSEFF: Final = "AdminComment,AllocCPUS,{}JobID,JobIDRaw,MaxRSS,NNodes,NTasks,ReqMem,State{}"
LAYOUTS: Final[dict[str, tuple[str, ...]]] = {
    name: tuple(column.lower() for column in text.split(","))
    for name, text in {
        "sacct's own": "JobID,JobName,Partition,Account,AllocCPUS,State,ExitCode",
        "sacct --brief's": "JobID,State,ExitCode",
        "hpcplan's": _OURS,
        "hb-jobinfo's": _JOBINFO,
        "slurm2sql's": _SLURM2SQL,
        "reportseff's": _REPORTSEFF.format("Elapsed,", ",Timelimit,TotalCPU"),
        "reportseff's (no time limit)": _REPORTSEFF.format("Elapsed,", ",TotalCPU"),
        "reportseff's (memory alone)": _REPORTSEFF.format("", ""),
    }.items()
}
_FITS: Final = 0.8  # of the rows looked at: a job name may hold the delimiter or break the line


def fitting(
    sample: Sequence[str],
    delimiter_of: Callable[[str, int], str | None],
    cells_of: Callable[[tuple[str, ...], str, str], Sequence[str] | None],
) -> list[tuple[str, str]]:
    """Return names and delimiters of the layouts that fit the rows.

    ``delimiter_of`` splits a line into so many cells, and ``cells_of`` gives a line's cells if all are readable.
    """
    rows = [line for line in sample if line.strip()]
    found: list[tuple[str, str]] = []
    idle: list[tuple[str, str]] = []
    for name, columns in LAYOUTS.items():
        delimiter = next(filter(None, (delimiter_of(line, len(columns)) for line in rows[:5])), None)
        if delimiter is None:
            continue
        job, state = columns.index("jobid"), columns.index("state")
        read = [cells for line in rows if (cells := cells_of(columns, delimiter, line)) is not None]
        told = sum(bool(cells[job].strip() and cells[state].strip()) for cells in read)
        if told and told >= _FITS * len(rows):
            # --parsable ends each row with a delimiter, so one column less may be what was asked for
            (found if any(cells[-1].strip() for cells in read) else idle).append((name, delimiter))
    return found or idle
