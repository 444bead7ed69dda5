"""Lanes: every token once a pass, the same batch whatever the number of ranks, any step can be gone to."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcplan.errors import InputError
from hpcplan.partition.data_shards import (
    DataFile,
    Shards,
    changed_files,
    choose_lanes,
    lanes_of_rank,
    make_shards,
    manifest_text,
    read_inputs,
    read_manifest,
    usable_sizes,
    write_manifest,
)
from hpcplan.partition.data_shards.inputs import inputs_digest
from tests.render import plans


def files(*tokens: int) -> list[DataFile]:
    return [DataFile(f"/data/part-{number}.bin", count) for number, count in enumerate(tokens)]


@st.composite
def divisions(draw: st.DrawFn) -> Shards:
    """Return shards of some files over lanes that divide a small batch."""
    sizes = draw(st.lists(st.integers(20, 400), min_size=4, max_size=20))
    lanes = draw(st.sampled_from([1, 2, 4]))
    batch = lanes * draw(st.sampled_from([1, 2, 3]))
    return make_shards(
        files(*sizes),
        sequence_length=draw(st.integers(1, 9)),
        global_batch=batch,
        lanes=lanes,
        seed=draw(st.integers(0, 9)),
    )


def tokens_of(shards: Shards, rank: int, dp: int, first: int, last: int) -> Counter[tuple[int, str, int]]:
    """Return how often each token of each file is read, by pass."""
    return Counter(
        (one.epoch, one.path, token)
        for one in shards.of_rank(rank, dp, first, last)
        for token in range(one.start, one.stop)
    )


@given(divisions())
@settings(max_examples=40)
def test_every_lane_reads_each_of_its_tokens_once_a_pass(shards: Shards) -> None:
    for lane, load in enumerate(shards.division.load):
        for epoch in (0, 1):
            ranges = list(shards.ranges(lane, epoch * load, load))
            read = Counter((one.path, token) for one in ranges for token in range(one.start, one.stop))
            own = Counter(
                (shards.files[piece.file].path, token)
                for piece in shards.lanes[lane]
                for token in range(piece.start, piece.stop)
            )
            assert read == own
            assert {one.epoch for one in ranges} == {epoch}
    together = Counter(
        (shards.files[p.file].path, token) for lane in shards.lanes for p in lane for token in range(p.start, p.stop)
    )
    assert together == Counter((file.path, token) for file in shards.files for token in range(file.tokens))


@given(divisions(), st.integers(1, 60))
@settings(max_examples=40)
def test_a_step_trains_on_the_same_tokens_whatever_the_number_of_ranks(shards: Shards, step: int) -> None:
    batches = []
    for dp in usable_sizes(len(shards.lanes), shards.global_batch):
        parts = [tokens_of(shards, rank, dp, step, step) for rank in range(dp)]
        assert {part.total() for part in parts} == {shards.global_batch // dp * shards.sequence_length}
        batches.append(sum(parts, Counter()))
    assert all(batch == batches[0] for batch in batches)


@given(divisions(), st.integers(1, 30), st.integers(0, 30))
@settings(max_examples=40)
def test_going_on_at_a_step_is_as_having_never_stopped(shards: Shards, first: int, more: int) -> None:
    def read(a: int, b: int, lane: int) -> list[tuple[str, int]]:
        start, end = shards.lane_token(a), shards.lane_token(b + 1)
        return [(r.path, t) for r in shards.ranges(lane, start, end - start) for t in range(r.start, r.stop)]

    for lane in range(len(shards.lanes)):
        assert read(1, first + more, lane) == read(1, first - 1, lane) + read(first, first + more, lane)


def test_the_order_of_a_pass_is_the_one_that_is_documented() -> None:
    shards = make_shards(files(30, 40, 50), sequence_length=10, global_batch=1, lanes=1, seed=5)
    for epoch in (0, 1, 2):
        expected = sorted(range(3), key=lambda n: hashlib.sha256(f"5:{epoch}:{n}:0".encode()).digest())
        assert [piece.file for piece in shards.epoch_order(0, epoch)[0]] == expected
    first = [next(iter(shards.ranges(0, epoch * 120, 1))).path for epoch in range(20)]
    assert len(set(first)) == 3, "passes differ in their order"
    other = make_shards(files(30, 40, 50), sequence_length=10, global_batch=1, lanes=1, seed=6)
    assert any(other.epoch_order(0, e)[0] != shards.epoch_order(0, e)[0] for e in range(5)), "so do seeds"


def test_a_file_too_long_for_a_lane_is_cut_and_others_stay_whole_where_that_is_even() -> None:
    even = make_shards(files(100, 100, 100, 100), sequence_length=10, global_batch=4, lanes=4)
    assert all(len(lane) == 1 for lane in even.lanes)
    cut = make_shards(files(10_000, 100), sequence_length=10, global_batch=4, lanes=4)
    assert cut.division.load == (2525, 2525, 2525, 2525)
    assert sum(len(lane) for lane in cut.lanes) == 2 + 3, "with a cut less than there are lanes"
    whole = make_shards(files(10_000, 100, 90, 80), sequence_length=10, global_batch=4, lanes=4, cut=False)
    assert max(whole.division.load) == 10_000


@given(st.lists(st.integers(1, 500), min_size=1, max_size=12), st.integers(1, 9))
def test_cut_lanes_are_equal_to_a_token(tokens: list[int], lanes: int) -> None:
    if sum(tokens) < lanes:
        return
    shards = make_shards(files(*tokens), sequence_length=1, global_batch=lanes, lanes=lanes)
    if shards.division.method == "cut":
        assert max(shards.division.load) - min(shards.division.load) <= 1
        assert sum(map(len, shards.lanes)) <= len(tokens) + lanes - 1
        assert shards.division.gap == 0
    whole = Counter((p.file, token) for lane in shards.lanes for p in lane for token in range(p.start, p.stop))
    assert whole == Counter((number, token) for number, count in enumerate(tokens) for token in range(count))


def test_lanes_are_as_many_as_eight_files_each_allow() -> None:
    assert choose_lanes(100_000, 1024, 64) == 1024
    assert choose_lanes(600, 1024, 16) == 64
    assert choose_lanes(3, 1024, 16) == 16, "never fewer than the ranks"
    assert choose_lanes(10**6, 1536, 96) == 1536
    with pytest.raises(InputError, match="dp 7 does not divide"):
        choose_lanes(100, 1024, 7)


def test_unequal_ranks_read_lanes_by_their_shares() -> None:
    assert [list(lanes_of_rank(8, rank, 3, (2, 1, 1))) for rank in range(3)] == [[0, 1, 2, 3], [4, 5], [6, 7]]
    with pytest.raises(InputError, match="8 lanes cannot be divided by shares that add up to 5"):
        lanes_of_rank(8, 0, 2, (2, 3))
    with pytest.raises(InputError, match="ranks are 0 to 3"):
        lanes_of_rank(8, 4, 4)
    with pytest.raises(InputError, match="what divides them: 1, 2, 4, 8"):
        lanes_of_rank(8, 0, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lanes": 3}, "3 lanes do not divide the global batch of 4"),
        ({"sequence_length": 1000}, "400 tokens do not fill 4 lanes"),
        ({"cut": False}, "2 files do not fill 4 lanes"),
    ],
)
def test_what_cannot_be_divided_is_said(options: dict[str, int], message: str) -> None:
    base: dict[str, int] = {"sequence_length": 10, "global_batch": 4, "lanes": 4}
    with pytest.raises(InputError, match=message):
        make_shards(files(200, 200), **(base | options))  # type: ignore[arg-type]


@given(divisions())
@settings(max_examples=30)
def test_a_manifest_reads_back_as_it_was(tmp_path_factory: pytest.TempPathFactory, shards: Shards) -> None:
    path = tmp_path_factory.mktemp("manifests") / "shards.jsonl"
    segments = plans.segments(3, 4)
    write_manifest(path, shards, segments)
    read = read_manifest(path)
    assert manifest_text(read.shards, segments) == path.read_text()
    assert [(job.first_step, job.last_step, job.lane_token) for job in read.jobs] == [
        (s.first_step, s.last_step, shards.lane_token(s.first_step)) for s in segments
    ]
    dp = len(shards.lanes)
    for rank in range(dp):
        assert list(read.shards.of_rank(rank, dp, 2, 9)) == list(shards.of_rank(rank, dp, 2, 9))


def test_a_manifest_is_plain_json_lines_with_checksums(tmp_path: Path) -> None:
    data = files(200, 300, 250)
    path = tmp_path / "shards.jsonl"
    write_manifest(path, make_shards(data, sequence_length=10, global_batch=2, lanes=2), plans.segments(5))
    lines = path.read_text().splitlines(keepends=True)
    values = [json.loads(line) for line in lines]
    assert values[0]["kind"] == "data-shards"
    assert values[0]["inputs_sha256"] == inputs_digest(data)
    assert [value["path"] for value in values[1:4]] == [file.path for file in data]
    assert values[4] == {"segment": 1, "first_step": 1, "last_step": 5, "lane_token": 0}
    assert values[5] == {"lines_sha256": hashlib.sha256("".join(lines[:-1]).encode()).hexdigest()}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[: len(text) // 2], "cut short|is no line|has one line"),
        (lambda text: text.replace("part-1", "part-9"), "was changed since it was written"),
        (lambda text: "", "empty"),
        (lambda text: "{}\n" + text, ":1: is no line of a manifest"),
        (lambda text: text.replace('"kind": "data-shards", ', '"kind": "other", '), ":1: is no line of a manifest"),
        (lambda text: "\n".join(text.splitlines()[:-1]) + "\n", "has no checksum"),
    ],
)
def test_a_damaged_manifest_is_refused(tmp_path: Path, change: object, message: str) -> None:
    assert callable(change)
    text = manifest_text(make_shards(files(200, 300), sequence_length=10, global_batch=2, lanes=2))
    path = tmp_path / "shards.jsonl"
    path.write_text(change(text))
    with pytest.raises(InputError, match=message):
        read_manifest(path)


def test_a_manifest_whose_pieces_overlap_is_refused(tmp_path: Path) -> None:
    lines = manifest_text(make_shards(files(200, 300), sequence_length=10, global_batch=2, lanes=2)).splitlines()
    entry = json.loads(lines[1])
    entry["pieces"] = [[0, 0, 100], [1, 90, 200]]
    body = "".join(f"{line}\n" for line in (lines[0], json.dumps(entry), *lines[2:-1]))
    path = tmp_path / "shards.jsonl"
    path.write_text(body + json.dumps({"lines_sha256": hashlib.sha256(body.encode()).hexdigest()}) + "\n")
    with pytest.raises(InputError, match=r":2: .*overlap"):
        read_manifest(path)


def test_inputs_are_folders_files_and_tables(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    for name, size in {"a.bin": 400, "deep/b.bin": 800, "c.idx": 4, ".hidden.bin": 400}.items():
        (tmp_path / name).write_bytes(b"x" * size)
    found = read_inputs([tmp_path], bytes_per_token=4, pattern="*.bin")
    assert [(Path(file.path).name, file.tokens, file.bytes) for file in found] == [
        ("a.bin", 100, 400),
        ("b.bin", 200, 800),
    ]
    table = tmp_path / "files.csv"
    table.write_text("path,tokens,bytes\na.bin,90,400\n/elsewhere/z.bin,7,\n")
    assert [(file.path, file.tokens) for file in read_inputs([table])] == [
        ("/elsewhere/z.bin", 7), (str(tmp_path.resolve() / "a.bin"), 90),
    ]  # fmt: skip
    with_sums = read_inputs([tmp_path / "a.bin"], bytes_per_token=2, checksum=True)
    assert with_sums[0].sha256 == hashlib.sha256(b"x" * 400).hexdigest()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,tokens\na,1\n", "files.csv:1: has file, tokens; columns path and tokens"),
        ("path,tokens\na,1\na,2\n", "is named twice"),
        ("path,tokens\na,many\n", "files.csv:2: tokens: 'many' is no number of tokens"),
        ("path,tokens\na,-1\n", "files.csv:2: tokens: '-1'"),
        ("path,bytes\na,100\n", "files.csv:2: only its size is known"),
        ("path,tokens\n,5\n", "files.csv:2: path: is missing"),
        ("path,tokens\na,0\n", "no files with tokens"),
        ("", "files.csv:1: is empty"),
    ],
)
def test_a_bad_table_is_refused_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "files.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        read_inputs([tmp_path / "files.csv"])


def test_files_that_changed_are_found(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).write_bytes(b"1" * 10)
    before = read_inputs([tmp_path], bytes_per_token=1, checksum=True)
    assert changed_files(before, content=True) == []
    (tmp_path / "a").write_bytes(b"1" * 11)
    (tmp_path / "b").write_bytes(b"2" * 10)
    (tmp_path / "c").unlink()
    assert [(Path(path).name, why) for path, why in changed_files(before, content=True)] == [
        ("a", "has 11 bytes, not 10"),
        ("b", "has another content of the same size"),
        ("c", "No such file or directory"),
    ]  # fmt: skip
    assert [Path(path).name for path, _ in changed_files(before)] == ["a", "c"]
