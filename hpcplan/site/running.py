"""What a site wants done around its jobs: checks of the nodes before a run, and where data is staged."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from hpcplan.documents import Loc
from hpcplan.validation import Value

__all__ = ["BurstBuffer", "Checks"]


class BurstBuffer(Value):
    """Fast shared storage that Slurm provides on request: the lines that ask for it, and where jobs find it."""

    path: str
    directives: tuple[str, ...] = Field(description="lines for the script, each beginning with #BB, #BB_LUA or #DW")

    def inconsistencies(self) -> Iterator[tuple[Loc, str]]:
        """Yield directives that are something else."""
        for index, line in enumerate(self.directives):
            if not line.startswith(("#BB ", "#BB_LUA ", "#DW ")) or "\n" in line:
                yield ("directives", index), "must be one line that begins with #BB, #BB_LUA or #DW"


class Checks(Value):
    """What jobs look at before the trainer starts, on this site."""

    gpus: bool = Field(True, description="count the accelerators of each node")
    links: bool = Field(True, description="compare the rate of each InfiniBand link with the site's figure")
    all_reduce: bool = Field(True, description="measure an all-reduce between pairs of nodes")
    least_share: Annotated[float, Field(gt=0, le=1)] = Field(0.5, description="of the expected bandwidth")
    spare_nodes: Annotated[int, Field(ge=0)] = Field(0, description="asked for beyond the plan's, for nodes that fail")
