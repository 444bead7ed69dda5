"""sattach(1): what the tasks of a running step print from now on, and how they end."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from hpcplan.hostlist import expand
from hpcplan.simulate.commands.controller import Controller
from hpcplan.simulate.commands.jobfiles import Step
from hpcplan.simulate.commands.options import flags, read_words, usage
from hpcplan.simulate.commands.reply import Call, Refusal
from hpcplan.simulate.commands.rows import read_target
from hpcplan.simulate.store import Session

__all__ = ["sattach"]

_TABLE: Final = flags(
    "input-filter output-filter error-filter", "help:h label:l layout pty quiet:Q usage:u verbose:v version:V"
)
_USAGE: Final = "Usage: sattach [options] <jobid.stepid>"
_MOST_BYTES: Final = 1 << 20  # passed on at a time


def sattach(controller: Controller, connection: Any, call: Call) -> int:
    """Follow a step to its end and return the highest exit code of its tasks."""
    words = read_words("sattach", call.words, _TABLE)
    if "help" in words or "usage" in words:
        call.reply.say(usage("sattach", _TABLE, "JOB.STEP"))
        return 0
    if len(words.rest) != 1:
        call.reply.say(_USAGE)
        raise Refusal("sattach: error: too many parameters")
    target = read_target(words.rest[0])
    if target is None or target.step is None:
        call.reply.say(_USAGE)
        raise Refusal("sattach: error: Failed to parse stepid from command line options")
    with controller.session():
        run = controller.runner.runs.get(target.job_id)
        step = next((one for one in run.steps if one.name == target.step and one.end is None), None) if run else None
        if step is None:
            raise Refusal("sattach: error: Could not get job step info: Invalid job id specified")
        position = _size(step)
    if "layout" in words:
        _print_layout(call, step)
        return 0

    def follow(session: Session) -> bool:
        nonlocal position
        over = step.end is not None
        position = _pass_on(call, connection, step, position)
        return over

    if not controller.wait_until(follow, connection.gone):
        return 1
    for rank, code in enumerate(step.exits):
        if code and "quiet" not in words:
            how = f"exited with exit code {code}" if code > 0 else f"was ended by signal {-code}"
            call.reply.complain(f"sattach: error: task {rank} {how}")
    return max((code if code >= 0 else 128 - code for code in step.exits), default=0)


def _size(step: Step) -> int:
    try:
        return Path(step.output).stat().st_size if step.output else 0
    except OSError:
        return 0


def _pass_on(call: Call, connection: Any, step: Step, position: int) -> int:
    """Pass on what was printed since, and return how far that is."""
    if not step.output:
        return position
    try:
        with Path(step.output).open("rb") as stream:
            stream.seek(position)
            while data := stream.read(_MOST_BYTES):
                position += len(data)
                call.reply.out += data.decode("utf-8", "surrogateescape")
                connection.reply(call.reply)
    except OSError:
        return position
    return position


def _print_layout(call: Call, step: Step) -> None:
    call.reply.say(f"Job step layout:\n\t{step.ntasks} tasks, {step.nodes} nodes ({step.node_list})\n")
    rank = 0
    for number, (node, count) in enumerate(zip(expand(step.node_list), step.counts, strict=True)):
        ranks = "".join(f"{one} " for one in range(rank, rank + count))
        call.reply.say(f"\tNode {number} ({node}), {count} task(s): {ranks}")
        rank += count
