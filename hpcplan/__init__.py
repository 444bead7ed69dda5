"""hpcplan: plan large training workloads for Slurm clusters, run them, and report how well the queue was used.

The rooms of the package, from the ground up, are described in ``docs/explanation/the-loop.md``. Importing
``hpcplan`` is cheap: each room loads what it needs when it is first used.
"""

__version__ = "0.1.0"

__all__ = ["__version__"]
