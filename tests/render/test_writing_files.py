"""Writing a campaign: what is unchanged is left alone, what somebody edited is never lost."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import ModuleType

import pytest

from hpcplan.errors import ConflictError, HpcplanError, InputError
from hpcplan.plan import read_plan
from hpcplan.render import read_manifest, render_plan, write_campaign
from hpcplan.render.manifest import file_digest


def snapshot(directory: Path) -> dict[str, str]:
    return {path.name: path.read_text(encoding="utf-8") for path in sorted(directory.iterdir())}


def test_a_directory_has_plan_scripts_and_manifest(plans: ModuleType, tmp_path: Path) -> None:
    write_campaign(render_plan(plans.plan()), tmp_path / "new" / "campaign")
    assert sorted(snapshot(tmp_path / "new" / "campaign")) == [
        "jobs.json", "plan.json", "train-01.sbatch", "train-02.sbatch", "train-03.sbatch",
    ]  # fmt: skip
    assert read_plan(tmp_path / "new" / "campaign" / "plan.json") == plans.plan()


def test_the_manifest_is_a_chain_with_the_digest_of_every_file(plans: ModuleType, tmp_path: Path) -> None:
    write_campaign(render_plan(plans.plan()), tmp_path)
    manifest = read_manifest(tmp_path)
    assert manifest.untouched
    assert [(job.key, job.stage, job.segment, job.after) for job in manifest.jobs] == [
        ("train-01", "train", 1, ()),
        ("train-02", "train", 2, ("train-01",)),
        ("train-03", "train", 3, ("train-02",)),
    ]
    assert (manifest.jobs[0].expected_s, manifest.jobs[0].time_limit_s) == (82801, 86400)
    assert manifest.files == {
        name: file_digest(text) for name, text in snapshot(tmp_path).items() if name != "jobs.json"
    }
    assert manifest.step_file == "/scratch/nlp/llama3-70b/latest_checkpointed_iteration.txt"


def test_rendering_again_touches_nothing(plans: ModuleType, tmp_path: Path) -> None:
    write_campaign(render_plan(plans.plan()), tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    again = write_campaign(render_plan(plans.plan()), tmp_path)
    assert again.written == ()
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


def test_a_new_plan_replaces_what_nobody_edited_and_removes_what_it_no_longer_has(
    plans: ModuleType, tmp_path: Path
) -> None:
    write_campaign(render_plan(plans.plan()), tmp_path)
    shorter = plans.plan(segments=plans.segments(1250, 1250))
    result = write_campaign(render_plan(shorter), tmp_path)
    assert result.removed == ("train-03.sbatch",)
    assert read_plan(tmp_path / "plan.json") == shorter


def test_an_edited_script_is_kept_and_the_diff_shown(plans: ModuleType, tmp_path: Path) -> None:
    write_campaign(render_plan(plans.plan()), tmp_path)
    script = tmp_path / "train-02.sbatch"
    script.write_text(script.read_text() + "echo mine\n")
    before = snapshot(tmp_path)
    with pytest.raises(ConflictError) as caught:
        write_campaign(render_plan(plans.plan(segments=plans.segments(2500))), tmp_path)
    assert "-echo mine" in caught.value.message
    assert "--force" in str(caught.value.hint)
    assert snapshot(tmp_path) == before
    write_campaign(render_plan(plans.plan()), tmp_path, force=True)
    assert "echo mine" not in script.read_text()


def test_a_foreign_file_of_that_name_is_not_overwritten(plans: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text("{}\n")
    with pytest.raises(ConflictError, match=r"plan\.json"):
        write_campaign(render_plan(plans.plan()), tmp_path)
    assert snapshot(tmp_path) == {"plan.json": "{}\n"}


def test_an_edited_manifest_is_noticed(plans: ModuleType, tmp_path: Path) -> None:
    write_campaign(render_plan(plans.plan()), tmp_path)
    manifest = json.loads((tmp_path / "jobs.json").read_text())
    manifest["jobs"][1]["time_limit_s"] = 60
    (tmp_path / "jobs.json").write_text(json.dumps(manifest))
    assert not read_manifest(tmp_path).untouched
    with pytest.raises(ConflictError, match=r"jobs\.json"):
        write_campaign(render_plan(plans.plan()), tmp_path)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ({"after": ["train-09"]}, "no earlier job is called 'train-09'"),
        ({"key": "train-01"}, "is given twice"),
        ({"script": "../../evil.sh"}, "not one of this campaign's files"),
        ({"script": "train-7.sbatch"}, "not one of this campaign's files"),
        ({"afterr": []}, "unknown key; did you mean 'after'"),
    ],
)
def test_a_manifest_that_does_not_hold_together_is_refused(
    edit: dict[str, object], message: str, plans: ModuleType, tmp_path: Path
) -> None:
    write_campaign(render_plan(plans.plan()), tmp_path)
    manifest = json.loads((tmp_path / "jobs.json").read_text())
    manifest["jobs"][1] |= edit
    (tmp_path / "jobs.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=message) as caught:
        read_manifest(tmp_path)
    assert caught.value.problems[0].file == str(tmp_path / "jobs.json")


def test_a_file_where_the_directory_should_be_is_an_error_not_a_traceback(plans: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "campaign").write_text("I am a file")
    with pytest.raises(HpcplanError, match="cannot be written"):
        write_campaign(render_plan(plans.plan()), tmp_path / "campaign")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_directory_is_an_error_not_a_traceback(plans: ModuleType, tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    with pytest.raises(HpcplanError, match="cannot be written"):
        write_campaign(render_plan(plans.plan()), tmp_path)
