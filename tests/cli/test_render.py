"""``hpcplan render`` as people type it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from hpcplan.campaign import submit
from hpcplan.cli import COMMANDS, main
from hpcplan.cli.render import command
from hpcplan.plan import read_plan

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main(["render", *arguments])
        captured = capsys.readouterr()
        assert isinstance(left.value.code, int)
        assert "Traceback" not in captured.err
        return left.value.code, captured.out, captured.err

    return run


@pytest.fixture
def plan_file(plans: ModuleType, tmp_path: Path) -> Path:
    path = tmp_path / "plan.json"
    path.write_text(plans.plan().text(), encoding="utf-8")
    return path


def test_its_help_begins_as_the_table_of_commands_says(run: Run) -> None:
    assert (command.help or "").splitlines()[0] == COMMANDS["render"][1]
    assert "Example" in run("--help")[1]


def test_a_plan_becomes_a_directory(run: Run, plan_file: Path, plans: ModuleType, tmp_path: Path) -> None:
    code, out, err = run(str(plan_file), "-o", "campaign")
    assert code == 0
    assert "train-03.sbatch" in out
    assert "next: hpcplan submit campaign" in err
    assert read_plan(tmp_path / "campaign" / "plan.json") == plans.plan()


def test_json_is_one_document_on_stdout(run: Run, plan_file: Path, tmp_path: Path) -> None:
    code, out, _ = run(str(plan_file), "-o", "campaign", "--format", "json")
    assert code == 0
    assert json.loads(out) == {
        "directory": str(tmp_path / "campaign"),
        "written": ["plan.json", "train-01.sbatch", "train-02.sbatch", "train-03.sbatch", "jobs.json"],
        "unchanged": [],
        "removed": [],
    }


def test_edits_are_shown_and_kept_unless_forced(run: Run, plan_file: Path, tmp_path: Path) -> None:
    run(str(plan_file), "-o", "campaign")
    script = tmp_path / "campaign" / "train-01.sbatch"
    script.write_text(script.read_text() + "echo mine\n")
    code, _, err = run(str(plan_file), "-o", "campaign")
    assert code == 1
    assert "-echo mine" in err
    assert "--force" in err
    assert run(str(plan_file), "-o", "campaign", "--force")[0] == 0
    assert "echo mine" not in script.read_text()


def test_a_submitted_campaign_is_not_rendered_over(
    run: Run, plan_file: Path, plans: ModuleType, fakes: ModuleType, tmp_path: Path
) -> None:
    run(str(plan_file), "-o", "campaign")
    submit(tmp_path / "campaign", fakes.FakeSlurm())
    assert run(str(plan_file), "-o", "campaign")[0] == 0, "nothing would change"
    plan_file.write_text(plans.plan(segments=plans.segments(2500)).text(), encoding="utf-8")
    code, _, err = run(str(plan_file), "-o", "campaign", "--force")
    assert code == 1
    assert "was submitted" in err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        ("{", "not valid YAML"),
        ("[]", "must be a mapping of keys, not a list"),
        ('{"nam": "x"}', "nam: unknown key; did you mean 'name'?"),
    ],
)
def test_what_is_no_plan_is_bad_input_and_writes_nothing(
    text: str, message: str, run: Run, plan_file: Path, tmp_path: Path
) -> None:
    plan_file.write_text(text)
    code, out, err = run(str(plan_file), "-o", "campaign")
    assert (code, out) == (2, "")
    assert message in err
    assert not (tmp_path / "campaign").exists()


def test_a_plan_that_is_not_there_is_bad_input(run: Run) -> None:
    code, _, err = run("none.json", "-o", "campaign")
    assert code == 2
    assert "none.json: no such file" in err


def test_a_template_of_ones_own_is_used_and_its_mistakes_located(run: Run, plan_file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "templates" / "sbatch"
    folder.mkdir(parents=True)
    (folder / "megatron-lm.sbatch.j2").write_text("ok\n{{ segmnt.index }}\n")
    code, _, err = run(str(plan_file), "-o", "campaign", "--templates", "templates")
    assert code == 2
    assert "megatron-lm.sbatch.j2:2: 'segmnt' is undefined; did you mean 'segment'" in err
    (folder / "megatron-lm.sbatch.j2").write_text("job {{ segment.index }}\n")
    assert run(str(plan_file), "-o", "campaign", "--templates", "templates")[0] == 0
    assert (tmp_path / "campaign" / "train-02.sbatch").read_text() == "job 2\n"


def test_what_the_trainer_will_miss_is_said(run: Run, plan_file: Path, plans: ModuleType) -> None:
    plan_file.write_text(plans.plan(job=plans.job(command=("pretrain_gpt.py",))).text(), encoding="utf-8")
    code, _, err = run(str(plan_file), "-o", "campaign")
    assert code == 0
    assert "Megatron-LM will ask for --lr (a learning rate), --tokenizer-type (a tokenizer)" in err


def test_the_graph_is_text_or_a_picture_and_needs_no_directory(run: Run, plan_file: Path, tmp_path: Path) -> None:
    code, out, _ = run(str(plan_file), "--graph", "-")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == ["train-01", "train-02", "train-03"]
    assert out.splitlines()[1].endswith("afterany train-01")
    code, out, err = run(str(plan_file), "--graph", "jobs.svg")
    assert (code, out) == (0, "")
    assert "wrote jobs.svg" in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["jobs.svg", "plan.json"]


def test_a_graph_of_another_kind_is_bad_input(run: Run, plan_file: Path) -> None:
    code, _, err = run(str(plan_file), "--graph", "jobs.bmp")
    assert code == 2
    assert "must end in .svg, .pdf, .png" in err


def test_neither_directory_nor_graph_is_wrong_usage(run: Run, plan_file: Path) -> None:
    code, _, err = run(str(plan_file))
    assert code == 2
    assert "-o DIR" in err


def test_kubernetes_gets_a_manifest_beside_the_scripts(
    run: Run, plan_file: Path, plans: ModuleType, tmp_path: Path
) -> None:
    plan_file.write_text(plans.torchrun_plan().text(), encoding="utf-8")
    code, out, _ = run(str(plan_file), "-o", "campaign", "--target", "kubernetes")
    assert code == 0
    assert "jobset.yaml" in out
    assert "kind: JobSet" in (tmp_path / "campaign" / "jobset.yaml").read_text()
    assert (tmp_path / "campaign" / "train-01.sbatch").exists()


def test_what_kubernetes_cannot_run_is_said_of_the_plans_file_and_field(run: Run, plan_file: Path) -> None:
    code, _, err = run(str(plan_file), "-o", "campaign", "--target", "kubernetes")
    assert code == 2
    assert "plan.json: job.environment.container: Kubernetes runs containers; name an image" in err


def test_rendering_another_plan_over_the_first_shows_what_changes(
    run: Run, plan_file: Path, plans: ModuleType, tmp_path: Path
) -> None:
    run(str(plan_file), "-o", "campaign")
    plan_file.write_text(plans.plan(segments=plans.segments(950, 950, 600, time_limit_s=7200)).text(), encoding="utf-8")
    code, out, err = run(str(plan_file), "-o", "campaign", "--format", "json")
    assert code == 0
    assert "-#SBATCH --time=1-00:00:00" in err
    assert "+#SBATCH --time=02:00:00" in err
    assert "jobs.json" not in err
    assert json.loads(out)["unchanged"] == []
    assert run(str(plan_file), "-o", "campaign")[2] == "next: hpcplan submit campaign\n", "nothing changes, no diff"
