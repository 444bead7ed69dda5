"""The catalogue of templates: what there is, what may be used, a start for one's own, and what is wrong with it."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from types import ModuleType

import pytest

from hpcplan.errors import ConflictError, InputError
from hpcplan.frameworks import FRAMEWORKS
from hpcplan.render import render_plan
from hpcplan.render.catalogue import (
    blocks_of,
    check_templates,
    find_template,
    list_templates,
    new_template,
    variables,
)
from hpcplan.render.context import Component, ScriptContext
from hpcplan.render.environment import FILTERS


def own(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_every_framework_has_a_template_and_every_template_says_what_it_is() -> None:
    found = {template.name: template for template in list_templates()}
    assert {f"sbatch/{name}.sbatch.j2" for name in FRAMEWORKS} <= set(found)
    for template in found.values():
        assert template.origin == "shipped"
        assert re.fullmatch(r"[A-Z`a-z].{10,}", template.summary), template.name
        assert "{{" not in template.summary


def test_a_file_of_ones_own_hides_the_shipped_one(tmp_path: Path) -> None:
    path = own(tmp_path, "sbatch/srun.sbatch.j2", "{# Mine. For all. #}\n{% block extra %}x{% endblock %}\n")
    found = find_template("srun", tmp_path)
    assert (found.path, found.origin, found.summary, found.blocks) == (path, "option", "Mine.", ("extra",))
    assert find_template("torchrun", tmp_path).origin == "shipped"


def test_a_name_may_be_short_and_a_wrong_one_names_the_nearest() -> None:
    assert find_template("torchrun") == find_template("sbatch/torchrun.sbatch.j2")
    assert find_template("node/check-node.sh") == find_template("node/check-node.sh.j2")
    with pytest.raises(InputError, match="no template is called 'torchrum'; did you mean 'torchrun'"):
        find_template("torchrum")


def test_every_variable_of_a_script_is_documented() -> None:
    known = variables()
    for field in dataclasses.fields(ScriptContext):
        kind, meaning = known[field.name]
        assert kind
        assert len(meaning) > 5, f"{field.name} has no text below it in hpcplan/render/context.py"
    assert {f"components[i].{field.name}" for field in dataclasses.fields(Component)} <= set(known)
    assert {f"| {name}" for name in FILTERS} <= set(known)
    assert all(meaning for _, meaning in known.values())
    assert known["switches"] == ("int | None", "value of --switches")


def test_a_new_template_changes_nothing_until_it_is_edited(plans: ModuleType, tmp_path: Path) -> None:
    for name in FRAMEWORKS:
        new_template(find_template(name), None, tmp_path)
    new_template(find_template("node/check-node.sh"), "more", tmp_path)
    assert check_templates(tmp_path) == []
    for plan in (plans.plan(), plans.torchrun_plan(), plans.srun_plan()):
        mine, shipped = render_plan(plan, tmp_path), render_plan(plan)
        assert {name: _dense(text) for name, text in mine.items() if name != "jobs.json"} == {
            name: _dense(text) for name, text in shipped.items() if name != "jobs.json"
        }


def _dense(text: str) -> list[str]:
    """Return the lines that say something: super() may leave an empty one."""
    return [line for line in text.splitlines() if line.strip()]


def test_a_new_template_overrides_the_block_that_is_asked_for(plans: ModuleType, tmp_path: Path) -> None:
    path = new_template(find_template("srun"), "before", tmp_path)
    path.write_text(path.read_text().replace("{{ super() }}", "site_prolog"))
    assert "\nsite_prolog\n" in render_plan(plans.srun_plan(), tmp_path)["train-01.sbatch"]


def test_what_has_no_blocks_is_copied_whole(tmp_path: Path) -> None:
    for name in ("node/sample.sh", "launchers/deepspeed.json"):
        template = find_template(name)
        assert new_template(template, None, tmp_path).read_text() == template.path.read_text()


def test_a_new_template_does_not_overwrite_and_names_blocks_that_exist(tmp_path: Path) -> None:
    new_template(find_template("srun"), None, tmp_path)
    with pytest.raises(ConflictError, match="is there already"):
        new_template(find_template("srun"), None, tmp_path)
    with pytest.raises(InputError, match="has no block 'befor'; did you mean 'before'"):
        new_template(find_template("jax"), "befor", tmp_path)
    with pytest.raises(InputError, match=r"has no block 'x'"):
        new_template(find_template("node/sample.sh"), "x", tmp_path)
    own(tmp_path, "sbatch/mine.sbatch.j2", "x\n")
    with pytest.raises(InputError, match="yours"):
        new_template(find_template("mine", tmp_path), None, tmp_path / "other")


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("ok\n{% if x %}\n", 2, "Unexpected end of template"),
        ("\n{{ nodes | shh }}\n", 2, "No filter named 'shh'"),
        ("a\nb\n{{ segmnt.index }}\n", 3, "'segmnt' is undefined; did you mean 'segment'"),
        (
            '{% extends "shipped/sbatch/srun.sbatch.j2" %}\n\n{% block befor %}\n{% endblock %}\n', 3,
            "overrides no block: sbatch/srun.sbatch.j2 has none called 'befor'; did you mean 'before'",
        ),
    ],
)  # fmt: skip
def test_mistakes_are_found_without_a_plan(text: str, line: int, message: str, tmp_path: Path) -> None:
    path = own(tmp_path, "sbatch/srun.sbatch.j2", text)
    (problem,) = check_templates(tmp_path)
    assert (problem.file, problem.line) == (str(path), line)
    assert message in problem.message


def test_the_shipped_templates_themselves_would_pass(tmp_path: Path, repository: Path) -> None:
    import shutil

    shutil.copytree(repository / "templates", tmp_path / "copy")
    assert check_templates(tmp_path / "copy") == []


def test_blocks_are_named_once_in_their_order() -> None:
    assert blocks_of("{% block b %}{%- block a %}{% endblock %}{% endblock %}{% block b %}") == ("b", "a")
