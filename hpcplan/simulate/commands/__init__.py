"""Slurm's commands for the mock cluster: what ``hpcplan mock shell`` puts first on the PATH.

``client.py`` is what runs when somebody types ``squeue``: it imports the standard library alone and hands its words to
the controller (:mod:`.server`), a process that keeps time, runs the jobs, and answers as Slurm 22.05 does. What a
command prints is made in the module of its name.
"""

__all__: list[str] = []
