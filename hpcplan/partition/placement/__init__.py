"""Where ranks go: the order of the axes, the nodes, and the order of the nodes, on the topology graph."""

from hpcplan.partition.placement.ask import options_of
from hpcplan.partition.placement.place import Machinery, Placed, best_placement
from hpcplan.partition.placement.site_placement import machinery_of, place_on_site, placement_of, plan_machinery
from hpcplan.partition.placement.traffic import traffic_of

__all__ = [
    "Machinery",
    "Placed",
    "best_placement",
    "machinery_of",
    "options_of",
    "place_on_site",
    "placement_of",
    "plan_machinery",
    "traffic_of",
]
