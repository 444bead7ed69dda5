"""Where templates and site files are looked for: the user's folders first, then the site's, then what is shipped.

Order, first hit wins: the folder given on the command line; ``$XDG_CONFIG_HOME/hpcplan/KIND`` (``~/.config``);
``/etc/hpcplan/KIND``; the files shipped with the package.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Literal

from hpcplan.errors import InputError, Problem, nearest

__all__ = ["Found", "Kind", "config_dir", "data_dir", "find", "folders", "listing", "shipped"]

Kind = Literal["templates", "sites"]
_PACKAGE: dict[Kind, str] = {"templates": "templates", "sites": "site_configs"}


@dataclass(frozen=True, slots=True)
class Found:
    """A file, and which of the folders it came from (``option``, ``user``, ``system`` or ``shipped``)."""

    path: Path
    origin: str


@cache
def shipped(kind: Kind) -> Path:
    """Return the folder of shipped files: inside the installed package, or at the top of a checkout."""
    package = _PACKAGE[kind]
    try:
        folder = Path(str(resources.files(f"hpcplan.{package}").joinpath("")))
    except ModuleNotFoundError:
        folder = Path(__file__).resolve().parent.parent / package
    if not folder.is_dir():
        raise InputError(Problem("the shipped files are missing; reinstall hpcplan", file=str(folder)))
    return folder


def config_dir() -> Path:
    """Return the user's folder for hpcplan's settings, whether or not it exists."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "hpcplan"


def data_dir() -> Path:
    """Return the user's folder for hpcplan's own data (``$HPCPLAN_DATA_DIR``, else under ``$XDG_DATA_HOME``)."""
    explicit = os.environ.get("HPCPLAN_DATA_DIR")
    if explicit:
        return Path(explicit)
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "hpcplan"


def folders(kind: Kind, option: Path | None = None) -> Iterator[tuple[Path, str]]:
    """Yield the folders that exist, in search order, each with its origin.

    Raises:
        InputError: the folder given as an option does not exist.
    """
    if option is not None:
        if not option.is_dir():
            raise InputError(Problem("no such directory", file=str(option)))
        yield option, "option"
    for folder, origin in ((config_dir() / kind, "user"), (Path("/etc/hpcplan") / kind, "system")):
        if folder.is_dir():
            yield folder, origin
    yield shipped(kind), "shipped"


def listing(kind: Kind, suffix: str, option: Path | None = None) -> dict[str, Found]:
    """Return every file of that suffix by its name without it; an earlier folder hides a later one's file."""
    found: dict[str, Found] = {}
    for folder, origin in folders(kind, option):
        for path in sorted(folder.glob(f"*{suffix}")):
            if path.is_file():
                found.setdefault(path.name.removesuffix(suffix), Found(path, origin))
    return found


def find(kind: Kind, name: str, suffix: str, option: Path | None = None) -> Found:
    """Return the file called ``name`` + ``suffix``.

    Raises:
        InputError: no folder has it; the message names the nearest that exist.
    """
    known = listing(kind, suffix, option)
    if name in known:
        return known[name]
    near = nearest(name, known)
    hint = "hpcplan site list names those that are known" if kind == "sites" and not near else None
    raise InputError(f"no {kind.removesuffix('s')} is called {name!r}" + near, hint=hint)
