"""The list of campaigns submitted from this account: one small file each, pointing at its directory.

The list is a convenience. The truth is in the campaigns' own directories, and a file lost here loses nothing: the next
``hpcplan submit`` writes it again.
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path

from hpcplan.campaign.ledger import Ledger
from hpcplan.documents import read_text, write_text
from hpcplan.errors import HpcplanError, InputError, Problem, nearest
from hpcplan.render.manifest import MANIFEST_NAME
from hpcplan.resources import data_dir

__all__ = ["Registered", "campaigns", "find_campaign", "register"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Registered:
    """One campaign: ``created_at`` is when it was first submitted, in unix seconds by its cluster's clock."""

    campaign_id: str
    name: str
    directory: str
    backend: str
    cluster: str | None
    created_at: int

    @property
    def exists(self) -> bool:
        """Whether its directory is still there."""
        return (Path(self.directory) / MANIFEST_NAME).is_file()


def _folder() -> Path:
    return data_dir() / "campaigns"


def register(ledger: Ledger, directory: Path) -> None:
    """Put an opened campaign on the list; a list that cannot be written is no reason to stop."""
    if ledger.campaign_id is None or ledger.name is None or ledger.backend is None:
        raise ValueError("a campaign is listed once it is opened")
    entry = Registered(
        campaign_id=ledger.campaign_id,
        name=ledger.name,
        directory=str(directory.resolve()),
        backend=ledger.backend,
        cluster=ledger.cluster,
        created_at=ledger.opened_at or 0,
    )
    path = _folder() / f"{entry.campaign_id}.json"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(asdict(entry), indent=2) + "\n")
    except (OSError, HpcplanError) as error:
        _log.warning("the campaign cannot be added to the list of campaigns: %s", error)


def campaigns() -> list[Registered]:
    """Return the campaigns on the list, the newest first; files that are none are skipped."""
    found = []
    for path in _folder().glob("*.json"):
        try:
            found.append(Registered(**json.loads(read_text(path))))
        except (InputError, ValueError, TypeError) as error:
            _log.warning("%s is no entry of the list of campaigns: %s", path, error)
    return sorted(found, key=lambda entry: (entry.created_at, entry.campaign_id), reverse=True)


def find_campaign(word: str | None, here: Path) -> tuple[Path, str | None]:
    """Return the directory that ``word`` means, and a note where that was a choice.

    A directory's path comes first, then a name on the list, then the beginning of a campaign's id. Without a word it is
    ``here`` if that is a campaign, else the newest on the list.

    Raises:
        InputError: nothing is called so; the message names the nearest.
    """
    if word is None:
        if (here / MANIFEST_NAME).is_file():
            return here, None
        return _newest()
    path = Path(word)
    if (path / MANIFEST_NAME).is_file():
        return path, None
    known = [entry for entry in campaigns() if entry.exists]
    named = [entry for entry in known if entry.name == word]
    named = named or [entry for entry in known if len(word) >= 4 and entry.campaign_id.startswith(word)]
    if named:
        note = f"{len(named)} campaigns are called {word!r}; this is the newest" if len(named) > 1 else None
        return Path(named[0].directory), note
    if path.is_dir():
        problem = Problem(f"holds no rendered campaign ({MANIFEST_NAME} is missing)", file=word)
        raise InputError(problem, hint="make one with: hpcplan render plan.json -o DIR")
    near = nearest(word, {entry.name for entry in known})
    hint = None if near else "name the directory of a rendered one, or one of those that hpcplan list shows"
    raise InputError(f"no campaign is called {word!r}" + near, hint=hint)


def _newest() -> tuple[Path, str | None]:
    known = [entry for entry in campaigns() if entry.exists]
    if not known:
        raise InputError("no campaign was submitted yet", hint="name the directory of a rendered one")
    return Path(known[0].directory), f"the newest campaign: {known[0].name} in {known[0].directory}"
