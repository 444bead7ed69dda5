"""What a template is given. Every public field here is a variable of the templates; nothing else is."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from hpcplan import __version__
from hpcplan.errors import InputError, Problem
from hpcplan.frameworks import FRAMEWORKS, Traits
from hpcplan.hostlist import compress
from hpcplan.plan import Health, Plan, Segment, Stage, Staging
from hpcplan.render.facts import stage_facts, training_facts
from hpcplan.render.launchers import Launch, launch_of
from hpcplan.render.placement import orders_its_nodes
from hpcplan.render.quoting import job_name, option_groups
from hpcplan.render.stages import TRAIN, done_files
from hpcplan.render.versions import supports
from hpcplan.validation import digest

__all__ = ["MAX_RESTARTS", "Component", "ScriptContext", "script_contexts"]

MAX_RESTARTS = 3  # a job that Slurm has requeued more often than this meets the same bad node or bug again and again
_STAGE_WARNING_S = 60
_CHECK_LIMIT_S = 180  # nvidia-smi takes seconds on a node that is well, and for ever on one whose driver hangs
_ALL_REDUCE_LIMIT_S = 900  # importing an image into the nodes included
_NUMBERED_BY_SLURM = ("jax", "mpi")  # those whose ranks are the tasks in the order of a file of hosts


@dataclass(frozen=True, slots=True)
class Component:
    """What a job asks of nodes of one kind; only a job over unequal nodes has more than one."""

    partition: str
    """value of --partition"""
    nodes: int
    """value of --nodes, spare ones included"""
    tasks_per_node: int
    """value of --ntasks-per-node: one, or one a GPU"""
    cpus_per_task: int
    """value of --cpus-per-task"""
    gpus_per_node: int
    """accelerators that take part, on each node"""
    micro_batch: int | None
    """sequences, where the components' differ"""
    gpu_count: str | None
    """value of --gpus-per-node, as in ``8`` or ``h100:8``; none where the site wants --gres or has no GPU GRES"""
    gres: str | None
    """value of --gres, as in ``gpu:8``; never together with ``gpu_count``"""


@dataclass(frozen=True, slots=True)
class ScriptContext:
    """The variables of one sbatch script."""

    plan: Plan
    """the whole plan, field by field as in plan.json"""
    framework: Traits
    """of the plan: ``framework.title``, ``framework.versions``"""
    segment: Segment | None
    """the segment that this job trains; none for stages beside training"""
    stage_spec: Stage | None
    """the stage beside training; none for training"""
    stage: str
    """``train``, or the stage's name"""
    key: str
    """of this job in the campaign: ``train-01``, or the stage's name"""
    last: bool
    """whether this is the last segment of the chain"""
    job_name: str
    """a name that Slurm takes"""
    script_name: str
    """the file's own name: ``train-01.sbatch``"""
    folder: str
    """where the files of this plan are in the campaign's directory: empty, or ``plan-02`` for one that took over"""
    script_path: str
    """the script's path in the campaign's directory: ``plan-02/train-01.sbatch``"""
    version: str
    """of hpcplan"""
    plan_sha256: str
    """digest of the plan's content"""
    components: tuple[Component, ...]
    """what is asked of Slurm, one for each kind of node"""
    nodes: int
    """that take part, without spare ones"""
    exclusive: bool
    """whether the job takes whole nodes"""
    time_limit_s: int
    """value of --time, in seconds"""
    node_list: str | None
    """value of --nodelist, where the plan was made for given nodes"""
    switches: int | None
    """value of --switches"""
    block_nodes: int | None
    """value of --segment, where the site's Slurm knows it"""
    exclude: str | None
    """value of --exclude"""
    signal_lead_s: int
    """how long before its time limit the job is warned, in seconds"""
    expected_runtime_s: int
    """whole seconds, rounded up"""
    needs: tuple[str, ...]
    """files of the state folder that must be there, left by the stages whose success it waits for"""
    orders_nodes: bool
    """whether the job puts its nodes in the order of ranks itself, with ``rank_map.py``"""
    max_restarts: int
    """how often Slurm may requeue the job before it gives up"""
    checkpoint_dir_is_absolute: bool
    """whether it is; a relative one is below the campaign's directory"""
    step_file: str | None
    """file under the checkpoint folder with the last step saved, where the framework writes one itself"""
    step_options: tuple[str, ...]
    """of the srun that starts the tasks"""
    look_options: tuple[str, ...]
    """of the srun that starts one task on every node, spare ones included"""
    per_node_options: tuple[str, ...]
    """of the srun that starts one task on every node that takes part"""
    check_limit_s: int
    """how long the look at the nodes may take before those that have not answered count as bad"""
    all_reduce_limit_s: int
    """how long the all-reduce between pairs of nodes may take"""
    health: Health | None
    """what is looked at before training"""
    staging: Staging | None
    """data that is copied nearer to the nodes before training"""
    staged: tuple[str, ...]
    """its sources: words of the command that name them are written as paths of the copies"""
    staged_folder: str
    """where the copies are: ``HPCPLAN_STAGED_DATA``"""
    staged_mounts: tuple[str, ...]
    """what a container must see for that"""
    burst_buffer: tuple[str, ...]
    """directives of the burst buffer"""
    sample_every_s: int | None
    """how often use of GPUs, CPUs and memory is written"""
    variables: dict[str, str]
    """environment, the site's and the workload's; the workload's wins"""
    facts: dict[str, str]
    """``HPCPLAN_*`` variables that tell the trainer what the plan decided"""
    setup: tuple[str, ...]
    """shell lines, the site's first"""
    command: tuple[tuple[str, ...], ...]
    """the trainer: its first element is the program, each further one an option with its values"""


def script_contexts(plan: Plan, folder: str = "") -> list[ScriptContext]:
    """Return the variables of every script: of the segments, in order, and of the stages beside training.

    Raises:
        InputError: the framework, or the site's Slurm, cannot do what the plan asks for.
    """
    launch = launch_of(plan)
    common = _common(plan) | {"folder": folder}
    training = common | _training(plan, launch)
    fields = [
        *(training | _of_segment(plan, segment) for segment in plan.segments),
        *(common | _of_stage(plan, stage) for stage in plan.stages),
    ]
    prefix = f"{folder}/" if folder else ""
    return [ScriptContext(**of_script, script_path=prefix + of_script["script_name"]) for of_script in fields]


def _common(plan: Plan) -> dict[str, Any]:
    return {
        "plan": plan,
        "framework": FRAMEWORKS[plan.job.framework],
        "version": __version__,
        "plan_sha256": digest(plan),
        "max_restarts": MAX_RESTARTS,
        "checkpoint_dir_is_absolute": PurePosixPath(plan.job.checkpoint_dir).is_absolute(),
        "exclude": plan.placement.exclude,
        "check_limit_s": _CHECK_LIMIT_S,
        "all_reduce_limit_s": _ALL_REDUCE_LIMIT_S,
    }


def _training(plan: Plan, launch: Launch) -> dict[str, Any]:
    """Return what all segments share."""
    job, placement = plan.job, plan.placement
    staging, health = job.staging, job.health
    components = tuple(_components(plan))
    asked = sum(component.nodes for component in components)
    nodes = asked if placement.pools else plan.plan.nodes
    order = placement.node_order
    block_nodes, switches = _locality(plan)
    orders_nodes = orders_its_nodes(plan) and not placement.pools
    folder = f"{staging.target}/hpcplan-{digest([plan.name, *staging.sources])[:12]}" if staging else ""
    return {
        "stage": TRAIN,
        "stage_spec": None,
        "needs": tuple(file for name in plan.after for file in done_files(plan, name)),
        "orders_nodes": orders_nodes,
        "components": components,
        "nodes": nodes,
        "exclusive": True,
        "node_list": compress(order) if order else None,
        "switches": switches,
        "block_nodes": block_nodes,
        "step_file": launch.step_file,
        "step_options": tuple(_step_options(plan, components, nodes, orders_nodes=orders_nodes)),
        "look_options": (
            "--kill-on-bad-exit=0",
            *_each_node(components, asked),
        ),
        "per_node_options": tuple(_each_node(components, nodes)),
        "health": health,
        "staging": staging,
        "staged": staging.sources if staging else (),
        "staged_folder": folder,
        "staged_mounts": (staging.target,) if staging else (),
        "burst_buffer": staging.directives if staging else (),
        "sample_every_s": job.sample_every_s,
        "variables": dict(launch.variables) | job.environment.variables | job.variables,
        "setup": (*job.environment.setup, *job.setup),
        "command": launch.command,
    }


def _of_segment(plan: Plan, segment: Segment) -> dict[str, Any]:
    width = max(2, len(str(len(plan.segments))))  # digits enough for names to sort
    key = f"{TRAIN}-{segment.index:0{width}d}"
    return {
        "segment": segment,
        "key": key,
        "script_name": f"{key}.sbatch",
        "job_name": job_name(plan.name, f"-{key}"),
        "last": segment.index == len(plan.segments),
        "time_limit_s": segment.time_limit_s,
        "signal_lead_s": segment.warning_s,
        "expected_runtime_s": math.ceil(segment.expected_s),
        "facts": training_facts(plan, segment),
    }


def _of_stage(plan: Plan, stage: Stage) -> dict[str, Any]:
    job = plan.job
    component = Component(
        partition=stage.partition,
        nodes=stage.nodes,
        tasks_per_node=stage.tasks_per_node,
        cpus_per_task=stage.cpus_per_task,
        gpus_per_node=0,
        micro_batch=None,
        **_gpu_request(plan, stage.gres),
    )
    tasks = stage.nodes * stage.tasks_per_node
    return {
        "segment": None,
        "stage_spec": stage,
        "needs": tuple(file for name in stage.after for file in done_files(plan, name)),
        "orders_nodes": False,
        "stage": stage.name,
        "key": stage.name,
        "last": False,
        "script_name": f"{stage.name}.sbatch",
        "job_name": job_name(plan.name, f"-{stage.name}"),
        "components": (component,),
        "nodes": stage.nodes,
        "exclusive": False,
        "time_limit_s": stage.time_limit_s,
        "node_list": None,
        "switches": None,
        "block_nodes": None,
        "signal_lead_s": max(1, min(_STAGE_WARNING_S, stage.time_limit_s // 2)),
        "expected_runtime_s": stage.time_limit_s,
        "step_file": None,
        "step_options": (f"--ntasks={tasks}", f"--cpus-per-task={stage.cpus_per_task}"),
        "look_options": (),
        "per_node_options": (),
        "health": None,
        "staging": None,
        "staged": (),
        "staged_folder": "",
        "staged_mounts": (),
        "burst_buffer": (),
        "sample_every_s": job.sample_every_s,
        "variables": job.environment.variables | stage.variables,
        "facts": stage_facts(plan, stage),
        "setup": (*job.environment.setup, *stage.setup),
        "command": tuple(option_groups(stage.command)),
    }


def _components(plan: Plan) -> Iterator[Component]:
    job, sharding = plan.job, plan.plan
    spare = job.health.spare_nodes if job.health else 0
    per_gpu = FRAMEWORKS[job.framework].tasks == "gpu"
    if not plan.placement.pools:
        tasks = sharding.gpus_per_node if per_gpu else 1
        yield Component(
            partition=plan.placement.partition,
            nodes=sharding.nodes + spare,
            tasks_per_node=tasks,
            cpus_per_task=max(1, job.cpus_per_node // tasks),
            gpus_per_node=sharding.gpus_per_node,
            micro_batch=None,
            **_gpu_request(plan, job.gres),
        )
    for pool in plan.placement.pools:
        tasks = pool.gpus_per_node if per_gpu else 1
        yield Component(
            partition=pool.partition,
            nodes=pool.nodes,
            tasks_per_node=tasks,
            cpus_per_task=max(1, pool.cpus_per_node // tasks),
            gpus_per_node=pool.gpus_per_node,
            micro_batch=pool.micro_batch,
            **_gpu_request(plan, pool.gres),
        )


def _gpu_request(plan: Plan, gres: str | None) -> dict[str, str | None]:
    """Return how accelerators are asked for: one of the two ways, as the site wants it and its Slurm knows it."""
    request = plan.job.gpu_request
    if request == "gpus-per-node" and not supports("gpus-per-node", plan.job.slurm_version):
        request = "gres"
    if request == "none" or gres is None:
        return {"gpu_count": None, "gres": None}
    if request == "gpus-per-node" and gres.startswith("gpu:"):
        return {"gpu_count": gres.removeprefix("gpu:"), "gres": None}
    return {"gpu_count": None, "gres": gres}


def _locality(plan: Plan) -> tuple[int | None, int | None]:
    """Return --segment and --switches: the first where the site's Slurm knows it, else the second in its place.

    Spare nodes may lie under one more switch.
    """
    placement, version = plan.placement, plan.job.slurm_version
    spare = plan.job.health.spare_nodes if plan.job.health else 0
    switches = None if placement.switches is None else placement.switches + (spare > 0)
    if placement.segment is None or supports("segment", version):
        return placement.segment, switches
    if switches is not None:
        return None, switches
    message = f"needs sbatch --segment, of Slurm 24.05; the site has {version or 'an unknown version'}"
    raise InputError(Problem(f"{message}. Plan with --switches instead", field="placement.segment"))


def _step_options(plan: Plan, components: tuple[Component, ...], nodes: int, *, orders_nodes: bool) -> Iterator[str]:
    if plan.job.framework == "mpi" and plan.job.mpi is not None:
        yield f"--mpi={plan.job.mpi}"
    if len(components) > 1:
        yield f"--het-group=0-{len(components) - 1}"
        return
    one = components[0]
    if not (orders_nodes and plan.job.framework in _NUMBERED_BY_SLURM):  # srun of newer releases refuses both at once
        yield f"--nodes={nodes}"
    yield f"--ntasks={nodes * one.tasks_per_node}"
    yield f"--ntasks-per-node={one.tasks_per_node}"
    yield f"--cpus-per-task={one.cpus_per_task}"


def _each_node(components: tuple[Component, ...], nodes: int) -> Iterator[str]:
    """Yield the options for one task on every node; components of a job over unequal nodes keep their own number."""
    if len(components) > 1:
        yield f"--het-group=0-{len(components) - 1}"
        return
    one = components[0]
    yield f"--nodes={nodes}"
    yield f"--ntasks={nodes}"
    yield "--ntasks-per-node=1"
    yield f"--cpus-per-task={one.tasks_per_node * one.cpus_per_task}"
