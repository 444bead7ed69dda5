"""sbcast(1): a file for every node of a job; here all nodes are one machine, and one copy is everybody's."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path
from typing import Any, Final

from hpcplan.simulate.commands.controller import Controller
from hpcplan.simulate.commands.options import flags, read_words, usage
from hpcplan.simulate.commands.reply import Call, Refusal
from hpcplan.simulate.commands.rows import read_target
from hpcplan.simulate.commands.submission import absolute

__all__ = ["sbcast"]

_TABLE: Final = flags(
    "exclude fanout:F jobid:j size:s timeout:t",
    "force:f help preserve:p send-libs treewidth usage verbose:v version:V",
    "compress:C",
)
_TRY: Final = 'Try "sbcast --help" for more information'


def sbcast(controller: Controller, connection: Any, call: Call) -> int:
    """Copy a file of the submitting host to where the job's nodes have it."""
    words = read_words("sbcast", call.words, _TABLE)
    if "help" in words or "usage" in words:
        call.reply.say(usage("sbcast", _TABLE, "SOURCE DEST"))
        return 0
    if len(words.rest) != 2:
        raise Refusal(f"Need two file names, have {len(words.rest)} names\n{_TRY}")
    text = words.last("jobid") or call.env.get("SLURM_JOB_ID")
    if not text:
        raise Refusal(
            "sbcast: error: Need a job id to run this command.  Run from within a Slurm job or use the --jobid option."
        )
    target = read_target(text)
    with controller.session() as session:
        job = session.engine.running.get(target.job_id) if target is not None else None
        if job is None:
            raise Refusal("sbcast: error: slurm_sbcast_lookup: Invalid job id specified")
        nodes = session.machine.names_of(job.nodes)
    source, dest = Path(absolute(words.rest[0], call.cwd)), words.rest[1]
    if not source.is_file():
        raise Refusal(f"sbcast: error: Can't open `{words.rest[0]}': No such file or directory", 255)
    path = Path(absolute(dest, call.cwd))
    if path.is_dir() or dest.endswith("/"):
        path /= source.name
    _copy(source, path, nodes, force="force" in words, preserve="preserve" in words)
    return 0


def _copy(source: Path, path: Path, nodes: list[str], *, force: bool, preserve: bool) -> None:
    mode = stat.S_IMODE(source.stat().st_mode)
    kind = os.O_TRUNC if force else os.O_EXCL
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | kind, mode)
        with os.fdopen(descriptor, "wb") as stream, source.open("rb") as original:
            shutil.copyfileobj(original, stream)
            os.fchmod(stream.fileno(), mode)
        if preserve:
            shutil.copystat(source, path)
    except OSError as error:
        lines = [f"sbcast: error: REQUEST_FILE_BCAST({node}): {os.strerror(error.errno or 0)}" for node in nodes]
        raise Refusal("\n".join(lines), error.errno or 1) from None
