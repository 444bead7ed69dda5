"""The file of ``hpcplan share``: work and data, and the pools that share them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from pydantic import Field

from hpcplan.documents import Loc
from hpcplan.partition.allocate import Pool
from hpcplan.quantities import Bandwidth, Bytes, Duration, PositiveInt
from hpcplan.validation import Value, read_model

__all__ = ["PoolEntry", "PoolsFile", "read_pools"]

Positive = Annotated[float, Field(gt=0)]


class PoolEntry(Value):
    """A node, or a pool of equal ones."""

    name: str
    cores: Positive = Field(description="cores or GPUs; each does an hour of the work in an hour")
    memory_bytes: Bytes = Field(alias="memory")
    priority: Positive = 1.0
    read_bytes_per_s: Bandwidth | None = Field(None, alias="read", description="at which data comes in; free if absent")

    def pool(self) -> Pool:
        """Return what is computed with."""
        rate = math.inf if self.read_bytes_per_s is None else self.read_bytes_per_s * 3600
        return Pool(self.name, self.cores, self.memory_bytes, self.priority, rate)


class PoolsFile(Value):
    """``work`` is in core-hours, as in ``1000 h``; ``max_rounds`` is how often memory may be filled."""

    work_s: Duration = Field(alias="work")
    data_bytes: Bytes | None = Field(None, alias="data")
    max_rounds: PositiveInt | None = None
    pools: tuple[PoolEntry, ...] = Field(min_length=1)

    def inconsistencies(self) -> Iterator[tuple[Loc, str]]:
        """Yield names that two pools have."""
        for name, count in Counter(pool.name for pool in self.pools).items():
            if count > 1:
                yield ("pools",), f"{count} pools are called {name!r}"


def read_pools(path: Path) -> PoolsFile:
    """Read the file of ``hpcplan share``.

    Raises:
        InputError: it is not valid; with file, line and field.
    """
    return read_model(path, PoolsFile)
