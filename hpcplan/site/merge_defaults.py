"""What is assumed where no file speaks: named defaults by the kind of accelerator, all of them marked ``assumed``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from hpcplan.errors import nearest

__all__ = ["CPU_NODE", "DEFAULT_ACCELERATOR", "NodeDefaults", "catalogue_name", "defaults_of"]

DEFAULT_ACCELERATOR: Final = "A100-SXM4-80GB"  # where a file counts GPUs and says nothing of their kind


@dataclass(frozen=True, slots=True)
class NodeDefaults:
    """A node as its maker's reference design has it.

    ``inside_bytes_per_s`` is what one accelerator sends one way; ``nics`` is interfaces for each accelerator;
    ``nic_gb_per_s`` is decimal gigabits a second.
    """

    gpus: int
    kind: str
    inside_bytes_per_s: float
    nics: float
    nic_gb_per_s: float
    rack_scale: bool = False


CPU_NODE: Final = NodeDefaults(0, "none", 0.0, 0.0, 100)

# By the first part of the catalogue's names. NVLink and Infinity Fabric: data sheets; interfaces: DGX, HGX and
# NVL72 reference designs of the generation.
_BY_FAMILY: Final = {
    "V100": NodeDefaults(8, "nvlink", 150e9, 0.5, 100),
    "A100": NodeDefaults(8, "nvswitch", 300e9, 1, 200),
    "A800": NodeDefaults(8, "nvswitch", 200e9, 1, 200),
    "H100": NodeDefaults(8, "nvswitch", 450e9, 1, 400),
    "H200": NodeDefaults(8, "nvswitch", 450e9, 1, 400),
    "GH200": NodeDefaults(4, "nvlink", 450e9, 1, 200),
    "B200": NodeDefaults(8, "nvswitch", 900e9, 1, 400),
    "B300": NodeDefaults(8, "nvswitch", 900e9, 1, 800),
    "GB200": NodeDefaults(4, "nvswitch", 900e9, 1, 400, rack_scale=True),
    "GB300": NodeDefaults(4, "nvswitch", 900e9, 1, 800, rack_scale=True),
    "MI250X": NodeDefaults(4, "xgmi", 200e9, 1, 200),
    "MI300X": NodeDefaults(8, "xgmi", 448e9, 1, 400),
}
_VARIANT: Final = re.compile(r"(?<=\d)(L|S|NVL|PCIE|SXM\d?)$")  # as in v100l, a100l, h100nvl: the chip's is before it
_CHIP_OF_ARCHITECTURE: Final = {"VOLTA": "V100", "AMPERE": "A100", "HOPPER": "H100", "BLACKWELL": "B200"}
_PCIE_CARD: Final = NodeDefaults(4, "pcie", 12e9, 0.0, 100)  # T4, RTX-3090 and what the table does not know


def defaults_of(accelerator: str | None) -> NodeDefaults:
    """Return the defaults for a name of the catalogue, or for a node without accelerators."""
    if accelerator is None:
        return CPU_NODE
    return _BY_FAMILY.get(accelerator.split("-")[0], _PCIE_CARD)


def catalogue_name(gres_type: str, known: list[str]) -> str | None:
    """Return the accelerator of the catalogue that a GRES type such as ``a100``, ``nvidia_h100_80gb_hbm3`` means.

    The words of the type must name the chip; of several sizes of memory the one that the type names, else the largest
    among those of full power.
    """
    word = gres_type.upper().replace("_", "-")
    parts = set(word.replace("GEFORCE", "").replace("RTX", "RTX-").replace("--", "-").split("-"))
    parts |= {_VARIANT.sub("", part) for part in parts} | {_CHIP_OF_ARCHITECTURE.get(part, "") for part in parts}
    chips = [name for name in known if _chip(name) & parts]
    if not chips:
        return None
    sized = [name for name in chips if name.split("-")[-1] in word or name.split("-")[-1].removesuffix("GB") in parts]
    return max(sized or chips, key=lambda name: (not name.endswith("W"), _memory(name)))


def _chip(name: str) -> set[str]:
    """Return the words that name a chip: A100; MI250X or MI250; 3090 of an RTX card."""
    words = name.split("-")
    return {words[1]} if words[0] == "RTX" else {words[0], words[0].removesuffix("X")}


def _memory(name: str) -> int:
    digits = [part.removesuffix("GB") for part in name.split("-") if part.endswith("GB")]
    return int(digits[0]) if digits and digits[0].isdigit() else 0


def unknown_accelerator(name: str, known: list[str]) -> str:
    """Return the message for a name that the catalogue does not have."""
    return f"no accelerator is called {name!r}" + nearest(name, known)
