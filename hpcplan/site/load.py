"""Finding and reading site files, by name or by path."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from hpcplan.documents import read_document, read_text
from hpcplan.errors import InputError, Problem, nearest
from hpcplan.resources import Found, config_dir, find, listing
from hpcplan.site.catalogue import accelerators
from hpcplan.site.model import Accelerator, Site
from hpcplan.validation import digest, validate

__all__ = [
    "ENOUGH_FAILURES",
    "LoadedSite",
    "accelerator_of",
    "learned_file",
    "list_sites",
    "load_site",
    "read_site",
    "with_learned_failures",
]

ENOUGH_FAILURES = 5  # seen on a group, before their rate stands in for the site file's

SUFFIXES = (".yaml", ".yml", ".json")


@dataclass(frozen=True, slots=True)
class LoadedSite:
    """A valid site and where it came from; ``origin`` is ``file``, ``option``, ``user``, ``system`` or ``shipped``."""

    site: Site
    path: Path
    origin: str

    @property
    def sha256(self) -> str:
        """The digest of the content after validation: comments and layout do not change it."""
        return digest(self.site)


def read_site(path: Path) -> Site:
    """Read one site file.

    Raises:
        InputError: see :func:`hpcplan.validation.read_model`; also an accelerator that neither the catalogue nor the
            file defines.
    """
    document = read_document(path)
    site = validate(document, Site)
    known = {**accelerators(), **site.accelerators}
    problems = [
        document.problem(
            ("node_groups", name, "accelerators", "type"),
            f"no accelerator is called {group.accelerators.type!r}" + nearest(group.accelerators.type, known),
        )
        for name, group in site.node_groups.items()
        if group.accelerators is not None and group.accelerators.type not in known
    ]
    if problems:
        raise InputError(problems, hint="define it under 'accelerators' in this file, or use a name of the catalogue")
    return site


def load_site(name: str | Path, sites_dir: Path | None = None) -> LoadedSite:
    """Return the site called ``name``, or the one in the file of that path.

    Raises:
        InputError: no such site or file, or one that is not valid.
    """
    path = Path(name)
    if path.suffix in SUFFIXES or "/" in str(name) or path.is_file():
        return LoadedSite(with_learned_failures(read_site(path)), path, "file")
    found = find("sites", str(name), ".yaml", sites_dir)
    return LoadedSite(with_learned_failures(read_site(found.path)), found.path, found.origin)


def learned_file(site: str) -> Path:
    """Return where ``hpcplan calibrate learn`` keeps what accounting taught of a site, whether or not it exists."""
    return config_dir() / "sites" / "evidence" / site / "learned.json"


def with_learned_failures(site: Site) -> Site:
    """Return a site whose node groups fail as often as accounting says, where it has seen enough failures.

    Raises:
        InputError: the file of what was learned is damaged.
    """
    path = learned_file(site.name) if "/" not in site.name else None
    if path is None or not path.is_file():
        return site
    try:
        learned = json.loads(read_text(path))["failures"]
        times = {
            group: float(rate["mtbf_s"])
            for group, rate in learned.items()
            if group in site.node_groups and rate["failures"] >= ENOUGH_FAILURES
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        message = f"is not what 'hpcplan calibrate learn' writes: {error}"
        raise InputError(Problem(message, file=str(path)), hint="take it away, or learn again") from None
    groups = {
        name: group.model_copy(update={"mtbf_s": times[name]}) if name in times else group
        for name, group in site.node_groups.items()
    }
    return site.model_copy(update={"node_groups": groups})


def list_sites(sites_dir: Path | None = None) -> dict[str, Found]:
    """Return every site file by name with its origin, unread: a broken file must not hide the others."""
    return dict(sorted(listing("sites", ".yaml", sites_dir).items()))


def accelerator_of(site: Site, group: str) -> Accelerator | None:
    """Return the figures of a node group's accelerator, the site's own before the catalogue's."""
    accelerators_here = site.node_groups[group].accelerators
    if accelerators_here is None:
        return None
    return site.accelerators.get(accelerators_here.type) or accelerators()[accelerators_here.type]
