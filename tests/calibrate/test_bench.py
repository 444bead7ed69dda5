"""The benchmark of a site: it runs for real on CPUs; slow nodes and links are found; factors are right."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcplan.calibrate.bench import Bench, polish, read_bench, slow_of, slow_ones
from hpcplan.calibrate.bench_constants import factors_of
from hpcplan.calibrate.evidence import keep_factors, known_factors, merge_bench
from hpcplan.cli import main
from hpcplan.cli.calibrate_bench import _cause
from hpcplan.cost.constants import constants_for
from hpcplan.errors import InputError
from hpcplan.plan import read_plan
from hpcplan.resources import shipped
from hpcplan.site import load_site

PROGRAM = shipped("templates") / "bench" / "site_bench.py"


def run(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> tuple[str, str]:
    with pytest.raises(SystemExit) as caught:
        main([*words])
    out, err = capsys.readouterr()
    assert caught.value.code == code, err
    return out, err


def made(ranks: int, *, per_node: int = 1, device: str = "cuda", **changes: Any) -> list[dict[str, Any]]:
    """Return the files of processes on equal nodes: H100s at 600 TFLOP/s, 2.7 TB/s, 40 GB/s between each two."""
    hosts = [f"n{rank // per_node}" for rank in range(ranks)]
    size = [2**power for power in (20, 22, 24, 26, 28)]
    files = []
    for rank in range(ranks):
        collectives = [
            {"where": "network", "what": "all_reduce", "ranks": ranks, "bytes": s,
             "best_s": 2 * (ranks - 1) / ranks * (s + 8e6) / (0.4 * 100e9) + 2 * (ranks - 1) * 2e-6, "median_s": 1.0}
            for s in size
        ]  # fmt: skip
        pairs = [{"other": o, "bytes": 2**26, "best_s": 2**26 / 40e9, "median_s": 1.0, "latency_s": 1e-5}
                 for o in range(ranks) if o != rank]  # fmt: skip
        files.append(
            {
                "schema": "hpcplan-bench/1", "time": 1_795_000_000, "rank": rank, "ranks": ranks, "host": hosts[rank],
                "hosts": hosts, "device": device, "device_name": "NVIDIA H100 80GB HBM3",
                "gemm": [{"precision": "bf16", "m": 4096, "k": 4096, "n": 4096, "flops_per_s": 600e12}],
                "attention": [{"sequence": 2048 * 4**i, "width": 128, "flops_per_s": (200 + 110 * i) * 1e12}
                              for i in range(2)],
                "memory": [{"what": "copy", "bytes_per_s": 2.7e12}], "collectives": collectives, "pairs": pairs,
                **changes,
            }
        )  # fmt: skip
    return files


def bench_of(tmp_path: Path, files: list[dict[str, Any]]) -> Bench:
    for data in files:
        (tmp_path / f"bench-{data['rank']}.json").write_text(json.dumps(data))
    return read_bench(tmp_path)


def test_processes_on_two_nodes_measure_each_other(tmp_path: Path) -> None:
    """Three processes, two of them on one node, as separate programs over TCP."""
    running = []
    for rank, host in enumerate(("a", "a", "b")):
        environment = {**os.environ, "HPCPLAN_BENCH_HOST": host, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        words = ["--out", str(tmp_path), "--rank", str(rank), "--ranks", "3", "--quick", "--storage", str(tmp_path)]
        running.append(subprocess.Popen([sys.executable, str(PROGRAM), *words, "--device", "cpu"], env=environment))
    assert [process.wait(120) for process in running] == [0, 0, 0]
    bench = read_bench(tmp_path)
    assert bench.nodes == ("a", "b")
    assert {figure.what.split()[0] for figure in bench.gemms()} >= {"fp32", "fp64"}
    assert all(figure.rate > 1e8 for figure in [*bench.gemms(), *bench.memory()])
    assert {figure.what.rsplit(" ", 2)[0] for figure in bench.collectives()} == {
        *(f"{where} {what} 2 ranks" for where in ("node", "network") for what in ("all_reduce", "all_gather"))
    }  # fmt: skip
    rates = bench.pairs()
    assert np.isnan(np.diag(rates)).all()
    assert np.isfinite(rates[~np.eye(3, dtype=bool)]).all()
    assert set(bench.storage()) == {"write_bytes_per_s", "read_bytes_per_s"}


def test_sums_over_the_ring_are_right(tmp_path: Path) -> None:
    """Two processes reduce: every element is the number of processes, as of no other collective."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import site_bench as b; import numpy as np\n"
        "rank = int(sys.argv[3]); t = b.Tcp(sys.argv[2], rank, 3)\n"
        "parts = t.all_reduce([0, 1, 2], 4096); assert all((p == 3).all() for p in parts), parts\n"
        "t.barrier(); t.close()\n"
    )
    running = [subprocess.Popen([sys.executable, "-c", code, str(PROGRAM.parent), str(tmp_path), str(rank)])
               for rank in range(3)]  # fmt: skip
    assert [process.wait(60) for process in running] == [0, 0, 0]


def test_processes_meet_through_torch_where_it_is(tmp_path: Path) -> None:
    """The way that accelerators take, with gloo on CPUs: groups, collectives and pairs."""
    pytest.importorskip("torch")
    words = ["--out", str(tmp_path), "--ranks", "3", "--quick", "--device", "cpu", "--links", "torch"]
    running = [
        subprocess.Popen([sys.executable, str(PROGRAM), *words, "--rank", str(rank)],
                         env={**os.environ, "HPCPLAN_BENCH_HOST": host})
        for rank, host in enumerate("aab")
    ]  # fmt: skip
    assert [process.wait(120) for process in running] == [0, 0, 0]
    bench = read_bench(tmp_path)
    assert {figure.what.split()[0] for figure in bench.collectives()} == {"node", "network"}
    assert np.isfinite(bench.pairs()[~np.eye(3, dtype=bool)]).all()


def test_every_two_ranks_meet_once_and_nobody_twice_at_a_time() -> None:
    space: dict[str, Any] = {"__name__": "site_bench"}
    exec(PROGRAM.read_text(), space)
    for ranks in range(2, 9):
        rounds = space["rounds_of"](ranks)
        pairs = [pair for each in rounds for pair in each]
        assert sorted(pairs) == [(a, b) for a in range(ranks) for b in range(a + 1, ranks)]
        for each in rounds:
            members = [rank for pair in each for rank in pair]
            assert len(members) == len(set(members))


def test_a_slow_node_and_a_slow_link_are_told_apart(tmp_path: Path) -> None:
    files = made(8)
    files[2]["gemm"][0]["flops_per_s"] *= 0.8
    for data in files:
        for pair in data["pairs"]:
            ends = {data["rank"], pair["other"]}
            pair["best_s"] *= 2.0 if 5 in ends else 1.0
            pair["best_s"] *= 3.0 if ends == {1, 6} else 1.0
    found = {(each.where, each.what): each.share for each in slow_ones(bench_of(tmp_path, files))}
    assert found == {
        ("n2", "bf16 products"): pytest.approx(0.8),
        ("n5", "all links between nodes"): pytest.approx(0.5, rel=0.05),
        ("n1 - n6", "links between nodes"): pytest.approx(1 / 3, rel=0.05),
    }


def test_what_disturbs_a_link_for_a_while_is_not_the_link(tmp_path: Path) -> None:
    """Every pair is measured again and again: a third of all transfers take up to four times as long."""
    chance = np.random.default_rng(3)
    times = np.exp(0.1 * chance.standard_normal((10, 8, 8)))
    times = np.where(chance.random(times.shape) < 1 / 3, times * chance.uniform(1.2, 4.0, times.shape), times)
    times = np.maximum(times, times.transpose(0, 2, 1))
    files = made(8)
    for data in files:
        for pair in data["pairs"]:
            a, b = data["rank"], pair["other"]
            slow = 3.0 if {a, b} == {1, 6} else 1.0
            pair["sweeps_s"] = (slow * pair["best_s"] * times[:, a, b]).tolist()
            pair["best_s"] = min(pair["sweeps_s"])
    assert [each.where for each in slow_ones(bench_of(tmp_path, files))] == ["n1 - n6"]
    for data in files:  # one sweep alone names another one
        for pair in data["pairs"]:
            pair["best_s"] = pair.pop("sweeps_s")[0]
    assert [each.where for each in slow_ones(bench_of(tmp_path, files))] == ["n2 - n3"]


def test_nodes_that_are_alike_are_not_slow(tmp_path: Path) -> None:
    chance = np.random.default_rng(1)
    files = made(16)
    for data in files:
        data["gemm"][0]["flops_per_s"] *= float(np.exp(chance.normal(0, 0.01)))
        for pair in data["pairs"]:
            pair["best_s"] *= float(np.exp(chance.normal(0, 0.01)))
    assert slow_ones(bench_of(tmp_path, files)) == []


@given(st.lists(st.floats(1.0, 1e12), max_size=12))
def test_most_are_never_slow(rates: list[float]) -> None:
    found = slow_of([str(i) for i in range(len(rates))], rates, "x")
    assert len(found) < max(1, len(rates) / 2)
    assert all(0 < each.share < 0.9 for each in found)


def test_the_polish_takes_levels_out() -> None:
    levels = np.array([0.0, 0.3, -0.2, 0.0, 0.1, 0.0])
    matrix = 5 + levels[:, None] + levels[None, :]
    np.fill_diagonal(matrix, np.nan)
    found, left = polish(matrix)
    assert np.nanmax(np.abs(left)) < 0.05
    assert found[1] - found[2] == pytest.approx(0.5, abs=0.05)


def test_factors_are_what_was_measured_over_what_is_usual(tmp_path: Path) -> None:
    site = load_site("superpod-h100").site
    found = factors_of(bench_of(tmp_path, made(4)), site, "dgx").factors
    base = constants_for(accelerator="H100-SXM5-80GB", family="H100").coefficients
    c = constants_for(accelerator="H100-SXM5-80GB", family="H100", precision="bf16").coefficients
    fill = 4096 / (4096 + float(c.matmul_half_rows)) * (4096 / (4096 + float(c.matmul_half_width))) ** 2
    products = found["matmul_efficiency"][0] * float(c.matmul_efficiency) * fill * 989.4e12
    assert products == pytest.approx(600e12, rel=0.01), "the model then has the product that was measured as measured"
    short = float(c.attention_half_sequence) / 8192
    rate = found["attention_efficiency"][0] * float(c.attention_efficiency) * 989.4e12
    attention = 3.5 * rate / (1 + 0.22 * short + 2.5 * (1 + short))
    assert attention == pytest.approx(310e12, rel=0.01), "of the longest sequence; the model's is of heads of 128"
    assert found["memory_efficiency"][0] == pytest.approx(2.7 / 3.35 / 0.90, rel=0.01)
    network = found["network_efficiency"][0] * float(base.network_efficiency)
    assert network * 50e9 == pytest.approx(40e9, rel=0.05), "all-reduces were made at 40 GB/s, over one interface of 50"


def test_a_benchmark_of_an_earlier_release_had_no_attention(tmp_path: Path) -> None:
    files = made(2)
    for data in files:
        del data["attention"]
    found = factors_of(bench_of(tmp_path, files), load_site("superpod-h100").site, "dgx").factors
    assert "attention_efficiency" not in found
    assert "matmul_efficiency" in found


def test_cpus_say_nothing_of_accelerators(tmp_path: Path) -> None:
    found = factors_of(bench_of(tmp_path, made(2, device="cpu")), load_site("superpod-h100").site, "dgx")
    assert not found.factors
    assert "CPUs" in found.notes[0]


def test_every_later_plan_says_the_evidence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["plan", "bert-large", "--site", "superpod-h100", "--nodes", "2", "-o"]
    run(capsys, *words, str(tmp_path / "before.json"))
    folder = tmp_path / "bench"
    folder.mkdir()
    bench_of(folder, made(4))
    out, _ = run(capsys, "calibrate", "bench", "--site", "superpod-h100", "--read", str(folder), "--format", "json")
    assert set(json.loads(out)["factors"]) >= {"matmul_efficiency", "network_efficiency"}
    run(capsys, *words, str(tmp_path / "after.json"))
    before, after = (read_plan(tmp_path / f"{name}.json") for name in ("before", "after"))
    assert "evidence" not in before.provenance.constants.name
    assert "bench 2026-11-18 on 4 nodes (n0, n1, n2, n3; NVIDIA H100 80GB HBM3)" in after.provenance.constants.name
    assert after.estimate.iter_time_s != before.estimate.iter_time_s
    assert before.provenance.constants.sha256 != after.provenance.constants.sha256


def test_validate_predicts_with_what_plans_would_take(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = tmp_path / "runs.csv"
    rows.write_text("site,gpus,model,seq,global_batch,micro_batch,tp,iter_time_s\n"
                    "superpod-h100,8,llama3-8b,8192,64,1,4,5\n")  # fmt: skip

    def predicted() -> dict[str, str]:
        run(capsys, "validate", str(rows), "-o", str(tmp_path / "out.csv"))
        with (tmp_path / "out.csv").open() as stream:
            return next(csv.DictReader(stream))

    before, folder = predicted(), tmp_path / "bench"
    folder.mkdir()
    bench_of(folder, made(4))
    run(capsys, "calibrate", "bench", "--site", "superpod-h100", "--read", str(folder))
    after = predicted()
    assert after["predicted_iter_time_s"] != before["predicted_iter_time_s"]
    assert "bench 2026-11-18 on 4 nodes" in after["note"]
    assert "bench" not in before["note"]


def test_a_benchmark_keeps_what_was_learned_besides() -> None:
    keep_factors("lab", {"bubble": (1.2, "learned"), "matmul_efficiency": (0.9, "old")}, ["bench 2020", "learned 2021"])
    merge_bench("lab", {"matmul_efficiency": (1.1, "new")}, "bench 2026")
    found = known_factors("lab")
    assert found is not None
    assert {name: entry.factor for name, entry in found.factors.items()} == {"bubble": 1.2, "matmul_efficiency": 1.1}
    assert found.evidence == ("learned 2021", "bench 2026")


def test_the_job_asks_for_whole_nodes_and_one_task_an_accelerator(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["calibrate", "bench", "--site", "superpod-h100", "--nodes", "4", "-o", str(tmp_path), "--render-only"]
    run(capsys, *words)
    text = (tmp_path / "bench.sbatch").read_text()
    for line in ("--nodes=4", "--ntasks-per-node=8", "--gpus-per-node=8", "--exclusive", "--time=00:30:00"):
        assert f"#SBATCH {line}\n" in text
    assert (tmp_path / "site_bench.py").read_text() == PROGRAM.read_text()
    assert subprocess.run(["bash", "-n", str(tmp_path / "bench.sbatch")], check=False).returncode == 0
    run(capsys, *words[:5], "999", *words[6:], code=2)


def test_the_job_is_submitted_to_the_mock_cluster(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, "mock", "start", "superpod-h100", "--speed", "0")
    words = ["calibrate", "bench", "--site", "superpod-h100", "--nodes", "2", "--quick", "-o", str(tmp_path)]
    out, _ = run(capsys, *words, "--backend", "mock", "--format", "json")
    assert json.loads(out)["job_id"] == 1
    run(capsys, "mock", "stop")


@pytest.mark.parametrize("spoil", [lambda d: d.pop("gemm"), lambda d: d.update(schema="x"),
                                   lambda d: d["pairs"][0].update(best_s=0)])  # fmt: skip
def test_what_is_no_result_is_refused(tmp_path: Path, spoil: Any) -> None:
    files = made(2)
    spoil(files[1])
    with pytest.raises(InputError, match=r"bench-1\.json"):
        bench_of(tmp_path, files)


def test_a_process_that_left_nothing_is_missed(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"bench-1\.json is missing"):
        bench_of(tmp_path, [data for data in made(3) if data["rank"] != 1])


def test_why_a_job_failed_is_looked_for_in_its_output(tmp_path: Path) -> None:
    output = tmp_path / "hpcplan-bench-7.out"
    assert _cause(output) == ""
    output.write_text(
        "srun: error: n1: task 1: Exited with exit code 1\nTraceback (most recent call last):\n"
        '  File "site_bench.py", line 24, in <module>\n    import numpy as np\n'
        "ModuleNotFoundError: No module named 'numpy'\nsrun: error: n2: task 2: Terminated\n"
    )
    assert _cause(output) == ": ModuleNotFoundError: No module named 'numpy'"
    output.write_text("slurmstepd: error: execve(): bash\n/bin/sh: line 1: python4: command not found\n")
    assert _cause(output) == ": /bin/sh: line 1: python4: command not found"
    output.write_text("srun: error: n1: task 1: Killed\n")
    assert _cause(output) == ""
