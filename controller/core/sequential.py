"""Evidence that may be looked at after every block: log e-values, confidence sequences, e-BH.

An e-value of a null hypothesis has mean at most 1 under it at every stopping time, so by Ville's inequality
P(it ever reaches 1/alpha) <= alpha, however often one looks. Everything here is a natural logarithm: reject at
log e >= log(1/alpha). E-values of one null from different blocks or epochs multiply (their logs add); those of
different alternatives are averaged (`log_mean_exp`).

Which guarantee holds where: the Gaussian mixtures are asymptotic (their input is an estimate and its variance); the
tests on counts and on shares are exact at every sample size, given what each docstring assumes.

Numbers and numpy arrays broadcast; numbers in give a number out. A figure too large for a double saturates instead
of turning into NaN. A wrong argument is a ValueError that names it. An estimate without a usable variance is not an
error but no evidence: log e is 0 and the interval the whole line, so it can never decide.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import erfcx, lambertw, log_ndtr

from controller.core.arrays import FloatArray, T, as_array, log_mean_exp, plain, require
from controller.core.betting import (
    BET_FRACTIONS,
    LEAST_RATE,
    RISK_RATIOS,
    HarmFold,
    fold_count_non_inferior,
    fold_harm_counts,
    log_e_bet,
    log_e_count_non_inferior,
    log_e_harm_counts,
    log_e_two_by_two,
)
from controller.core.shares import log_e_dirichlet, log_e_discordant, log_e_share

__all__ = [
    "BET_FRACTIONS",
    "LEAST_RATE",
    "RISK_RATIOS",
    "HarmFold",
    "Rejections",
    "confidence_sequence",
    "e_bh",
    "fold_count_non_inferior",
    "fold_harm_counts",
    "log_e_bet",
    "log_e_count_non_inferior",
    "log_e_dirichlet",
    "log_e_discordant",
    "log_e_harm_counts",
    "log_e_one_sided",
    "log_e_one_sided_mixture",
    "log_e_share",
    "log_e_two_by_two",
    "log_e_two_sided",
    "log_mean_exp",
    "tau_for_information",
]

_SATURATED = 1e150  # its square is still a double


class _Standard(NamedTuple):
    """z = theta/se, ratio = tau/se, spread = sqrt(1 + ratio^2), se, and where there is evidence at all."""

    z: FloatArray
    ratio: FloatArray
    spread: FloatArray
    se: FloatArray
    usable: npt.NDArray[np.bool_]


def _standardise(theta: npt.ArrayLike, se2: npt.ArrayLike, tau: npt.ArrayLike) -> _Standard:
    estimate, variance, scale = np.broadcast_arrays(as_array(theta), as_array(se2), as_array(tau))
    require("tau", "positive and finite", (scale > 0) & np.isfinite(scale))
    usable = np.isfinite(estimate) & np.isfinite(variance) & (variance > 0)
    se = np.sqrt(np.where(usable, variance, 1.0))
    with np.errstate(over="ignore"):
        z = np.clip(np.where(usable, estimate, 0.0) / se, -_SATURATED, _SATURATED)
        ratio = np.minimum(scale / se, _SATURATED)
    return _Standard(z, ratio, np.hypot(1.0, ratio), se, usable)


def log_e_two_sided(theta: T, se2: T, tau: T | float) -> T:
    """Log e-value against H0: the effect is 0, mixed over effects ~ N(0, tau^2).

    With k = tau^2/se2: log e = z^2/2 * k/(1+k) - log(1+k)/2, z^2 = theta^2/se2. The normal mixture of the mSPRT
    (Johari et al. 2022) and of asymptotic confidence sequences (Waudby-Smith et al., arXiv 2103.06476). `theta` and
    `tau` share a unit, `se2` is its square. 0 where theta is not finite or se2 is not positive and finite.
    """
    s = _standardise(theta, se2, tau)
    log_e = 0.5 * np.square(s.z * (s.ratio / s.spread)) - np.log(s.spread)
    result: T = plain(np.asarray(np.where(s.usable, log_e, 0.0)))
    return result


def log_e_one_sided(theta: T, se2: T, tau: T | float) -> T:
    """Log e-value against H0: the effect is at most 0, mixed over effects ~ |N(0, tau^2)|. Increases with theta.

    With k = tau^2/se2 and w = z sqrt(k/(1+k)): log e = log 2 - log(1+k)/2 + w^2/2 + log Phi(w). 0 where theta is not
    finite or se2 is not positive and finite.
    """
    s = _standardise(theta, se2, tau)
    w = s.z * (s.ratio / s.spread)
    up, down = np.maximum(w, 0.0), np.minimum(w, 0.0)
    # Below 0, w^2/2 and log Phi(w) cancel nearly all their digits; the scaled complementary error function does not.
    above = math.log(2.0) + 0.5 * np.square(up) + log_ndtr(up)
    gain = np.where(w > 0, above, np.log(erfcx(-down / math.sqrt(2.0))))
    result: T = plain(np.asarray(np.where(s.usable, gain - np.log(s.spread), 0.0)))
    return result


def log_e_one_sided_mixture(theta: T, se2: T, taus: Sequence[T | float]) -> T:
    """Log of the mean over `taus` of the one-sided e-value, so that a small and a gross effect are both found early."""
    logs = [as_array(log_e_one_sided(theta, se2, tau)) for tau in taus]
    require("taus", "at least one number", len(logs) > 0)
    result: T = plain(as_array(log_mean_exp(np.stack(np.broadcast_arrays(*logs)), axis=0)))
    return result


def confidence_sequence(theta: T, se2: T, tau: T | float, alpha: float) -> tuple[T, T]:
    """(lower, upper): the effects that `log_e_two_sided` does not reject at alpha; over all looks they cover 1 - alpha.

    theta +- sqrt(se2 (1+k)/k (log(1+k) + 2 log(1/alpha))) with k = tau^2/se2. The whole line where theta is not
    finite or se2 is not positive and finite.
    """
    require("alpha", "between 0 and 1", 0 < alpha < 1)
    s = _standardise(theta, se2, tau)
    middle = np.where(s.usable, as_array(theta), 0.0)
    with np.errstate(divide="ignore", over="ignore"):
        radius = s.se * (s.spread / s.ratio) * np.sqrt(2.0 * (np.log(s.spread) - math.log(alpha)))
        radius = np.where(s.usable, radius, np.inf)
        lower: T = plain(np.asarray(middle - radius))
        upper: T = plain(np.asarray(middle + radius))
    return lower, upper


def tau_for_information(information: float, alpha: float) -> float:
    """The tau whose confidence sequence is narrowest once 1/se2 has reached `information`.

    tau^2 = (-W(-alpha^2/e) - 1)/information, W the lower branch of Lambert's function: the root of the radius'
    derivative in tau. alpha from 1e-150 (below, its square is no longer a double) to 1.
    """
    require("information", "positive and finite", 0 < information < math.inf)
    require("alpha", "at least 1e-150 and below 1", 1e-150 <= alpha < 1)
    branch = float(lambertw(-alpha * alpha / math.e, k=-1).real)
    return math.sqrt((-branch - 1.0) / information)


class Rejections(NamedTuple):
    """`indices` of the rejected hypotheses in ascending order, and the log e that each of them reached."""

    indices: tuple[int, ...]
    log_threshold: float


def e_bh(log_e: npt.ArrayLike, alpha: float) -> Rejections:
    """Benjamini-Hochberg on e-values (Wang and Ramdas 2022): false discovery rate <= alpha under any dependence.

    Rejects the k largest of K, k the greatest number with the k-th largest e >= K/(k alpha). Without a rejection
    `log_threshold` is what a single one would have needed.
    """
    require("alpha", "between 0 and 1", 0 < alpha < 1)
    logs = as_array(log_e)
    require("log_e", "a list of numbers without NaN", logs.ndim == 1 and not np.isnan(logs).any())
    bars = np.log(logs.size / (np.arange(1, logs.size + 1) * alpha))
    passed = np.flatnonzero(-np.sort(-logs) >= bars)
    if not passed.size:
        return Rejections((), math.log(max(logs.size, 1) / alpha))
    threshold = float(bars[passed[-1]])
    return Rejections(tuple(int(i) for i in np.flatnonzero(logs >= threshold)), threshold)
