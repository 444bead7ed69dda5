"""What is exported for Slurm comes back the same through the importer."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from hpcplan.cli.site_export import command
from hpcplan.site import list_sites, load_site
from hpcplan.site.export import FORMATS
from hpcplan.site.importers.read import read_sources
from hpcplan.site.merge import merge
from hpcplan.site.merge_write import read_back, write_draft
from hpcplan.site.model import Site
from hpcplan.site.topology import build_topology


def shape(site: Site) -> dict[str, list[str]]:
    """Return the switches above each node and switch: the tree, whatever the bandwidths."""
    topology = build_topology(site)
    return {name: topology.ancestors(name) for name in topology.graph.nodes}


@pytest.mark.parametrize("name", sorted(list_sites()))
@pytest.mark.parametrize("kind", sorted(FORMATS))
def test_a_shipped_site_keeps_its_tree_on_the_way_to_slurm_and_back(tmp_path: Path, name: str, kind: str) -> None:
    site = load_site(name).site
    path = tmp_path / kind
    path.write_text(FORMATS[kind](site))
    draft = merge(read_sources({"topology": path}))
    assert not draft.problems
    assert shape(read_back(write_draft(draft))) == shape(site)


def test_the_command_prints_or_writes(tmp_path: Path) -> None:
    output = tmp_path / "topology.conf"
    written = CliRunner().invoke(command, ["mixed-lab", "-o", str(output)])
    printed = CliRunner().invoke(command, ["mixed-lab"])
    assert written.exit_code == printed.exit_code == 0
    assert output.read_text() == printed.stdout
    assert "SwitchName=ib0 Nodes=h[1-2],a[1-4]\n" in printed.stdout
    assert "LinkSpeed" not in printed.stdout
