"""``hpcplan template`` as people type it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from hpcplan.cli import COMMANDS, main
from hpcplan.cli.template import command

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main(["template", *arguments])
        captured = capsys.readouterr()
        assert isinstance(left.value.code, int)
        assert "Traceback" not in captured.err
        return left.value.code, captured.out, captured.err

    return run


@pytest.fixture
def plan_file(plans: ModuleType, tmp_path: Path) -> Path:
    path = tmp_path / "plan.json"
    path.write_text(plans.srun_plan().text(), encoding="utf-8")
    return path


def test_its_help_begins_as_the_table_of_commands_says(run: Run) -> None:
    assert (command.help or "").splitlines()[0] == COMMANDS["template"][1]
    for words in ((), ("list",), ("show",), ("new",), ("check",)):
        assert "Example" in run(*words, "--help")[1]


def test_list_names_templates_whose_they_are_and_their_blocks(run: Run) -> None:
    code, out, _ = run("list")
    assert code == 0
    assert "sbatch/torchrun.sbatch.j2" in out
    found = json.loads(run("list", "--format", "json")[1])
    (base,) = [template for template in found if template["name"] == "sbatch/base.sbatch.j2"]
    assert base["origin"] == "shipped"
    assert {"directives", "extra_directives", "health", "finish"} <= set(base["blocks"])


def test_show_prints_the_text_and_nothing_else(run: Run, repository: Path) -> None:
    code, out, err = run("show", "srun")
    assert (code, out) == (0, (repository / "templates" / "sbatch" / "srun.sbatch.j2").read_text())
    assert "(shipped)" in err
    assert json.loads(run("show", "srun", "--format", "json")[1])["text"] == out


def test_show_variables_says_what_templates_may_use(run: Run) -> None:
    _, out, _ = run("show", "--variables")
    assert "plan_sha256" in out
    known = json.loads(run("show", "--variables", "--format", "json")[1])
    assert known["switches"] == {"kind": "int | None", "meaning": "value of --switches"}


def test_show_without_a_name_is_wrong_usage(run: Run) -> None:
    code, _, err = run("show")
    assert code == 2
    assert "name a template" in err


def test_a_name_that_is_none_is_bad_input(run: Run) -> None:
    code, _, err = run("show", "megatron")
    assert code == 2
    assert "did you mean 'megatron-lm'" in err


def test_from_new_to_check_to_a_script(run: Run, plan_file: Path, tmp_path: Path) -> None:
    code, out, err = run("new", "srun", "--block", "before")
    path = tmp_path / "config" / "hpcplan" / "templates" / "sbatch" / "srun.sbatch.j2"
    assert (code, out) == (0, f"wrote {path}\n")
    assert "hpcplan template check" in err
    path.write_text(path.read_text().replace("{{ super() }}", "site_prolog"))
    code, out, _ = run("check", "--plan", str(plan_file))
    assert code == 0
    assert "1 template of your own, nothing wrong: sbatch/srun.sbatch.j2" in out
    assert "read by bash -n: train-01.sbatch, train-02.sbatch" in out
    code, _, err = run("new", "srun", "--block", "before")
    assert code == 1
    assert "is there already" in err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\n{{ nodes | shh }}\n", "srun.sbatch.j2:2: No filter named 'shh'"),
        ("{{ nods }}\n", "srun.sbatch.j2:1: 'nods' is undefined; did you mean 'nodes'"),
    ],
)
def test_check_reports_file_and_line(text: str, message: str, run: Run, tmp_path: Path) -> None:
    (tmp_path / "mine" / "sbatch").mkdir(parents=True)
    (tmp_path / "mine" / "sbatch" / "srun.sbatch.j2").write_text(text)
    code, out, err = run("check", "--templates", "mine")
    assert (code, out) == (2, "")
    assert message in err


def test_check_with_a_plan_finds_what_only_rendering_shows(run: Run, plan_file: Path, tmp_path: Path) -> None:
    (tmp_path / "mine" / "sbatch").mkdir(parents=True)
    path = tmp_path / "mine" / "sbatch" / "srun.sbatch.j2"
    path.write_text("ok\n{% for component in components %}\n{{ component.nods }}\n{% endfor %}\n")
    assert run("check", "--templates", "mine")[0] == 0
    code, _, err = run("check", "--templates", "mine", "--plan", str(plan_file))
    assert code == 2
    assert "srun.sbatch.j2:3: " in err
    assert "Component object' has no attribute 'nods'; did you mean 'nodes'" in err
    assert "in scope: component=<Component>, plan=<Plan>" in err
    assert "script_name='train-01.sbatch'" in err
    path.write_text("if true; then\n")
    code, _, err = run("check", "--templates", "mine", "--plan", str(plan_file))
    assert code == 2
    assert "train-01.sbatch: is no bash" in err


def test_a_folder_that_does_not_exist_is_bad_input(run: Run) -> None:
    code, _, err = run("check", "--templates", "none")
    assert code == 2
    assert "none: no such directory" in err
