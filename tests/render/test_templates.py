"""Templates of one's own: one block or one file overridden, and mistakes reported with file and line."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from hpcplan.errors import InputError
from hpcplan.frameworks import Framework
from hpcplan.render import render_plan
from hpcplan.render.versions import supports, too_new
from tests.render.sites import FRAMEWORK_NAMES, framework_plan, pooled_plan


def template(folder: Path, name: str, text: str) -> Path:
    path = folder / "sbatch" / f"{name}.sbatch.j2"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_one_block_of_one_framework_can_be_overridden(plans: ModuleType, tmp_path: Path) -> None:
    template(
        tmp_path,
        "srun",
        '{% extends "shipped/sbatch/srun.sbatch.j2" %}\n'
        "{% block extra_directives %}\n#SBATCH --mail-type=FAIL\n{% endblock %}\n"
        "{% block modules %}\n{{ super() }}module load site/2026\n{% endblock %}\n",
    )
    script = render_plan(plans.srun_plan(), tmp_path)["train-01.sbatch"]
    shipped = render_plan(plans.srun_plan())["train-01.sbatch"]
    added = set(script.splitlines()) - set(shipped.splitlines())
    assert added == {"#SBATCH --mail-type=FAIL", "module load site/2026"}
    assert script.index("--mail-type") < script.index("set -euo pipefail")


def test_overriding_the_skeleton_reaches_every_framework(plans: ModuleType, tmp_path: Path) -> None:
    template(
        tmp_path,
        "base",
        '{% extends "shipped/sbatch/base.sbatch.j2" %}\n{% block before %}\nsite_prolog\n{% endblock %}\n',
    )
    for plan in (plans.plan(), plans.torchrun_plan(), plans.srun_plan()):
        assert "\nsite_prolog\n" in render_plan(plan, tmp_path)["train-01.sbatch"]
        assert "site_prolog" not in render_plan(plan)["train-01.sbatch"]


def test_super_keeps_what_a_block_had(plans: ModuleType, tmp_path: Path) -> None:
    template(
        tmp_path,
        "megatron-lm",
        '{% extends "shipped/sbatch/megatron-lm.sbatch.j2" %}\n'
        "{% block trainer_options %}\n{{ super() }}    --log-throughput\n{% endblock %}\n",
    )
    script = render_plan(plans.plan(), tmp_path)["train-01.sbatch"]
    assert '    --save "$HPCPLAN_CHECKPOINT_DIR"\n    --log-throughput\n  )' in script


def test_the_users_own_folder_is_used_without_an_option(
    plans: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    template(tmp_path / "hpcplan" / "templates", "srun", "echo mine {{ segment.index }}\n")
    assert render_plan(plans.srun_plan())["train-02.sbatch"] == "echo mine 2\n"


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("ok\n{{ nods }}\n", 2, "'nods' is undefined; did you mean 'nodes'"),
        ("ok\nok\n{{ plan.plan.nods }}\n", 3, "has no attribute 'nods'"),
        ("{% if %}\n", 1, "Expected an expression"),
        ("ok\n{% endfor %}\n", 2, "unknown tag 'endfor'"),
        ("{{ plan.name | shh }}\n", 1, "No filter named 'shh'"),
        ("ok\n{{ plan.job.name }}\n", 2, "written unquoted"),
        ("\n\n{{ plan.job.account | directive }}\n", 3, "cannot stand in an #SBATCH line"),
        ("{{ segment.index / 0 }}\n", 1, "division by zero"),
        ("{{ plan.job }}\n", 1, "is not text or a number"),
        ("{{ plan.__class__ }}\n", 1, "unsafe"),
        ("\n{{ ''.__class__.__mro__ }}\n", 2, "unsafe"),
    ],
)
def test_a_mistake_is_reported_with_template_and_line(
    text: str, line: int, message: str, plans: ModuleType, tmp_path: Path
) -> None:
    path = template(tmp_path, "srun", text)
    plan = plans.srun_plan()
    plan = plan.model_copy(update={"job": plan.job.model_copy(update={"name": "two words", "account": None})})
    if "account" in text:
        plan = plan.model_copy(update={"job": plan.job.model_copy(update={"account": "x"})})
        path.write_text(text.replace("plan.job.account", "'two words'"), encoding="utf-8")
    with pytest.raises(InputError) as caught:
        render_plan(plan, tmp_path)
    problem = caught.value.problems[0]
    assert (problem.file, problem.line) == (str(path), line)
    assert message in problem.message


def test_a_parent_that_does_not_exist_names_the_nearest(plans: ModuleType, tmp_path: Path) -> None:
    template(tmp_path, "srun", '{% extends "sbatch/bse.sbatch.j2" %}\n')
    with pytest.raises(InputError, match=r"no such template; did you mean 'sbatch/base.sbatch.j2'"):
        render_plan(plans.srun_plan(), tmp_path)


def test_a_template_that_cannot_be_read_is_named(
    plans: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = template(tmp_path, "srun", "ok\n")
    real = open

    def refuse(file: object, *arguments: object, **options: object) -> object:
        if str(file) == str(path):
            raise PermissionError(13, "Permission denied", str(file))
        return real(file, *arguments, **options)  # type: ignore[call-overload]

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(InputError, match="cannot be read: Permission denied") as caught:
        render_plan(plans.srun_plan(), tmp_path)
    assert caught.value.problems[0].file == str(path)


def test_a_template_that_is_not_text_is_an_input_error(plans: ModuleType, tmp_path: Path) -> None:
    template(tmp_path, "srun", "").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError):
        render_plan(plans.srun_plan(), tmp_path)


def test_a_folder_that_does_not_exist_is_an_input_error(plans: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such directory"):
        render_plan(plans.srun_plan(), tmp_path / "none")


def test_templates_cannot_reach_files_outside_their_folders(plans: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret", encoding="utf-8")
    template(tmp_path / "t", "srun", '{% include "../../secret" %}\n')
    with pytest.raises(InputError, match="no such template"):
        render_plan(plans.srun_plan(), tmp_path / "t")


def test_an_option_is_rendered_only_where_the_site_knows_it(plans: ModuleType, tmp_path: Path) -> None:
    template(tmp_path, "srun", '{% if supports("segment") %}\n#SBATCH --segment=2\n{% endif %}\nend\n')
    plan = plans.srun_plan()
    for version, known in (("23.11.10", False), ("24.05", True), ("25.11.2", True), (None, False)):
        job = plan.job.model_copy(update={"slurm_version": version})
        script = render_plan(plan.model_copy(update={"job": job}), tmp_path)["train-01.sbatch"]
        assert ("--segment" in script) is known


@pytest.mark.parametrize("version", ["17.11.2", "19.05.3", "20.11.9", None])
@pytest.mark.parametrize("framework", FRAMEWORK_NAMES)
def test_no_script_is_newer_than_its_site(framework: Framework, version: str | None) -> None:
    plan = framework_plan(framework, "superpod")
    plan = plan.model_copy(update={"job": plan.job.model_copy(update={"slurm_version": version})})
    script = render_plan(plan)["train-01.sbatch"]
    assert list(too_new(script, version)) == []
    assert ("#SBATCH --gres=gpu:8\n" in script) is (version == "17.11.2"), "the nearest that it knows"
    assert ("#SBATCH --gpus-per-node=8\n" in script) is (version != "17.11.2")


def test_unequal_pools_are_refused_where_slurm_has_no_such_jobs() -> None:
    plan = pooled_plan("srun")
    old = plan.model_copy(update={"job": plan.job.model_copy(update={"slurm_version": "19.05"})})
    with pytest.raises(InputError, match=r"hetjob came with Slurm 20\.02; the site has 19\.05"):
        render_plan(old)


def test_blocks_of_nodes_become_switches_on_an_older_slurm_or_are_refused(plans: ModuleType) -> None:
    def script(version: str, switches: int | None) -> str:
        plan = plans.srun_plan()
        placement = plan.placement.model_copy(update={"segment": 2, "switches": switches})
        job = plan.job.model_copy(update={"slurm_version": version})
        return render_plan(plan.model_copy(update={"placement": placement, "job": job}))["train-01.sbatch"]

    assert "#SBATCH --segment=2\n" in script("24.05", 1)
    assert "--switches" not in script("24.05", 1)
    assert "#SBATCH --switches=1\n" in script("23.11", 1)
    assert "--segment" not in script("23.11", 1)
    with pytest.raises(InputError, match=r"needs sbatch --segment, of Slurm 24\.05; the site has 23\.11"):
        script("23.11", None)


def test_a_step_of_a_template_is_held_to_the_version_too(plans: ModuleType, tmp_path: Path) -> None:
    template(
        tmp_path,
        "srun",
        '{% extends "shipped/sbatch/srun.sbatch.j2" %}\n{% block before %}\nsrun --stepmgr x\n{% endblock %}\n',
    )
    with pytest.raises(InputError, match=r"--stepmgr came with Slurm 24\.05"):
        render_plan(plans.srun_plan(), tmp_path)


def test_versions_compare_as_releases_not_as_text() -> None:
    assert supports("segment", "24.11.1")
    assert not supports("segment", "23.11.10")
    assert supports("gres", None)
