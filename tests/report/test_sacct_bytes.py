"""Figures of bytes and of whole columns are those that the parser of single cells reads, or are left to it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hpcplan.report import sacct_bytes, sacct_cells
from hpcplan.report.sacct_columns import Columns
from hpcplan.report.sacct_lines import Rows
from hpcplan.report.sacct_usage_bytes import usage

BERLIN = sacct_cells.Clock(ZoneInfo("Europe/Berlin"))
TWO = st.integers(0, 99).map("{:02d}".format)
CLOCKS = st.builds("{}:{}:{}".format, TWO, TWO, TWO)
SPANS = st.one_of(
    CLOCKS,
    st.builds("{}-{}".format, st.integers(0, 10**6), CLOCKS),
    st.builds("{}.{:03d}".format, CLOCKS, st.integers(0, 999)),
    st.builds("{}:{}.{:03d}".format, TWO, TWO, st.integers(0, 999)),
    st.integers(0, 10**12).map(str),
)
STAMPS = st.builds("{:04d}-{}-{}T{}".format, st.integers(1960, 3005), TWO, TWO, CLOCKS)
AMOUNTS = st.builds("{}{}".format, st.integers(0, 10**16), st.sampled_from(["", "K", "M", "G", "T"]))
ODD = st.text(alphabet="0123456789:-.TKMG /", max_size=20)


def figures(read: Callable[..., Any], words: list[str]) -> list[tuple[str, Any]]:
    """Return the words that were read, and as what."""
    text = sacct_bytes.Bytes("|".join(words).encode())
    lengths = np.array([len(word) for word in words])
    end = np.cumsum(lengths + 1) - 1 + sacct_bytes.PAD
    values, good = read(text, end - lengths, end)
    return [(word, value) for word, value, fine in zip(words, values.tolist(), good.tolist(), strict=True) if fine]


@pytest.mark.parametrize(
    ("read", "parse", "usual"),
    [
        (sacct_bytes.spans_s, sacct_cells.duration_s, "1-02:03:04"),
        (sacct_bytes.memory_bytes, sacct_cells.memory_bytes, "39156K"),
        (sacct_bytes.numbers, int, "123456789"),
    ],
)
@given(words=st.lists(st.one_of(SPANS, STAMPS, AMOUNTS, ODD), min_size=1, max_size=30))
def test_what_is_read_is_what_the_parser_reads(
    read: Callable[..., Any], parse: Callable[[str], Any], usual: str, words: list[str]
) -> None:
    found = figures(read, [*words, usual])
    assert found[-1][0] == usual  # the usual form is never left to the parser
    for word, value in found:
        assert value == parse(word)


@pytest.mark.parametrize(
    ("read", "parse", "usual"),
    [
        (Columns.duration_s, sacct_cells.duration_s, "1-02:03:04"),
        (partial(Columns.stamp, clock=BERLIN), BERLIN.read, "2024-02-29T23:59:59"),
        (Columns.memory_bytes, sacct_cells.memory_bytes, "39156K"),
        (Columns.count, sacct_cells.count, "123456789"),
    ],
)
@given(words=st.lists(st.one_of(SPANS, STAMPS, AMOUNTS, ODD), min_size=1, max_size=30))
def test_whole_columns_are_what_the_parser_reads(
    read: Callable[[Columns, pl.Series], pl.Series], parse: Callable[[str], Any], usual: str, words: list[str]
) -> None:
    cells = [*(word.strip() for word in words), usual]
    columns = Columns(Rows("".join(f"{cell}|\n" for cell in cells).encode(), b"|", 2, len(cells), True), {"a": "c0"})
    found = read(columns, columns.text("a")).to_list()
    for word, value, odd in zip(cells, found, columns.odd.to_list(), strict=True):
        if odd:  # left to the reader of single rows: refused, or an hour that occurs twice
            continue
        assert value == (parse(word) if word else None)
    assert not columns.odd[-1]


@given(st.lists(st.text(alphabet="ab.7", max_size=30), min_size=1, max_size=20))
def test_a_letter_is_found_in_the_cells_that_have_it(words: list[str]) -> None:
    text = sacct_bytes.Bytes("|".join(words).encode())
    lengths = np.array([len(word) for word in words])
    end = np.cumsum(lengths + 1) - 1 + sacct_bytes.PAD
    found = sacct_bytes.has_byte(text, end - lengths, end, ".")
    assert found.tolist() == ["." in word for word in words]
    same = sacct_bytes.same(text, end - lengths, np.full(len(words), end[0] - lengths[0]), lengths)
    assert same.tolist() == ["|".join(words).startswith(word) for word in words]


NAMES = st.one_of(
    st.sampled_from(["cpu", "mem", "gres/gpuutil", "energy", "fs/disk", "pages", "vmem", "gres/gpumem", "me", "amem"]),
    st.text(alphabet="am/=,é", max_size=40),
)
PARTS = st.builds("{}={}".format, NAMES, st.one_of(SPANS, AMOUNTS, st.sampled_from(["0", "", "a=b", "7,"])))
ORDINARY = st.dictionaries(
    st.sampled_from(["energy", "mem", "gres/gpuutil", "pages", "vmem"]), st.integers(0, 99), min_size=2
).map(lambda amounts: ",".join(f"{name}={value}" for name, value in amounts.items()))
USAGES = st.one_of(
    ORDINARY, st.lists(PARTS, max_size=8).map(",".join), st.text(alphabet="mem=,1Kcpu", max_size=12)
)  # fmt: skip


@example(layout="energy=0,mem=7", others=["energy=0,mem=7,energy=1"], wanted=False)
@given(layout=USAGES, others=st.lists(USAGES, max_size=6), wanted=st.booleans())
def test_amounts_in_a_list_of_resources_are_those_that_the_parser_finds(
    layout: str, others: list[str], wanted: bool
) -> None:
    alike = [layout.replace("1", "8"), layout.replace("mem=", "amem="), layout.replace("mem=", "em="), layout[:-1]]
    words = [layout, *alike, *others, "cpu=00:22:28,energy=0,fs/disk=2012,mem=356357K"]
    encoded = [word.encode() for word in words]
    text = sacct_bytes.Bytes(b"|".join(encoded))
    lengths = np.array([len(word) for word in encoded])
    end = np.cumsum(lengths + 1) - 1 + sacct_bytes.PAD
    found = usage(text, end - lengths, end, np.full(len(words), wanted))
    for place, word in enumerate(words):
        if not found.good[place]:  # left to the parser
            continue
        parts = sacct_cells.tres(word)
        memory, percent = parts.get("mem"), parts.get("gres/gpuutil")
        assert found.memory_bytes[place] == (sacct_cells.memory_bytes(memory) if memory else 0)
        assert np.isnan(found.gpu_percent[place]) == (not percent)
        assert not percent or found.gpu_percent[place] == sacct_cells.amount(percent, step=1000)
        cpu = parts.get("cpu") if wanted else None
        assert found.cpu_s[place] == (sacct_cells.duration_s(cpu) if cpu else 0)
    assert found.good[-1]
