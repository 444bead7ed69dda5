"""Reading each file with the importer of its kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Final

from hpcplan.documents import read_text
from hpcplan.errors import InputError
from hpcplan.site.importers.findings import Findings

__all__ = ["read_sources"]

# option: the module of this package and its function, imported when a file of that kind is read
_READERS: Final[Mapping[str, tuple[str, str]]] = {
    "slurm-conf": ("slurm_conf", "read_slurm_conf"),
    "cluster-model": ("cluster_model", "read_cluster_model"),
    "gres": ("gres_conf", "read_gres_conf"),
    "ibnetdiscover": ("ibnetdiscover", "read_ibnetdiscover"),
    "nvidia-smi-topo": ("nvidia_smi_topo", "read_nvidia_smi_topo"),
    "nccl-xml": ("nccl_xml", "read_nccl_xml"),
    "scontrol": ("scontrol", "read_scontrol"),  # several files, each with an answer or more
}


def read_sources(
    paths: Mapping[str, Path | Sequence[Path]], *, topology_name: str | None = None
) -> dict[str, Findings]:
    """Read files by the option that names their kind, as ``hpcplan.site.merge.SOURCES`` lists them.

    Args:
        paths: file by option; of ``scontrol`` several.
        topology_name: which topology of a topology.yaml that holds several; its default one, if not given.

    Raises:
        InputError: a file that cannot be read; of several, every one that cannot is named.
    """
    found: dict[str, Findings] = {}
    errors: list[InputError] = []
    for option, path in paths.items():
        try:
            found[option] = _read(option, path, topology_name)
        except InputError as error:
            errors.append(error)
    if errors:
        raise InputError([problem for error in errors for problem in error.problems])
    return found


def _read(option: str, path: Path | Sequence[Path], topology_name: str | None) -> Findings:
    if option == "scontrol":
        path = [path] if isinstance(path, Path) else path
    if option == "topology" and isinstance(path, Path):
        return _read_topology(path, topology_name)
    module, function = _READERS[option]
    findings: Findings = getattr(import_module(f"hpcplan.site.importers.{module}"), function)(path)
    return findings


def _read_topology(path: Path, topology_name: str | None) -> Findings:
    """Read topology.conf or topology.yaml, told apart by the suffix, else by the first line that says something."""
    from hpcplan.site.importers.topology_conf import read_topology_conf
    from hpcplan.site.importers.topology_yaml import looks_like_yaml, parse_topology_yaml

    text = read_text(path)
    if path.suffix in (".yaml", ".yml", ".json") or looks_like_yaml(text):
        return parse_topology_yaml(text, path, topology=topology_name)
    return read_topology_conf(path)
