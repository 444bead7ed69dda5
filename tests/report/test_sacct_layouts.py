"""Files without a header are read where only one tool's columns fit, and refused else."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from hpcplan.errors import InputError
from hpcplan.report import jobs_of
from hpcplan.report.faults import Faults
from hpcplan.report.sacct import read_by_rows
from hpcplan.report.sacct_layouts import LAYOUTS

JOB = {
    "jobid": "7", "jobidraw": "7", "jobname": "a", "user": "alice", "account": "physics", "partition": "batch",
    "state": "COMPLETED", "submit": "2024-05-01T00:00:00", "eligible": "2024-05-01T00:00:00",
    "start": "2024-05-01T01:00:00", "end": "2024-05-01T03:00:00", "elapsed": "02:00:00", "timelimit": "04:00:00",
    "nnodes": "1", "alloccpus": "8", "ncpus": "8", "reqmem": "16G", "totalcpu": "08:00:00", "exitcode": "0:0",
    "nodelist": "n1", "alloctres": "cpu=8,mem=16G,node=1", "reqtres": "cpu=8,mem=16G,node=1", "cputime": "16:00:00",
}  # fmt: skip
STEP = {
    **{name: JOB[name] for name in ("account", "state", "start", "end", "elapsed", "nnodes", "alloccpus", "ncpus",
                                    "totalcpu", "exitcode", "nodelist", "cputime")},
    "jobid": "7.batch", "jobidraw": "7.batch", "jobname": "batch", "maxrss": "4G", "ntasks": "1",
}  # fmt: skip


def text(layout: str, delimiter: str, *, trailing: bool) -> str:
    columns = LAYOUTS[layout]
    rows = [[row.get(name, "") for name in columns] for row in (JOB, STEP)]
    return "".join(delimiter.join(row) + (delimiter if trailing else "") + "\n" for row in rows)


@pytest.mark.parametrize("layout", list(LAYOUTS))
@pytest.mark.parametrize("delimiter", ["|", "☃", "^|^", ";|;", "\t"])
@pytest.mark.parametrize("trailing", [True, False])
def test_the_columns_of_known_tools_are_recognised(
    read_text: Callable[..., tuple[object, Faults]], layout: str, delimiter: str, trailing: bool, tmp_path: object
) -> None:
    table, faults = read_text(text(layout, delimiter, trailing=trailing))
    assert faults.total == 0
    assert layout in faults.notes[0]
    (job,) = jobs_of(table)  # type: ignore[arg-type]
    assert (job["job_id"], job["state"]) == ("7", "COMPLETED")
    assert job["memory_efficiency"] == (0.25 if {"reqmem", "maxrss"} <= set(LAYOUTS[layout]) else None)
    assert job["cpu_efficiency"] == (0.5 if {"totalcpu", "elapsed"} <= set(LAYOUTS[layout]) else None)
    by_rows = read_by_rows([f"{tmp_path}/sacct.txt"], Faults())
    assert by_rows.select("label", "state", "cpus").equals(table.select("label", "state", "cpus"))  # type: ignore[attr-defined]


def test_cells_of_other_columns_are_not_guessed(read_text: Callable[..., tuple[object, Faults]]) -> None:
    draw = random.Random(1)
    columns = [*LAYOUTS["hb-jobinfo's"]]
    draw.shuffle(columns)
    row = "|".join(JOB.get(name, "") for name in columns)
    for lines in (row, "alice|7|COMPLETED", "7|COMPLETED|alice|x", "a b c"):
        with pytest.raises(InputError, match="no header"):
            read_text(lines + "\n")
