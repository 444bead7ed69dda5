"""Quantities as people write them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcplan import units


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("80 GiB", 80 * 1024**3),
        ("80GB", 80 * 10**9),
        ("512 B", 512),
        ("1.5 TiB", round(1.5 * 1024**4)),
        ("4_096 KiB", 4096 * 1024),
    ],
)
def test_bytes_keep_decimal_and_binary_prefixes_apart(text: str, value: int) -> None:
    assert units.parse_bytes(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [("400 Gb/s", 50e9), ("50 GB/s", 50e9), ("400 Gbps", 50e9), ("1 TiB/s", 1024.0**4), ("200 Gbit/s", 25e9)],
)
def test_bandwidth_tells_bits_from_bytes(text: str, value: float) -> None:
    assert units.parse_bandwidth(text) == pytest.approx(value)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2 us", 2e-6),
        ("2 µs", 2e-6),
        ("30 min", 1800),
        ("36 h", 129600),
        ("12:30:00", 45000),
        ("2-00:00:00", 172800),
        ("1-12", 129600),
        ("7 days", 604800),
    ],
)
def test_durations_as_people_and_slurm_write_them(text: str, seconds: float) -> None:
    assert units.parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["12:30", "1:75:00", "1-25:00:00", "", "soon", "-3 h", "3", "3 parsecs", "1e999 s"])
def test_an_ambiguous_or_impossible_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        units.parse_duration(text)


@pytest.mark.parametrize(
    ("parse", "text", "hint"),
    [
        (units.parse_bytes, "80", "80 GiB"),
        (units.parse_bytes, "80 Gb/s", "not a unit of memory"),
        (units.parse_bandwidth, "400 GB", "not a unit of bandwidth"),
        (units.parse_flops, "312", "312 TFLOP/s"),
        (units.parse_power, "-1 W", "negative"),
        (units.parse_bytes, "eighty GiB", "not a quantity"),
    ],
)
def test_a_wrong_quantity_is_told_what_would_be_right(parse: object, text: str, hint: str) -> None:
    assert callable(parse)
    with pytest.raises(ValueError, match=hint):
        parse(text)


@pytest.mark.parametrize(
    ("text", "value"), [("15T", 15 * 10**12), ("300 B", 300 * 10**9), ("1.5M", 1_500_000), ("7", 7)]
)
def test_counts_of_tokens(text: str, value: int) -> None:
    assert units.parse_count(text) == value


@pytest.mark.parametrize("text", ["1.5", "0.3", "1e", "tokens", "-4"])
def test_a_count_is_whole(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        units.parse_count(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30", 1800),
        ("30:15", 1815),
        ("01:02:03", 3723),
        ("2-03", 183600),
        ("2-03:04", 183840),
        ("2-03:04:05", 183845),
        ("00:00.123", 0),
        ("10:02.617", 603),
        ("UNLIMITED", None),
        ("Partition_Limit", None),
        ("INVALID", None),
        ("", None),
    ],
)
def test_times_as_slurm_writes_them(text: str, seconds: int | None) -> None:
    assert units.parse_slurm_time(text) == seconds


@given(st.integers(min_value=0, max_value=10**8))
def test_a_slurm_time_reads_back(seconds: int) -> None:
    assert units.parse_slurm_time(units.format_slurm_time(seconds)) == seconds


@given(st.floats(min_value=1, max_value=1e20, allow_nan=False))
def test_formatted_bytes_read_back_within_their_digits(count: float) -> None:
    text = units.format_bytes(count)
    assert units.parse_bytes(text) == pytest.approx(count, rel=0.06, abs=1)


@given(st.text(max_size=40))
def test_a_parser_either_returns_a_number_or_refuses(text: str) -> None:
    for parse in (units.parse_bytes, units.parse_bandwidth, units.parse_duration, units.parse_count, units.parse_flops):
        try:
            value = parse(text)
        except ValueError:
            continue
        assert value >= 0
        assert math.isfinite(value)


def test_durations_read_as_people_say_them() -> None:
    assert [units.format_duration(s) for s in (0, 0.0081, 12.4, 74.5, 125, 180, 1500, 7500, 3 * 86400 + 4 * 3600)] == [
        "0 s", "8.1 ms", "12.4 s", "74.5 s", "2 min 05 s", "3 min", "25 min", "2 h 05 min", "3 d 4 h",
    ]  # fmt: skip
