"""What a training run costs: node-hours at the site's price, and energy."""

from __future__ import annotations

from hpcplan.site.load import accelerator_of
from hpcplan.site.model import Site

__all__ = ["energy_kwh", "money"]


def money(site: Site, group: str, node_hours: float) -> float | None:
    """Return the price of so many node-hours in the site's currency, ``None`` where it has none.

    The node price covers energy; where there is only an energy price, that is what it costs.
    """
    node = site.node_groups[group]
    if node.price_per_hour is not None:
        return node.price_per_hour * node_hours
    if site.prices.energy_per_kwh is not None and node.power_w is not None:
        return node.power_w / 1000 * node_hours * site.prices.pue * site.prices.energy_per_kwh
    return None


def energy_kwh(site: Site, group: str, node_hours: float) -> float | None:
    """Return the energy of so many node-hours in kWh, cooling included (power usage effectiveness), or ``None``."""
    node = site.node_groups[group]
    power, chip = node.power_w, accelerator_of(site, group)
    if power is None and chip is not None and chip.power_w is not None and node.accelerators is not None:
        power = chip.power_w * node.accelerators.count
    return None if power is None else power / 1000 * node_hours * site.prices.pue
