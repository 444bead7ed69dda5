"""Deriving the inside of a node from what NVLink and PCI figures say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

__all__ = [
    "GPU_OF_CAPABILITY",
    "GPU_OF_PCI_ID",
    "MAX_NVLINKS",
    "nvlink_bytes_per_s",
    "nvlink_kind",
    "pcie_bytes_per_s",
    "usual_links",
]

MAX_NVLINKS: Final = 18  # of one GPU in a mesh; later chips have more, and always switches

# (vendor, device) of PCI: the name in the catalogue (the PCI ID Repository, pci.ids).
GPU_OF_PCI_ID: Final[Mapping[tuple[str, str], str]] = {
    ("10de", "1db1"): "V100-SXM2-16GB",
    ("10de", "1db5"): "V100-SXM2-32GB",
    ("10de", "1db4"): "V100-SXM2-16GB",  # PCIe cards: same chip and memory size
    ("10de", "1db6"): "V100-SXM2-32GB",
    ("10de", "1db8"): "V100-SXM2-32GB",
    ("10de", "1df6"): "V100-SXM2-32GB",
    ("10de", "1eb8"): "T4-16GB",
    ("10de", "20b0"): "A100-SXM4-40GB",
    ("10de", "20b1"): "A100-SXM4-40GB",
    ("10de", "20f1"): "A100-SXM4-40GB",
    ("10de", "20b2"): "A100-SXM4-80GB",
    ("10de", "20f3"): "A800-SXM4-80GB",
    ("10de", "20b5"): "A100-SXM4-80GB",  # the PCIe card; same chip and memory size
    ("10de", "2204"): "RTX-3090-24GB",
    ("10de", "2330"): "H100-SXM5-80GB",
    ("10de", "2335"): "H200-SXM5-141GB",
    ("10de", "2342"): "GH200-96GB",
    ("10de", "2901"): "B200-SXM-180GB",
    ("10de", "2941"): "GB200-186GB",
    ("1002", "7408"): "MI250X-128GB",
    ("1002", "740c"): "MI250X-128GB",
    ("1002", "74a1"): "MI300X-192GB",
}

# Compute capability, and whether the processor is an Arm one: the chip that NVIDIA has built so (CUDA C++ Programming
# Guide, "Compute Capabilities"; the data sheets), for PCI ids that the table does not have.
GPU_OF_CAPABILITY: Final[Mapping[tuple[int, bool], str]] = {
    (70, False): "V100-SXM2-32GB",
    (75, False): "T4-16GB",
    (80, False): "A100-SXM4-80GB",
    (86, False): "RTX-3090-24GB",
    (90, False): "H100-SXM5-80GB",
    (90, True): "GH200-96GB",
    (100, False): "B200-SXM-180GB",
    (100, True): "GB200-186GB",
    (103, False): "B300-SXM-288GB",
    (103, True): "GB300-288GB",
}

# GT/s of a PCIe lane: the share that its encoding leaves for data (8b/10b, then 128b/130b; PCIe 6 in flits).
_PCIE_ENCODING: Final[Mapping[float, float]] = {
    2.5: 0.8, 5.0: 0.8, 8.0: 128 / 130, 16.0: 128 / 130, 32.0: 128 / 130, 64.0: 242 / 256,
}  # fmt: skip


def nvlink_bytes_per_s(gpu_type: str | None) -> float:
    """Return bytes/s of one NVLink, one way: 25 GB/s for NVLink 2 to 4, 50 GB/s for NVLink 5 (Blackwell).

    Also of Infinity Fabric links: 64 GB/s of an MI300X, 50 GB/s of an MI250X. Sources: NVIDIA's data sheets of V100 (6
    links, 300 GB/s both ways), A100 (12, 600), H100 (18, 900), B200 (18, 1800); AMD's of MI300X (7, 896), MI250X (8,
    800).
    """
    if gpu_type is not None and gpu_type.upper().startswith("MI"):
        return 64e9 if gpu_type.upper().startswith("MI3") else 50e9
    blackwell = gpu_type is not None and gpu_type.upper().startswith(("B200", "B300", "GB200", "GB300"))
    return 50e9 if blackwell else 25e9


def nvlink_kind(counts: Sequence[int]) -> tuple[str, int]:
    """Return (kind, NVLinks of one GPU) for the link counts from one GPU to each other GPU of the node.

    With NVSwitch every peer is reached over all links, so each count is the whole; in a mesh the counts add up.
    More links than a GPU has, if added, means NVSwitch.
    """
    total, most = sum(counts), max(counts, default=0)
    if not total:
        return "pcie", 0
    if total > MAX_NVLINKS:
        return "nvswitch", most
    return "nvlink", total


def usual_links(links: Sequence[tuple[str, int]]) -> tuple[tuple[str, int], list[int]]:
    """Return the (kind, NVLinks) that most GPUs of a node have, the fewest of equally many, and who differs."""
    often = Counter(links)
    usual = min(often, key=lambda one: (-often[one], one[1]))
    return usual, [number for number, one in enumerate(links) if one != usual]


def pcie_bytes_per_s(speed: str, width: str) -> float | None:
    """Return bytes/s one way of a PCIe link for ``'16 GT/s'`` or ``'16.0 GT/s PCIe'`` and ``'16'`` lanes."""
    try:
        rate, lanes = float(speed.split()[0]), int(width)
    except (ValueError, IndexError):
        return None
    if not 0 < lanes <= 32 or rate not in _PCIE_ENCODING:
        return None
    return rate * 1e9 * lanes * _PCIE_ENCODING[rate] / 8
