"""The accelerators that site files can name, with their data-sheet figures."""

from __future__ import annotations

from functools import cache

from pydantic import RootModel

from hpcplan.documents import read_document
from hpcplan.errors import InputError
from hpcplan.resources import shipped
from hpcplan.site.model import Accelerator

__all__ = ["accelerators"]

_Catalogue = RootModel[dict[str, Accelerator]]


@cache
def accelerators() -> dict[str, Accelerator]:
    """Return the shipped catalogue by name (``site_configs/catalogue/accelerators.yaml``)."""
    document = read_document(shipped("sites") / "catalogue" / "accelerators.yaml")
    try:
        entries = RootModel[dict[str, Accelerator]].model_validate(
            document.value, by_name=False, context={"door": True}
        )
    except ValueError as error:  # the shipped file is wrong: say so rather than go on with half a catalogue
        raise InputError(f"{document.source}: {error}") from None
    return entries.root
