"""How functions of this package are compiled: by numba, kept in the user's cache from one run to the next."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numba
from numba.core import types
from numba.extending import intrinsic

__all__ = ["compiled", "ones", "trailing_zeros"]

F = TypeVar("F", bound=Callable[..., Any])


def _cache_folder() -> Path:
    """Return where compiled code is kept: a folder for these very sources, as numba looks at each file by itself."""
    digest = hashlib.sha256()
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "hpcplan" / "compiled" / digest.hexdigest()[:16]


if not os.environ.get("NUMBA_CACHE_DIR"):
    numba.config.CACHE_DIR = str(_cache_folder())


def compiled(function: F) -> F:
    """Return the function compiled, at its first call."""
    result: F = numba.njit(cache=True, error_model="numpy")(function)
    return result


@intrinsic  # type: ignore[untyped-decorator]
def ones(_context: Any, word: Any) -> Any:
    """Count the bits that are set in a word of 64."""

    def code(_compiler: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.int64(word), code


@intrinsic  # type: ignore[untyped-decorator]
def trailing_zeros(_context: Any, word: Any) -> Any:
    """Count the bits below the lowest that is set, 64 where none is."""

    def code(_compiler: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        from llvmlite import ir

        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(word), code
