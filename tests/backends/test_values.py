from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcplan.slurm import values


@pytest.mark.parametrize("word", ["", "(null)", "N/A", "None", "Unknown", "None assigned", " "])
def test_slurms_words_for_nothing_are_none(word: str) -> None:
    assert values.text(word) is None
    assert values.number(word) is None
    assert values.stamp(word) is None
    assert values.size_bytes(word) is None
    assert values.cpu_seconds(word) is None
    assert values.exit_status(word) == (None, None)
    assert values.tres(word) == {}
    assert values.gres_gpus(word) == 0


@pytest.mark.parametrize(
    ("word", "unit", "size"),
    [("4108K", "", 4108 * 1024), ("1.5T", "", 3 * 1024**4 // 2), ("2000", "M", 2000 * 1024**2), ("0", "", 0)],
)
def test_memory_is_in_powers_of_1024(word: str, unit: str, size: int) -> None:
    assert values.size_bytes(word, unit=unit) == size


@pytest.mark.parametrize(
    ("word", "seconds"),
    [("00:00.041", 0.041), ("00:00:00", 0.0), ("02:03:04", 7384.0), ("1-02:03:04", 93784.0), ("59:59.999", 3599.999)],
)
def test_cpu_time_has_days_or_milliseconds(word: str, seconds: float) -> None:
    assert values.cpu_seconds(word) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("word", "code", "signal"), [("3:0", 3, 0), ("0:15", 0, 15), ("768", 3, 0), ("9", 0, 9), ("0", 0, 0)]
)
def test_exit_codes_of_sacct_and_of_squeue_before_and_after_24_05(word: str, code: int, signal: int) -> None:
    assert values.exit_status(word) == (code, signal)


def test_trackable_resources_have_memory_in_bytes() -> None:
    found = values.tres("billing=8,cpu=8,gres/gpu:h100=16,gres/gpu=16,mem=2000M,node=2,cpu=00:00:00")
    assert found == {"billing": 8, "cpu": 8, "gres/gpu:h100": 16, "gres/gpu": 16, "mem": 2000 * 1024**2, "node": 2}


@pytest.mark.parametrize(
    ("words", "gpus"),
    [
        ("cpu=8,gres/gpu=16,gres/gpu:h100=16", 16),
        ("gres/gpu:h100=8,gres/gpu:a100=4", 12),
        ("cpu=8,gres/gpu=0", 0),
        ("cpu=8,gres/gpumem=0,gres/gpuutil=0", None),
        ("cpu=8,mem=1G", None),
        ("", None),
    ],
)
def test_gpus_are_counted_once_and_unknown_where_they_are_not_tracked(words: str, gpus: int | None) -> None:
    assert values.gpu_count(values.tres(words)) == gpus


@pytest.mark.parametrize(
    ("gres", "gpus"),
    [
        ("gpu:8", 8),
        ("gpu:h100:8", 8),
        ("gpu:h100:8(S:0-1)", 8),
        ("gpu:4g.40gb:2,gpu:h100:1", 3),
        ("gpu:a100:4(IDX:0-1,3-4),nic:2", 4),
        ("gres:gpu:2", 2),
        ("gpu", 1),
        ("gpu:h100", 1),
        ("shard:64,nic:8", 0),
        ("gpumem:80G", 0),
    ],
)
def test_gpus_in_generic_resources(gres: str, gpus: int) -> None:
    assert values.gres_gpus(gres) == gpus


@given(st.text(max_size=20))
def test_any_word_is_an_amount_of_memory_or_refused(word: str) -> None:
    try:
        size = values.size_bytes(word)
    except ValueError:
        return
    assert size is None or size >= 0
