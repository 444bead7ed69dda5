"""``hpcplan site``: listing, showing, checking, drawing, and the schema."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.campaigns import Run


def test_list_names_every_site_and_a_broken_file_hides_none(run: Run, tmp_path: Path) -> None:
    (tmp_path / "broken.yaml").write_text("name: [\n")
    entries = json.loads(run("site", "list", "--sites", str(tmp_path), "--format", "json")[1])
    names = {entry["name"]: entry["error"] for entry in entries}
    assert {"selene", "dgx-h100", "gb200-nvl72", "broken"} <= names.keys()
    assert [name for name, error in names.items() if error] == ["broken"]


def test_show_says_where_the_bandwidth_is(run: Run) -> None:
    text = run("site", "show", "grand-teton-h100-700w")[1]
    assert "each node gets" in text
    assert "bisection bandwidth" in text
    found = json.loads(run("site", "show", "grand-teton-h100-700w", "--format", "json")[1])["topology"]
    assert found["bisection_bytes_per_s"] > 0
    assert found["levels"][-1]["oversubscription"] is None
    assert max(level["oversubscription"] or 0 for level in found["levels"]) == pytest.approx(7, rel=0.01)


def test_check_names_every_mistake_with_its_line(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(
        "name: s\nnode_groups:\n  g: {nodes: n1, cpus: 4, memory: 8, nics: {bandwidth: 10 Gb/s}}\n"
        "partitions:\n  p: {nodes: h}\nfabric:\n  switches: [{name: a, nodes: n1}]\n"
    )
    code, _, err = run("site", "check", str(path))
    assert code == 2
    assert f"{path}:3: node_groups.g.memory" in err
    path.write_text(path.read_text().replace("memory: 8", "memory: 8 GiB").replace("nodes: h", "nodes: g"))
    code, out, err = run("site", "check", str(path), "--format", "json")
    assert code == 0, err
    assert json.loads(out)["nodes"] == 1


@pytest.mark.parametrize("form", ["svg", "png", "graphml", "json", "dot"])
def test_graph_writes_the_format_of_the_suffix(run: Run, tmp_path: Path, form: str) -> None:
    output = tmp_path / f"site.{form}"
    code, out, err = run("site", "graph", "mixed-lab", "-o", str(output))
    assert (code, out) == (0, "")
    assert output.stat().st_size > 500
    assert str(output) in err


def test_graph_refuses_what_it_cannot_write(run: Run, tmp_path: Path) -> None:
    assert run("site", "graph", "mixed-lab", "-o", str(tmp_path / "site.xyz"))[0] == 2
    assert run("site", "graph", "no-such-site", "-o", str(tmp_path / "site.svg"))[0] == 2
    assert run("site", "graph", "mixed-lab", "--inside", "-o", str(tmp_path / "site.svg"))[0] == 2


def test_schema_is_one_json_document(run: Run, tmp_path: Path) -> None:
    printed = json.loads(run("site", "schema")[1])
    assert "node_groups" in printed["properties"]
    run("site", "schema", "-o", str(tmp_path / "schema.json"))
    assert json.loads((tmp_path / "schema.json").read_text()) == printed


def test_ask_answers_in_json(run: Run) -> None:
    words = ("--between", "dgx001", "dgx033", "--best", "4", "--busy", "dgx[001-030]", "--without", "spine1",
             "--bisection", "dgx[001-064]", "--job", "dgx[001,033]", "--job", "dgx002")  # fmt: skip
    answers = json.loads(run("site", "ask", "superpod-h100", *words, "--format", "json")[1])
    assert answers["between"]["path"][0::4] == ["dgx001", "dgx033"]
    assert answers["between"]["bandwidth_bytes_per_s"] == pytest.approx(8 * 50e9)
    assert answers["best"]["nodes"] == ["dgx033", "dgx034", "dgx035", "dgx036"]
    assert len(answers["without"]["lost"]) == 128 - 32
    assert answers["bisection"]["bandwidth_bytes_per_s"] == pytest.approx(32 * 8 * 50e9)
    assert [job["bandwidth_bytes_per_s"] for job in answers["jobs"]] == [pytest.approx(8 * 50e9), None]


def test_ask_answers_in_words(run: Run) -> None:
    code, out, _ = run("site", "ask", "mixed-lab", "--without", "ib0", "--between", "h1", "a[1-2]")
    assert code == 0
    assert "nodes cut off" in out
    assert "between h1 and a[1-2]: " in out


@pytest.mark.parametrize(
    ("words", "code"),
    [((), 2), (("--between", "h1", "nowhere"), 2), (("--between", "h[1", "h2"), 2), (("--best", "5000"), 3),
     (("--busy", "h1"), 2), (("--without", "h1:h2"), 2), (("--cables", "1"), 2), (("--bisection", "h1"), 2)],
)  # fmt: skip
def test_ask_says_what_cannot_be_answered(run: Run, words: tuple[str, ...], code: int) -> None:
    assert run("site", "ask", "mixed-lab", *words)[0] == code
