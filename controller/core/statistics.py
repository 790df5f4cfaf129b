"""Estimates and their variances, and the log-bucket histogram. Sequential tests of them are in `sequential`.

Every variance is that of the estimate unless said otherwise. Where too little was seen for one it is infinite, which
the sequential tests read as no evidence. Arguments that cannot be meant are a ValueError that names them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import rel_entr

from controller.core.arrays import FloatArray, as_array, require

BUCKET_GROWTH = 1.02
BUCKET_LEAST = 1e-9
_EDGE_SLACK = 1e-9
_SHARE_FLOOR = 1e-4


class PairedAuc(NamedTuple):
    """Two areas under the ROC curve on the same rows. ``difference_variance``, of the challenger's less the champion's,
    is the sum of the variances less 2 covariance, and exactly 0 where the two rank alike."""

    champion: float
    challenger: float
    champion_variance: float
    challenger_variance: float
    covariance: float
    difference_variance: float


def _rows(values: npt.ArrayLike, name: str) -> FloatArray:
    rows = as_array(values)
    require(name, "a list of finite numbers", rows.ndim == 1 and np.all(np.isfinite(rows)))
    return rows


def _bins(counts: npt.ArrayLike, name: str, dimensions: int) -> FloatArray:
    """Counts as doubles: products of integer counts overflow long before doubles lose anything that matters."""
    bins = as_array(counts)
    require(name, "finite counts, not negative", bins.ndim == dimensions and np.all((bins >= 0) & np.isfinite(bins)))
    return bins


def _placements(scores: FloatArray, others: FloatArray) -> FloatArray:
    """For each score the share of `others` below it, those equal to it counting half."""
    order = np.sort(others)
    below, through = np.searchsorted(order, scores, "left"), np.searchsorted(order, scores, "right")
    return np.asarray((below + through) / (2.0 * others.size))


def _bin_placements(others: FloatArray) -> FloatArray:
    """The same for a score in each bin of a histogram of `others`, along its only axis."""
    return np.asarray((np.cumsum(others) - 0.5 * others) / others.sum())


def _mean_covariance(a: FloatArray, b: FloatArray, weights: FloatArray | None = None) -> float:
    """Covariance of the two means, with n - 1; `weights` are how often each pair was seen. Infinite for one row."""
    n = float(a.size if weights is None else weights.sum())
    if n < 2:
        return math.inf
    w = np.ones_like(a) if weights is None else weights
    products = w * (a - np.sum(w * a) / n) * (b - np.sum(w * b) / n)
    return float(np.sum(products) / (n - 1.0) / n)


def delong(positive_scores: npt.ArrayLike, negative_scores: npt.ArrayLike) -> tuple[float, float]:
    """(AUC, variance) by DeLong, DeLong and Clarke-Pearson (1988), ties counting half.

    The scores of the rows labelled positive and negative, at least one of each; with only one of either the variance is
    infinite. Where the scores separate the labels perfectly it is 0.
    """
    positive, negative = _rows(positive_scores, "positive_scores"), _rows(negative_scores, "negative_scores")
    require("positive_scores and negative_scores", "at least one number each", positive.size and negative.size)
    of_positive, of_negative = _placements(positive, negative), _placements(negative, positive)
    variance = _mean_covariance(of_positive, of_positive) + _mean_covariance(of_negative, of_negative)
    return float(np.mean(of_positive)), variance


def delong_from_histogram(positive_counts: npt.ArrayLike, negative_counts: npt.ArrayLike) -> tuple[float, float]:
    """`delong` from how many rows of each label fall in each bin of the score, bins in ascending order.

    Rows of one bin count as ties; equal to `delong` up to rounding where no bin holds two different scores.
    """
    positive, negative = _bins(positive_counts, "positive_counts", 1), _bins(negative_counts, "negative_counts", 1)
    require("positive_counts and negative_counts", "of one length", positive.shape == negative.shape)
    require("positive_counts and negative_counts", "not all zero", positive.sum() > 0 and negative.sum() > 0)
    of_positive, of_negative = _bin_placements(negative), _bin_placements(positive)
    auc = float(np.sum(positive * of_positive) / positive.sum())
    variance = _mean_covariance(of_positive, of_positive, positive)
    return auc, variance + _mean_covariance(of_negative, of_negative, negative)


def delong_paired(labels: npt.ArrayLike, champion_scores: npt.ArrayLike, challenger_scores: npt.ArrayLike) -> PairedAuc:
    """Both arms' AUC with their covariance, where both scored the same rows (labels 1 and 0, or booleans)."""
    label = _rows(labels, "labels")
    require("labels", "0 or 1", (label == 0) | (label == 1))
    a, b = _rows(champion_scores, "champion_scores"), _rows(challenger_scores, "challenger_scores")
    require("labels and scores", "of one length", label.shape == a.shape == b.shape)
    yes, no = label == 1, label == 0
    require("labels", "of both kinds", bool(yes.any()) and bool(no.any()))
    pos_a, neg_a = _placements(a[yes], a[no]), _placements(a[no], a[yes])
    pos_b, neg_b = _placements(b[yes], b[no]), _placements(b[no], b[yes])
    return _paired((pos_a, pos_b, np.ones_like(pos_a)), (neg_a, neg_b, np.ones_like(neg_a)))


def delong_paired_from_histogram(positive_counts: npt.ArrayLike, negative_counts: npt.ArrayLike) -> PairedAuc:
    """`delong_paired` from two-dimensional histograms: champion's score bin by challenger's score bin, ascending."""
    positive, negative = _bins(positive_counts, "positive_counts", 2), _bins(negative_counts, "negative_counts", 2)
    require("positive_counts and negative_counts", "of one shape", positive.shape == negative.shape)
    require("positive_counts and negative_counts", "not all zero", positive.sum() > 0 and negative.sum() > 0)
    pos_a, neg_a = _bin_placements(negative.sum(axis=1))[:, None], _bin_placements(positive.sum(axis=1))[:, None]
    pos_b, neg_b = _bin_placements(negative.sum(axis=0))[None, :], _bin_placements(positive.sum(axis=0))[None, :]
    return _paired((pos_a, pos_b, positive), (neg_a, neg_b, negative))


def _paired(
    positive: tuple[FloatArray, FloatArray, FloatArray], negative: tuple[FloatArray, FloatArray, FloatArray]
) -> PairedAuc:
    """From the placements of each label's rows under both arms, and how often each pair of them was seen."""

    def covariance(a: int, b: int) -> float:
        return sum(_mean_covariance(rows[a], rows[b], rows[2]) for rows in (positive, negative))

    a, b, seen = positive
    changes = (_mean_covariance(rows[1] - rows[0], rows[1] - rows[0], rows[2]) for rows in (positive, negative))
    return PairedAuc(
        float(np.sum(seen * a) / seen.sum()),
        float(np.sum(seen * b) / seen.sum()),
        covariance(0, 0),
        covariance(1, 1),
        covariance(0, 1),
        sum(changes),
    )


def ratio_of_means(numerators: npt.ArrayLike, denominators: npt.ArrayLike) -> tuple[float, float]:
    """(mean numerator / mean denominator, variance) over independent units, by the delta method.

    The variance is that of the mean of numerator - ratio * denominator, over the squared mean denominator; covariance
    of the two is thereby included. Infinite for one unit.
    """
    top, bottom = _rows(numerators, "numerators"), _rows(denominators, "denominators")
    require("numerators and denominators", "of one length, not empty", top.shape == bottom.shape and top.size)
    require("the sum of denominators", "other than zero", bottom.sum() != 0)
    # By powers of two, which round nothing: squares of very large numbers are none.
    over, under = _exponent(top), _exponent(bottom)
    top, bottom = np.ldexp(top, -over), np.ldexp(bottom, -under)
    ratio = float(top.sum() / bottom.sum())
    residuals = top - ratio * bottom
    variance = _mean_covariance(residuals, residuals) / float(np.mean(bottom)) ** 2
    return math.ldexp(ratio, over - under), float(np.ldexp(variance, 2 * (over - under)))


def _exponent(values: npt.NDArray[np.float64]) -> int:
    """Of the power of two just above all ``values``; 0 where all are zero."""
    return int(np.frexp(np.max(np.abs(values)))[1])


def cuped(values: npt.ArrayLike, covariates: npt.ArrayLike) -> tuple[float, float]:
    """(theta, variance of one adjusted value): values - theta * covariates with theta = cov/var (Deng et al. 2013).

    Both with n - 1; unlike elsewhere here the variance is that of a value, not of its mean. A constant covariate
    explains nothing: theta is 0. Infinite variance for fewer than two units.
    """
    y, x = _rows(values, "values"), _rows(covariates, "covariates")
    require("values and covariates", "of one length", y.shape == x.shape)
    if y.size < 2:
        return 0.0, math.inf
    # The mean of equal numbers is off by a rounding, and so is each of them from it.
    rounding = x.size * np.square(4 * np.finfo(np.float64).eps * np.max(np.abs(x)))
    y, x = y - np.mean(y), x - np.mean(x)
    spread = float(np.sum(x * x))
    theta = float(np.sum(x * y)) / spread if spread > rounding else 0.0
    return theta, float(np.sum(np.square(y - theta * x))) / (y.size - 1)


def f1(true_positive: float, false_positive: float, false_negative: float) -> tuple[float, float]:
    """(F1, variance) from counts of predictions: F = 2 TP/(2 TP + FP + FN), F (1-F) (2-F)/(2 TP + FP + FN).

    The delta method on multinomial counts. Without any positive, said or true, it is 0 with infinite variance.
    """
    counts = as_array([true_positive, false_positive, false_negative])
    require("counts", "finite and not negative", (counts >= 0) & np.isfinite(counts))
    total = float(2.0 * counts[0] + counts[1] + counts[2])
    if total == 0:
        return 0.0, math.inf
    f = float(2.0 * counts[0]) / total
    return f, f * (1.0 - f) * (2.0 - f) / total


def combine_inverse_variance(estimates: npt.ArrayLike, variances: npt.ArrayLike) -> tuple[float, float]:
    """(mean weighted by 1/variance, its variance) of independent estimates of one thing.

    Estimates without a positive, finite variance are left out; if that leaves none, (0, infinite).
    """
    theta, se2 = as_array(estimates), as_array(variances)
    require("estimates and variances", "lists of one length", theta.ndim == 1 and theta.shape == se2.shape)
    usable = np.isfinite(theta) & np.isfinite(se2) & (se2 > 0)
    if not usable.any():
        return 0.0, math.inf
    theta, se2 = theta[usable], se2[usable]
    least = float(se2.min())  # weights relative to the greatest cannot overflow
    weights = least / se2
    total = float(weights.sum())
    return float(np.sum(weights * theta)) / total, least / total


def _shares(counts: npt.ArrayLike, name: str) -> FloatArray:
    bins = _bins(counts, name, 1)
    require(name, "not all zero", bins.sum() > 0)
    return np.asarray(bins / bins.sum())


def psi(reference_counts: npt.ArrayLike, current_counts: npt.ArrayLike) -> float:
    """Population stability index of two histograms over the same bins; for display, not a test.

    sum (q - p) log(q/p); shares below 1e-4 count as 1e-4, since an empty bin would make it infinite.
    """
    p = np.maximum(_shares(reference_counts, "reference_counts"), _SHARE_FLOOR)
    q = np.maximum(_shares(current_counts, "current_counts"), _SHARE_FLOOR)
    require("reference_counts and current_counts", "of one length", p.shape == q.shape)
    return float(np.sum((q - p) * np.log(q / p)))


def js_divergence(reference_counts: npt.ArrayLike, current_counts: npt.ArrayLike) -> float:
    """Jensen-Shannon divergence of two histograms over the same bins, in nats (0 to log 2); for display, not a test."""
    p, q = _shares(reference_counts, "reference_counts"), _shares(current_counts, "current_counts")
    require("reference_counts and current_counts", "of one length", p.shape == q.shape)
    middle = 0.5 * (p + q)
    return float(0.5 * np.sum(rel_entr(p, middle) + rel_entr(q, middle)))


def bucket_of(value: float) -> int:
    """The bucket i of a logarithmic histogram that holds `value`: 1.02^(i-1) < value <= 1.02^i.

    In SQL: CAST(ceil(ln(greatest(x, 1e-9)) / ln(CAST(1.02 AS DOUBLE)) - 1e-9) AS INTEGER).

    Logarithms of different libraries differ in the last bit, so that a value on an edge could fall on either side of
    it. Therefore 1e-9 of a bucket's width above an edge still belongs to the bucket below: far more than any rounding,
    and far less than two measured values differ. Values below 1e-9, also negative ones, are in the lowest bucket.
    """
    require("value", "finite", math.isfinite(value))
    return math.ceil(math.log(max(value, BUCKET_LEAST)) / math.log(BUCKET_GROWTH) - _EDGE_SLACK)


def bucket_lower(index: int) -> float:
    """The edge below bucket `index`, which the bucket does not contain."""
    return bucket_upper(index - 1)


def bucket_upper(index: int) -> float:
    """The edge above bucket `index`, which the bucket contains: `bucket_of(bucket_upper(i)) == i`."""
    return float(BUCKET_GROWTH**index)


def quantile_from_buckets(counts: Sequence[tuple[int, int]], q: float) -> int:
    """The bucket of the smallest value with at least a share q of all values at or below it, 0 < q <= 1.

    `counts`: (bucket, values in it), in the order of the buckets. In integers, q read as the decimal it is written as
    (0.07 of 100 values are 7, not 7.000000000000001). The quantile is at most `bucket_upper` of the result and more
    than `bucket_lower`.
    """
    require("q", "above 0 and at most 1", 0 < q <= 1)
    numbers = [n for _, n in counts]
    require("counts", "not negative, and not all zero", min(numbers, default=0) >= 0 and any(numbers))
    total = int(sum(numbers))
    of, parts = _as_written(q)
    # Quantiles that anybody asks for lie near the top.
    beyond = total + (-of * total // parts)
    at = len(numbers)
    while beyond >= 0:
        at -= 1
        beyond -= numbers[at]
    return counts[at][0]


@lru_cache(maxsize=256)
def _as_written(q: float) -> tuple[int, int]:
    """The decimal that ``q`` is written as, as numerator and denominator."""
    return Fraction(str(float(q))).as_integer_ratio()
