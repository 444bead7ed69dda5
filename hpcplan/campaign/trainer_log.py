"""How far a trainer says that it is: the steps and step times in the end of its log.

Trainers have no common form. Those below are what the widely used ones print, one line a step or every few steps; a
line that none of them matches says nothing. Where a log gives several step times, the median of the last ones counts,
so that one checkpoint or one slow step does not move it.
"""

from __future__ import annotations

import re
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hpcplan.campaign.causes import log_end

__all__ = ["TrainerProgress", "read_log", "read_progress_of_log"]

_MEDIAN_OF: Final = 20
_TIME = r"[^\d\n]{0,8}(?P<time>[\d.]+)\s*(?P<unit>ms|s)?"
_STEP = r"(?P<step>\d[\d,]*)"
# (what prints it, pattern, seconds in one unit of its time)
_FORMS: Final = tuple(
    (re.compile(pattern, re.IGNORECASE), unit_s)
    for pattern, unit_s in (
        # Megatron-LM, NeMo-Megatron, Megatron-DeepSpeed
        (rf"iteration\s+{_STEP}/\s*\d+ \|.*?elapsed time per iteration \(ms\):\s*(?P<time>[\d.]+)", 1e-3),
        (rf"elapsed time per iteration \(s\):\s*(?P<time>[\d.]+).*?iteration\s+{_STEP}/", 1.0),
        # DeepSpeed: steps: 10 loss: 1.2 iter time (s): 0.5
        (rf"steps:\s*{_STEP}\b.*?iter time \(s\):\s*(?P<time>[\d.]+)", 1.0),
        # Lightning and NeMo: global_step: 10 … train_step_timing in s: 0.5
        (rf"global_step:\s*{_STEP}\b.*?train_step_timing in s:\s*(?P<time>[\d.]+)", 1.0),
        # torchtitan: step: 10  loss: 1.2 … ; and time_metrics/end_to_end(s): 0.5 or step_time
        (
            rf"\bstep[:=]?\s*{_STEP}\b.*?(?:step[ _]time|iter[ _]time|sec/iter|time/step){_TIME}",
            1.0,
        ),
        (rf"\b(?:global[ _])?(?:step|iteration|iter)[:=]?\s+{_STEP}\s*(?:/\s*\d+|of \d+)?\b", None),
        (rf"\b(?:step|iteration|iter)[:=]\s*{_STEP}\b", None),
    )
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class TrainerProgress:
    """The last step that the log names, and how long a step takes (seconds), where it says so."""

    step: int | None = None
    step_time_s: float | None = None


def read_log(text: str) -> TrainerProgress:
    """Return what the end of a log says; the last step named counts, not the largest: a job may have gone back."""
    step: int | None = None
    times: list[float] = []
    for line in text.splitlines():
        for pattern, unit_s in _FORMS:
            match = pattern.search(line)
            if match is None:
                continue
            step = int(match["step"].replace(",", ""))
            if unit_s is not None:
                parts = match.groupdict()
                seconds = float(parts["time"].rstrip(".") or 0) * (1e-3 if parts.get("unit") == "ms" else unit_s)
                if seconds > 0:
                    times.append(seconds)
            break
    return TrainerProgress(step, statistics.median(times[-_MEDIAN_OF:]) if times else None)


def read_progress_of_log(path: Path) -> TrainerProgress:
    """Return what the end of a log file says, nothing where it cannot be read."""
    return read_log(log_end(path))
