"""slurm.conf as sites write it: defaults, continuations, includes, quotes, and what Slurm would refuse."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcplan.errors import InputError
from hpcplan.site.importers.findings import Devices, Findings, NodesFound
from hpcplan.site.importers.slurm_conf import parse_gres, read_slurm_conf


def read(tmp_path: Path, text: str) -> Findings:
    path = tmp_path / "slurm.conf"
    path.write_text(text)
    return read_slurm_conf(path)


def only(findings: Findings) -> NodesFound:
    [nodes] = findings.nodes
    return nodes


def test_default_lines_hold_for_the_lines_after_them_alone(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        "NodeName=a1\nNodeName=DEFAULT CPUs=4 RealMemory=1000\nNodeName=a2\n"
        "NodeName=DEFAULT CPUs=8\nNodeName=a3 RealMemory=2\n",
    )
    figures = [(n.cpus and n.cpus.value, n.memory_bytes and n.memory_bytes.value) for n in found.nodes]
    assert figures == [(None, None), (4, 1000 * 1024**2), (8, 2 * 1024**2)]


def test_a_partition_default_line_gives_limits_that_a_line_can_override(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        "NodeName=n[1-2]\nPartitionName=DEFAULT MaxTime=60 Nodes=ALL\n"
        "PartitionName=a\nPartitionName=b MaxTime=UNLIMITED\n",
    )
    assert [(p.name, p.nodes, p.max_time_s) for p in found.partitions] == [("a", None, 3600), ("b", None, None)]


def test_continued_lines_comments_quotes_and_key_case(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        '# NodeName=no\nnodename = n[1-2] \\\n  CPUS=2 \\\n  Feature="x,y" # the end\nCLUSTERNAME=lab # c\n',
    )
    nodes = only(found)
    assert nodes.names == ("n1", "n2")
    assert nodes.cpus is not None
    assert (nodes.cpus.value, nodes.cpus.origin) == (2, "from slurm.conf:2")
    assert nodes.features is not None
    assert nodes.features.value == ("x", "y")
    assert found.cluster is not None
    assert found.cluster.value == "lab"


def test_a_hash_behind_a_backslash_is_no_comment(tmp_path: Path) -> None:
    assert only(read(tmp_path, "NodeName=n1 Reason=disk\\#3 CPUs=2\n")).cpus is not None


@pytest.mark.parametrize(
    ("words", "cpus", "sockets"),
    [
        ("Sockets=2 CoresPerSocket=16 ThreadsPerCore=2", 64, 2),
        ("SocketsPerBoard=2 Boards=2 CoresPerSocket=4", 16, 4),
        ("CPUs=7 Sockets=2 CoresPerSocket=16 ThreadsPerCore=2", 7, 2),
        ("Procs=12", 12, None),
        ("ThreadsPerCore=2 CPUs=3", 3, None),
    ],
)
def test_cpus_are_what_the_line_says_or_the_product_of_its_parts(
    tmp_path: Path, words: str, cpus: int, sockets: int | None
) -> None:
    nodes = only(read(tmp_path, f"NodeName=n1 {words}\n"))
    assert nodes.cpus is not None
    assert nodes.cpus.value == cpus
    assert (nodes.sockets and nodes.sockets.value) == sockets


def test_cpus_that_contradict_their_parts_are_a_problem_with_its_line(tmp_path: Path) -> None:
    [problem] = read(tmp_path, "\nNodeName=n1 CPUs=7 Sockets=2 CoresPerSocket=16\n").problems
    assert (problem.line, problem.field) == (2, "CPUs")


def test_includes_are_read_in_place_and_relative_to_the_first_file(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "nodes.conf").write_text("NodeName=n[1-3]\nInclude lab.conf\n")
    (tmp_path / "lab.conf").write_text("NodeName=m1\n")
    found = read(tmp_path, "ClusterName=lab\nINCLUDE sub/nodes.conf\nNodeName=z\n")
    assert [nodes.names for nodes in found.nodes] == [("n1", "n2", "n3"), ("m1",), ("z",)]
    assert found.nodes[0].place.file.endswith("nodes.conf")


def test_an_include_that_cannot_be_read_is_a_problem_and_no_end(tmp_path: Path) -> None:
    found = read(tmp_path, "Include nowhere.conf\nNodeName=n1\n")
    assert [problem.line for problem in found.problems] == [1]
    assert only(found).names == ("n1",)


def test_an_include_by_its_full_path_is_looked_for_beside_the_file(tmp_path: Path) -> None:
    (tmp_path / "nodes.conf").write_text("NodeName=n[1-3]\n")
    found = read(tmp_path, "Include /etc/slurm-of-another-machine/nodes.conf\n")
    assert found.counts()["nodes"] == 3
    assert "is not here" in found.problems[0].message


def test_a_file_that_includes_itself_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="without end"):
        read(tmp_path, "Include slurm.conf\n")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("NodeName=n[1-", "brackets"),
        ("NodeName=n[1-99999999999]", "more than"),
        ("NodeName=n1 RealMemory=lots", "RealMemory: 'lots' is not a whole number"),
        ("NodeName=n1 CPUs=-4", "CPUs"),
        ("NodeName=n1 Gres=gpu:h100:many", "Gres"),
        ("PartitionName=p Nodes=n1 MaxTime=soon", "MaxTime"),
        ("PartitionNa", "Key=Value"),
        ("NodeName=n1 and more", "'and more'"),
    ],
)
def test_what_slurm_would_refuse_is_an_error_with_its_line(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read(tmp_path, f"ClusterName=c\n\n{line}\n")
    assert caught.value.problems[0].line == 3


def test_a_misspelt_key_is_a_problem_that_names_the_nearest(tmp_path: Path) -> None:
    [problem] = read(tmp_path, "NodeName=n1 RealMemroy=5\n").problems
    assert problem.field == "RealMemroy"
    assert "realmemory" in problem.message


def test_a_node_defined_twice_keeps_its_first_line(tmp_path: Path) -> None:
    found = read(tmp_path, "NodeName=n[1-2] CPUs=2\nNodeName=n[2-3] CPUs=9\n")
    assert [(n.names, n.cpus and n.cpus.value) for n in found.nodes] == [(("n1", "n2"), 2), (("n3",), 9)]
    assert [problem.line for problem in found.problems] == [2]


def test_node_sets_by_feature_and_by_name_make_up_partitions(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        "NodeSet=fast Feature=ib\nNodeSet=two Nodes=n[3-4]\nNodeName=n[1-2] Features=ib\nNodeName=n[3-5]\n"
        "PartitionName=p Nodes=fast,two\n",
    )
    assert found.partitions[0].nodes == ("n1", "n2", "n3", "n4")


def test_partition_limits_and_sharing(tmp_path: Path) -> None:
    text = (
        "SelectType=select/cons_tres\nPartitionName=a Nodes=n1 Default=YES MaxTime=1-12 DefaultTime=30 MaxNodes=4 "
        "AllowQos=x,y OverSubscribe=EXCLUSIVE\nPartitionName=b Nodes=n1 MaxNodes=UNLIMITED AllowQos=ALL\n"
    )
    found = read(tmp_path, text)
    a, b = found.partitions
    assert (a.default, a.max_time_s, a.default_time_s, a.max_nodes) == (True, 36 * 3600, 1800, 4)
    assert (a.qos, a.exclusive) == (("x", "y"), True)
    assert (b.default, b.max_time_s, b.max_nodes, b.qos, b.exclusive) == (False, None, None, (), None)
    assert found.shared_nodes is True


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("gpu", {"gpu": [Devices(1)]}),
        ("gpu:8", {"gpu": [Devices(8)]}),
        ("gpu:h100:8(S:0-1),nvme:1", {"gpu": [Devices(8, "h100")], "nvme": [Devices(1)]}),
        ("gpu:a:2(S:0,1),gpu:b:1", {"gpu": [Devices(2, "a"), Devices(1, "b")]}),
        ("lustre:no_consume:4K", {"lustre": [Devices(4096)]}),
        ("gpu:A100", {"gpu": [Devices(1, "a100")]}),
    ],
)
def test_gres_words(value: str, expected: dict[str, list[Devices]]) -> None:
    assert parse_gres(value) == expected


NAMES = st.from_regex(r"[a-z]{1,6}", fullmatch=True)


@given(
    st.lists(
        st.tuples(st.integers(1, 512), st.integers(1, 4_000_000), st.integers(0, 16), st.lists(NAMES, max_size=3)),
        min_size=1,
        max_size=8,
    )
)
def test_what_is_written_from_a_random_cluster_reads_back_the_same(
    tmp_path_factory: pytest.TempPathFactory, groups: list[tuple[int, int, int, list[str]]]
) -> None:
    lines = []
    for index, (cpus, memory, gpus, features) in enumerate(groups):
        gres = f" gres=gpu:{gpus}" if gpus else ""
        feature = f' Feature="{",".join(features)}"' if features else ""
        lines.append(f"NodeName=g{index}n[01-10] CPUs={cpus} \\\n RealMemory={memory}{gres}{feature}")
    found = read(tmp_path_factory.mktemp("conf"), "\n".join(lines))
    got = [
        (
            nodes.cpus and nodes.cpus.value,
            (nodes.memory_bytes.value if nodes.memory_bytes else 0) // 1024**2,
            nodes.gpus.value.count if nodes.gpus else 0,
            list(nodes.features.value) if nodes.features else [],
        )
        for nodes in found.nodes
    ]
    assert got == groups
    assert all(len(nodes.names) == 10 for nodes in found.nodes)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("SwitchName=a Nodes=n[1-2]", "--topology"),
        ("Name=gpu File=/dev/nvidia0", "--gres"),
        ("AutoDetect=nvml", "--gres"),
    ],
)
def test_another_file_of_slurms_is_refused_with_its_option(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(tmp_path, line + "\n")
