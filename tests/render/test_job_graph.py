"""The picture of what waits for what."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from hpcplan.errors import InputError
from hpcplan.plan import Plan, Stage
from hpcplan.render import render_plan
from hpcplan.render.graph import draw_jobs, job_graph, jobs_as_text


def stage(name: str, **fields: object) -> Stage:
    return Stage(name=name, command=("x",), partition="cpu", time_limit_s=600, **fields)


@pytest.fixture
def plan(plans: ModuleType) -> Plan:
    stages = (stage("prepare"), stage("evaluate", after=("train",)), stage("clean", after_any=("evaluate",)))
    made: Plan = plans.srun_plan(stages=stages, after=("prepare",))
    return made


def test_edges_are_what_jobs_wait_for(plan: Plan) -> None:
    graph = job_graph(render_plan(plan))
    assert {(a, b, data["kind"]) for a, b, data in graph.edges(data=True)} == {
        ("prepare", "train-01", "afterok"),
        ("prepare", "train-02", "afterok"),
        ("train-01", "train-02", "afterany"),
        ("train-02", "evaluate", "afterok"),
        ("evaluate", "clean", "afterany"),
    }
    assert [graph.nodes[name]["layer"] for name in ("prepare", "train-01", "train-02", "clean")] == [0, 1, 2, 4]


def test_text_has_a_line_a_job(plan: Plan) -> None:
    lines = jobs_as_text(render_plan(plan)).splitlines()
    assert [words.strip() for words in lines[0].split("  ")] == ["prepare", "1 node, at most 10 min", "starts at once"]
    assert lines[2].endswith("2 nodes, at most 1 h 00 min  afterany train-01, afterok prepare")


@pytest.mark.parametrize(("suffix", "magic"), [(".svg", b"<?xml"), (".png", b"\x89PNG"), (".pdf", b"%PDF")])
def test_a_picture_is_drawn_and_is_the_same_each_time(suffix: str, magic: bytes, plan: Plan, tmp_path: Path) -> None:
    files = render_plan(plan)
    first, second = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    draw_jobs("a $title$ {x} \n" + "y" * 200, files, first)
    draw_jobs("a $title$ {x} \n" + "y" * 200, files, second)
    assert first.read_bytes().startswith(magic)
    assert first.read_bytes() == second.read_bytes()


def test_a_picture_names_every_job(plan: Plan, tmp_path: Path) -> None:
    draw_jobs(plan.name, render_plan(plan), tmp_path / "jobs.svg")
    text = (tmp_path / "jobs.svg").read_text(encoding="utf-8")
    for word in ("prepare", "train-01", "train-02", "evaluate", "clean", "afterok", "afterany"):
        assert f">{word}<" in text or word in text


def test_the_middle_of_a_long_chain_is_one_box(plans: ModuleType, tmp_path: Path) -> None:
    chain = plans.srun_plan(
        segments=plans.segments(*[2] * 15), training=plans.training(model="bert-large", global_batch=32, steps=30)
    )
    draw_jobs("long", render_plan(chain), tmp_path / "jobs.svg")
    text = (tmp_path / "jobs.svg").read_text(encoding="utf-8")
    assert "and 9 more" in text
    assert "train-03" in text
    assert "train-09" not in text
    assert "train-15" in text


def test_another_kind_of_picture_is_bad_input(plan: Plan, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"must end in \.svg"):
        draw_jobs("x", render_plan(plan), tmp_path / "jobs.bmp")
