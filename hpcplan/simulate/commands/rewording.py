"""What releases after 22.05 say in other words: texts on stderr, from a release on."""

from __future__ import annotations

import re
from typing import Final

from hpcplan.simulate.commands.formatting import at_least

__all__ = ["reworded"]

_WORDS: Final = (  # held against 25.11.7; where it is not known since when, that is the release that they are said of
    ("23.11", r"Error updating the reservation: .*\n(?=slurm_update error)", ""),
    ("23.11", "CoreCnt, Nodes, NodeCnt, BurstBuffer, Licenses or Watts", "CoreCnt, Nodes, NodeCnt, TRES or Watts"),
    ("24.11", '"AccountUtilizationByUser", "User', '"AccountUtilizationByUser", "AccountUtilizationByQOS", "User'),
    ("25.05", r"(invalid entity:\S+ for keyword:\w+) (?=\n|$)", r"\1"),
    ("25.11", r"slurm_suspend error: ", "slurm_suspend error:"),
    ("25.11", "Either Users/Groups and/or Accounts", "Either Users/Groups, AllowedPartitions, QOS and/or Accounts"),
    ("25.11", r"(Acceptable State values.*)\nslurm_update error: No error", r"\1"),
    ("25.11", "CONFIGURING,RESIZING", "CONFIGURING,EXPEDITING,RESIZING"),
)  # fmt: skip
_STATES: Final = re.compile(r"(?<=Valid job states include: )[A-Z_,]+")


def reworded(text: str, version: str) -> str:
    """Return a text of 22.05 as a release says it."""
    for since, pattern, words in _WORDS:
        if at_least(version, since):
            text = re.sub(pattern, words, text)
    return _STATES.sub(lambda match: match[0].lower(), text) if at_least(version, "25.11") else text
