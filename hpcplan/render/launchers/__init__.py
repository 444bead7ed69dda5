"""One module a framework: how it is told what the plan decided."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from hpcplan.frameworks import FRAMEWORKS, Framework, refusals, with_capacity
from hpcplan.plan import Plan
from hpcplan.render import megatron
from hpcplan.render.launchers import accelerate, deepspeed, nemo, own, torchtitan
from hpcplan.render.launchers.launch import Config, Launch, refuse

__all__ = ["Config", "Launch", "launch_of"]


def _megatron(plan: Plan) -> Launch:
    lacking = megatron.missing(plan)
    note = f"Megatron-LM will ask for {', '.join(lacking)}; give them in the workload's launch command"
    return Launch(
        command=tuple(megatron.launch_words(plan)),
        variables=megatron.environment(plan),
        step_file="latest_checkpointed_iteration.txt",
        notes=(note,) if lacking else (),
    )


_LAUNCHERS: Final[dict[Framework, Callable[[Plan], Launch]]] = {
    "megatron-lm": _megatron,
    "nemo": nemo.launch,
    "deepspeed": deepspeed.launch,
    "torchtitan": torchtitan.launch,
    "accelerate": accelerate.launch,
    "torchrun": own.torchrun,
    "jax": own.jax,
    "tensorflow": own.tensorflow,
    "mpi": own.bare,
    "srun": own.bare,
}
assert set(_LAUNCHERS) == set(FRAMEWORKS)


def launch_of(plan: Plan) -> Launch:
    """Return how the plan's framework is launched.

    Raises:
        InputError: the framework cannot run the plan; with the field, and what it can.
    """
    framework = plan.job.framework
    for field, message in refusals(framework, plan.plan):
        raise refuse(f"plan.{field}", message)
    if plan.job.model_arguments.get("capacity_factor") is not None and framework not in with_capacity():
        message = f"{FRAMEWORKS[framework].title} gives its experts no capacity; {' or '.join(with_capacity())} can"
        raise refuse("job.model_arguments.capacity_factor", message)
    return _LAUNCHERS[framework](plan)
