"""A Plan becomes files: sbatch scripts and launcher arguments."""

from hpcplan.render.files import Written, write_campaign
from hpcplan.render.manifest import MANIFEST_NAME, PLAN_NAME, Manifest, ManifestJob, read_manifest
from hpcplan.render.scripts import render_plan

__all__ = [
    "MANIFEST_NAME",
    "PLAN_NAME",
    "Manifest",
    "ManifestJob",
    "Written",
    "read_manifest",
    "render_plan",
    "write_campaign",
]
