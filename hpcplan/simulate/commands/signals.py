"""Signals by name, and sbatch's ``--signal``."""

from __future__ import annotations

import re
import signal

__all__ = ["early_signal", "signal_number"]


def signal_number(text: str) -> int | None:
    """Return the number of ``USR1``, ``SIGUSR1`` or ``10``, ``None`` for no signal."""
    if text.isdecimal():
        return int(text) if 0 < int(text) < signal.NSIG else None
    name = "SIG" + text.upper().removeprefix("SIG")
    return int(signal.Signals[name]) if name in signal.Signals.__members__ else None


def early_signal(text: str | None) -> tuple[int, int, bool] | None:
    """Return (number, seconds before the limit, whether the batch script is meant) of ``[R][B:]SIGNAL[@SECONDS]``."""
    match = re.fullmatch(r"(?:([RB]{1,2}):)?(\w+)(?:@(\d+))?", text or "")
    number = signal_number(match[2]) if match is not None else None
    if match is None or number is None:
        return None
    return number, int(match[3] or 60), "B" in (match[1] or "")
