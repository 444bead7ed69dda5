"""Cutting a training run into jobs that fit under the walltime limit."""

from __future__ import annotations

import math

from hpcplan.errors import InfeasibleError
from hpcplan.plan import Segment
from hpcplan.units import format_duration

__all__ = ["STARTUP_S", "cut_into_segments", "warning_s"]

STARTUP_S = 180.0  # container, imports, NCCL, loading the checkpoint: assumed, said in the plan's documentation
_SAFETY = 0.97  # share of the usable time that is planned for: steps vary
_SIGNAL_RESOLUTION_S = 60.0  # sbatch(1), --signal: the signal may come up to 60 s off
_SHORTEST_SAVE_S = 30.0  # whatever the storage promises, a save synchronises all ranks first
_LONGEST_WARNING_S = 65535  # sbatch(1), --signal
_SLACK = 1.15  # limit over expectation, where the run is shorter than the walltime limit
_MINUTE = 60


def warning_s(high_step_s: float, write_s: float) -> int:
    """Return how many seconds before its limit a job must be told to save: the step under way, Slurm's resolution, and
    a checkpoint that takes twice as long as the storage promises.
    """
    save = max(_SHORTEST_SAVE_S, 2 * write_s)
    return min(_LONGEST_WARNING_S, math.ceil(high_step_s + _SIGNAL_RESOLUTION_S + save))


def cut_into_segments(steps: int, step_s: float, high_step_s: float, limit_s: float, write_s: float) -> list[Segment]:
    """Return the chain of jobs: as few as the limit allows, each ending with a checkpoint inside its time.

    Args:
        steps: optimizer steps of the whole run.
        step_s: expected seconds a step, checkpoints included.
        high_step_s: the upper end of what a step may take.
        limit_s: longest time limit that the partition (or the user) allows.
        write_s: seconds to write the last checkpoint.

    Raises:
        InfeasibleError: start-up, one step and a checkpoint do not fit under the limit.
    """
    warning = warning_s(high_step_s, write_s)
    usable = (limit_s - STARTUP_S - warning) * _SAFETY
    most = int(usable // step_s)
    if most < 1:
        raise InfeasibleError(
            f"the walltime limit binds: {format_duration(limit_s)} do not hold the start-up "
            f"({format_duration(STARTUP_S)}), one step ({format_duration(step_s)}) and the time kept for the last "
            f"checkpoint ({format_duration(warning)}); ask for a longer walltime, or more nodes"
        )
    count = math.ceil(steps / most)
    share, extra = divmod(steps, count)  # equal jobs wait less than full ones and a rest
    segments: list[Segment] = []
    first = 1
    for index in range(1, count + 1):
        length = share + (1 if index <= extra else 0)
        expected = STARTUP_S + length * step_s + write_s
        ask = max(STARTUP_S + length * high_step_s, expected * _SLACK) + warning
        limit = min(limit_s, math.ceil(ask / _MINUTE) * _MINUTE)
        segments.append(
            Segment(
                index=index,
                first_step=first,
                last_step=first + length - 1,
                time_limit_s=max(_MINUTE, int(limit)),
                warning_s=warning,
                expected_s=round(expected, 1),
            )
        )
        first += length
    return segments
