"""The door: what is refused, and that every refusal says where."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcplan.documents import MAX_DEPTH, parse_document, read_document, write_text
from hpcplan.errors import HpcplanError, InputError, Problem


def refusal(text: str) -> str:
    with pytest.raises(InputError) as caught:
        parse_document(text, "f.yaml")
    return str(caught.value)


def test_scalars_follow_yaml_1_2() -> None:
    text = "{no: no, clock: 12:30:00, name: 007, n: 7, x: 1.5e3, t: true, nothing: , s: '7', big: 1_000}"
    assert parse_document(text, "f").value == {
        "no": "no", "clock": "12:30:00", "name": "007", "n": 7, "x": 1500.0, "t": True, "nothing": None, "s": "7",
        "big": "1_000",
    }  # fmt: skip


def test_every_key_and_item_has_its_line() -> None:
    document = parse_document("a:\n  b:\n    - x\n    - y: 1\n      z: 2\nc: 3\n", "f")
    assert document.line(("a", "b", 1, "z")) == 5
    assert document.line(("a", "b", 0)) == 3
    assert document.line(("c",)) == 6
    assert document.line(("a", "b", 1, "missing")) == 4, "what is missing is reported where its parent stands"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: [1, 2\nb: 3\n", "f.yaml:2: not valid YAML"),
        ("a: 1\na: 2\n", "f.yaml:2: a: given twice; first on line 1"),
        ("", "f.yaml: the file is empty"),
        ("# only a comment\n", "f.yaml: the file is empty"),
        ("a: 1\n---\nb: 2\n", "f.yaml:2: a second document"),
        ("a: *nowhere\n", "f.yaml:1: a: alias *nowhere names an anchor"),
        ("? [a, b]\n: 1\n", "a key must be a plain word"),
        ("a: \t- b: ]", "not valid YAML"),
    ],
)
def test_what_is_not_one_plain_document_is_refused_with_its_line(text: str, expected: str) -> None:
    assert expected in refusal(text)


def test_nesting_has_a_limit() -> None:
    assert f"nested more than {MAX_DEPTH} deep" in refusal("[" * 100_000)


def test_an_alias_bomb_is_refused_before_it_grows() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    assert "aliases expand this file" in refusal("\n".join(lines))


def test_an_alias_inside_its_own_anchor_is_refused() -> None:
    assert "not complete here" in refusal("a: &a [1, *a]\n")


def test_ordinary_aliases_work() -> None:
    assert parse_document("a: &x {b: 1}\nc: *x\n", "f").value == {"a": {"b": 1}, "c": {"b": 1}}


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda path: path.mkdir(), "is a directory"),
        (lambda path: path.write_bytes(b"\xff\xfe\x00bad"), "is not UTF-8 text"),
        (lambda path: path.write_bytes(b"a: 1\nb: \x00\n"), "is a binary file"),
        (lambda path: os.truncate(os.open(path, os.O_CREAT | os.O_WRONLY), 100 * 1024**2), "is 100 MiB large"),
        (lambda path: os.mkfifo(path), "is not a regular file"),
        (lambda path: None, "no such file"),
    ],
)
def test_what_is_not_a_small_text_file_is_refused(tmp_path: Path, make: object, expected: str) -> None:
    path = tmp_path / "site.yaml"
    assert callable(make)
    make(path)
    with pytest.raises(InputError) as caught:
        read_document(path)
    assert expected in str(caught.value)
    assert str(path) in str(caught.value)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
        max_leaves=20,
    )
)
def test_json_reads_as_json_does(value: object) -> None:
    text = json.dumps({"value": value})
    assert parse_document(text, "f").value == json.loads(text)


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    problems: tuple[Problem, ...] = ()
    try:
        parse_document(text, "f")
    except InputError as error:
        problems = error.problems
    assert all(problem.file == "f" for problem in problems)


def test_writing_replaces_whole_files_and_leaves_no_scraps(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    write_text(path, "old")
    write_text(path, "new")
    assert path.read_text() == "new"
    assert [child.name for child in tmp_path.iterdir()] == ["plan.json"]
    with pytest.raises(HpcplanError, match="cannot be written"):
        write_text(tmp_path / "nowhere" / "plan.json", "x")


def test_a_link_stays_one_and_what_it_points_to_is_written(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "plan.json").symlink_to(tmp_path / "kept" / "plan.json")
    for text in ("old", "new"):
        write_text(tmp_path / "plan.json", text)
    assert (tmp_path / "plan.json").is_symlink()
    assert (tmp_path / "kept" / "plan.json").read_text() == "new"


def test_a_pipe_is_written_to_and_not_put_away(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    reading = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    write_text(tmp_path / "pipe", "text")
    assert os.read(reading, 100) == b"text"
    os.close(reading)
    assert (tmp_path / "pipe").is_fifo()
    done = subprocess.run(
        [sys.executable, "-c", "import pathlib as p, hpcplan.documents as d; d.write_text(p.Path('/dev/stdout'), 'x')"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "x"
    assert Path("/dev/stdout").is_symlink()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"a": 1,\n "a": 2}', "f.yaml:2: a: given twice; first on line 1"),
        ('{"a": [1, 2}', "not valid YAML"),
        ('{"a": ' + "[" * 70 + "]" * 70 + "}", f"nested more than {MAX_DEPTH} deep"),
        ("[" * 50_000, "nested more than"),
    ],
)
def test_json_that_is_wrong_is_refused_with_its_line(text: str, expected: str) -> None:
    assert expected in refusal(text)


def test_json_has_lines_too_when_somebody_asks() -> None:
    document = parse_document('{"a": {\n  "b": [1,\n    2]}}', "f")
    assert document.value == {"a": {"b": [1, 2]}}
    assert document.line(("a", "b", 1)) == 3
    assert document.problem(("a", "c"), "is missing").line == 1
