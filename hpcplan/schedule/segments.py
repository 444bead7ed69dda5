"""Cutting a training run into jobs that fit under the walltime limit."""

from __future__ import annotations

import math

from hpcplan.errors import InfeasibleError
from hpcplan.plan import Segment
from hpcplan.units import format_duration

__all__ = ["STARTUP_S", "cut_into_segments"]

STARTUP_S = 180.0  # container, imports, NCCL, loading the checkpoint: assumed, said in the plan's documentation
_SAFETY = 0.97  # share of the usable time that is planned for; a slow step must not lose the last checkpoint
_SLACK = 1.15  # limit over expectation, where the run is shorter than the walltime limit
_MINUTE = 60


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
    usable = (limit_s - STARTUP_S - write_s) * _SAFETY
    most = int(usable // step_s)
    if most < 1:
        raise InfeasibleError(
            f"the walltime limit binds: {format_duration(limit_s)} do not hold the start-up "
            f"({format_duration(STARTUP_S)}), one step ({format_duration(step_s)}) and a checkpoint "
            f"({format_duration(write_s)}); ask for a longer walltime, or more nodes"
        )
    count = math.ceil(steps / most)
    share, extra = divmod(steps, count)  # equal jobs wait less than full ones and a rest
    segments: list[Segment] = []
    first = 1
    for index in range(1, count + 1):
        length = share + (1 if index <= extra else 0)
        expected = STARTUP_S + length * step_s + write_s
        ask = max(STARTUP_S + length * high_step_s + write_s, expected * _SLACK)
        limit = min(limit_s, math.ceil(ask / _MINUTE) * _MINUTE)
        segments.append(
            Segment(
                index=index,
                first_step=first,
                last_step=first + length - 1,
                time_limit_s=max(_MINUTE, int(limit)),
                expected_s=round(expected, 1),
            )
        )
        first += length
    return segments
