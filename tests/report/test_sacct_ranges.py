"""A dump read in ranges, by this process or by others, gives what it gives as a whole."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from hpcplan.report import sacct_dump
from hpcplan.report.faults import Faults
from hpcplan.report.sacct import read_by_rows
from hpcplan.report.sacct_cells import Clock
from hpcplan.report.sacct_dump import Dump
from hpcplan.report.sacct_files import Blocks
from hpcplan.report.sacct_ranges import Found, Helper, cuts, tasks
from hpcplan.report.sacct_rows import Header
from hpcplan.report.table import merge

BERLIN = ZoneInfo("Europe/Berlin")
HEADER = "JobID|JobName|User|State|Submit|Start|End|Elapsed|AllocCPUS|TotalCPU|MaxRSS|AllocTRES"


def dump(path: Path, jobs: int, *, odd: float, seed: int = 1, other_header: bool = False) -> Path:
    """Write jobs with steps, of which some are broken, doubled, or far from their job."""
    draw = random.Random(seed)
    lines = [HEADER]
    for number in range(1, jobs + 1):
        day = f"2024-05-{1 + number % 28:02}"
        times = f"{day}T00:00:00|{day}T01:00:00|{day}T02:00:00|01:00:00|4"
        lines.append(f"{number}|run|alice|COMPLETED|{times}|||cpu=4,mem=8G,node=1")
        lines += [f"{number}.{step}|x||COMPLETED|||{day}T02:00:00|01:00:00|4|00:10:00|{number}K|" for step in (0, 1)]
        if draw.random() < odd:
            lines += [
                f"{number}|a|b|alice|COMPLETED|{times}|||cpu=4",
                f"{number}|broken\n{day}|bob|FAILED|{times}|||cpu=4",
                "garbage",
                f"{number}|x|alice|ODD|{times}|||cpu=many",
                f"{max(1, number - 50)}.9|far||COMPLETED|||{day}T02:00:00|01:00:00|4|05:00:00|9G|",
                f"{number + jobs}.0|nobody's||COMPLETED|||{day}T02:00:00|01:00:00|4|00:10:00|1K|",
            ]
        if other_header and number == jobs // 4:
            lines.append("User|JobID|State|Submit|Start|End|Elapsed|AllocCPUS|TotalCPU|MaxRSS|AllocTRES|JobName")
            lines.append("carol|999999|FAILED|" + times + "|||cpu=4|late")
    path.write_text("\n".join(lines) + "\n")
    return path


def in_ranges(path: Path, near: list[int]) -> tuple[pl.DataFrame, Faults]:
    faults = Faults()
    reader = Dump(str(path), faults, Clock(BERLIN), Blocks(path, faults, 5000))
    reader.near = near
    return merge([reader.read(None)]), faults


def same(path: Path, near: list[int]) -> None:
    expected_faults = Faults()
    expected = read_by_rows([path], expected_faults, zone=BERLIN)
    found, faults = in_ranges(path, near)
    assert_frame_equal(found, expected)
    assert (faults.rows_read, faults.counts) == (expected_faults.rows_read, expected_faults.counts)
    first = sorted((one.line, one.message) for one in expected_faults.quoted if "not in the file" not in one.message)
    kept = {(one.line, one.message) for one in faults.quoted}
    assert kept >= set(first[:20])


@pytest.mark.parametrize("odd", [0.0, 0.02])
@pytest.mark.parametrize("other_header", [False, True])
def test_wherever_it_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, odd: float, other_header: bool) -> None:
    def refused(*_: object) -> Helper:
        raise OSError("no more processes")

    monkeypatch.setattr(sacct_dump, "Helper", refused)  # so that this process reads all ranges itself
    path = dump(tmp_path / "sacct.txt", 300, odd=odd, other_header=other_header)
    size = path.stat().st_size
    for near in ([size // 2], [size // 3, 2 * size // 3], [100], [size - 3000], [size // 2 + 77, size // 2 + 78]):
        same(path, near)


def test_another_process_reads_its_range(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[Found | None] = []

    class Watched(Helper):
        def result(self) -> Found | None:
            answers.append(super().result())
            return answers[-1]

    monkeypatch.setattr(sacct_dump, "Helper", Watched)
    path = dump(tmp_path / "sacct.txt", 300, odd=0.02)
    same(path, [path.stat().st_size // 2])
    assert [found is not None and found.lines > 300 for found in answers] == [True]


def test_a_process_that_fails_is_done_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    path = dump(tmp_path / "sacct.txt", 200, odd=0.0)
    same(path, [path.stat().st_size // 2])


def test_it_ends_with_the_process_that_started_it() -> None:
    words = [sys.executable, "-m", "hpcplan.report.sacct_ranges"]
    with subprocess.Popen(words, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(timeout=60) == 1


def test_only_large_plain_files_are_cut(tmp_path: Path) -> None:
    path = dump(tmp_path / "sacct.txt", 300, odd=0.0)
    assert cuts(str(path), 4) == []
    assert cuts("-", 4, 1) == []
    (tmp_path / "packed").write_bytes(b"\x1f\x8b" + path.read_bytes())
    assert cuts(str(tmp_path / "packed"), 4, 1) == []
    assert cuts(str(path), 1, 1) == []
    places = cuts(str(path), 3, 1)
    assert len(places) == 2
    header = Header(tuple(HEADER.lower().split("|")), "|")
    found = tasks(str(path), places, header, BERLIN)
    text = path.read_bytes()
    assert [(one.start, one.stop) for one in found] == [(found[0].start, found[1].start), (found[1].start, len(text))]
    assert all(text[one.start - 1 : one.start] == b"\n" for one in found)
    assert all(b"." not in text[one.start :].partition(b"|")[0] for one in found)
