"""Functions that only compiled code calls are compiled as far as that needs; it uses numba's inner parts."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__all__ = ["Compiler"]

compiler: Any = import_module("numba.core.compiler")
machinery: Any = import_module("numba.core.compiler_machinery")
typed_passes: Any = import_module("numba.core.typed_passes")


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


class Compiler(compiler.CompilerBase):  # type: ignore[misc]
    """Numba's own way, but for the last step."""

    def define_pipelines(self) -> list[Any]:
        """Return numba's own passes, with the one above in the place of the last step."""
        found = compiler.DefaultPassBuilder.define_nopython_pipeline(self.state)
        found.passes = [(_Unfinished if one is typed_passes.NativeLowering else one, why) for one, why in found.passes]
        found.finalize()
        return [found]
