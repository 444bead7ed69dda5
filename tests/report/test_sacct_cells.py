from __future__ import annotations

import contextlib
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcplan.report import sacct_cells as cells

NO_FIGURE = ["", "Unknown", "None", "None assigned", "INVALID", "UNLIMITED", "Partition_Limit", "N/A", "(null)"]


@pytest.mark.parametrize("word", NO_FIGURE)
def test_words_for_no_figure_are_unknown_and_never_zero(word: str) -> None:
    assert cells.duration_s(word) is None
    assert cells.count(word) is None
    assert cells.memory_bytes(word) is None
    assert cells.tres(word) == {}
    assert cells.Clock(ZoneInfo("UTC")).read(word) is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("00:00:00", 0), ("01:27:42", 5262), ("1-00:00:00", 86400), ("163-00:18:41", 14_084_321), ("00:02.617", 2.617),
        ("10:02.617", 602.617), ("4-23:56:21", 431_781), ("05:30", 330), ("90", 90), ("1-02:03:04.5", 93_784.5),
    ],
)  # fmt: skip
def test_time_spans_of_every_form(text: str, seconds: float) -> None:
    assert cells.duration_s(text) == pytest.approx(seconds)


@given(st.integers(0, 10**7), st.integers(0, 999))
def test_a_written_time_span_is_read_back(seconds: int, milliseconds: int) -> None:
    days, rest = divmod(seconds, 86400)
    clock = f"{rest // 3600:02d}:{rest % 3600 // 60:02d}:{rest % 60:02d}"
    assert cells.duration_s(f"{days}-{clock}.{milliseconds:03d}") == pytest.approx(seconds + milliseconds / 1000)
    if seconds < 3600:
        short = f"{seconds // 60:02d}:{seconds % 60:02d}.{milliseconds:03d}"
        assert cells.duration_s(short) == pytest.approx(seconds + milliseconds / 1000)


@pytest.mark.parametrize("text", ["1:2:3:4", "-5", "1h", "12:", "9" * 30, "1-", "٣"])
def test_what_is_no_time_span_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="time"):
        cells.duration_s(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0), ("512", 512), ("4K", 4096), ("39156K", 39156 * 1024), ("1.5G", 3 * 2**29), ("199G", 199 * 2**30),
        ("0.00M", 0), ("2T", 2**41), ("1P", 2**50), ("4GB", 2**32), ("32000M", 32000 * 2**20),
    ],
)  # fmt: skip
def test_memory_suffixes_are_powers_of_1024(text: str, size: int) -> None:
    assert cells.memory_bytes(text) == size


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("4Gc", (2**32, "cpu")), ("4Gn", (2**32, "node")), ("4000Mc", (4000 * 2**20, "cpu")), ("32G", (2**35, "job")),
        ("0n", None), ("0c", None), ("0", None), ("", None), ("Unknown", None),
    ],
)  # fmt: skip
def test_requested_memory_says_what_it_is_per_and_all_of_a_node_is_unknown(
    text: str, expected: tuple[int, str] | None
) -> None:
    assert cells.requested_memory(text) == expected


@pytest.mark.parametrize("text", ["c", "n", "Gn", "x4G", "4X", "-4G", "9999E"])
def test_what_is_no_memory_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="'"):
        cells.requested_memory(text)


@pytest.mark.parametrize(
    ("text", "label", "base", "task", "step"),
    [
        ("7", "7", 7, None, None), ("7.batch", "7", 7, None, "batch"), ("7_3", "7_3", 7, 3, None),
        ("7_3.0", "7_3", 7, 3, "0"), ("7+1", "7+1", 7, None, None), ("7+1.extern", "7+1", 7, None, "extern"),
        ("7_[4-9%2]", "7_[4-9%2]", 7, None, None), ("7.0+1", "7", 7, None, "0+1"),
        ("7.interactive", "7", 7, None, "interactive"), ("7_[1,3-5,7+", "7_[1,3-5,7+", 7, None, None),
    ],
)  # fmt: skip
def test_job_ids_of_every_form(text: str, label: str, base: int, task: int | None, step: str | None) -> None:
    name = cells.job_name(text)
    assert (name.label, name.base, name.task, name.step) == (label, base, task, step)


@pytest.mark.parametrize("text", ["", "batch", "x7", "7 8", "7.", "_3", "1" * 40])
def test_what_is_no_job_id_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a job id"):
        cells.job_name(text)


def test_tres_strings_come_apart_and_nonsense_is_refused() -> None:
    found = cells.tres("billing=24,cpu=8,gres/gpu:a100=1,gres/gpu=1,mem=199G,node=1")
    assert found["gres/gpu:a100"] == "1"
    assert found["mem"] == "199G"
    with pytest.raises(ValueError, match="cpu=8"):
        cells.tres("eight CPUs")


@pytest.mark.parametrize(
    ("text", "gpus"),
    [
        ("gpu:2", 2), ("gpu:a100:4(S:0-1)", 4), ("gpu", 1), ("gpu:a100", 1), ("gres:gpu:2,license:1", 2), ("", 0),
        ("mps:5", 0),
    ],
)  # fmt: skip
def test_gpus_in_a_gres_list(text: str, gpus: int) -> None:
    assert cells.gpus_of_gres(text) == gpus


def test_times_are_local_to_where_sacct_ran() -> None:
    berlin, utc = cells.Clock(ZoneInfo("Europe/Berlin")), cells.Clock(ZoneInfo("UTC"))
    assert utc.read("2024-05-01T12:00:00") == 1_714_564_800
    assert berlin.read("2024-05-01T12:00:00") == 1_714_564_800 - 7200
    assert berlin.read("2024-05-01T12:00:00+00:00") == 1_714_564_800
    assert berlin.read("1714564800") == 1_714_564_800


def test_the_hour_that_autumn_repeats_is_told_apart_by_the_elapsed_time() -> None:
    clock = cells.Clock(ZoneInfo("Europe/Berlin"))  # 2024-10-27: 02:00 to 03:00 happens twice
    start, end = clock.interval("2024-10-27T01:30:00", "2024-10-27T02:30:00", 2 * 3600)
    assert (start, end) == (1_729_985_400, 1_729_985_400 + 7200)
    start, end = clock.interval("2024-10-27T02:10:00", "2024-10-27T02:20:00", 600 + 3600)
    assert start is not None
    assert end is not None
    assert end - start == 4200


@pytest.mark.parametrize("text", ["yesterday", "2024-13-01T00:00:00", "0001-01-01", "9999-12-31T23:59:59", "12:30"])
def test_what_is_no_point_in_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="time"):
        cells.Clock(ZoneInfo("UTC")).read(text)


@given(st.text(max_size=40))
def test_no_text_at_all_breaks_a_cell_parser(text: str) -> None:
    clock = cells.Clock(ZoneInfo("Europe/Berlin"))
    parsers = [
        cells.duration_s, cells.count, cells.memory_bytes, cells.requested_memory, cells.job_name, cells.tres,
        cells.gpus_of_gres, clock.read,
    ]  # fmt: skip
    for parse in parsers:
        with contextlib.suppress(ValueError):
            parse(text)
