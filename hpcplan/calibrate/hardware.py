"""Which system a measured row ran on: the site of that name, or the shipped site that its hardware column resembles."""

from __future__ import annotations

import re
from functools import cache

from hpcplan.errors import InputError
from hpcplan.site import list_sites
from hpcplan.site.load import accelerator_of, load_site

__all__ = ["peak_flops", "site_name"]

# What a hardware column may say, the most specific first, and the site that stands for it.
_CHIPS = (
    (r"gb300", "gb300-nvl72"),
    (r"gb200", "gb200-nvl72"),
    (r"b300", "dgx-b300"),
    (r"b200", "dgx-b200"),
    (r"gh200|grace.?hopper", "alps-gh200"),
    (r"h200", "grand-teton-h200"),
    (r"h100.*(96 ?g|500 ?w)", "grand-teton-h100"),
    (r"h100", "dgx-h100"),
    (r"a800", "internlm-a800"),
    (r"a100.*40 ?g", "mosaic-a100-40g"),
    (r"a100|ampere", "generic-a100-80g"),
    (r"v100|dgx-1v?\b", "dgx-1v"),
    (r"3090", "mixed-rtx"),
)


@cache
def site_name(site: str, hardware: str) -> tuple[str, str]:
    """Return the name of a site to price a row on, and a note where it is not the row's own.

    Raises:
        InputError: neither the site nor the hardware is known.
    """
    try:
        load_site(site)
        return site, ""
    except InputError as error:
        if site in list_sites():
            raise
        unknown = error
    words = f"{site} {hardware}".lower()
    for pattern, name in _CHIPS:
        if re.search(pattern, words):
            return name, f"no site {site!r}; its hardware is priced as that of {name}"
    raise InputError(f"{unknown.message}, and its hardware {hardware!r} is not recognised") from None


def peak_flops(site: str, hardware: str, precision: str) -> float:
    """Return the peak rate (FLOP/s) of the accelerators that a row ran on.

    Raises:
        InputError: neither the site nor the hardware is known, or it has no accelerators.
    """
    name, _ = site_name(site, hardware)
    found = load_site(name).site
    for group in found.node_groups:
        chip = accelerator_of(found, group)
        if chip is not None:
            return chip.peak(precision)
    raise InputError(f"site {name!r} has no accelerators")
