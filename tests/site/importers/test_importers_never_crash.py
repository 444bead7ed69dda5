"""Whatever text a file holds, an importer returns findings or says what is wrong; nothing else escapes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcplan.errors import InputError
from hpcplan.site.importers.findings import Findings
from hpcplan.site.importers.ibnetdiscover import parse_ibnetdiscover
from hpcplan.site.importers.nccl_xml import parse_nccl_xml
from hpcplan.site.importers.nvidia_smi_topo import parse_nvidia_smi_topo
from hpcplan.site.importers.read import read_sources
from hpcplan.site.importers.topology_yaml import parse_topology_yaml
from hpcplan.site.merge import Draft, merge
from hpcplan.site.merge_write import read_back, write_draft

PATH = Path("file")

SCRAPS: dict[str, list[str]] = {
    "slurm-conf": [
        "NodeName=",
        "n[1-3]",
        "DEFAULT",
        " ",
        "\n",
        "\\\n",
        "#",
        '"',
        "CPUs=2",
        "PartitionName=p",
        "Nodes=",
        "ALL",
        "Gres=gpu:2",
        "=",
        ",",
        "Include x",
        "MaxTime=",
        "1-0",
        "Feature=a,b",
        "RealMemory=7",
        "[",
        "]",
        "NodeSet=s",
    ],
    "topology": [
        "SwitchName=",
        "a",
        "b",
        "Nodes=",
        "Switches=",
        "n[1-3]",
        "n2",
        " ",
        "\n",
        "BlockName=",
        "BlockSizes=2,4",
        "RingName=r",
        ",",
        "Level=0",
        "\\\n",
        "#",
    ],
    "gres": [
        "NodeName=n[1-2]",
        "Name=gpu",
        "File=/dev/n[0-3]",
        "Count=2",
        "Type=a",
        "AutoDetect=nvml",
        "AutoDetect=off",
        " ",
        "\n",
        "Name=mps",
        "Ignore=true",
        "Count=",
        "x",
    ],
    "cluster-model": [
        "switches:\n",
        "  a:\n",
        "    switches: [b]\n",
        "blocks:\n",
        "- switch: a\n",
        "  nodes: [n1]\n",
        "- {nodes: []}\n",
        "- name: c\n",
        "  labels: {x/accelerator: d}\n",
        "nodes: 3\n",
        "  b: {}\n",
        "capacity_blocks:\n",
    ],
}

PARSERS: dict[str, tuple[Callable[[str, Path], Findings], list[str]]] = {
    "ibnetdiscover": (
        parse_ibnetdiscover,
        [
            'Switch 65 "S-1" # "a"',
            'Ca 1 "H-1" # "n mlx5_0"',
            '[1] "H-1"[1] # "n" 4xNDR',
            "\n",
            '[2] "S-2"[1] # "b" lid 3 4xHDR',
            'Switch 9 "S-2" # ""',
            "# x",
            "[1]",
            " ",
        ],
    ),
    "nvidia-smi-topo": (
        parse_nvidia_smi_topo,
        ["GPU0", "GPU1", "NIC0", "\t", "\n", "X", "NV4", "PIX", "SYS", "N/A", "CPU Affinity", "0"],
    ),
    "nccl-xml": (
        parse_nccl_xml,
        [
            "<system>",
            "</system>",
            "<pci class='0x0302'>",
            "</pci>",
            "<gpu/>",
            "<nvlink count='2'/>",
            "&x;",
            "<net name='a' speed='-1'/>",
            "<nic>",
            "</nic>",
            "<!DOCTYPE a>",
        ],
    ),
    "topology-yaml": (
        lambda text, path: parse_topology_yaml(text, path),
        [
            "- topology: t\n",
            "  tree:\n",
            "    switches:\n",
            "    - switch: a\n",
            "      nodes: n1\n",
            "  flat: true\n",
            "  block: {}\n",
            "      children: a\n",
            "  ring: {rings: []}\n",
            "- topology: u\n",
            "  torus3d: {toruses: []}\n",
            "[",
            "{",
        ],
    ),
}


def texts(scraps: list[str]) -> st.SearchStrategy[str]:
    return st.one_of(st.text(max_size=60), st.lists(st.sampled_from(scraps), max_size=25).map("".join))


@pytest.mark.parametrize("kind", sorted(PARSERS))
@given(data=st.data())
@settings(max_examples=150)
def test_a_parser_of_text_returns_findings_or_says_what_is_wrong(kind: str, data: st.DataObject) -> None:
    parse, scraps = PARSERS[kind]
    text = data.draw(texts(scraps))
    refused: InputError | None = None
    counts: list[int] = []
    try:
        counts = list(parse(text, PATH).counts().values())
    except InputError as error:
        refused = error
    assert refused is None or refused.problems[0].file == str(PATH)
    assert all(count > 0 for count in counts)


@pytest.mark.parametrize("kind", sorted(SCRAPS))
@given(data=st.data())
@settings(max_examples=150)
def test_any_text_makes_a_valid_site_or_an_error_with_its_file(
    kind: str, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / f"any-{kind}"
    path.write_text(data.draw(texts(SCRAPS[kind])), encoding="utf-8", errors="replace", newline="")
    refused: InputError | None = None
    draft: Draft | None = None
    try:
        draft = merge(read_sources({kind: path}))
    except InputError as error:
        refused = error
    assert refused is None or all(problem.file is not None for problem in refused.problems)
    assert draft is None or read_back(write_draft(draft)).node_groups
