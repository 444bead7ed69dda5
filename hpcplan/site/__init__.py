"""What the site has: the schema of a site file, the accelerator catalogue, and the topology graph.

``hpcplan.site.load`` reads site files; ``hpcplan.site.topology`` (networkx) is imported where the graph is needed.
"""

from hpcplan.site.load import LoadedSite, list_sites, load_site
from hpcplan.site.model import Site

__all__ = ["LoadedSite", "Site", "list_sites", "load_site"]
