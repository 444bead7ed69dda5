"""A running Slurm described for the site importer: whichever of its commands are here, and what each cannot say."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from click.testing import CliRunner

from hpcplan.cli.site_import import command
from hpcplan.errors import InputError, SlurmUnreachableError
from hpcplan.site.load import read_site
from hpcplan.slurm.command import CommandBackend
from hpcplan.slurm.describe import describe, lines_of
from hpcplan.slurm.records import NodeRecord, PartitionRecord

CONFIG = "Configuration data\nClusterName             = alpha\nSLURM_VERSION           = 20.11.9\n"
NODE = "NodeName=n1 CPUTot=8 RealMemory=16000 Gres=gpu:h100:8 State=IDLE Partitions=p\n"
PARTITION = "PartitionName=p Default=YES MaxTime=01:00:00 Nodes=n1 State=UP\n"
TOPOLOGY = "SwitchName=s0 Level=0 LinkSpeed=1 Nodes=n1\n"
SINFO = "NODELIST PARTITION STATE CPUS MEMORY\nn1 p* idle 8 16000\n"
JSON = json.dumps({"nodes": [{"name": "n1", "cpus": 8, "partitions": ["p"]}]})

Programs = Callable[[Mapping[str, Mapping[str, tuple[int, str]]]], CommandBackend]


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    """Make commands that answer by their last word, or by ``--json``, with an exit code and a text."""

    def make(answers: Mapping[str, Mapping[str, tuple[int, str]]]) -> CommandBackend:
        for name, replies in answers.items():
            script = (
                f"#!{sys.executable}\nimport sys\nreplies = {dict(replies)!r}\n"
                "word = '--json' if '--json' in sys.argv else sys.argv[-1]\n"
                "code, text = replies.get(word, (1, 'error: ' + word))\n"
                "(sys.stdout if code == 0 else sys.stderr).write(text)\nsys.exit(code)\n"
            )
            (tmp_path / name).write_text(script)
            (tmp_path / name).chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))
        return CommandBackend()

    return make


SCONTROL = {"config": (0, CONFIG), "node": (0, NODE), "partition": (0, PARTITION), "topology": (0, TOPOLOGY)}


def test_scontrol_is_asked_for_everything(programs: Programs) -> None:
    answers = describe("command", programs({"scontrol": SCONTROL}))
    assert [label for label, _ in answers] == [f"scontrol show {what}" for what in SCONTROL]
    assert [text for _, text in answers] == [CONFIG, NODE, PARTITION, TOPOLOGY]


def test_a_plugin_without_a_topology_is_no_error(programs: Programs) -> None:
    replies = SCONTROL | {"topology": (1, "slurm_load_topo error: Requested operation not supported")}
    assert [label for label, _ in describe("auto", programs({"scontrol": replies}))][-1] == "scontrol show partition"


def test_without_scontrol_sinfo_answers_as_it_can(programs: Programs) -> None:
    assert describe("auto", programs({"sinfo": {"--json": (0, JSON)}})) == [("sinfo --json", JSON)]
    old = programs({"sinfo": {"--json": (1, "sinfo: unrecognized option '--json'"), "--long": (0, SINFO)}})
    assert describe("command", old) == [("sinfo", SINFO)]


def test_without_any_of_them_it_says_what_to_do(programs: Programs) -> None:
    with pytest.raises(SlurmUnreachableError):
        describe("auto", programs({}))
    with pytest.raises(InputError):
        describe("telepathy", programs({}))


def test_records_of_pyslurm_become_the_lines_of_scontrol() -> None:
    node = NodeRecord(name="n1", state="idle", flags=("drain",), cpus=8, memory_bytes=16000 * 1024**2, gres="gpu:8",
                      features=("a",), partitions=("p",))  # fmt: skip
    part = PartitionRecord(name="p", nodes="n1", state="up", default=True, max_time_s=3600)
    lines = list(lines_of([node], [part]))
    assert lines[0].startswith("NodeName=n1 CPUTot=8 RealMemory=16000 Gres=gpu:8 State=IDLE+DRAIN")
    assert "MaxTime=01:00:00" in lines[1]


def test_the_command_imports_the_running_slurm(programs: Programs, tmp_path: Path) -> None:
    programs({"scontrol": SCONTROL})
    output = tmp_path / "site.yaml"
    result = CliRunner().invoke(command, ["--live", "-o", str(output)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    site = read_site(output)
    assert (site.name, site.slurm.version, site.default_partition()) == ("alpha", "20.11.9", "p")
    assert "from scontrol show node:1" in output.read_text()


def test_files_and_the_running_slurm_are_compared(programs: Programs, tmp_path: Path) -> None:
    programs({"scontrol": SCONTROL})
    conf = tmp_path / "slurm.conf"
    conf.write_text("NodeName=n[1-2] CPUs=8 Gres=gpu:a100:8\nPartitionName=p Nodes=n[1-2]\n")
    words = ["--live", "--slurm-conf", str(conf), "--format", "json", "-o", str(tmp_path / "site.yaml")]
    found = json.loads(CliRunner().invoke(command, words, catch_exceptions=False).stdout)
    assert any("'h100', but 'a100' from slurm.conf:1" in warning["message"] for warning in found["warnings"])
