"""Golden files: what each framework gets on three sites, to the byte.

Refresh with `pytest tests/render --update-golden`.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from hpcplan.frameworks import Framework
from hpcplan.render import render_plan
from tests.render.sites import (
    FRAMEWORK_NAMES,
    HYBRID,
    SITES,
    framework_plan,
    hybrid_plan,
    pooled_plan,
    staged_plan,
)

GOLDEN = Path(__file__).parent / "golden"
CASES = [(framework, site) for framework in FRAMEWORK_NAMES for site in SITES]
NOT_GOLDEN = {"plan.json", "jobs.json", "all_reduce.py", "sample.sh"}


@pytest.fixture(autouse=True)
def _fixed_provenance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hpcplan.render.context.__version__", "1.2.3")
    monkeypatch.setattr("hpcplan.render.context.digest", lambda value: "0" * 64)


def check_golden(files: dict[str, str], folder: Path, request: pytest.FixtureRequest) -> None:
    left_out = {*NOT_GOLDEN, "train-02.sbatch"}
    if folder.parent.name != "srun":
        left_out |= {"check-node.sh", "stage-data.sh"}  # the same for all frameworks
    kept = {name: text for name, text in files.items() if name not in left_out}
    if request.config.getoption("--update-golden"):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for name, text in kept.items():
            (folder / name).write_text(text, encoding="utf-8")
    assert {path.name: path.read_text(encoding="utf-8") for path in sorted(folder.iterdir())} == kept


@pytest.mark.parametrize(("framework", "site"), CASES)
def test_files_are_the_golden_ones(framework: Framework, site: str, request: pytest.FixtureRequest) -> None:
    check_golden(render_plan(framework_plan(framework, site)), GOLDEN / framework / site, request)


@pytest.mark.parametrize("site", SITES)
def test_stages_are_the_golden_ones(site: str, request: pytest.FixtureRequest) -> None:
    files = render_plan(staged_plan(site))
    stages = {name: files[name] for name in ("preprocess.sbatch", "sweep.sbatch", "convert.sbatch")}
    check_golden(stages, GOLDEN / "stages" / site, request)


@pytest.mark.parametrize("framework", HYBRID)
def test_plans_with_groups_of_ranks_are_the_golden_ones(framework: Framework, request: pytest.FixtureRequest) -> None:
    files = render_plan(hybrid_plan(framework))
    shared = {"check-node.sh", "stage-data.sh"}  # as on the site without hybrid sharding
    check_golden(
        {name: text for name, text in files.items() if name not in shared}, GOLDEN / "hybrid" / framework, request
    )


@pytest.mark.parametrize("framework", ["torchrun", "srun"])
def test_jobs_over_unequal_pools_are_the_golden_ones(framework: Framework, request: pytest.FixtureRequest) -> None:
    check_golden(render_plan(pooled_plan(framework)), GOLDEN / "pools" / framework, request)


@pytest.mark.parametrize("framework", ["torchrun", "srun"])
def test_what_is_of_the_whole_job_is_asked_for_in_its_first_part(framework: Framework) -> None:
    """Slurm runs the script in the first component of a heterogeneous job and takes its options from there."""
    first, second = render_plan(pooled_plan(framework))["train-01.sbatch"].split("#SBATCH hetjob")
    for option in ("job-name", "output", "error", "open-mode", "signal", "requeue", "kill-on-invalid-dep"):
        assert f"#SBATCH --{option}" in first
        assert f"#SBATCH --{option}" not in second
    for option in ("partition", "account", "nodes", "ntasks-per-node", "gres", "time", "exclude", "exclusive"):
        assert f"#SBATCH --{option}" in first
        assert f"#SBATCH --{option}" in second


def scripts() -> list[str]:
    return sorted(str(path) for path in GOLDEN.glob("*/*/*") if path.suffix in {".sbatch", ".sh"})


def test_golden_scripts_parse_as_bash() -> None:
    assert len(scripts()) >= len(CASES)
    for script in scripts():
        subprocess.run(["bash", "-n", script], check=True)


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_shellcheck_finds_nothing_in_golden_scripts(repository: Path) -> None:
    checked = [*scripts(), str(repository / "templates" / "node" / "sample.sh")]
    found = subprocess.run(["shellcheck", *checked], capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout) == (0, "")


def test_every_function_that_a_golden_script_calls_is_defined_in_it(repository: Path) -> None:
    """Bash finds out only when it gets there, and shellcheck never does."""
    define = re.compile(r"^ *(\w+)\(\) \{", re.MULTILINE)
    known = {
        name for path in (repository / "templates" / "sbatch").iterdir() for name in define.findall(path.read_text())
    }
    assert {"requeue_without", "run_step", "node_rank"} <= known
    for script in scripts():
        text = Path(script).read_text(encoding="utf-8")
        code = "\n".join(line.partition(" # ")[0] for line in text.splitlines() if not line.lstrip().startswith("#"))
        quoted = re.sub(r"'[^']*'", "", code)
        called = {
            name
            for name in known
            if re.search(rf"(?:^ *|[(;&|!] *|then |do |run_step |\$\(){name}\b", quoted, re.MULTILINE)
        }
        assert called <= set(define.findall(text)), script


@pytest.mark.parametrize("site", SITES)
def test_launcher_configurations_parse(site: str) -> None:
    deepspeed = json.loads(render_plan(framework_plan("deepspeed", site))["deepspeed.json"])
    assert deepspeed["train_batch_size"] == 16 * 8
    titan = tomllib.loads(render_plan(framework_plan("torchtitan", site))["torchtitan.toml"])
    assert titan["parallelism"]["tensor_parallel_degree"] == 8
    accelerate = yaml.safe_load(render_plan(framework_plan("accelerate", site))["accelerate.yaml"])
    assert accelerate["parallelism_config"]["parallelism_config_cp_size"] == 2
    assert json.loads(render_plan(framework_plan("jax", site))["mesh.json"])["shape"] == [1, 4, 1, 8]


@pytest.mark.parametrize("framework", FRAMEWORK_NAMES)
def test_rendering_twice_gives_the_same_bytes(framework: Framework) -> None:
    assert render_plan(framework_plan(framework, "lab")) == render_plan(framework_plan(framework, "lab"))


@pytest.mark.parametrize(("framework", "site"), CASES)
def test_directives_stand_before_the_first_command(framework: Framework, site: str) -> None:
    lines = render_plan(framework_plan(framework, site))["train-01.sbatch"].splitlines()
    first_command = next(i for i, line in enumerate(lines) if line and not line.startswith("#"))
    assert any(line.startswith("#SBATCH") for line in lines[:first_command])
    assert not any(line.startswith("#SBATCH") for line in lines[first_command:])


@pytest.mark.parametrize(("framework", "site"), CASES)
def test_gpus_are_asked_for_in_one_way_and_tasks_started_in_one(framework: Framework, site: str) -> None:
    text = render_plan(framework_plan(framework, site))["train-01.sbatch"]
    assert text.count("#SBATCH --gres=") + text.count("#SBATCH --gpus-per-node=") == (site != "old")
    assert "--gpus-per-task" not in text
    per_gpu = framework in {"jax", "mpi", "srun"}
    assert f"#SBATCH --ntasks-per-node={8 if per_gpu else 1}\n" in text
    assert ("torchrun " in text) == (framework not in {"jax", "mpi", "srun", "tensorflow", "accelerate"})


def test_header_says_what_made_it_and_how_to_make_it_again(plans: ModuleType) -> None:
    header = render_plan(plans.plan())["train-01.sbatch"].split("#SBATCH")[0]
    assert "hpcplan 1.2.3 from the plan with SHA-256 " + "0" * 64 in header
    assert "hpcplan render plan.json -o ." in header
