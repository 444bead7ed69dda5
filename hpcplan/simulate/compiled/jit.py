"""How functions of this package are compiled: by numba, kept in the user's cache from one run to the next."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

__all__ = ["compiled", "entry", "is_cold", "ones", "trailing_zeros"]

F = TypeVar("F", bound=Callable[..., Any])
numba: Any = import_module("numba")  # types are checked alike with and without it
extending: Any = import_module("numba.extending")
# What goes beyond numba's promises was tried with 0.61, 0.65 and 0.68; another one compiles twice as long instead.
_TRIED: bool = (0, 61) <= numba.version_info[:2] <= (0, 68)
# Nothing is allocated in this package: counting references to arrays takes a quarter of its time.
_HOW: Any = {"error_model": "numpy", "_nrt": False} if _TRIED else {"error_model": "numpy"}


def is_cold(name: str) -> bool:
    """Whether an entry of this package will have to be compiled, which takes a while."""
    return not any(Path(numba.config.CACHE_DIR).rglob(f"*.{name}-*.nbi"))


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
    """Return the function compiled, at its first call, for compiled code alone to call.

    It is compiled once for all numbers, where numba would do so anew for each constant that it is called with.
    """
    if not _TRIED:
        plain: F = numba.njit(**_HOW, no_cpython_wrapper=True, no_cfunc_wrapper=True)(function)
        return plain
    from hpcplan.simulate.compiled.unfinished import Compiler

    result: Any = numba.njit(**_HOW, no_cpython_wrapper=True, no_cfunc_wrapper=True, pipeline_class=Compiler)(function)
    template = result.get_call_template
    result.get_call_template = lambda args, kws: template(tuple(map(numba.types.unliteral, args)), kws)
    found: F = result
    return found


def entry(function: F) -> F:
    """Return the function compiled, at its first call, for Python to call."""
    result: F = numba.njit(**_HOW, cache=True)(function)
    return result


def _ones(_context: Any, word: Any) -> Any:
    """Count the bits that are set in a word of 64."""

    def code(_compiler: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return numba.int64(word), code


def _trailing_zeros(_context: Any, word: Any) -> Any:
    """Count the bits below the lowest that is set, 64 where none is."""

    def code(_compiler: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        ir: Any = import_module("llvmlite.ir")
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 0))

    return numba.int64(word), code


ones: Callable[[Any], int] = extending.intrinsic(_ones)
trailing_zeros: Callable[[Any], int] = extending.intrinsic(_trailing_zeros)
