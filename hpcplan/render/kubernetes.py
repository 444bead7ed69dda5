"""The same plan as a JobSet for Kubernetes (https://jobset.sigs.k8s.io, API ``jobset.x-k8s.io/v1alpha2``)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from hpcplan.errors import InputError, Problem
from hpcplan.plan import Plan
from hpcplan.render.context import ScriptContext
from hpcplan.render.facts import training_facts
from hpcplan.render.launchers import launch_of
from hpcplan.render.quoting import job_name

if TYPE_CHECKING:
    import jinja2

__all__ = ["JOBSET_NAME", "JOBSET_VARIABLES", "render_jobset"]

JOBSET_NAME: Final = "jobset.yaml"
# What its templates are given, beside the variables of the first segment's script.
JOBSET_VARIABLES: Final = (
    "name", "image", "port", "gpu_resource", "mounts", "launcher", "save_signal", "options", "environment",
    "config_files", "launch_script",
)  # fmt: skip
_PORT: Final = 29400
_MAX_NAME: Final = 40  # NAME-train-0-INDEX is the name of a host, of at most 63 characters
_LAUNCHERS: Final = {"accelerate": "accelerate", "tensorflow": "tensorflow", "jax": "jax", "srun": "srun"}
# What the sbatch templates add to the trainer's words, with the paths that a pod has.
_CHECKPOINTS: Final = "$HPCPLAN_CHECKPOINT_DIR"
_OPTIONS: Final[Mapping[str, tuple[tuple[str, ...], ...]]] = {
    "megatron-lm": (("--load", _CHECKPOINTS), ("--save", _CHECKPOINTS)),
    "nemo": ((f"checkpoint.load={_CHECKPOINTS}",), (f"checkpoint.save={_CHECKPOINTS}",)),
    "deepspeed": (("--deepspeed",), ("--deepspeed_config", "/launch/deepspeed.json")),
    "torchtitan": (("--job.config_file", "/launch/torchtitan.toml"), ("--job.dump_folder", _CHECKPOINTS)),
}


@dataclass(frozen=True, slots=True)
class Mount:
    """A path of the host that the pod sees."""

    name: str
    source: str
    target: str
    read_only: bool


def render_jobset(
    environment: jinja2.Environment, context: ScriptContext, variables: Mapping[str, Any], files: Mapping[str, str]
) -> str:
    """Return ``jobset.yaml``: a ConfigMap with how the trainer is started, and the JobSet.

    Args:
        environment: of the templates.
        context: of the plan's first segment.
        variables: what its template is given.
        files: rendered launcher configuration, by name.

    Raises:
        InputError: no image that Kubernetes can pull, unequal nodes, or a framework that needs Slurm to start it.
    """
    from hpcplan.render.environment import render_template

    plan = context.plan
    framework = plan.job.framework
    if framework == "mpi":
        raise _refused("job.framework", "MPI is started by Slurm's srun; on Kubernetes it needs an operator of its own")
    if plan.placement.pools:
        raise _refused("placement.pools", "a JobSet of unequal nodes is not written; use Slurm")
    own: dict[str, Any] = {
        "name": _name(plan),
        "image": _image(plan),
        "port": _PORT,
        "gpu_resource": _gpu_resource(plan),
        "mounts": list(_mounts(plan)),
        "launcher": _LAUNCHERS.get(framework, "torchrun"),
        "save_signal": "TERM" if framework in {"megatron-lm", "nemo"} else "USR1",
        "options": _OPTIONS.get(framework, ()),
        "environment": _environment(context),
        "config_files": dict(files),
    }
    script = render_template(environment, "kubernetes/launch.sh.j2", {**variables, **own})
    return render_template(environment, "kubernetes/jobset.yaml.j2", {**variables, **own, "launch_script": script})


def _name(plan: Plan) -> str:
    """Return a DNS label (RFC 1035): small letters, digits and ``-``, a letter first."""
    label = re.sub(r"[^a-z0-9]+", "-", job_name(plan.name).lower()).strip("-")
    return (label if label[:1].isalpha() else f"plan-{label}")[:_MAX_NAME].rstrip("-")


def _gpu_resource(plan: Plan) -> str:
    """Return what the device plugin of the accelerators' vendor calls them; AMD's are known by their type, mi300x."""
    kind = f"{plan.job.gres or ''} {plan.placement.node_group}"
    return "amd.com/gpu" if re.search(r"(?i)\bmi\d{2,3}", kind) else "nvidia.com/gpu"


def _image(plan: Plan) -> str:
    container = plan.job.environment.container
    if container is None:
        raise _refused("job.environment.container", "Kubernetes runs containers; name an image")
    image = container.image.removeprefix("docker://")
    if re.search(r"\.(?:sif|sqsh|img)$", image) or image.startswith(("/", ".")):
        message = f"{image!r} is a file; Kubernetes pulls an image from a registry"
        raise _refused("job.environment.container.image", message)
    return image.replace("#", "/", 1)  # Enroot's REGISTRY#IMAGE


def _mounts(plan: Plan) -> Iterator[Mount]:
    container = plan.job.environment.container
    for index, mount in enumerate(container.mounts if container else ()):
        source, _, rest = mount.partition(":")
        target, _, flags = rest.partition(":")
        yield Mount(f"mount-{index}", source, target or source, "ro" in flags.split(","))


def _environment(context: ScriptContext) -> dict[str, str]:
    plan = context.plan
    whole = plan.segments[0].model_copy(update={"last_step": plan.training.steps})
    checkpoints = plan.job.checkpoint_dir
    state = "/campaign/state"
    step_file = f"{checkpoints}/{context.step_file}" if context.step_file else f"{state}/step"
    values = {
        **training_facts(plan, whole),
        "HPCPLAN_SEGMENTS": "1",
        "HPCPLAN_CAMPAIGN_DIR": "/campaign",
        "HPCPLAN_CHECKPOINT_DIR": checkpoints if checkpoints.startswith("/") else f"/campaign/{checkpoints}",
        "HPCPLAN_STATE_DIR": state,
        "HPCPLAN_STEP_FILE": step_file if step_file.startswith("/") else f"/campaign/{step_file}",
        **launch_of(plan).variables,
        **plan.job.environment.variables,
        **plan.job.variables,
    }
    return {name: value.replace("$", "$$") for name, value in values.items()}  # Kubernetes reads $(NAME), and $$ as $


def _refused(field: str, message: str) -> InputError:
    return InputError(Problem(message, field=field))
