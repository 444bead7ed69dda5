"""Slurm's scheduling compiled to machine code by numba, for long traces (the extra ``fast``).

The same algorithm as :class:`~hpcplan.simulate.controller.Controller`, step by step, on arrays; a test holds that both
give the same schedule. Everything that jobs can ask for beyond nodes and shares of them, limits, partitions and
priorities is left to that class.
"""

__all__: list[str] = []
