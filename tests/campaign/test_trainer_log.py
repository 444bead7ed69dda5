"""The steps and step times in trainers' logs."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcplan.campaign.trainer_log import TrainerProgress, read_log, read_progress_of_log

MEGATRON = (
    " [2024-05-01 12:00:00] iteration {step:8d}/  500000 | consumed samples: 1024 | "
    "elapsed time per iteration (ms): {ms:.1f} | learning rate: 1.5E-04 | lm loss: 7.1E+00 |"
)


@pytest.mark.parametrize(
    ("line", "step", "seconds"),
    [
        (MEGATRON.format(step=120, ms=2500.0), 120, 2.5),
        ("steps: 40 loss: 8.1 iter time (s): 0.512 samples/sec: 500", 40, 0.512),
        (
            "Epoch 0: 10/1000 [loss=9.1, global_step: 10, train_step_timing in s: 1.25]",
            10,
            1.25,
        ),
        ("[titan] step: 1,200  loss: 2.1  step_time: 850 ms", 1200, 0.85),
        ("step 30 of 100, loss 1.2", 30, None),
        ("Iteration 7/100: loss=2.0", 7, None),
        ("iter: 8, lr: 1e-4", 8, None),
        ("nothing that says how far it is; the footsteps of 5 men", None, None),
    ],
)
def test_what_trainers_print(line: str, step: int | None, seconds: float | None) -> None:
    found = read_log(line)
    assert found.step == step
    assert found.step_time_s == (None if seconds is None else pytest.approx(seconds))


def test_the_last_step_counts_and_the_median_time() -> None:
    lines = [MEGATRON.format(step=step, ms=9000.0 if step == 5 else 1000.0) for step in range(1, 10)]
    lines.append(MEGATRON.format(step=4, ms=1000.0))  # it went back to a checkpoint
    assert read_log("\n".join(lines)) == TrainerProgress(4, 1.0)


def test_only_the_end_of_a_log_is_read(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("step: 1\n" + "x" * 1_000_000 + "\nstep: 2\n")
    assert read_progress_of_log(log).step == 2
    assert read_progress_of_log(tmp_path / "none") == TrainerProgress()


@given(st.text(max_size=300))
def test_no_log_is_too_strange(text: str) -> None:
    found = read_log(text)
    assert found.step is None or found.step >= 0


@given(st.integers(0, 10**9), st.floats(0.1, 1e6))
def test_megatrons_lines_are_read_as_they_are_written(step: int, ms: float) -> None:
    found = read_log(MEGATRON.format(step=step, ms=ms))
    assert found.step == step
    assert found.step_time_s == pytest.approx(float(f"{ms:.1f}") / 1000)
