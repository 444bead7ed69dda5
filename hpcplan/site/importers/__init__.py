"""Importers: what a site already has becomes :class:`Findings`, each figure with its origin.

One module a kind of file. ``hpcplan.site.merge`` puts findings together into a site file.
"""

from hpcplan.site.importers.findings import Findings

__all__ = ["Findings"]
