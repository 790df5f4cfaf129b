"""Batch means: how far blocks differ from one another by more than their units do.

The mirror's pairs share what happens to everybody at a time (weather, a holiday, an outage of a feature), so their
units are not independent, and no randomisation makes up for it as it does where arms are drawn. Sums over blocks are
taken as the observations instead, and, lest a shock that lasts for several blocks counts several times, sums over 2,
4, 8 … consecutive blocks as long as there are at least ``LEAST_BATCHES`` of them.

The squares are taken about the boundary that is tested, not about the mean found: for sums that are symmetric about
the boundary Σ/√Σ² is then sub-Gaussian whatever their number and size (de la Peña, Klass and Lai, Annals of
Probability 2004, self-normalised processes), and n batches can never give a log e above n/2. A dependence over more
than a twelfth of the blocks seen so far stays invisible.
"""

from typing import NamedTuple

LEAST_BATCHES = 12
LEAST_BLOCKS = 2 * LEAST_BATCHES  # for a test: blocks are never taken to be independent of their neighbours


class Batches(NamedTuple):
    """Sums over 2^k consecutive blocks: of D², D·X and X² over the ``complete`` ones.

    ``waits``: 1 where one of them, with the sums ``d`` and ``x``, waits for the next to make one of the next level.
    """

    complete: int = 0
    dd: int = 0
    dx: int = 0
    xx: int = 0
    waits: int = 0
    d: int = 0
    x: int = 0


def with_block(levels: tuple[Batches, ...], d: int, x: int) -> tuple[Batches, ...]:
    """``levels`` (k = 0, 1, 2 …) after one more block whose rows ``x`` sum to ``d``."""
    new: list[Batches] = []
    for old in levels:
        squares = (old.complete + 1, old.dd + d * d, old.dx + d * x, old.xx + x * x)
        if not old.waits:
            return (*new, Batches(*squares, 1, d, x), *levels[len(new) + 1 :])
        new.append(Batches(*squares))
        d, x = old.d + d, old.x + x
    return (*new, Batches(1, d * d, d * x, x * x, 1, d, x))


def spread(levels: tuple[Batches, ...], centre: float) -> float:
    """Variance of Σ(D − centre·X) from squares about ``centre`` (per row): the largest over the levels in use."""
    return max((squares for _, squares in _squares(levels, centre)), default=0.0)


def scatter(levels: tuple[Batches, ...], mean: float) -> float:
    """The same about the ``mean`` found, corrected for having been found: for intervals; 0 of a single block."""
    return max((squares * n / (n - 1) for n, squares in _squares(levels, mean) if n > 1), default=0.0)


def _squares(levels: tuple[Batches, ...], centre: float) -> list[tuple[int, float]]:
    """Number and summed squares by level, with what is not complete there as one batch more."""
    found: list[tuple[int, float]] = []
    d, x = 0, 0
    for k, level in enumerate(levels):
        if k and level.complete < LEAST_BATCHES:
            break
        squares = level.dd - 2 * centre * level.dx + centre * centre * level.xx
        found.append((level.complete, max(squares, 0.0) + (d - centre * x) ** 2))
        d, x = d + level.d, x + level.x
    return found
