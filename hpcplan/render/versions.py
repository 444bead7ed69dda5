"""Which Slurm brought which option, so that a script never asks for more than its site knows.

Sources: the release notes and NEWS of Slurm, under the release named here, and sbatch(1) of each release.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

__all__ = ["OLDEST", "SINCE", "release", "supports", "too_new"]

Release = tuple[int, int]
OLDEST: Final = (20, 11)  # what an unknown version counts as: the oldest release that hpcplan's backends speak to

# Options of sbatch and srun by the release that brought them; what is not here is older than 19.05. 'hetjob' is the
# directive between the parts of a heterogeneous job, which was 'packjob' before.
SINCE: Final[Mapping[str, Release]] = {
    "cpus-per-gpu": (19, 5),
    "gpu-bind": (19, 5),
    "gpu-freq": (19, 5),
    "gpus": (19, 5),
    "gpus-per-node": (19, 5),
    "gpus-per-socket": (19, 5),
    "gpus-per-task": (19, 5),
    "mem-per-gpu": (19, 5),
    "het-group": (20, 2),
    "hetjob": (20, 2),
    "exact": (20, 11),
    "ntasks-per-gpu": (20, 11),
    "overlap": (20, 11),
    "container": (21, 8),
    "prefer": (22, 5),
    "container-id": (23, 2),
    "extra": (23, 2),
    "tres-bind": (23, 2),
    "tres-per-task": (23, 11),
    "oom-kill-step": (24, 5),
    "segment": (24, 5),
    "stepmgr": (24, 5),
    "consolidate-segments": (25, 5),
    "spread-segments": (25, 5),
}
_OPTION: Final = re.compile(r"(?:^#SBATCH\s+|\s)--([a-z][a-z0-9-]*)|^#SBATCH\s+(hetjob)")
_STEP: Final = re.compile(r"^\s*(?:run_step |look_at_nodes \d+ )?(?:\"\$\{step\[@\]\}\"|srun)\s", re.ASCII)


def release(version: str | None) -> Release:
    """Return ``(23, 11)`` for ``"23.11.4"``; an unknown version counts as the oldest."""
    match = re.match(r"(\d{2})\.(\d{2})", version or "")
    return (int(match[1]), int(match[2])) if match else OLDEST


def supports(option: str, version: str | None) -> bool:
    """Return whether Slurm ``version`` (``"23.11.4"``) knows ``option``; an unknown one counts as the oldest."""
    since = SINCE.get(option)
    return since is None or release(version) >= since


def too_new(script: str, version: str | None) -> Iterator[tuple[int, str, str]]:
    """Yield line, option and the release that brought it, for options that Slurm ``version`` does not know.

    Looked at are directives and the lines that start a step.
    """
    for number, line in enumerate(script.splitlines(), start=1):
        if line.startswith("#SBATCH ") or _STEP.match(line):
            for option in map("".join, _OPTION.findall(line)):
                if not supports(option, version):
                    yield number, option, "{:02d}.{:02d}".format(*SINCE[option])
