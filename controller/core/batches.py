"""Batch means: how far blocks differ from one another by more than their units do.

The mirror's pairs share what happens to everybody at a time (weather, a holiday, an outage of a feature), so their
units are not independent, and no randomisation makes up for it as it does where arms are drawn. Sums over blocks are
taken as the observations instead, and, lest a shock that lasts for several blocks counts several times, sums over 2,
4, 8 … consecutive blocks as long as there are at least ``LEAST_BATCHES`` of them.

An observation is a weighted sum of a block's totals. Sums of products of the totals are all that is kept, so the
weights may depend on what is found later. The squares are taken about the boundary that is tested, not about the mean
found: for sums that are symmetric about the boundary Σ/√Σ² is then sub-Gaussian whatever their number and size (de la
Peña, Klass and Lai, Annals of Probability 2004, self-normalised processes), and n batches can never give a log e above
n/2. A dependence over more than a twelfth of the blocks seen so far stays invisible.
"""

import operator
from itertools import combinations_with_replacement
from typing import NamedTuple

LEAST_BATCHES = 12
LEAST_BLOCKS = 2 * LEAST_BATCHES  # for a test: blocks are never taken to be independent of their neighbours

Totals = tuple[int, ...]
Weights = tuple[float, ...]


class Batches(NamedTuple):
    """Sums over 2^k consecutive blocks: of the products of their totals over the ``complete`` ones.

    ``waits``: 1 where one of them, with ``totals``, waits for the next to make one of the next level.
    """

    complete: int = 0
    products: tuple[int, ...] = ()
    waits: int = 0
    totals: Totals = ()


def products(totals: Totals) -> tuple[int, ...]:
    """The products of each two of ``totals``, and their squares: the upper triangle, row by row."""
    return tuple(a * b for a, b in combinations_with_replacement(totals, 2))


def form(sums: tuple[int, ...], coefficients: Weights) -> float:
    """Σ (Σ weights · totals)² from the sums of ``products`` and ``squared(weights)``; never below 0."""
    return max(_dot(coefficients, sums), 0.0)


def _dot(weights: Weights, totals: Totals) -> float:
    return float(sum(map(operator.mul, weights, totals)))


def squared(weights: Weights) -> Weights:
    """The coefficients of the products in (Σ weights · totals)²."""
    n = len(weights)
    return tuple((1 if i == j else 2) * weights[i] * weights[j] for i in range(n) for j in range(i, n))


def with_block(levels: tuple[Batches, ...], totals: Totals) -> tuple[Batches, ...]:
    """``levels`` (k = 0, 1, 2 …) after one more block."""
    new: list[Batches] = []
    for old in levels:
        summed = tuple(a + b for a, b in zip(old.products, products(totals), strict=True))
        if not old.waits:
            return (*new, Batches(old.complete + 1, summed, 1, totals), *levels[len(new) + 1 :])
        new.append(Batches(old.complete + 1, summed, 0, (0,) * len(totals)))
        totals = tuple(a + b for a, b in zip(old.totals, totals, strict=True))
    return (*new, Batches(1, products(totals), 1, totals))


def blocks_of(levels: tuple[Batches, ...]) -> int:
    """How many blocks there were."""
    return levels[0].complete if levels else 0


def spread(levels: tuple[Batches, ...], weights: Weights) -> float:
    """Variance of Σ weights · totals from the squares of that of every batch: the largest over the levels in use."""
    return max((squares for _, squares in _squares(levels, weights)), default=0.0)


def scatter(levels: tuple[Batches, ...], weights: Weights) -> float:
    """The same for ``weights`` with which the whole sum is 0, corrected for their having been found: for intervals;
    0 of a single block."""
    return max((squares * n / (n - 1) for n, squares in _squares(levels, weights) if n > 1), default=0.0)


def _squares(levels: tuple[Batches, ...], weights: Weights) -> list[tuple[int, float]]:
    """Number and summed squares by level, with what is not complete there as one batch more."""
    found: list[tuple[int, float]] = []
    coefficients, rest = squared(weights), 0.0
    for k, level in enumerate(levels):
        if k and level.complete < LEAST_BATCHES:
            break
        found.append((level.complete, form(level.products, coefficients) + rest * rest))
        rest += _dot(weights, level.totals)
    return found
