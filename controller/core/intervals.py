"""Intervals for people: the effects that the mixtures of the tests do not reject, at any look, with 95 %.

The mixtures run over the same τ as the harm tests, and the mean of three e-values is at least a third of the largest:
so the narrowest of the three confidence sequences at a third of the level covers as well. Where harm is proven at
1/200 or below, the interval lies beyond the harm margin.
"""

import math

import numpy as np
import numpy.typing as npt

from controller.core.arrays import FloatArray, as_array
from controller.core.scores import TAU_FACTORS

LEVEL = 0.05
_LOG_LEVEL = math.log(LEVEL / len(TAU_FACTORS))
_HALVINGS = 20  # of the distance to a bound that is seldom fifty times as far as the interval


def shown(estimate: npt.ArrayLike, se2: npt.ArrayLike, tau: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    """(lower, upper) around estimates with variances ``se2``; the whole line where it is infinite.

    ``tau``: positive, in the estimates' unit. All broadcast.
    """
    centre = as_array(estimate)
    radius = _radius(as_array(se2), as_array(tau))
    return centre - radius, centre + radius


def _radius(se2: FloatArray, tau: FloatArray) -> FloatArray:
    """The least of the three; as in ``sequential.confidence_sequence``, and 0 at a variance of 0."""
    known = np.isfinite(se2) & (se2 > 0)
    variance = np.where(known, se2, 1.0)
    factors = np.reshape(TAU_FACTORS, (-1, *(1,) * np.broadcast(se2, tau).ndim))
    ratio = np.square(factors * tau) / variance
    squares = (1.0 + 1.0 / ratio) * (np.log1p(ratio) - 2.0 * _LOG_LEVEL)
    radius = np.sqrt(variance * squares.min(axis=0))
    return np.where(known, radius, np.where(se2 == 0, 0.0, np.inf))


def shown_rates(
    theta: npt.ArrayLike, spread: npt.ArrayLike, units: npt.ArrayLike, events: npt.ArrayLike, tau: npt.ArrayLike
) -> tuple[FloatArray, FloatArray]:
    """(lower, upper) around differences of two rates, (n,) each: the score interval.

    The variance is that of the effect which is being tried, with the champion's rate that the ``events`` (n,) of both
    arms leave for it: a few events against none are no more certain than they are rare. ``spread`` (2, n): factors of
    p(1−p) of champion and challenger in the variance of ``theta``; ``units`` (2, n).
    """
    found, factors, n, scale = as_array(theta), as_array(spread), as_array(units), as_array(tau)
    # No rate varies more than one of a half, and the radius grows with the variance.
    farthest = _radius(factors.sum(axis=0) / 4, scale)
    inside = np.stack([found, found])
    outside = np.clip([found - farthest, found + farthest], -1.0, 1.0)
    for _ in range(_HALVINGS):
        tried = (inside + outside) / 2
        rate = (as_array(events) - tried * n[1]) / n.sum(axis=0)
        champion = np.clip(rate, np.maximum(0.0, -tried), np.minimum(1.0, 1.0 - tried))
        challenger = champion + tried
        se2 = factors[0] * champion * (1 - champion) + factors[1] * challenger * (1 - challenger)
        kept = np.abs(tried - found) <= _radius(se2, scale)
        inside, outside = np.where(kept, tried, inside), np.where(kept, outside, tried)
    return outside[0], outside[1]
