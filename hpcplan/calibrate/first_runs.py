"""What the first runs of a site teach about its other runs: as ``hpcplan calibrate learn`` learns from them.

Only what is the site's own moves. A fit of all constants to three runs more would move what other sites share, to
explain what these three have of their own.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hpcplan.calibrate.batch import Batch
from hpcplan.calibrate.learn import Learned, SiteTarget, learn_from
from hpcplan.calibrate.residuals import trainer_of
from hpcplan.calibrate.targets import Array
from hpcplan.cost.coefficients import Coefficients
from hpcplan.cost.correction import places

__all__ = ["predicted_after", "taught"]


def taught(batch: Batch, base: Coefficients, known: NDArray[np.int64], others: NDArray[np.int64]) -> Array:
    """Return the logarithms of the other rows' step times (s), learned from the known rows, all of one site.

    ``base``, of shape (rows,), are the constants of before.
    """
    learned = learn_from(SiteTarget(batch.take(known)), base.take(known))
    return predicted_after(learned, batch.take(others), base.take(others))


def predicted_after(learned: Learned, batch: Batch, base: Coefficients) -> Array:
    """Return the logarithms of step times (s) with what was learned of their site, where that should be used."""
    found = SiteTarget(batch).predict(base.scaled(learned.factors) if learned.better else base)
    if learned.better and learned.correction is not None:
        at = places(batch.shape, batch.sequence, batch.shardings)
        trainers = [trainer_of(row) for row in batch.rows]
        for trainer in set(trainers):
            same = np.array([each == trainer for each in trainers])
            found[same] += learned.correction.log_factor(at[same], trainer)
    return found
