"""Which Slurm brought which option, so that a script never asks for more than its site knows.

Sources: Slurm's release notes and NEWS files, under the release named here.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["OLDEST", "SINCE", "supports"]

OLDEST: Final = (20, 11)  # the oldest release that hpcplan speaks to; what it has needs no entry

SINCE: Final[dict[str, tuple[int, int]]] = {
    "prefer": (22, 5),
    "segment": (24, 5),
    "stepmgr": (24, 5),
}


def supports(option: str, version: str | None) -> bool:
    """Return whether Slurm ``version`` (``"23.11.4"``) knows ``option``; an unknown one counts as the oldest."""
    return _release(version) >= SINCE.get(option, OLDEST)


def _release(version: str | None) -> tuple[int, int]:
    match = re.match(r"(\d{2})\.(\d{2})", version or "")
    return (int(match[1]), int(match[2])) if match else OLDEST
