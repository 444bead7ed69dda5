"""The reader of whole columns gives what the simple reader of single rows gives, whatever the text."""

from __future__ import annotations

import random
import re
import tempfile
from pathlib import Path
from types import ModuleType
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from hpcplan.errors import InputError
from hpcplan.report.faults import Faults
from hpcplan.report.sacct import read_by_rows
from hpcplan.report.sacct_cells import Clock
from hpcplan.report.sacct_dump import Dump
from hpcplan.report.sacct_files import Blocks
from hpcplan.report.table import merge

BERLIN = ZoneInfo("Europe/Berlin")
HEADER = [
    "JobID", "JobIDRaw", "JobName", "Cluster", "User", "Account", "State", "Submit", "Eligible", "Start", "End",
    "Elapsed", "ElapsedRaw", "Timelimit", "TimelimitRaw", "NNodes", "AllocCPUS", "ReqCPUS", "NTasks", "ReqMem",
    "ReqTRES", "AllocTRES", "AllocGRES", "ReqGRES", "TotalCPU", "MaxRSS", "TRESUsageInTot", "NodeList", "ExitCode",
    "RestartCnt", "Flags", "FailedNode", "ConsumedEnergyRaw", "AdminComment", "Comment", "SubmitLine",
]  # fmt: skip
STAMPS = [
    "2024-05-01T00:00:00", "2024-05-01T01:00:00", "2024-10-27T02:30:00", "2024-10-27T03:30:00", "2024-03-31T02:30:00",
    "1714521600", "Unknown", "None", "", "0", "2024-05-01", "2024-02-30T00:00:00", "2024-05-01T23:59:60", "soon",
    "1969-12-31T00:00:00", "2999-01-01T00:00:00", "2024-05-01T00:00:00+02:00",
]  # fmt: skip
SPANS = [
    "00:00:00", "01:00:00", "1-02:03:04", "05:06", "00:00.250", "12:34:56.789", "3600", "UNLIMITED", "Partition_Limit",
    "", "INVALID", "-1", "1:2:3:4", "99999-00:00:00", "9999999999", "99999999999", "00:61:61",
]  # fmt: skip
AMOUNTS = ["", "0", "1", "16", "2K", "1.5K", "many", "999999999", "9999999999", "0n", "4Gc", "4Gn", "4G", "1.50G",
           "12K", "4096", "100P", "900E", "?", "4GB", "N/A"]  # fmt: skip
TRES = [
    "", "cpu=16,mem=64G,node=2", "billing=4,cpu=4,gres/gpu:a100=2,gres/gpu=2,mem=0,node=1", "cpu=4,gres/gpu:v100=1",
    "gpus!", "cpu=,mem=4G", "cpu=1,cpu=2", "CPU=4", "mem=1.5T", "cpu=many", "gres/gpu=x", "a=b=c", "cpu = 4",
]  # fmt: skip
GRES = ["", "gpu:2", "gpu:a100:4(S:0-1)", "craynetwork:1", "gres:gpu:1,x:2"]
USAGE = [
    "", "cpu=00:10:00,energy=0,mem=4G,vmem=9G", "mem=0", "cpu=00:10:00,gres/gpuutil=150,mem=12K", "mem=4G,mem=8G",
    "gres/gpuutil=1.5,mem=1", "mem=soon", "mem", "cpu=1-00:00:00", "gres/gpumem=4G,gres/gpuutil=50,mem=5M",
]  # fmt: skip
CELLS = {
    "JobID": ["7", "7", "8", "7_3", "7_[4-9%2]", "9+1", "7.batch", "7.extern", "7.0", "7_3.0", "8.0", "8.interactive",
              "77.0", "9+1.0", "x", "", "JobID", "7_[1.5]", "1" * 19],
    "JobIDRaw": ["7", "8", "7.0", "7.batch", "", "12", "zz"],
    "JobName": ["a", "b b", "", " padded ", "ü\u2003", "a\x1cb", '"q', "a\tb"],
    "Cluster": ["c1", "c1", "c2", ""],
    "User": ["alice", "bob", ""], "Account": ["x", ""],
    "State": ["COMPLETED", "CANCELLED by 1000", "CANCELLED", "RUNNING", "PENDING", "REQUEUED", "NODE_FAIL", "",
              "Unknown",
              "ODD", "FAILED", "CD", "completed"],
    **dict.fromkeys(["Submit", "Eligible", "Start", "End"], STAMPS),
    **dict.fromkeys(["Elapsed", "ElapsedRaw", "Timelimit", "TimelimitRaw", "TotalCPU"], SPANS),
    **dict.fromkeys(["NNodes", "AllocCPUS", "ReqCPUS", "NTasks", "ReqMem", "MaxRSS", "RestartCnt", "ConsumedEnergyRaw"],
                    AMOUNTS),
    **dict.fromkeys(["ReqTRES", "AllocTRES"], TRES),
    "AllocGRES": GRES, "ReqGRES": GRES,
    "TRESUsageInTot": USAGE,
    "NodeList": ["n1", "n[1-2]", "None assigned", "", "NONE"],
    "ExitCode": ["0:0", "1:15", "", "x"], "Flags": ["", "SchedMain", "StartReceived,SchedBackfill", "SchedSubmit"],
    "FailedNode": ["", "Unknown", "n1"],
    "AdminComment": ["", '{"gpu_util": 12}', "JS1:none", "{x}"],
    "SubmitLine": ["sbatch --gres=gpu:2 -N 2 a.sh", "sbatch job.sh", "", "srun -G a100:4 ./gpu", "sbatch 'x", "-G",
                   "sbatch --gpus-per-task 1 -n 8 a"],
    "Comment": ["", '{"gpu_util": 50.5}', "hpcplan:c:train:1", "note hpcplan:c:train:2, x", "{}"],
}  # fmt: skip


def both(data: bytes, block_bytes: int) -> None:
    """Read both ways, and hold one against the other."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sacct.txt"
        path.write_bytes(data)
        by_rows, by_columns = Faults(), Faults()
        try:
            expected = read_by_rows([path], by_rows, zone=BERLIN)
        except InputError as error:
            dump = Dump(str(path), by_columns, Clock(BERLIN), Blocks(path, by_columns, block_bytes))
            with pytest.raises(InputError, match=re.escape(str(error))):
                dump.read(None)
            return
        found = merge([Dump(str(path), by_columns, Clock(BERLIN), Blocks(path, by_columns, block_bytes)).read(None)])
    assert_frame_equal(found, expected)
    assert (by_columns.rows_read, by_columns.counts) == (by_rows.rows_read, by_rows.counts)
    assert {(one.line, one.message) for one in by_columns.quoted} == {(one.line, one.message) for one in by_rows.quoted}


def row(draw: random.Random, columns: list[str], odd: float) -> str:
    usual = {name: cells[:6] for name, cells in CELLS.items()}
    cells = [draw.choice(CELLS[name] if draw.random() < odd else usual[name]) for name in columns]
    return "|".join(cells)


@given(
    st.integers(0, 2**32), st.integers(1, 40), st.sampled_from([0.0, 0.05, 0.5]), st.integers(3, len(HEADER)),
    st.sampled_from([150, 600, 5000, 100_000]),
)  # fmt: skip
@settings(max_examples=150, deadline=None)
def test_rows_of_every_kind(seed: int, count: int, odd: float, width: int, block_bytes: int) -> None:
    draw = random.Random(seed)
    columns = ["JobID", *draw.sample(HEADER[1:], width - 1)]
    lines = [row(draw, columns, odd) for _ in range(count)]
    if odd:
        noise = [
            "",
            "   ",
            "|".join(columns),
            "JobID|State",
            "7|8",
            "|" * width,
            lines[0] + "|",
            lines[0] + "|x",
            "a\nb",
        ]
        lines = [line for pair in lines for line in ([pair, draw.choice(noise)] if draw.random() < 0.1 else [pair])]
    text = "\n".join(["|".join(columns), *lines]) + draw.choice(["", "\n", "\r\n"])
    both(text.encode(), block_bytes)


@given(st.integers(0, 2**32), st.integers(1, 30), st.sampled_from(["\t", ",", "^|^", "☃", "\x1f", ";;"]))
@settings(max_examples=60, deadline=None)
def test_any_delimiter(seed: int, count: int, delimiter: str) -> None:
    draw = random.Random(seed)
    columns = ["JobID", "JobName", "State", "Start", "End", "Elapsed", "AllocCPUS", "MaxRSS", "TotalCPU"]
    lines = ["|".join(columns), *(row(draw, columns, 0.05) for _ in range(count))]
    trailing = draw.choice(["", delimiter])
    both("".join(line.replace("|", delimiter) + trailing + "\n" for line in lines).encode(), 700)


@given(st.integers(0, 2**32), st.lists(st.tuples(st.floats(0, 1), st.binary(max_size=5)), max_size=6))
@settings(max_examples=100, deadline=None)
def test_damaged_bytes(seed: int, damage: list[tuple[float, bytes]]) -> None:
    draw = random.Random(seed)
    lines = [row(draw, HEADER, 0.02) for _ in range(12)]
    text = ("|".join(HEADER) + "\n" + "\n".join(lines) + "\n").encode()
    start = len("|".join(HEADER)) + 1
    for place, piece in damage:
        at = start + int(place * (len(text) - start))
        text = text[:at] + piece + text[at + draw.randrange(3) :]
    both(text, draw.choice([400, 10_000]))


def test_names_of_resources_that_slurm_does_not_have() -> None:
    usages = [
        "cpu=00:00:05,mem=4K", "cpu=00:00:05,m\ufffdem=4K", "ü=1,mem=4K", f"{'x' * 31}=1,mem=4K", "mem=4K,mem=8K",
        f"{'x' * 50}=1,mem=4K", "=1,mem=4K", "cpu=1,a,b=2,mem=4K", "mem=4K,", "a b=1,mem=4K",
    ]  # fmt: skip
    lines = ["JobID|State|Elapsed|TRESUsageInTot"]
    for number, usage in enumerate(usages, start=7):
        lines += [f"{number}|COMPLETED|01:00:00|", *(f"{number}.{step}|COMPLETED|01:00:00|{usage}" for step in (0, 1))]
    both("\n".join(lines).encode(), 10_000)


def test_steps_far_from_their_jobs_and_attempts_of_one_job() -> None:
    head = "JobID|State|Submit|Start|End|Elapsed|AllocCPUS|TotalCPU|MaxRSS"
    first, second = "2024-05-01T00:00:00", "2024-05-02T00:00:00"
    others = [f"{n}|COMPLETED|{first}|{first}|{second}|1-00:00:00|2||" for n in range(20, 60)]
    rows = [
        head,
        "7.9|COMPLETED|||||1|00:00:05|9K",
        f"7|REQUEUED|{first}|{first}|{second}|1-00:00:00|4||",
        "7.0|CANCELLED|||||4|01:00:00|5K",
        *others,
        "7.1|CANCELLED|||||4|02:00:00|6K",
        f"7|COMPLETED|{second}|{second}|{second}|00:00:00|4||",
        "7.0|COMPLETED|||||4|03:00:00|7K",
        "25.0|COMPLETED|||||2|01:00:00|1K",
        "99.0|COMPLETED|||||2|01:00:00|1K",
    ]
    for block_bytes in (120, 500, 10_000):
        both("\n".join(rows).encode(), block_bytes)


def test_totals_reconcile_with_plain_sums(tmp_path: Path, made_up: ModuleType) -> None:
    draw = random.Random(5)
    cpu_s, memory, lines = 0.0, 0, ["JobIDRaw|State|Submit|Start|End|ElapsedRaw|AllocCPUS|TotalCPU|MaxRSS|NTasks"]
    for number in range(1, 2000):
        start, seconds, cpus = made_up.START + number, draw.randrange(1, 9000), draw.randrange(1, 64)
        used, peak, tasks = draw.randrange(1, 9000), draw.randrange(1, 10**6), draw.randrange(1, 9)
        lines.append(f"{number}|COMPLETED|{start}|{start}|{start + seconds}|{seconds}|{cpus}|||")
        lines.append(
            f"{number}.batch|COMPLETED|||||1|{used // 3600:02}:{used // 60 % 60:02}:{used % 60:02}|{peak}K|{tasks}"
        )
        cpu_s, memory = cpu_s + used, memory + peak * 1024 * tasks
    path = tmp_path / "sacct.txt"
    path.write_text("\n".join(lines))
    faults = Faults()
    table = Dump(str(path), faults, Clock(BERLIN), Blocks(path, faults, 4000)).read(None)
    assert table["cpu_used_s"].sum() == cpu_s
    assert table["memory_used_bytes"].sum() == memory
    assert table.filter(pl.col("state") == "COMPLETED").height == 1999
