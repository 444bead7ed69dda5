"""``jobs.json``: which jobs a campaign has, what each waits for, and the digest of every file that was rendered."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, Literal

from pydantic import Field

from hpcplan import __version__
from hpcplan.documents import Loc
from hpcplan.errors import nearest
from hpcplan.plan import Plan, Stage
from hpcplan.quantities import NonNegative, PositiveInt
from hpcplan.render.context import ScriptContext
from hpcplan.render.stages import TRAIN, stages_in_order
from hpcplan.validation import Value, digest, read_model

__all__ = ["MANIFEST_NAME", "PLAN_NAME", "Manifest", "ManifestJob", "build_manifest", "file_digest", "read_manifest"]

MANIFEST_NAME: Final = "jobs.json"
PLAN_NAME: Final = "plan.json"


class ManifestJob(Value):
    """One job: its script, and the jobs that it waits for, by key: until they have ended, or have succeeded."""

    key: str = Field(pattern=r"^[a-z][a-z0-9_-]*$", description="unique in the campaign: train-01")
    stage: str
    segment: PositiveInt
    script: str
    job_name: str
    after: tuple[str, ...] = Field((), description="whose end it waits for (afterany)")
    after_ok: tuple[str, ...] = Field((), description="whose success it waits for (afterok)")
    expected_s: NonNegative
    time_limit_s: PositiveInt
    nodes: PositiveInt


class Manifest(Value):
    """The jobs of a campaign, in the order in which they are submitted."""

    schema_version: Literal[1] = 1
    campaign: str
    hpcplan: str
    plan_sha256: str
    total_steps: PositiveInt
    step_file: str = Field(description="where the trainer leaves the number of the last step saved")
    jobs: tuple[ManifestJob, ...] = Field(min_length=1)
    files: dict[str, str] = Field(description="SHA-256 of every rendered file but this one")
    sha256: str = Field("", description="of all the rest, by which an edit is noticed")

    def inconsistencies(self) -> Iterator[tuple[Loc, str]]:
        """Yield keys given twice, and jobs that wait for one that does not come before them."""
        known: set[str] = set()
        for index, job in enumerate(self.jobs):
            if job.key in known:
                yield ("jobs", index, "key"), f"{job.key!r} is given twice"
            if "/" in job.script or job.script not in self.files:
                yield ("jobs", index, "script"), f"{job.script!r} is not one of this campaign's files"
            for field, keys in (("after", job.after), ("after_ok", job.after_ok)):
                for key in keys:
                    if key not in known:
                        yield ("jobs", index, field), f"no earlier job is called {key!r}" + nearest(key, known)
            known.add(job.key)

    def text(self) -> str:
        """Return the bytes of ``jobs.json``."""
        plain = self.model_dump(mode="json")
        return json.dumps({**plain, "sha256": self._content_digest()}, indent=2, ensure_ascii=False) + "\n"

    def _content_digest(self) -> str:
        return digest({**self.model_dump(mode="json"), "sha256": ""})

    @property
    def untouched(self) -> bool:
        """Whether it reads as it was written."""
        return self.sha256 == self._content_digest()


def file_digest(text: str) -> str:
    """Return the SHA-256 (hex) of a file's text."""
    return hashlib.sha256(text.encode()).hexdigest()


def build_manifest(plan: Plan, contexts: Sequence[ScriptContext], files: Mapping[str, str]) -> Manifest:
    """Return the manifest of a plan's scripts: each segment waits for the one before to end, stages as they say."""
    keys: dict[str, list[str]] = {}
    for context in contexts:
        keys.setdefault(context.stage, []).append(context.key)
    order = stages_in_order(plan)
    contexts = sorted(contexts, key=lambda context: order.index(context.stage))
    step_file = next(context.step_file for context in contexts if context.stage == TRAIN)
    return Manifest(
        campaign=plan.name,
        hpcplan=__version__,
        plan_sha256=contexts[0].plan_sha256,
        total_steps=plan.training.steps,
        step_file=f"{plan.job.checkpoint_dir}/{step_file}" if step_file else "state/step",
        jobs=tuple(_job(plan, context, keys) for context in contexts),
        files={name: file_digest(text) for name, text in sorted(files.items())},
    )


def _job(plan: Plan, context: ScriptContext, keys: Mapping[str, Sequence[str]]) -> ManifestJob:
    """Return one job. Whoever waits for training waits for its last segment; every segment waits for what it needs."""
    spec: Plan | Stage = plan if context.stage_spec is None else context.stage_spec
    before = keys[context.stage][: keys[context.stage].index(context.key)]
    return ManifestJob(
        key=context.key,
        stage=context.stage,
        segment=context.segment.index if context.segment else 1,
        script=context.script_name,
        job_name=context.job_name,
        after=(*(keys[name][-1] for name in spec.after_any), *before[-1:]),
        after_ok=tuple(keys[name][-1] for name in spec.after),
        expected_s=context.expected_runtime_s,
        time_limit_s=context.time_limit_s,
        nodes=sum(component.nodes for component in context.components),
    )


def read_manifest(directory: Path) -> Manifest:
    """Return the manifest of a rendered campaign.

    Raises:
        InputError: there is none, or it is not one; with file, line and field.
    """
    return read_model(directory / MANIFEST_NAME, Manifest)
