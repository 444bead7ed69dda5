"""Damaged sacct text: never a crash, and never a sum that a slow reading of the sound rows does not give."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path
from types import ModuleType
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hpcplan.errors import InputError
from hpcplan.report import build_report, read_sacct, render
from hpcplan.report.faults import Faults
from hpcplan.report.table import span

UTC = ZoneInfo("UTC")
HEADER = [
    "JobID", "JobName", "User", "State", "Submit", "Eligible", "Start", "End", "Elapsed", "Timelimit", "NNodes",
    "AllocCPUS", "NTasks", "ReqMem", "AllocTRES", "TotalCPU", "MaxRSS", "TRESUsageInTot", "NodeList", "Comment",
]  # fmt: skip
SEEDS = [
    (
        "7|train|alice|COMPLETED|2024-05-01T00:00:00||2024-05-01T01:00:00|2024-05-01T03:00:00|02:00:00|04:00:00|2|16||4Gc|"
        "cpu=16,gres/gpu=4,mem=64G,node=2|16:00:00|||n[1-2]|"
    ),
    "7.0|step||COMPLETED|||2024-05-01T01:00:00|2024-05-01T03:00:00|02:00:00||2|16|4||||4G|cpu=16:00:00,mem=16G|n[1-2]|",
    (
        "8|x|bob|CANCELLED by 99|2024-05-01T00:00:00|Unknown|None|2024-05-01T00:01:00|00:00:00|UNLIMITED|1|0||0n|"
        "|00:00:00|||None assigned|"
    ),
    "9_3|y|bob|RUNNING|2024-05-01T00:00:00||2024-05-01T00:01:00|Unknown|00:10:00|Partition_Limit|1|4||4Gn|cpu=4|00:00:00|||n3|",
]


def read(data: bytes) -> tuple[pl.DataFrame, Faults]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sacct.txt"
        path.write_bytes(data)
        return read_sacct([path], zone=UTC)


def check(data: bytes) -> None:
    """Read, report and render; whatever the text, figures that add up come out, or one clear error."""
    try:
        table, _ = read(data)
    except InputError:
        return
    first, last = span(table)
    report = build_report(table, start=min(first, last), end=last + 1, zone=UTC)
    assert sum(report.jobs.by_status.values()) == report.jobs.total == len(table)
    assert sum(row.core_hours or 0 for row in report.by_user) == pytest.approx(report.core_hours.value or 0)
    assert (report.core_hours.value or 0) >= 0
    for share in (report.cpu_efficiency.coverage, report.wait.coverage):
        assert share is None or 0 <= share <= 1
    assert render(report, "json")
    assert render(report, "html", zone=UTC).encode()


mutations = st.lists(
    st.tuples(st.floats(0, 1), st.sampled_from(["cut", "insert", "swap", "double"]), st.binary(max_size=6)), max_size=8
)


@given(mutations)
@settings(max_examples=60, deadline=None)
def test_damaged_rows_never_stop_the_report(damage: list[tuple[float, str, bytes]]) -> None:
    text = ("|".join(HEADER) + "\n" + "\n".join(SEEDS) + "\n").encode()
    start = len("|".join(HEADER)) + 1
    for place, kind, piece in damage:
        at = start + int(place * (len(text) - start))
        if kind == "cut":
            text = text[:at] + text[at + 1 + len(piece) :]
        elif kind == "insert":
            text = text[:at] + piece + text[at:]
        elif kind == "swap":
            text = text[:at] + piece + text[at + len(piece) :]
        else:
            text = text[:at] + text[start:at] + text[at:]
    check(text)


CELL = st.one_of(
    st.sampled_from(["", "0", "Unknown", "None", "INVALID", "UNLIMITED", "4Gc", "0n", "1-00:00:00", "00:00.5", "9" * 11,
                     "2024-05-01T00:00:00", "1970-01-01T00:00:00", "cpu=1,mem=4G,node=1", "CANCELLED by 7", "gpu:8"]),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="|\n\r"), max_size=12),
)  # fmt: skip


@given(st.lists(st.lists(CELL, min_size=len(HEADER) - 1, max_size=len(HEADER) - 1), max_size=5))
@settings(max_examples=60, deadline=None)
def test_cells_full_of_nonsense_never_stop_the_report(rows: list[list[str]]) -> None:
    lines = ["|".join(HEADER), *("|".join([str(number), *row]) for number, row in enumerate(rows, start=1))]
    check("\n".join(lines).encode())


@given(st.binary(max_size=300))
@example(b"JobID|State\n" + b"\xff" * 50)
@example(b"\x1f\x8b\x08\x00nonsense")
@settings(max_examples=50, deadline=None)
def test_any_bytes_at_all_end_in_a_report_or_one_error(data: bytes) -> None:
    check(data)


def test_the_largest_figures_that_can_be_written_do_not_wrap_around() -> None:
    row = (
        "7|x|u|COMPLETED|2024-05-01T00:00:00||2024-05-01T00:00:00|2900-05-01T00:00:00|99999-00:00:00||1000000000|1000000000||"
        "999P||99999-00:00:00|||n1|"
    )
    table, _ = read(("|".join(HEADER) + "\n" + row + "\n").encode())
    first, last = span(table)
    report = build_report(table, start=first, end=last + 1, zone=UTC)
    assert report.core_hours.value == pytest.approx(1e9 * (last - first) / 3600)


def test_sound_rows_among_broken_ones_give_the_same_sums(made_up: ModuleType) -> None:
    draw = random.Random(3)
    sound, broken, expected = [], [], 0.0
    for number in range(1, 400):
        cpus, seconds = draw.randrange(1, 64), draw.randrange(60, 3000)
        start = made_up.START + draw.randrange(0, 80_000)
        expected += cpus * seconds / 3600
        stamps = [str(start - 50), str(start), str(start + seconds)]
        sound.append(f"{number}|COMPLETED|{stamps[0]}|{stamps[1]}|{stamps[2]}|{seconds}|{cpus}")
        broken.append(
            draw.choice(["", "garbage", "7|8|9", f"{number}x|COMPLETED||||1|1", "|" * 6, "1|2|3|4|5|6|7|8|9"])
        )
    lines = [line for pair in zip(sound, broken, strict=True) for line in pair]
    table, faults = read(("JobIDRaw|State|Submit|Start|End|ElapsedRaw|AllocCPUS\n" + "\n".join(lines) + "\n").encode())
    report = build_report(table, start=made_up.START - 100, end=made_up.START + 100_000)
    assert report.jobs.total == len(sound)
    assert report.core_hours.value == pytest.approx(expected)
    assert faults.counts["row skipped"] == sum(bool(line) for line in broken)
