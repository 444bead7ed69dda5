"""gres.conf, nvidia-smi topo -m and NCCL's XML: what one node has."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcplan.errors import InputError
from hpcplan.site.importers.findings import Devices, Findings, Note
from hpcplan.site.importers.gres_conf import read_gres_conf
from hpcplan.site.importers.nccl_xml import parse_nccl_xml
from hpcplan.site.importers.nvidia_smi_topo import parse_nvidia_smi_topo
from hpcplan.site.importers.read import read_sources
from hpcplan.site.merge import merge
from hpcplan.site.merge_write import read_back, write_draft
from hpcplan.site.model import Site


def gres(tmp_path: Path, text: str) -> Findings:
    path = tmp_path / "gres.conf"
    path.write_text(text)
    return read_gres_conf(path)


def counts(found: Findings) -> dict[str, Devices | None]:
    return {name: nodes.gpus.value if nodes.gpus else None for nodes in found.nodes for name in nodes.names}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("Name=gpu File=/dev/nvidia[0-3]", Devices(4)),
        ("Name=gpu Type=A100 File=/dev/nvidia[0,2-3] Cores=0-7", Devices(3, "a100")),
        ("NAME=gpu count=2", Devices(2)),
        ("Name=gpu", Devices(1)),
        ("Name=gpu MultipleFiles=/dev/nvidia0,/dev/nvidia-caps/nvidia-cap[1-2]", Devices(1)),
    ],
)
def test_a_line_counts_its_devices(tmp_path: Path, line: str, expected: Devices) -> None:
    assert counts(gres(tmp_path, f"NodeName=n1 {line}\n")) == {"n1": expected}
    assert counts(gres(tmp_path, f"{line}\n")) == {"*": expected}


def test_lines_of_a_node_add_up_and_a_device_counts_once(tmp_path: Path) -> None:
    found = gres(
        tmp_path,
        "NodeName=n[1-2] Name=gpu Type=t File=/dev/nvidia[0-1]\nNodeName=n1 Name=gpu Type=t File=/dev/nvidia[1-2]\n"
        "NodeName=n1 Name=mps Count=100 File=/dev/nvidia0\n",
    )
    assert counts(found) == {"n1": Devices(3, "t"), "n2": Devices(2, "t")}
    [problem] = found.problems
    assert problem.line == 2
    assert "/dev/nvidia1" in problem.message


def test_nodes_that_count_their_own_gpus_are_named_without_a_number(tmp_path: Path) -> None:
    found = gres(tmp_path, "NodeName=a[1-2] AutoDetect=nvml\nNodeName=b AutoDetect=off Name=gpu File=/dev/nvidia0\n")
    assert counts(found) == {"a1": None, "a2": None, "b": Devices(1)}
    assert [problem.line for problem in found.problems] == [1]


def test_a_count_that_contradicts_the_files_is_a_problem(tmp_path: Path) -> None:
    [problem] = gres(tmp_path, "Name=gpu Count=8 File=/dev/nvidia[0-3]\n").problems
    assert problem.field == "Count"


@pytest.mark.parametrize("line", ["Name=gpu File=/dev/nvidia[0-", "Name=gpu Count=x", "Name=gpu File=/dev/n[0-99999]"])
def test_what_slurm_would_refuse_of_gres_conf(tmp_path: Path, line: str) -> None:
    with pytest.raises(InputError):
        gres(tmp_path, line)


def smi(text: str) -> Findings:
    return parse_nvidia_smi_topo(text, Path("topo.txt"))


def table(links: list[list[str]], names: list[str]) -> str:
    lines = ["\t" + "\t".join(names) + "\tCPU Affinity\tNUMA Affinity"]
    for name, row in zip(names, links, strict=True):
        lines.append("\t".join([name, *row, "0-15" if name.startswith("GPU") else "", "0"]))
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    ("gpus", "word", "kind", "links"),
    [
        (8, "NV12", "nvswitch", 12),
        (4, "NV4", "nvlink", 12),
        (4, "NV6", "nvlink", 18),
        (4, "NV18", "nvswitch", 18),
        (2, "NV4", "nvlink", 4),
        (4, "SYS", "pcie", 0),
    ],
)
def test_a_mesh_and_switches_are_told_apart_by_how_many_links_a_gpu_can_have(
    gpus: int, word: str, kind: str, links: int
) -> None:
    names = [f"GPU{i}" for i in range(gpus)]
    rows = [[" X " if i == j else word for j in range(gpus)] for i in range(gpus)]
    inside = smi(table(rows, names)).inside
    assert inside is not None
    assert (inside.gpus, inside.kind, inside.links) == (gpus, kind, links)


CROSSED = """\x1b[4m      GPU0  GPU1  NIC0  NIC1  NIC2  CPU Affinity  NUMA Affinity  GPU NUMA ID\x1b[0m
GPU0   X    NV4   SYS   NODE  PXB   0-7    0   N/A
GPU1  NV4    X    PIX   SYS   SYS   8-15   1   N/A
NIC0  SYS   PIX    X    SYS   SYS
NIC1  NODE  SYS   SYS    X    PIX
NIC2  PXB   SYS   SYS   PIX    X

Legend:
  X    = Self

NIC Legend:

  NIC0: mlx5_0
  NIC1: mlx5_1
  NIC2: mlx5_7
"""


def test_rails_are_in_the_order_of_the_gpus_not_of_the_interfaces() -> None:
    found = smi(CROSSED)
    assert found.inside is not None
    assert found.nics is not None
    assert found.inside.nics_of_gpu == (("mlx5_7",), ("mlx5_0",))
    assert found.nics.names == ("mlx5_7", "mlx5_0")
    assert found.nics.count.value == 2, "the interface that is near no GPU is not one of the fabric's"
    assert found.inside.sockets == 2
    assert not found.problems


def test_a_cut_table_is_a_problem_and_its_other_half_fills_in() -> None:
    found = smi("\n".join(CROSSED.splitlines()[:3]))
    assert found.inside is not None
    assert found.inside.nics_of_gpu == (("NIC2",), ("NIC0",))
    assert "NIC0, NIC1, NIC2" in found.problems[-1].message
    half = smi("\n".join(CROSSED.splitlines()[:2]))
    assert half.inside is not None
    assert (half.inside.gpus, half.inside.links) == (2, 4)


def test_a_table_cut_within_a_word_is_a_problem_too() -> None:
    found = smi("  GPU0 GPU1 NIC0\nGPU0 X NV4 PIX\nGPU1 NV4 X NOD")
    assert found.inside is not None
    assert found.inside.links == 4
    assert "has 2 of 3 entries" in found.problems[0].message


@pytest.mark.parametrize("text", ["", "hello\n", "GPU0 GPU1\n", "GPU0 GPU1\nGPU0 X what\nGPU1 X X\n", "GPU0 GPU0\n"])
def test_what_is_no_table_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        smi(text)


def nccl(body: str) -> Findings:
    return parse_nccl_xml(f'<system version="1">\n{body}\n</system>', Path("topo.xml"))


def gpu(bus: str, inner: str = "", device: str = "0x2330", speed: str = "16 GT/s") -> str:
    return (
        f'<pci busid="{bus}" class="0x030200" vendor="0x10de" device="{device}" link_speed="{speed}" '
        f'link_width="16">{inner}</pci>'
    )


def test_nvlinks_to_switches_are_counted_and_the_chip_is_told_by_its_pci_id() -> None:
    links = "".join(f'<nvlink target="ffff:{i}" count="4" tclass="0x068000"/>' for i in range(4))
    chips = [gpu(str(index), f'<gpu dev="{index}">{links}</gpu>') for index in range(2)]
    body = "".join(f'<cpu numaid="{index}">{chip}</cpu>' for index, chip in enumerate(chips))
    found = nccl(body + '<cpu numaid="2"><nic><net name="mlx5_3" speed="400000"/></nic></cpu>')
    assert found.inside is not None
    assert found.nics is not None
    assert (found.inside.kind, found.inside.links, found.inside.gpu_type) == ("nvswitch", 16, "H100-SXM5-80GB")
    assert found.nics.names == ("mlx5_3",)
    assert found.nics.bandwidth_bytes_per_s is not None
    assert found.nics.bandwidth_bytes_per_s.value == pytest.approx(50e9)


def test_pcie_bandwidth_follows_from_rate_width_and_encoding() -> None:
    inside = nccl(gpu("0", '<gpu dev="0"/>') + gpu("1", '<gpu dev="1"/>')).inside
    assert inside is not None
    assert inside.kind == "pcie"
    assert inside.bandwidth_bytes_per_s == pytest.approx(16e9 * 16 * 128 / 130 / 8)


def test_a_file_made_beforehand_says_nothing_of_nvlinks() -> None:
    inside = nccl(gpu("0") + '<pci busid="9" class="0x020700"/>').inside
    assert inside is not None
    assert inside.kind == "unknown"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<system>", "not valid XML"),
        ("", "not valid XML"),
        ("<graphs version='1'/>", "graph that NCCL chose"),
        ("<html/>", "not an NCCL topology"),
        ("<system/>", "no GPU"),
        ('<!DOCTYPE s [<!ENTITY a "aa">]><system>&a;</system>', "document type or entity"),
        ('<!DOCTYPE s SYSTEM "file:///etc/passwd"><system/>', "document type or entity"),
        ("<system>" + "<pci>" * 100 + "</pci>" * 100 + "</system>", "nested"),
    ],
)
def test_hostile_and_wrong_xml_is_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_nccl_xml(text, Path("topo.xml"))


def test_an_interface_that_stands_under_every_processor_counts_once() -> None:
    net = '<nic><net name="eth0" speed="10000"/></nic>'
    found = nccl("".join(f'<cpu numaid="{n}">{gpu(str(n))}{net}</cpu>' for n in range(2)))
    assert found.nics is not None
    assert found.nics.count.value == 1


def test_of_a_dump_of_several_nodes_the_first_counts() -> None:
    link = '<gpu dev="0"><nvlink target="fffffff:ff:ff.0" count="36" tclass="0x068000"/></gpu>'
    found = nccl("".join(f'<cpu host_hash="{n}" numaid="0">{gpu("0", link)}{gpu("1", link)}</cpu>' for n in "ab"))
    assert found.inside is not None
    assert (found.inside.gpus, found.inside.links, found.inside.kind) == (2, 36, "nvswitch")
    assert "2 nodes are in it" in found.problems[0].message


def test_rails_are_the_interfaces_below_the_same_pcie_switch() -> None:
    def net(number: int) -> str:
        return f'<pci busid="n{number}" class="0x020700"><nic><net name="mlx5_{number}" speed="400000"/></nic></pci>'

    def switch(bus: int, inside: str) -> str:
        return f'<pci busid="s{bus}" class="0x060400">{inside}</pci>'

    found = nccl(f'<cpu numaid="0">{switch(0, net(3) + gpu("0"))}{switch(1, gpu("1") + net(0))}{gpu("2")}</cpu>')
    assert found.inside is not None
    assert found.inside.nics_of_gpu == (("mlx5_3",), ("mlx5_0",), ())


def test_a_gpu_without_its_links_is_named_and_the_others_count() -> None:
    link = '<nvlink target="fffffff:ff:ff.0" count="18" tclass="0x068000"/>'
    found = nccl("".join(gpu(str(n), f'<gpu dev="{n}">{link if n != 2 else ""}</gpu>') for n in range(4)))
    assert found.inside is not None
    assert (found.inside.kind, found.inside.links) == ("nvswitch", 18)
    assert "NVLinks: 2 from the others" in found.problems[0].message
    rows = ["\tGPU0\tGPU1\tGPU2", "GPU0\t X \tNV9\tSYS", "GPU1\tNV9\t X \tSYS", "GPU2\tSYS\tSYS\t X"]
    table = smi("\n".join(rows))
    assert table.inside is not None
    assert table.inside.links == 9
    assert "GPU2 from the others" in table.problems[0].message


def test_an_unknown_chip_is_told_by_its_compute_capability_and_processor() -> None:
    chip = gpu("0", '<gpu dev="0" sm="103"/>', device="0xffff")
    found = nccl(f'<cpu numaid="0" arch="arm64">{chip}</cpu>')
    assert found.inside is not None
    assert found.inside.gpu_type == "GB300-288GB"
    assert "capability 103" in found.problems[0].message
    assert nccl(f'<cpu numaid="0" arch="x86_64">{chip}</cpu>').inside.gpu_type == "B300-SXM-288GB"  # type: ignore[union-attr]


def test_infinity_fabric_links_are_a_mesh_of_their_own_kind() -> None:
    def chip(number: int) -> str:
        links = "".join(
            f'<xgmi target="{other}" count="1" tclass="0x120000"/>' for other in range(4) if other != number
        )
        head = f'<pci busid="{number}" class="0x120000" vendor="0x1002" device="0x74a1">'
        return f'{head}<gpu dev="{number}">{links}</gpu></pci>'

    inside = nccl("".join(chip(number) for number in range(4))).inside
    assert inside is not None
    assert (inside.kind, inside.links, inside.gpu_type) == ("xgmi", 3, "MI300X-192GB")
    assert inside.bandwidth_bytes_per_s == pytest.approx(3 * 64e9)
    assert inside.mesh[0] == (0, 1, 1, 1)


def test_entries_that_ran_together_are_taken_apart() -> None:
    rows = ["\tGPU0\tGPU1\tNIC0\tNIC1\tCPU Affinity", "GPU0\t X \tNV4\tPIXSYS\t0-31", "GPU1\tNV4\t X \tSYSPIX\t0-31"]
    found = smi("\n".join([*rows, "NIC0\tPIX\tSYS\t X \tSYS", "NIC1\tSYSPIX\tSYS\t X"]))
    assert found.inside is not None
    assert found.inside.nics_of_gpu == (("NIC0",), ("NIC1",))
    assert found.problems == ()


def test_more_interfaces_than_a_node_can_have_are_a_note() -> None:
    names = [f"NIC{number}" for number in range(9)]
    rows = ["\tGPU0\t" + "\t".join(names), "GPU0\t X \t" + "\t".join(["PIX"] * 9)]
    found = smi("\n".join([*rows, *(f"{name}\tPIX" + "\tPIX" * 9 for name in names)]))
    assert any("9 interfaces near 1 GPUs" in problem.message for problem in found.problems)


def test_devices_that_are_endless_only_together_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "gres.conf"
    path.write_text("NodeName=n[0-99999] Name=gpu File=/dev/nvidia[0-4095]\n")
    with pytest.raises(InputError, match="more than 4,000,000 devices"):
        read_gres_conf(path)


def combine(tmp_path: Path, texts: dict[str, str], **more: str) -> tuple[Site, list[str]]:
    paths: dict[str, Path] = {}
    for option, text in texts.items():
        paths[option] = tmp_path / option
        paths[option].write_text(text)
    draft = merge(read_sources(paths), **more)  # type: ignore[arg-type]
    warnings = [problem.message for problem in draft.problems if not isinstance(problem, Note)]
    return read_back(write_draft(draft)), warnings


def test_the_chip_of_an_nccl_file_tells_the_size_that_slurm_leaves_open(tmp_path: Path) -> None:
    xml = f'<system version="1">{gpu("0", device="0x20b0")}</system>'
    site, warnings = combine(tmp_path, {"slurm-conf": "NodeName=n1 Gres=gpu:a100:1\n", "nccl-xml": xml})
    accelerators = site.node_groups["a100"].accelerators
    assert accelerators is not None
    assert (accelerators.type, warnings) == ("A100-SXM4-40GB", [])


def test_a_chip_of_another_family_is_a_contradiction(tmp_path: Path) -> None:
    xml = f'<system version="1">{gpu("0", device="0x2335")}</system>'
    site, [warning] = combine(tmp_path, {"slurm-conf": "NodeName=n1 Gres=gpu:h100:1\n", "nccl-xml": xml})
    accelerators = site.node_groups["h100"].accelerators
    assert accelerators is not None
    assert accelerators.type == "H100-SXM5-80GB"
    assert "H200-SXM5-141GB from nccl-xml, but 'h100' from slurm-conf:1" in warning


def test_interfaces_called_otherwise_by_two_files_are_a_warning(tmp_path: Path) -> None:
    table = "\tGPU0\tNIC0\nGPU0\t X \tPIX\nNIC0\tPIX\t X\n\nNIC Legend:\n\n  NIC0: mlx5_4\n"
    net = '<pci busid="9" class="0x020700"><nic><net name="mlx5_0" speed="400000"/></nic></pci>'
    xml = f'<system version="1"><cpu numaid="0">{gpu("0")}{net}</cpu></system>'
    site, [warning] = combine(tmp_path, {"nvidia-smi-topo": table, "nccl-xml": xml})
    assert "interfaces are called mlx5_0, but mlx5_4 from nvidia-smi-topo" in warning
    [group] = site.node_groups.values()
    assert group.nics.names == ("mlx5_4",)
