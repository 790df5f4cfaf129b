"""Adjustment by a covariate (CUPED; Deng, Xu, Kohavi and Walker 2013): what was known of a unit before it was answered.

A unit's value y counts as y − g with g = slope (c − centre)/per, where c is the number that came with the unit's first
request of the attempt. The arm was drawn without regard to c, so that any g which is fixed in advance leaves the
difference of the arms alone; one that follows y makes it more precise, by the factor √(1 − ρ²) where every unit has
its number. Slope and centre are frozen for an epoch when it opens, like the centring mean. A unit without a number
counts as the average one: g = 0.

Everything here is an integer: c in millionths, y and g in the metric's unit. g never exceeds the largest value that y
may have, so that a covariate with a long tail does not bring that tail into the metric.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from controller.status import Adjustment

SCALE = 1_000_000
LARGEST = 1e9  # like the value of an outcome
LEAST_UNITS = 100  # a slope of fewer is a guess
PREFIX = "covariate."  # of the attributes of an exposure that hold covariates; no segment can be called so


def taken(by: Adjustment, c: int | None) -> int:
    """slope (c − centre)/per, rounded half away from zero, within ±most; 0 where c is not known."""
    if c is None:
        return 0
    rise = by.slope * (c - by.centre)
    size = min((2 * abs(rise) + by.per) // (2 * by.per), by.most)
    return size if rise >= 0 else -size


class Moments(NamedTuple):
    """Sums over units whose covariate c is known; ``taken``: what their adjustment took, Σ g."""

    units: int = 0
    y: int = 0
    yy: int = 0
    c: int = 0
    cc: int = 0
    cy: int = 0
    taken: int = 0

    def plus(self, other: "Moments") -> "Moments":
        """Both together."""
        return Moments(*(a + b for a, b in zip(self, other, strict=True)))


def moments(y: int, c: int, g: int = 0) -> Moments:
    """Those of one unit, from which ``g`` was taken."""
    return Moments(1, y, y * y, c, c * c, c * y, g)


def units_of(value: object) -> int | None:
    """A covariate in millionths; None where ``value`` is no number within ±LARGEST."""
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return None
    return round(number * SCALE) if abs(number) <= LARGEST else None


def misread(attributes: Mapping[str, Any]) -> int:
    """How many covariates of an exposure are no number that counts."""
    return sum(name.startswith(PREFIX) and units_of(text) is None for name, text in attributes.items())


class _Spread(NamedTuple):
    """Of units with a covariate: their number, Σ c, and the squared deviations from the means of their own group."""

    units: int
    c: int
    of_c: float
    of_y: float
    joint: float

    @property
    def correlation(self) -> float:
        """ρ of y and c; 0 where one of them does not vary."""
        size = math.sqrt(self.of_c) * math.sqrt(self.of_y)
        return max(-1.0, min(1.0, self.joint / size)) if size > 0 else 0.0


def _spread(groups: Iterable[Moments]) -> _Spread:
    """Each group (an arm in an epoch) about its own means, so that neither the ramp nor the arm passes for a slope."""
    units = c = 0
    of_c = of_y = joint = 0.0
    for m in groups:
        if m.units == 0:
            continue
        units, c = units + m.units, c + m.c
        of_c += (m.units * m.cc - m.c * m.c) / m.units
        of_y += (m.units * m.yy - m.y * m.y) / m.units
        joint += (m.units * m.cy - m.c * m.y) / m.units
    return _Spread(units, c, of_c, of_y, joint)


def explained(groups: Iterable[Moments]) -> float:
    """ρ²: the share of the variance of y that c explains among the units that have it."""
    return _spread(groups).correlation ** 2


def adjustment(groups: Iterable[Moments], most: int, deviation: float | None = None) -> Adjustment | None:
    """The adjustment that takes away most variance: slope/per = ρ sd(y)/sd(c), about the mean of c.

    ``deviation``: sd(y) as y will be counted, where the moments are those of values before they are cut. None where
    the units are too few, or nothing is explained (a constant covariate, or values that do not vary).
    """
    s = _spread(groups)
    if s.units < LEAST_UNITS or s.of_c <= 0:
        return None
    width = math.sqrt(s.of_c / s.units)
    per = round(width)
    height = math.sqrt(s.of_y / s.units) if deviation is None else deviation
    slope = round(s.correlation * height * per / width)
    if per == 0 or slope == 0:
        return None
    return Adjustment(centre=round(s.c / s.units), per=per, slope=slope, most=most)
