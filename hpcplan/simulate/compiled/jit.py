"""How functions of this package are compiled: by numba, kept in the user's cache from one run to the next."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

__all__ = ["compiled", "entry", "is_cold", "ones", "trailing_zeros"]

# Nothing is allocated in this package: counting references to arrays takes a quarter of its time.
_HOW: Any = {"error_model": "numpy", "_nrt": False}
F = TypeVar("F", bound=Callable[..., Any])
numba: Any = import_module("numba")  # types are checked alike with and without it
compiler: Any = import_module("numba.core.compiler")
machinery: Any = import_module("numba.core.compiler_machinery")
typed_passes: Any = import_module("numba.core.typed_passes")
extending: Any = import_module("numba.extending")


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


@machinery.register_pass(mutates_CFG=True, analysis_only=False)
class _Unfinished(typed_passes.NativeLowering):  # type: ignore[misc]
    """Takes a function as far as others need it that call it: they take all of its code over.

    And so on up to the entries. There it is optimised, and made machine code of, once instead of at every level.
    """

    _name = "hpcplan_unfinished"

    def run_pass(self, state: Any) -> bool:
        """Make intermediate code, and let those that call the function find it."""
        library = state.library = state.targetctx.codegen().create_library(state.func_id.func_qualname)

        def finish() -> None:
            library._finalized = True

        library._optimize_final_module, library._finalize_final_module = (lambda: None), finish
        state.flags.no_compile = True
        super().run_pass(state)
        named: Any = [].append  # what it is known by has to be built in, and is never called
        state.targetctx.insert_user_function(named, state["cr"].fndesc, [library])
        state["cr"] = state["cr"]._replace(cfunc=named)
        return True


class _Compiler(compiler.CompilerBase):  # type: ignore[misc]
    def define_pipelines(self) -> list[Any]:
        """Return numba's own passes, with the one above in the place of the last step."""
        found = compiler.DefaultPassBuilder.define_nopython_pipeline(self.state)
        found.passes = [(_Unfinished if one is typed_passes.NativeLowering else one, why) for one, why in found.passes]
        found.finalize()
        return [found]


def compiled(function: F) -> F:
    """Return the function compiled, at its first call, for compiled code alone to call.

    It is compiled once for all numbers, where numba would do so anew for each constant that it is called with.
    """
    result: Any = numba.njit(**_HOW, no_cpython_wrapper=True, no_cfunc_wrapper=True, pipeline_class=_Compiler)(function)
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
