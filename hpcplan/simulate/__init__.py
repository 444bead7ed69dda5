"""The mock cluster: a discrete-event engine that schedules the way Slurm does, on a laptop, without root.

``engine`` moves the clock, ``policies`` choose which jobs start, ``machine`` knows the nodes, ``script`` reads
``#SBATCH`` lines, ``background`` invents the other users, ``store`` keeps a cluster on disk, and ``backend`` is its
face as a :class:`hpcplan.slurm.backend.Backend`. ``replay`` schedules whole traces.
"""
