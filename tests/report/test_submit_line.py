"""GPUs that a submit line asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcplan.report import build_report, jobs_of, read_sacct
from hpcplan.report.submit_line import asked_gpus
from hpcplan.report.table import span


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("sbatch --gres=gpu:2 job.sh", (4, None)),
        ("sbatch --gres gpu:A100:2(S:0-1),scratch:1 job.sh", (4, "a100")),
        ("sbatch -p gpu -G4 job.sh", (4, None)),
        ("sbatch --gpus=h100:16 --exclusive job.sh", (16, "h100")),
        ("srun --hold --gpus-per-node=8 hostname", (16, None)),
        ("srun -n 6 --gpus-per-task=1 ./a.out", (6, None)),
        ("srun --gpus-per-task=1 ./a.out", None),  # of how many tasks is in the script, or nowhere
        ("sbatch job.sh --gres=gpu:8", None),  # the script's own option
        ("sbatch -J gpu job.sh", None),
        ("sbatch --gres=gpu --wrap 'run -G 9'", (2, None)),
        ("sbatch --gres=gpu:many:x job.sh", None),
        ("sbatch --gres=craynetwork:1 job.sh", None),
        ("", None),
    ],
)
def test_options_of_the_command_alone_count(line: str, found: tuple[int, str | None] | None) -> None:
    assert asked_gpus(line, 2) == found


@given(st.text(max_size=60), st.none() | st.integers(0, 9))
def test_no_text_breaks_it(line: str, nodes: int | None) -> None:
    found = asked_gpus(f"sbatch {line}", nodes)
    assert found is None or found[0] > 0


def test_it_counts_only_where_accounting_lists_no_resources_and_says_so(tmp_path: Path) -> None:
    times = "2024-05-01T00:00:00|2024-05-01T00:00:00|2024-05-01T01:00:00|01:00:00"
    rows = [
        "JobID|State|Submit|Start|End|Elapsed|NNodes|AllocCPUS|AllocTRES|SubmitLine",
        f"1|COMPLETED|{times}|2|8||sbatch --gres=gpu:2 a.sh",
        f"2|COMPLETED|{times}|1|8||sbatch a.sh",
        f"3|COMPLETED|{times}|1|8|cpu=8,node=1,gres/gpu=1|sbatch -G 4 a.sh",
    ]
    (tmp_path / "sacct.txt").write_text("\n".join(rows))
    table, _ = read_sacct([tmp_path / "sacct.txt"])
    assert [(job["job_id"], job["gpus"], job["gpus_asked"]) for job in jobs_of(table)] == [
        ("1", 4, True), ("2", None, False), ("3", 1, False),
    ]  # fmt: skip
    start, end = span(table)
    report = build_report(table, start=start, end=end + 1)
    assert (report.gpu_hours.value, report.gpu_hours.known, report.gpu_hours.total) == (5.0, 2, 3)
    assert "1 attempts the GPUs that their submit line asked for" in (report.gpu_hours.note or "")
