"""The programs that jobs start on their nodes: what they find, on machines made up of files and stand-ins."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcplan.plan import Health
from hpcplan.render import render_plan
from tests.render import plans


@pytest.fixture(scope="module")
def all_reduce(repository: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("all_reduce", repository / "templates" / "node" / "all_reduce.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@given(st.integers(2, 40))
def test_pairs_leave_no_node_out(all_reduce: ModuleType, count: int) -> None:
    pairs = all_reduce.pairs_of(count)
    assert {node for pair in pairs for node in pair} == set(range(count))
    assert all(a != b for a, b in pairs)


@given(st.integers(3, 40), st.data())
def test_one_slow_node_is_the_one_that_is_blamed(all_reduce: ModuleType, count: int, data: st.DataObject) -> None:
    bad = data.draw(st.integers(0, count - 1))
    pairs = all_reduce.pairs_of(count)
    rates = [1.0 if bad in pair else 100.0 for pair in pairs]
    slow = all_reduce.suspects(pairs, rates, 50.0)
    again = all_reduce.second_pairs(slow, count)
    second = [1.0 if bad in pair else 100.0 for pair in again]
    blamed = all_reduce.blamed(slow, again, second, 50.0)
    if again:
        assert list(blamed) == [bad]
    else:
        assert bad in blamed, "nobody was fast enough to tell them apart"


def test_nobody_is_blamed_where_all_are_fast(all_reduce: ModuleType) -> None:
    assert all_reduce.suspects([(0, 1), (2, 3)], [60.0, 70.0], 50.0) == []


def test_without_pytorch_a_node_is_well_and_nothing_is_measured(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError\n")
    env = {**os.environ, "PYTHONPATH": str(tmp_path), "SLURMD_NODENAME": "n1", "HPCPLAN_HOSTS": "n1 n2"}
    program = repository / "templates" / "node" / "all_reduce.py"
    done = subprocess.run(
        [sys.executable, str(program), "1e11", "0.5"], env=env, capture_output=True, text=True, check=False
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "n1 ok\n")


class Node:
    """A made-up node: InfiniBand ports as files, and an nvidia-smi that says what it is told to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports: dict[str, tuple[str, str]] = dict.fromkeys(("mlx0", "mlx1"), ("4: ACTIVE", "400 Gb/sec (4X NDR)"))
        self.smi = {"list": "GPU 0: H100\nGPU 1: H100", "errors": "0\n0", "lanes": "0, 16, 16\n1, 16, 16", "links": ""}

    def check(self, **health: object) -> str:
        for name, (state, rate) in self.ports.items():
            port = self.folder / "sys" / "class" / "infiniband" / name / "ports" / "1"
            port.mkdir(parents=True)
            (port / "state").write_text(state + "\n")
            (port / "rate").write_text(rate + "\n")
        (self.folder / "bin").mkdir()
        answers = {"--list-gpus": "list", "*ecc.errors*": "errors", "*pcie.link*": "lanes", "nvlink*": "links"}
        cases = "\n".join(f"  {words}) cat <<'END'\n{self.smi[key]}\nEND\n  ;;" for words, key in answers.items())
        smi = self.folder / "bin" / "nvidia-smi"
        smi.write_text(f'#!/bin/bash\ncase "$*" in\n{cases}\nesac\n')
        smi.chmod(0o755)
        wanted = Health(**{"gpus": 2, "interface_bytes_per_s": 50e9, **health})  # type: ignore[arg-type]
        script = render_plan(plans.srun_plan(job=plans.srun_plan().job.model_copy(update={"health": wanted})))
        env = {
            "PATH": f"{self.folder}/bin:{os.environ['PATH']}", "SLURMD_NODENAME": "n7",
            "HPCPLAN_SYSFS": f"{self.folder}/sys",
        }  # fmt: skip
        done = subprocess.run(
            ["bash"], input=script["check-node.sh"], env=env, capture_output=True, text=True, check=True
        )  # fmt: skip
        return done.stdout


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def test_a_node_that_is_well_says_so(node: Node) -> None:
    assert node.check() == "n7 ok\n"


@pytest.mark.parametrize(
    ("what", "value", "reason"),
    [
        ("list", "GPU 0: H100", "1 GPUs, 2 expected"),
        ("errors", "0\n3", "a GPU with 3 uncorrected memory errors"),
        ("lanes", "0, 16, 16\n1, 8, 16", "GPU 1 on 8 of 16 PCIe lanes"),
        ("links", "Link 0: 26.5 GB/s\nLink 1: <inactive>", "1 NVLinks are down"),
    ],
)
def test_a_sick_gpu_is_named(node: Node, what: str, value: str, reason: str) -> None:
    node.smi[what] = value
    assert node.check() == f"n7 bad {reason}\n"


@pytest.mark.parametrize(
    ("state", "rate", "reason"),
    [
        ("1: DOWN", "400 Gb/sec (4X NDR)", "interface mlx1 is DOWN"),
        ("4: ACTIVE", "100 Gb/sec (2X HDR)", "interface mlx1 at 100 Gb/s, at least 380 expected"),
    ],
)
def test_a_sick_link_is_named(node: Node, state: str, rate: str, reason: str) -> None:
    node.ports["mlx1"] = (state, rate)
    assert node.check() == f"n7 bad {reason}\n"


def test_an_interface_that_the_site_names_must_be_there(node: Node) -> None:
    assert node.check(interfaces=("mlx0", "mlx9")) == "n7 bad interface mlx9 is missing\n"


def test_a_node_without_infiniband_says_that_it_was_not_looked_at(node: Node) -> None:
    node.ports = {}
    assert node.check() == "note n7 has no InfiniBand interfaces to look at\nn7 ok\n"


SMI = "#!/bin/bash\necho '0, 93, 70123, 612.5'\necho '1, 0, 5, 71.0'\n"


def test_use_of_gpus_cpus_and_memory_is_written_until_the_sampler_is_stopped(tmp_path: Path, repository: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "proc").mkdir()
    (tmp_path / "bin" / "nvidia-smi").write_text(SMI)
    (tmp_path / "bin" / "nvidia-smi").chmod(0o755)
    (tmp_path / "proc" / "stat").write_text("cpu  100 0 100 800 0 0 0 0 0 0\n")
    (tmp_path / "proc" / "meminfo").write_text("MemTotal: 2097152 kB\nMemAvailable: 1048576 kB\n")
    env = {
        "PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "SLURMD_NODENAME": "n7", "SLURM_JOB_ID": "12",
        "HPCPLAN_CAMPAIGN_DIR": str(tmp_path), "HPCPLAN_PROCFS": str(tmp_path / "proc"),
    }  # fmt: skip
    program = repository / "templates" / "node" / "sample.sh"
    process = subprocess.Popen(["bash", str(program), "0.1"], env=env)
    file = tmp_path / "usage" / "12" / "n7.csv"
    deadline = time.monotonic() + 30
    while not file.exists() or len(file.read_text().splitlines()) < 4:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.terminate()
    process.wait(timeout=10)
    header, first, second, whole = file.read_text().splitlines()[:4]
    assert header == "time,node,gpu,gpu_percent,gpu_memory_mib,gpu_power_w,cpu_percent,memory_mib"
    assert first.split(",")[1:] == ["n7", "0", "93", "70123", "612.5", "", ""]
    assert second.split(",")[1:] == ["n7", "1", "0", "5", "71.0", "", ""]
    assert whole.split(",")[1:] == ["n7", "", "", "", "", "0.0", "1024"]
