"""The same plan for Kubernetes: a JobSet that its API takes, and a launcher that tells the trainer the same."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hpcplan.errors import InputError
from hpcplan.frameworks import Framework
from hpcplan.plan import Plan
from hpcplan.render import render_plan
from hpcplan.render.quoting import yaml_block, yaml_value
from hpcplan.site.model import Container, Environment
from tests.render.sites import FRAMEWORK_NAMES, framework_plan

ON_KUBERNETES = [name for name in FRAMEWORK_NAMES if name != "mpi"]
LABEL = re.compile(r"[a-z]([a-z0-9-]*[a-z0-9])?")


def documents(plan: Plan) -> tuple[dict[str, Any], dict[str, Any]]:
    config, jobset = yaml.safe_load_all(render_plan(plan, kubernetes=True)["jobset.yaml"])
    return config, jobset


def allow(value: dict[str, Any], *required: str, optional: str = "") -> None:
    """Check the keys of a mapping against the API's."""
    assert set(required) <= set(value) <= {*required, *optional.split()}


@pytest.mark.parametrize("framework", ON_KUBERNETES)
def test_the_manifest_has_the_shape_of_the_api(framework: Framework) -> None:
    """Names and types of jobset.x-k8s.io/v1alpha2, batch/v1 Job and core/v1 Pod."""
    config, jobset = documents(framework_plan(framework, "superpod"))
    allow(config, "apiVersion", "kind", "metadata", "data")
    assert (config["apiVersion"], config["kind"]) == ("v1", "ConfigMap")
    assert all(isinstance(text, str) and re.fullmatch(r"[\w.-]+", key) for key, text in config["data"].items())
    allow(jobset, "apiVersion", "kind", "metadata", "spec")
    assert (jobset["apiVersion"], jobset["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    allow(jobset["spec"], "network", "failurePolicy", "replicatedJobs")
    assert jobset["spec"]["failurePolicy"] == {"maxRestarts": 3}
    (replicated,) = jobset["spec"]["replicatedJobs"]
    allow(replicated, "name", "replicas", "template")
    job = replicated["template"]["spec"]
    allow(job, "completionMode", "completions", "parallelism", "backoffLimit", "template")
    assert (job["completionMode"], job["completions"], job["parallelism"], job["backoffLimit"]) == ("Indexed", 4, 4, 0)
    pod = job["template"]["spec"]
    allow(pod, "restartPolicy", "containers", "volumes", "terminationGracePeriodSeconds")
    assert (pod["restartPolicy"], pod["terminationGracePeriodSeconds"]) == ("Never", 240)
    check_pod(pod, config["metadata"]["name"])


def check_pod(pod: dict[str, Any], config: str) -> None:
    (container,) = pod["containers"]
    allow(container, "name", "image", "command", "workingDir", "ports", "env", "resources", "volumeMounts")
    assert container["image"] == "nvcr.io/nvidia/pytorch:24.05-py3"
    assert container["resources"] == {"limits": {"nvidia.com/gpu": 8}}
    for variable in container["env"]:
        allow(variable, "name", "value")
        assert isinstance(variable["value"], str)
    volumes = {volume["name"] for volume in pod["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes
    assert {"name": "launch", "configMap": {"name": config}} in pod["volumes"]
    assert {"name": "mount-0", "mountPath": "/data", "readOnly": True} in container["volumeMounts"]


@pytest.mark.parametrize("framework", ON_KUBERNETES)
def test_the_launcher_says_what_the_script_says(framework: Framework) -> None:
    files = render_plan(framework_plan(framework, "superpod"), kubernetes=True)
    config, _ = yaml.safe_load_all(files["jobset.yaml"])
    launch = config["data"]["launch.sh"]
    subprocess.run(["bash", "-n"], input=launch, text=True, check=True)
    decided = re.findall(r"^    (--[\w-]+ \w+|\w+\.[\w.]+=\w+)$", files["train-01.sbatch"], re.MULTILINE)
    for line in decided:
        if not re.match(r"--(nnodes|nproc-per-node|num_machines|num_processes)", line):
            assert f"  {line}\n" in launch
    for name in ("deepspeed.json", "torchtitan.toml", "accelerate.yaml", "mesh.json"):
        assert config["data"].get(name) == files.get(name)


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_shellcheck_finds_nothing_in_launchers(tmp_path: Path) -> None:
    for framework in ON_KUBERNETES:
        config, _ = documents(framework_plan(framework, "superpod"))
        (tmp_path / f"{framework}.sh").write_text(config["data"]["launch.sh"])
    scripts = sorted(map(str, tmp_path.iterdir()))
    found = subprocess.run(["shellcheck", *scripts], capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout) == (0, "")


def in_a_container(plan: Plan, **changes: Any) -> Plan:
    environment = Environment(container=Container(runtime="pyxis", image="registry/torch:2"), variables={})
    return plan.model_copy(
        update={"job": plan.job.model_copy(update={"environment": environment, "setup": (), **changes})}
    )


@pytest.mark.parametrize(
    ("name", "label"),
    [("Llama 3 (70B)", "llama-3-70b"), ("7b_run.v2", "plan-7b-run-v2"), ("日本", "campaign"), ("x" * 500, "x" * 40)],
)
def test_any_name_becomes_one_that_kubernetes_takes(name: str, label: str, plans: ModuleType) -> None:
    config, jobset = documents(in_a_container(plans.srun_plan(name=name)))
    assert config["metadata"]["name"] == jobset["metadata"]["name"] == label
    assert f"MASTER_ADDR={label}-train-0-0.{label} " in config["data"]["launch.sh"]


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=30).map(lambda text: text.replace("\0", "")).filter(lambda text: text.isprintable() or text))
def test_kubernetes_and_bash_leave_hostile_text_alone(plans: ModuleType, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        return
    plan = in_a_container(plans.srun_plan(), command=("trainer", text), variables={"HOSTILE": text})
    config, jobset = documents(plan)
    (container,) = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]["containers"]
    env = {variable["name"]: expanded(variable["value"]) for variable in container["env"]}
    assert env["HOSTILE"] == text
    words = re.search(r"^words=\($.*?^\)$", config["data"]["launch.sh"], re.MULTILINE | re.DOTALL)
    assert words is not None
    script = words[0] + "\nprintf '%s\\0' \"${words[@]}\"\n"
    seen = subprocess.run(["bash"], input=script.encode(), capture_output=True, check=True, env={"LC_ALL": "C.UTF-8"})
    assert seen.stdout.decode().split("\0")[:-1] == ["trainer", text]


def expanded(value: str) -> str:
    """Return a value as Kubernetes gives it to the container: ``$$`` is ``$``, and ``$(NAME)`` a variable."""
    assert not re.search(r"(?<!\$)(\$\$)*\$\(", value)
    return value.replace("$$", "$")


@given(st.text().map(lambda text: "".join(char for char in text if not "\ud800" <= char <= "\udfff" and char != "\0")))
def test_any_text_reads_back_from_yaml(text: str) -> None:
    assert yaml.safe_load(yaml_value(text)) == text
    assert yaml.safe_load("a: " + yaml_block(text, 2) + "\n")["a"] == text


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"framework": "mpi"}, "job.framework"),
        ({"environment": Environment()}, "job.environment.container"),
        (
            {"environment": Environment(container=Container(runtime="apptainer", image="/images/torch.sif"))},
            "job.environment.container.image",
        ),
    ],
)
def test_what_kubernetes_cannot_run_is_refused_by_field(changes: dict[str, Any], field: str, plans: ModuleType) -> None:
    plan = in_a_container(plans.srun_plan(), **changes)
    with pytest.raises(InputError) as caught:
        render_plan(plan, kubernetes=True)
    assert [problem.field for problem in caught.value.problems] == [field]
    render_plan(plan)


def test_amds_accelerators_are_asked_for_by_their_name(plans: ModuleType) -> None:
    _, jobset = documents(in_a_container(plans.srun_plan(), gres="gpu:mi300x:2", gpu_request="gres"))
    (container,) = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["limits"] == {"amd.com/gpu": 2}


TRAINER = """#!/bin/bash
trap 'echo told >>"$STAGE/told"; exit 0' USR1
echo "$RANK $LOCAL_RANK $WORLD_SIZE $MASTER_ADDR $CUDA_VISIBLE_DEVICES" >"$STAGE/up-$RANK"
while true; do sleep 0.02; done
"""


def test_a_pod_starts_its_ranks_and_lets_them_save_when_it_has_to_go(plans: ModuleType, stage: Any) -> None:
    config, jobset = documents(in_a_container(plans.srun_plan(), command=("trainer",)))
    (container,) = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]["containers"]
    env = {variable["name"]: variable["value"] for variable in container["env"]}
    env |= {name: env[name].replace("/campaign", str(stage.directory)) for name in env if env[name].startswith("/")}
    stage.executable(stage.bin / "trainer", TRAINER)
    process = subprocess.Popen(
        ["bash", "-c", config["data"]["launch.sh"]], cwd=stage.directory,
        env={**stage.environment({}), **env, "JOB_COMPLETION_INDEX": "1"},
    )  # fmt: skip
    deadline = time.monotonic() + 30
    while len(list(stage.directory.glob("up-*"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 0
    assert (stage.directory / "up-2").read_text().split()[:3] == ["2", "0", "4"]
    assert (stage.directory / "up-3").read_text().split()[:3] == ["3", "1", "4"]
    assert (stage.directory / "told").read_text() == "told\ntold\n"


def test_a_rank_that_fails_fails_the_pod(plans: ModuleType, stage: Any) -> None:
    config, _ = documents(in_a_container(plans.srun_plan(), command=("bash", "-c", "exit $((RANK == 1 ? 7 : 0))")))
    env = {"HPCPLAN_CHECKPOINT_DIR": str(stage.directory), "HPCPLAN_STATE_DIR": str(stage.directory)}
    done = subprocess.run(
        ["bash", "-c", config["data"]["launch.sh"]], check=False, timeout=30,
        env={**os.environ, **env, "JOB_COMPLETION_INDEX": "0"},
    )  # fmt: skip
    assert done.returncode == 7


def test_rendering_for_kubernetes_is_deterministic_and_adds_one_file() -> None:
    plan = framework_plan("torchtitan", "superpod")
    first, second = render_plan(plan, kubernetes=True), render_plan(plan, kubernetes=True)
    assert first == second
    assert set(first) - set(render_plan(plan)) == {"jobset.yaml"}
    assert "jobset.yaml" in json.loads(first["jobs.json"])["files"]
