"""What must hold of a plan before it becomes scripts; a plan can be edited by hand, and a bad script costs a night."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

from hpcplan.errors import InputError, Problem
from hpcplan.plan import Plan
from hpcplan.render.quoting import (
    absolute_path,
    burst_buffer_line,
    directive_value,
    shell_line,
    shell_word,
    variable_name,
)
from hpcplan.render.stages import stage_problems

__all__ = ["check_plan"]


def check_plan(plan: Plan) -> None:
    """Check that the plan holds together and that all its text can stand in a script.

    Raises:
        InputError: with every field that is wrong.
    """
    problems = [*_sizes(plan), *_chain(plan), *stage_problems(plan), *_directives(plan), *_texts(plan)]
    if problems:
        raise InputError(problems)


def _sizes(plan: Plan) -> Iterator[Problem]:
    sharding = plan.plan
    pools = plan.placement.pools
    if pools and sum(pool.nodes * pool.gpus_per_node for pool in pools) != sharding.gpus:
        yield Problem(f"together have other than the plan's {sharding.gpus} GPUs", field="placement.pools")
    if not pools and sharding.nodes * sharding.gpus_per_node != sharding.gpus:
        message = f"is {sharding.gpus}, but {sharding.nodes} nodes of {sharding.gpus_per_node} make another number"
        yield Problem(message, field="plan.gpus")
    if pools and plan.placement.node_order:
        yield Problem("names nodes, which a job over unequal pools cannot be given", field="placement.node_order")
    ranks = math.prod((sharding.tp, sharding.pp, sharding.dp, sharding.cp))
    if ranks != sharding.gpus:
        yield Problem(f"is {sharding.gpus}, but tp x pp x dp x cp is {ranks}", field="plan.gpus")
    batch = _batch(plan)
    if batch != plan.training.global_batch:
        message = f"is {plan.training.global_batch}, but dp x micro_batch x micro_batches is {batch}"
        yield Problem(message, field="training.global_batch")
    order = plan.placement.node_order
    if order and len(order) != sharding.nodes:
        yield Problem(f"names {len(order)} nodes, but the plan has {sharding.nodes}", field="placement.node_order")
    if plan.job.framework not in {"megatron-lm", "nemo"} and not plan.job.command:
        yield Problem("is empty; say what to run, one word each", field="job.command")


def _batch(plan: Plan) -> int:
    """Return the sequences of a step; pools that hold whole replicas may have micro-batches of their own."""
    sharding, pools = plan.plan, plan.placement.pools
    if not any(pool.micro_batch for pool in pools) or any(pool.layers for pool in pools):
        return sharding.dp * sharding.micro_batch * sharding.micro_batches
    replica = sharding.tp * sharding.cp * sharding.pp
    each = ((pool.nodes * pool.gpus_per_node, pool.micro_batch or sharding.micro_batch) for pool in pools)
    return sum(gpus * micro_batch for gpus, micro_batch in each) * sharding.micro_batches // replica


def _chain(plan: Plan) -> Iterator[Problem]:
    next_step = plan.segments[0].first_step  # a plan for what is left goes on where the one before ended
    for position, segment in enumerate(plan.segments):
        field = f"segments[{position}]"
        if segment.index != position + 1:
            yield Problem(f"is {segment.index}; segments count from 1", field=f"{field}.index")
        if segment.first_step != next_step or segment.last_step < segment.first_step:
            message = f"runs steps {segment.first_step} to {segment.last_step}; it should begin with {next_step}"
            yield Problem(message, field=field)
        next_step = segment.last_step + 1
    if next_step != plan.training.steps + 1:
        yield Problem(f"end with step {next_step - 1}, but training has {plan.training.steps}", field="segments")


def _directives(plan: Plan) -> Iterator[Problem]:
    job, placement = plan.job, plan.placement
    values: dict[str, Any] = {"placement.partition": placement.partition}
    optional = {"job.account": job.account, "job.qos": job.qos, "job.gres": job.gres}
    values |= {field: value for field, value in optional.items() if value is not None}
    values |= {f"placement.node_order[{index}]": name for index, name in enumerate(placement.node_order)}
    optional = {"placement.exclude": placement.exclude, "job.mpi": job.mpi}
    for index, pool in enumerate(placement.pools):
        values[f"placement.pools[{index}].partition"] = pool.partition
        optional[f"placement.pools[{index}].gres"] = pool.gres
    for index, stage in enumerate(plan.stages):
        values[f"stages[{index}].partition"] = stage.partition
        optional[f"stages[{index}].gres"] = stage.gres
    values |= {field: value for field, value in optional.items() if value is not None}
    yield from _failing(directive_value, values)


def _texts(plan: Plan) -> Iterator[Problem]:
    job = plan.job
    words: dict[str, Any] = {f"job.command[{i}]": word for i, word in enumerate(job.command)}
    words |= {f"job.data[{i}]": word for i, word in enumerate(job.data)}
    lines: dict[str, Any] = {f"job.setup[{i}]": line for i, line in enumerate(job.setup)}
    lines |= {f"job.environment.setup[{i}]": line for i, line in enumerate(job.environment.setup)}
    words |= {f"job.environment.modules[{i}]": name for i, name in enumerate(job.environment.modules)}
    names: dict[str, Any] = {}
    for field, variables in (
        ("job.variables", job.variables),
        ("job.environment.variables", job.environment.variables),
    ):
        names |= {f"{field}.{name}": name for name in variables}
        words |= {f"{field}.{name}": value for name, value in variables.items()}
    if job.environment.container is not None:
        container = job.environment.container
        words |= {"job.environment.container.image": container.image}
        words |= {f"job.environment.container.mounts[{i}]": mount for i, mount in enumerate(container.mounts)}
    words["job.checkpoint_dir"] = job.checkpoint_dir
    for index, stage in enumerate(plan.stages):
        place = f"stages[{index}]"
        words |= {f"{place}.command[{i}]": word for i, word in enumerate(stage.command)}
        lines |= {f"{place}.setup[{i}]": line for i, line in enumerate(stage.setup)}
        for variables in (stage.variables, *stage.points):
            names |= {f"{place}.{name}": name for name in variables}
            words |= {f"{place}.{name}": value for name, value in variables.items()}
    if job.staging is not None:
        words |= {f"job.staging.sources[{i}]": path for i, path in enumerate(job.staging.sources)}
        yield from _failing(absolute_path, {"job.staging.target": job.staging.target})
        yield from _failing(absolute_path, {f"job.staging.sources[{i}]": s for i, s in enumerate(job.staging.sources)})
        directives = {f"job.staging.directives[{i}]": line for i, line in enumerate(job.staging.directives)}
        yield from _failing(burst_buffer_line, directives)
    yield from _failing(variable_name, names)
    yield from _failing(shell_word, words)
    yield from _failing(shell_line, lines)


def _failing(check: Callable[[str], str], values: dict[str, Any]) -> Iterator[Problem]:
    for field, value in values.items():
        try:
            check(value)
        except ValueError as error:
            yield Problem(str(error), field=field)
