"""When it will be done: the chain of jobs under the walltime limit, the checkpoint interval, the whole plan."""
