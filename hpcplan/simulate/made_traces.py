"""Traces that are made up, and traces written: as SWF for bare processors, as CSV for nodes."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hpcplan.documents import write_text
from hpcplan.errors import InputError, nearest
from hpcplan.simulate.lublin import lublin
from hpcplan.simulate.traces import Trace, TraceJob

if TYPE_CHECKING:
    from hpcplan.simulate.machine import Machine

__all__ = ["MODELS", "llm_mix", "make_trace", "write_trace"]

MODELS: Final = ("lublin", "llm")
_COLUMNS: Final = (
    "job", "submit_s", "nodes", "run_s", "time_limit_min", "partition", "qos", "user", "account", "cpus", "gres",
)  # fmt: skip


def make_trace(
    model: str, jobs: int, *, procs: int | None, machine: Machine | None, seed: int = 1, load: float | None = None
) -> Trace:
    """Make up a trace: ``lublin`` for ``procs`` processors, ``llm`` (a cluster where language models are trained) for a
    machine.

    Raises:
        InputError: no such model, or it does not go with what is given.
    """
    if model == "lublin":
        if procs is None and machine is not None:
            procs = machine.total(machine.all_nodes, "cpus")
        if procs is None:
            raise InputError("the model lublin needs the machine's size", hint="--procs 256")
        return lublin(jobs, procs, seed=seed, load=load)
    if model == "llm":
        if machine is None:
            raise InputError("the model llm needs a machine of nodes", hint="--site superpod-h100, or --slurm-conf")
        return llm_mix(jobs, machine, seed=seed, load=0.8 if load is None else load)
    raise InputError(f"no workload model is called {model!r}" + nearest(model, MODELS))


def llm_mix(jobs: int, machine: Machine, *, seed: int, load: float) -> Trace:
    """Return jobs as the other users of a mock cluster submit them (:mod:`.background`), from a Monday on."""
    from hpcplan.simulate.background import Background

    begin = 4 * 86400
    source = Background(machine, load=load, seed=seed, start=begin)
    found = []
    for number in range(1, jobs + 1):
        arrival = source.pop()
        spec = arrival.spec
        if spec.gpus_per_node is None:
            spec = replace(spec, exclusive=True)
        nodes, limit_s = spec.nodes_min or 1, spec.time_limit_s
        found.append(
            TraceJob(
                id=number,
                submit_s=arrival.time - begin,
                run_s=arrival.behaviour.runtime_s,
                limit_s=limit_s or arrival.behaviour.runtime_s,
                procs=nodes,
                label=str(number),
                ask=replace(spec, name=str(number)),
                user=arrival.user,
            )
        )
    return Trace(tuple(found), None, 0)


def write_trace(trace: Trace, path: Path) -> None:
    """Write a trace: SWF where the file's name ends in ``.swf``, else CSV.

    Raises:
        HpcplanError: it cannot be written.
    """
    write_text(path, _swf(trace) if path.suffix.lower() == ".swf" else _table(trace.jobs))


def _swf(trace: Trace) -> str:
    users = {user: number for number, user in enumerate(dict.fromkeys(job.user for job in trace.jobs if job.user), 1)}
    lines = ["; Version: 2.2", "; Note: made up", f"; MaxJobs: {len(trace.jobs)}"]
    if trace.procs is not None:
        lines.append(f"; MaxProcs: {trace.procs}")
    for job in trace.jobs:
        user = users.get(job.user or "", -1)
        lines.append(
            f"{job.id} {job.submit_s} -1 {job.run_s} {job.procs} -1 -1 {job.procs} {job.limit_s} "
            f"-1 1 {user} -1 -1 -1 -1 -1 -1"
        )
    return "\n".join(lines) + "\n"


def _table(jobs: Iterable[TraceJob]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for job in jobs:
        ask = job.ask
        gres = ""
        if ask is not None and ask.gpus_per_node and not ask.exclusive:
            gres = ":".join(filter(None, ("gpu", ask.gpu_type, str(ask.gpus_per_node))))
        cpus = "" if ask is None or ask.exclusive or ask.cpus_per_task == 1 else ask.cpus_per_task
        words = (None,) * 3 if ask is None else (ask.partition, ask.qos, ask.account)
        writer.writerow(
            (job.name, job.submit_s, job.procs, job.run_s, -(-job.limit_s // 60), words[0], words[1], job.user,
             words[2], cpus, gres)
        )  # fmt: skip
    return re.sub(r"\bNone\b", "", text.getvalue())
