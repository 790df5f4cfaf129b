"""Failures counted every time: the share of the units active in a block that fail there, the first time or not.

The bets of ``counts`` are on first failures, so a challenger that breaks a unit for good is charged once for it. Where
the other units come back block after block, the rate of first failures falls below any margin by that alone
(``tests/error_rates/sticky.py`` measures it). So an ErrorRate is proven only where this holds as well:

    θ = Σ h (f_B/n_B − f_A/n_A) / Σ h,    h = n_A n_B / (n_A + n_B),    n active units by block, f those that fail

over epochs. A unit that fails in a hundred blocks is one unit: the variance is clustered. Of failures that stick, few
units are most of θ, and a sample may have none of them yet; so it is proven as if one more unit of the challenger
failed, twice as often as those that fail have done so far, since they may come again. Where nobody fails twice that is
one failure more in each θ, and costs less than the bets do.
"""

import math
from collections.abc import Iterable
from typing import NamedTuple

from controller.core.cells import PPM, CountCell


class Repeated(NamedTuple):
    """θ, its variance for what is proven in the challenger's favour, the shares of both arms, and how many blocks a
    unit that fails does so in, weighted by them."""

    theta: float
    variance: float
    champion: float
    challenger: float
    blocks: float


NEVER = Repeated(0.0, math.inf, 0.0, 0.0, 1.0)  # nobody of both arms was seen


class _Sums:
    """What is added up over epochs, of one arm."""

    def __init__(self) -> None:
        self.variance = self.share = self.alone = 0.0
        self.clustered = 0

    def add(self, cell: CountCell, side: int, h: float) -> None:
        """``side``: |A − π| in ppm."""
        rate = cell.failing / cell.active
        self.share += h * rate
        self.variance += h * h * rate * (1 - rate) / cell.active
        self.alone += float(side) * side * cell.failing
        self.clustered += cell.clustered


def repeated(epochs: Iterable[tuple[int, CountCell, CountCell]]) -> Repeated | None:
    """The comparison over (π in ppm, champion, challenger) of each epoch; None without units of both arms in one."""
    a, b = _Sums(), _Sums()
    total = pooled = one_more = active = 0.0
    for pi, champion, challenger in epochs:
        n_a, n_b = champion.active, challenger.active
        if not n_a or not n_b:
            continue
        h = n_a * n_b / (n_a + n_b)
        a.add(champion, pi, h)
        b.add(challenger, PPM - pi, h)
        rate = (champion.failing + challenger.failing) / (n_a + n_b)
        total, pooled, active = total + h, pooled + h * rate * (1 - rate), active + n_b
        one_more += h * h / n_b  # (h/n_b)² for each of n_b
    if total == 0:
        return None
    together = _blocks(a.clustered + b.clustered, a.alone + b.alone)
    # Few units of the challenger may fail, and by chance seldom.
    often_a, often_b = _blocks(a.clustered, a.alone), max(together, _blocks(b.clustered, b.alone))
    variance = max(a.variance * often_a + b.variance * often_b, pooled * together)
    variance += one_more / active * (2 * often_b) ** 2
    return Repeated((b.share - a.share) / total, variance / total**2, a.share / total, b.share / total, together)


def _blocks(clustered: float, alone: float) -> float:
    """In how many blocks a unit fails that fails in one, weighted by them; at least 1."""
    return max(1.0, clustered / alone) if alone > 0 else 1.0
