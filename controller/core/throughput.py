"""Throughput: whether the units of both arms ask as often, by how many are active in a block against their share.

Units that were never assigned do not show, so there is no number of units to divide by; but the arm of a unit is drawn
independently of how often it comes. With π the challenger's share of the units and y the number of blocks in which a
unit was active, Σ (A − π) y has mean 0 if the arms do not differ. A unit counts once in a block, however often it asks
there: a burst of retries is one sign of life. Over all that were active

    θ = Σ (A − π) y / Σ π (1 − π) y = (y_B/π − y_A/(1−π)) / (y_A + y_B)      (one epoch)

is the relative difference in activity. A unit that is active in a hundred blocks is one unit: the variance is
clustered, and never below what a redrawn split of units as busy as these would have.
"""

from collections.abc import Sequence
from typing import NamedTuple

PPM = 1_000_000
EXPECTED_ACTIVE = 30  # challenger's unit-blocks that the champion's lead one to expect


class Activity(NamedTuple):
    """Active units by block, summed over one epoch."""

    pi_ppm: int
    champion: int
    challenger: int

    @property
    def change(self) -> float:
        """Relative difference in this epoch alone; 0 without anybody."""
        total = self.champion + self.challenger
        a, b = self.champion / (PPM - self.pi_ppm), self.challenger / self.pi_ppm
        return PPM * (b - a) / total if total else 0.0


class Change(NamedTuple):
    """θ as a share, its squared error, and whether there is enough for a test."""

    theta: float
    se2: float
    enough: bool


def relative_change(epochs: Sequence[Activity], clustered: tuple[int, int], scale: int) -> Change | None:
    """The change over ``epochs``. ``clustered``: by arm (champion, challenger) the squares of each unit's summed
    scores, where a block's score is (A − π)·scale with A and π in ppm. None without anybody in either arm."""
    s = h = 0
    alone_a = alone_b = pooled = expected = 0.0
    for e in epochs:
        pi, co = e.pi_ppm, PPM - e.pi_ppm
        s += co * e.challenger - pi * e.champion
        h += pi * co * (e.champion + e.challenger)
        alone_a, alone_b = alone_a + pi * pi * e.champion, alone_b + co * co * e.challenger
        expected += e.champion * pi / co
    if h == 0 or not any(e.champion for e in epochs):
        return None
    found = [c / scale**2 for c in clustered]
    busy_a, busy_b = (max(1.0, c / alone) if alone else 1.0 for c, alone in zip(found, (alone_a, alone_b), strict=True))
    for e in epochs:
        pooled += e.pi_ppm * (PPM - e.pi_ppm) * (e.champion * busy_a + e.challenger * busy_b)
    variance = max(sum(found), alone_a + alone_b, pooled)
    return Change(s * PPM / h, variance * PPM * PPM / (h * h), expected >= EXPECTED_ACTIVE)
