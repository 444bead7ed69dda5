"""Milliseconds that the controller and its compiled twin both go by; here, so that what is kept compiled knows them."""

from __future__ import annotations

from typing import Final

__all__ = ["KILLED_MS", "SUBMITTED_MS", "UNSURE_MS"]

KILLED_MS: Final = 25  # from SIGKILL to the nodes' word that the job is gone (measured on 22.05.8: 28 and more)
UNSURE_MS: Final = 20  # how far apart ends are on a real cluster that come at the same moment here (measured)
SUBMITTED_MS: Final = 20  # how far into its second a submission is taken to arrive
