"""The journal: what is written can be read, what was cut short is ignored, what is damaged is named."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcplan.campaign.journal import JOURNAL_NAME, Entry, JournalWriter, format_entry, parse_journal, read_journal
from hpcplan.campaign.ledger import fold
from hpcplan.errors import HpcplanError, InputError

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
names = st.text().filter(lambda name: name not in {"seq", "time", "event", "crc32"})
details = st.lists(st.dictionaries(names, values, max_size=4), max_size=6)


def lines(many: list[dict[str, Any]]) -> list[bytes]:
    return [
        format_entry(Entry(seq=number, time="2026-01-01T00:00:00Z", event="x", data=data)).encode()
        for number, data in enumerate(many, start=1)
    ]


def fill(directory: Path, count: int = 3) -> Path:
    with JournalWriter(directory) as journal:
        for number in range(count):
            journal.append("step", number=number)
    return directory / JOURNAL_NAME


@given(details)
def test_any_details_come_back_as_they_were(many: list[dict[str, Any]]) -> None:
    entries, length = parse_journal(b"".join(lines(many)), "j")
    assert [entry.data for entry in entries] == many
    assert length == sum(map(len, lines(many)))


@given(details.filter(bool), st.data())
def test_a_line_cut_anywhere_is_as_if_it_was_never_written(many: list[dict[str, Any]], data: st.DataObject) -> None:
    written = lines(many)
    cut = data.draw(st.integers(0, len(written[-1]) - 1))
    entries, length = parse_journal(b"".join(written[:-1]) + written[-1][:cut], "j")
    assert [entry.data for entry in entries] == many[:-1]
    assert length == sum(map(len, written[:-1]))


@given(details.filter(bool), st.data())
def test_any_other_change_of_a_byte_is_noticed_or_looks_like_a_torn_end(
    many: list[dict[str, Any]], data: st.DataObject
) -> None:
    whole = b"".join(lines(many))
    position = data.draw(st.integers(0, len(whole) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda value: value != whole[position]))
    spoilt = whole[:position] + bytes([byte]) + whole[position + 1 :]
    try:
        entries, _ = parse_journal(spoilt, "j")
    except InputError:
        return
    assert position == len(whole) - 1
    assert [entry.data for entry in entries] == many[:-1]


def test_entries_are_numbered_timed_and_readable_by_people(tmp_path: Path) -> None:
    with JournalWriter(tmp_path, clock=lambda: 1_800_000_000.5) as journal:
        journal.append("opened", name="été")
    text = (tmp_path / JOURNAL_NAME).read_text()
    assert re.fullmatch(
        r'\{"seq":1,"time":"2027-01-15T08:00:00Z","event":"opened","name":"\\u00e9t\\u00e9","crc32":"[0-9a-f]{8}"\}\n',
        text,
    )


def test_a_writer_goes_on_where_the_last_one_stopped(tmp_path: Path) -> None:
    fill(tmp_path, 2)
    with JournalWriter(tmp_path) as journal:
        assert journal.append("step", number=2).seq == 3
    assert [entry.data["number"] for entry in read_journal(tmp_path)] == [0, 1, 2]


@pytest.mark.parametrize("tail", [b'{"seq":4,"ti', b"\0\0\0\0", b'{"seq":4,"time":"t","event":"e","crc32":"00000000"}'])
def test_a_torn_last_line_is_cut_off_by_the_next_writer(tail: bytes, tmp_path: Path) -> None:
    path = fill(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole + tail)
    assert len(read_journal(tmp_path)) == 3
    assert path.read_bytes() == whole + tail, "a reader changes nothing"
    with JournalWriter(tmp_path) as journal:
        journal.append("step", number=3)
    assert len(read_journal(tmp_path)) == 4
    assert path.read_bytes().startswith(whole)


def test_a_damaged_line_is_named_with_file_and_line(tmp_path: Path) -> None:
    path = fill(tmp_path)
    path.write_bytes(path.read_bytes().replace(b'"number":1', b'"number":7'))
    with pytest.raises(InputError) as caught:
        read_journal(tmp_path)
    problem = caught.value.problems[0]
    assert (problem.file, problem.line) == (str(path), 2)
    assert "checksum" in problem.message
    with pytest.raises(InputError, match="checksum"):
        JournalWriter(tmp_path)


def test_a_lost_line_is_noticed(tmp_path: Path) -> None:
    path = fill(tmp_path)
    first, _, third = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + third)
    with pytest.raises(InputError, match=r"journal\.jsonl:2: is entry 3 where entry 2 was expected"):
        read_journal(tmp_path)


def test_an_entry_without_its_fields_is_named_by_line(tmp_path: Path) -> None:
    with JournalWriter(tmp_path) as journal:
        journal.append("opened", campaign="c")
    with pytest.raises(InputError, match=r"journal\.jsonl:1: the entry 'opened' lacks"):
        fold(read_journal(tmp_path), tmp_path)


def test_events_of_a_newer_version_are_skipped(tmp_path: Path) -> None:
    with JournalWriter(tmp_path) as journal:
        journal.append("teleported", anything=1)
    assert fold(read_journal(tmp_path), tmp_path).jobs == {}


def test_a_full_disk_is_an_error_and_leaves_the_journal_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = fill(tmp_path)
    before = path.read_bytes()
    write = os.pwrite

    def half(descriptor: int, data: bytes, offset: int) -> int:
        if len(data) > 10:
            return write(descriptor, data[:10], offset)
        raise OSError(errno.ENOSPC, "No space left on device")

    with JournalWriter(tmp_path) as journal:
        monkeypatch.setattr(os, "pwrite", half)
        with pytest.raises(HpcplanError, match=r"cannot be written: No space left on device"):
            journal.append("x" * 11)
        assert path.read_bytes() == before
        monkeypatch.undo()
        journal.append("step", number=3)
    assert len(read_journal(tmp_path)) == 4


def test_each_entry_is_on_disk_before_append_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    write, sync = os.pwrite, os.fsync
    monkeypatch.setattr(os, "pwrite", lambda *arguments: order.append("write") or write(*arguments))
    monkeypatch.setattr(os, "fsync", lambda descriptor: order.append("sync") or sync(descriptor))
    with JournalWriter(tmp_path) as journal:
        order.clear()
        journal.append("x")
        assert order == ["write", "sync"]


def test_a_directory_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(HpcplanError, match="cannot be written"):
        JournalWriter(tmp_path / "none")
