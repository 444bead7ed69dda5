"""Campaigns of tiny jobs, each of which leaves a line behind when it runs: for tests that count how often it did."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from hpcplan.render.environment import render_template, template_environment
from hpcplan.render.manifest import MANIFEST_NAME, Manifest, ManifestJob, file_digest

__all__ = ["ran", "ran_as", "write_tiny_campaign"]


def write_tiny_campaign(
    directory: Path, jobs: int, *, name: str = "tiny", partition: str = "batch", chained: bool = True,
    seconds: float = 0, exit_code: int = 0,
) -> Path:  # fmt: skip
    """Write a campaign of ``jobs`` jobs; chained ones wait for the one before, the others for nobody."""
    for folder in (directory, directory / "ran", directory / "state"):
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o777)
    made, files = [], {}
    for number in range(1, jobs + 1):
        key = f"train-{number:04d}"
        script = "\n".join([
            "#!/bin/bash", f"#SBATCH --job-name={name}-{key}", f"#SBATCH --partition={partition}", "#SBATCH --nodes=1",
            "#SBATCH --time=5", "#SBATCH --output=%x-%j.out", "#SBATCH --requeue",
            f"# hpcplan: expected-runtime-s={max(1, round(seconds))}", _own_word().replace("the-key", key),
            f"echo $SLURM_JOB_ID ${{SLURM_RESTART_COUNT:-0}} >> ran/{key}", f"sleep {seconds}", f"exit {exit_code}",
        ])  # fmt: skip
        files[f"{key}.sbatch"] = script + "\n"
        made.append(
            ManifestJob(
                key=key, stage="train", segment=number, script=f"{key}.sbatch", job_name=f"{name}-{key}",
                after=(made[-1].key,) if made and chained else (), expected_s=max(1.0, seconds), time_limit_s=300,
                nodes=1,
            )
        )  # fmt: skip
    manifest = Manifest(
        campaign=name, hpcplan="test", plan_sha256="0" * 64, total_steps=jobs, step_file="state/step",
        jobs=tuple(made), files={key: file_digest(text) for key, text in files.items()},
    )  # fmt: skip
    for file, text in files.items():
        (directory / file).write_text(text)
    (directory / MANIFEST_NAME).write_text(manifest.text())
    return directory


@cache
def _own_word() -> str:
    """Return what every rendered script has, by which a job leaves word of its begin and its end."""
    text = render_template(template_environment(), "launch/own-word.sh.j2", {"key": "the-key", "stage_spec": None})
    return "\n".join(["set -euo pipefail", "HPCPLAN_STATE_DIR=$PWD/state", 'say() { echo "hpcplan: $*"; }', text])


def ran(directory: Path) -> dict[str, int]:
    """Return how often each job has begun to run."""
    return {key: len(ids) for key, ids in ran_as(directory).items()}


def ran_as(directory: Path) -> dict[str, list[str]]:
    """Return under which ids each job has begun to run, once a start; Slurm itself may start one id again."""
    return {
        path.name: [line.split()[0] for line in path.read_text().splitlines()]
        for path in sorted((directory / "ran").iterdir())
    }
