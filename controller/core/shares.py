"""Tests on shares: how units fall on categories. Public through `controller.core.sequential`.

Exact at every sample size for independent units.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, overload

import numpy as np
import numpy.typing as npt
from scipy.special import betaincc, gammaln

from controller.core.arrays import FloatArray, T, as_array, plain, require

_STIRLING_FROM = 20.0
_FAR_TAIL = 1e-16
_TAIL_TERMS = 20


@overload
def log_e_dirichlet(counts: Sequence[float], probabilities: npt.ArrayLike, concentration: npt.ArrayLike) -> float: ...
@overload
def log_e_dirichlet(
    counts: npt.NDArray[Any], probabilities: npt.ArrayLike, concentration: npt.ArrayLike
) -> float | FloatArray: ...
def log_e_dirichlet(
    counts: Sequence[float] | npt.NDArray[Any], probabilities: npt.ArrayLike, concentration: npt.ArrayLike
) -> float | FloatArray:
    """Log e-value against H0: units fall on the categories with `probabilities` (Lindon and Malek, arXiv 2011.03567).

    The Bayes factor of a Dirichlet against the fixed probabilities: lG(k) - lG(k+n) + sum[lG(a_j+x_j) - lG(a_j)]
    - sum x_j log p_j. Categories are the last axis of `counts` (axes before it give an array). `concentration` is k,
    with a_j = k p_j (a larger k looks for smaller mismatches), or the a_j themselves. One call per epoch, whose logs
    add. A unit in a category of probability 0 gives +inf.
    """
    x, p, alpha = as_array(counts), as_array(probabilities), as_array(concentration)
    require("counts", "finite and not negative", (x >= 0) & np.isfinite(x))
    # With a tolerance: 0.6 + 0.3 + 0.1 is not 1 in doubles.
    require("probabilities", "not negative with sum 1", np.all(p >= 0) and abs(float(p.sum()) - 1.0) < 1e-9)
    require("counts and probabilities", "of one length", p.ndim == 1 and x.shape[-1:] == p.shape)
    alpha = alpha * p if alpha.ndim == 0 else alpha
    require("concentration", "a number, or one for each category", alpha.shape == p.shape)
    possible = p > 0
    require("concentration", "positive and finite", np.isfinite(alpha) & ((alpha > 0) | ~possible))
    impossible = np.any(np.where(possible, 0.0, x) > 0, axis=-1)
    log_e = _log_dirichlet(x[..., possible], p[possible], alpha[possible])
    result: float | FloatArray = plain(np.asarray(np.where(impossible, np.inf, log_e)))
    return result


def _log_dirichlet(x: FloatArray, p: FloatArray, alpha: FloatArray) -> FloatArray:
    """The Bayes factor by Stirling's formula with its exact remainder; x, p and alpha broadcast, categories last.

    Differences of gammaln lose all digits at 1e12 units. Here their large terms are summed by hand, to
    N KL(a/N || p) - k KL(alpha/k || p), each of which is a sum of N p_j phi(d_j) with phi(d) = (1+d) log(1+d) - d.
    """
    k, n = alpha.sum(axis=-1, keepdims=True), x.sum(axis=-1, keepdims=True)
    prior_gap = alpha - k * p
    before = _divergence(prior_gap, k * p)
    since = _divergence((x - n * p) + prior_gap, (k + n) * p)
    remainders = (_stirling(alpha + x) - _stirling(alpha)).sum(axis=-1) + (_stirling(k) - _stirling(k + n))[..., 0]
    halves = 0.5 * (np.log1p(n / k)[..., 0] - np.log1p(x / alpha).sum(axis=-1))
    return np.asarray(since - before + halves + remainders)


def _divergence(gap: FloatArray, expected: FloatArray) -> FloatArray:
    d = gap / expected
    return np.asarray(np.sum(expected * ((1.0 + d) * np.log1p(d) - d), axis=-1))


def _stirling(z: npt.ArrayLike) -> FloatArray:
    """gammaln(z) minus Stirling's formula, from the asymptotic series where that is exact to a double."""
    z = as_array(z)
    large, small = np.maximum(z, _STIRLING_FROM), np.minimum(z, _STIRLING_FROM)
    square = np.square(large)
    series = (1 / 12 - (1 / 360 - (1 / 1260 - 1 / 1680 / square) / square) / square) / large
    direct = gammaln(small) - ((small - 0.5) * np.log(small) - small + 0.5 * math.log(2.0 * math.pi))
    return np.where(z >= _STIRLING_FROM, series, direct)


def log_e_share(hits: T, misses: T, share: T | float, prior_hits: float, prior_misses: float) -> T:
    """Log e-value against H0: each trial is a hit with probability at most `share`.

    Likelihood ratios against `share`, mixed over Beta(prior_hits, prior_misses) truncated to (share, 1); each factor
    increases in the true share, so the e-value holds for all of H0. Exchange hits and misses, and pass 1 - share, to
    test the other direction.
    """
    x, y, s = np.broadcast_arrays(as_array(hits), as_array(misses), as_array(share))
    require("hits and misses", "finite and not negative", (x >= 0) & (y >= 0) & np.isfinite(x + y))
    require("share", "between 0 and 1", (s > 0) & (s < 1))
    prior = np.array([prior_hits, prior_misses], dtype=np.float64)
    require("prior_hits and prior_misses", "positive and finite", (prior > 0) & np.isfinite(prior))
    prior_mass = betaincc(prior_hits, prior_misses, s)
    require("share", "low enough for the prior to have mass above it", prior_mass > 0)

    a, b = prior_hits + x, prior_misses + y
    mass = betaincc(a, b, s)
    far = mass < _FAR_TAIL
    sides = np.stack([s, 1.0 - s], axis=-1)
    near = _log_dirichlet(np.stack([x, y], axis=-1), sides, prior) + np.log(np.where(far, 1.0, mass))
    # Far out the mass underflows while the other factor overflows; together they are the prior's density at the edge
    # times a continued fraction.
    beta = gammaln(prior_hits) + gammaln(prior_misses) - gammaln(prior_hits + prior_misses)
    edge = prior_hits * np.log(s) + prior_misses * np.log1p(-s) - beta
    tail = np.log(_tail_fraction(b[far], a[far], (1.0 - s)[far]) / b[far]) + edge[far]
    log_e = np.array(near)
    log_e[far] = tail
    result: T = plain(log_e - np.log(prior_mass))
    return result


def _tail_fraction(a: FloatArray, b: FloatArray, x: FloatArray) -> FloatArray:
    """The incomplete beta integral over x^a (1-x)^b / a, for x far below a/(a+b).

    Its continued fraction by Lentz's algorithm, with a fixed number of terms: so far out fewer than fifteen change
    the result.
    """
    if not x.size:
        return x
    c = np.ones_like(x)
    d = 1.0 / (1.0 - (a + b) * x / (a + 1.0))
    fraction = d
    for m in range(1, _TAIL_TERMS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d = 1.0 / (1.0 + term * d)
            c = 1.0 + term / c
            fraction = fraction * d * c
    return fraction


def log_e_discordant(worse: T, better: T, prior: float = 1.0) -> T:
    """Log e-value against H0: where the arms differ, the challenger is the worse one at most half of the time.

    `worse` and `better` count the discordant pairs (one request, two outcomes). The mixture over the share of worse
    ones is Beta(prior, prior) truncated to (1/2, 1); with 1 it is uniform there.
    """
    return log_e_share(worse, better, 0.5, prior, prior)
