"""What a job's SubmitLine asked for: how many GPUs, where accounting lists no resources.

sacct's SubmitLine (since 21.08) is the command as it was typed. Directives inside the script are not in it, so a line
without GPUs does not mean that the job had none.
"""

from __future__ import annotations

import re
import shlex
from typing import Final

from hpcplan.report.sacct_cells import MAX_COUNT

__all__ = ["asked_gpus"]

# options of sbatch, salloc and srun (sbatch(1)) that never take the next word as their value
_NO_VALUE: Final = """
    contiguous disable-status exact exclusive get-user-env help hold ignore-pbs immediate label kill-on-bad-exit
    multi-prog nice no-allocate no-kill no-requeue no-shell overcommit overlap oversubscribe parsable preserve-env
    propagate pty quiet reboot requeue resv-ports share spread-job test-only unbuffered usage use-min-nodes verbose
    version wait wait-all-nodes bell no-bell
    """
_FLAGS: Final = frozenset(f"--{name}" for name in re.findall(r"\S+", _NO_VALUE))
_SHORT_FLAGS: Final = "hHEIkKlOQsuvVWXZ"
_GPUS: Final = {"--gres": "node", "--gpus": "job", "-G": "job", "--gpus-per-node": "node", "--gpus-per-task": "task"}
_TASKS: Final = {"--ntasks", "-n"}
_COUNT: Final = re.compile(r"(?:(?P<kind>[A-Za-z][\w.-]*):)?(?P<count>\d{1,9})|(?P<bare>[A-Za-z][\w.-]*)?")


def asked_gpus(line: str, nodes: int | None) -> tuple[int, str | None] | None:
    """Return the GPUs that the options of a command asked for, over all nodes, and of which kind.

    ``None`` where it names none, or not of how many nodes or tasks.
    """
    options = _options(line)
    for name, per in _GPUS.items():
        found = _gpu_of_gres(options[name]) if name == "--gres" and name in options else options.get(name)
        if found is None:
            continue
        match = _COUNT.fullmatch(found)
        if match is None:
            return None
        times = {"job": 1, "node": nodes, "task": _tasks(options)}[per]
        kind = match["kind"] or match["bare"]
        count = int(match["count"] or 1) * (times or 0)
        return (count, None if kind is None else kind.lower()) if 0 < count <= MAX_COUNT else None
    return None


def _gpu_of_gres(text: str) -> str | None:
    """Return what stands behind ``gpu:`` in a list such as ``gpu:a100:2,scratch:1``."""
    for part in re.sub(r"\([^()]*\)", "", text).split(","):
        word = part.strip().removeprefix("gres:").removeprefix("gres/")
        if word.lower() == "gpu" or word.lower().startswith(("gpu:", "gpu/", "gpu=")):
            return word[4:] or "1"
    return None


def _tasks(options: dict[str, str]) -> int | None:
    word = next((options[name] for name in _TASKS if name in options), "")
    return int(word) if re.fullmatch(r"\d{1,9}", word) else None


def _options(line: str) -> dict[str, str]:
    """Return the options of the command itself; those behind the script's name are the script's own."""
    try:
        words = shlex.split(line)
    except ValueError:
        words = line.split()
    found: dict[str, str] = {}
    rest = iter(words[1:])
    for word in rest:
        if word in ("--", ":") or not word.startswith("-"):
            break  # the script, or the next component of a heterogeneous job
        name, equals, value = word.partition("=")
        if word.startswith("--"):
            found[name] = value if equals or name in _FLAGS else next(rest, "")
        elif word[1:2] in _SHORT_FLAGS:
            continue
        else:
            found[word[:2]] = word[2:] or next(rest, "")
    return found
