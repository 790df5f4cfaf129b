"""Classical rules to stand beside ours: group-sequential boundaries and bands around distribution functions.

A group-sequential test looks at a few planned moments of a planned total and is exact there (Lan and DeMets, Biometrika
1983, spending functions after O'Brien and Fleming, and Pocock); its bounds follow from the joint law of the z values,
integrated look by look (Armitage, McPherson and Rowe, JRSS A 1969). The band is that of Howard and Ramdas (Bernoulli
2022), valid at all sample sizes at once.
"""

import math
from collections.abc import Callable

import numpy as np
from scipy.optimize import brentq
from scipy.stats import norm

PLANNED = 5
_GRID = 1601
_FURTHEST = 9.0  # beyond, a normal density is no mass


def obrien_fleming(share: float, alpha: float) -> float:
    """Level spent when ``share`` of the planned information is in, half of it on each side."""
    return float(4 * norm.sf(norm.isf(alpha / 4) / math.sqrt(share)))


def pocock(share: float, alpha: float) -> float:
    """The same, spent evenly."""
    return alpha * math.log(1 + (math.e - 1) * share)


def boundaries(spending: Callable[[float, float], float], looks: int, alpha: float = 0.05) -> list[float]:
    """|z| at which each of ``looks`` equally spaced looks rejects, two-sided."""
    found: list[float] = []
    grid, density = np.zeros(1), np.ones(1)  # B(t) at the last look, and its density where nothing was rejected
    weights = np.ones(1)
    spent, step = 0.0, 1.0 / looks
    for look in range(1, looks + 1):
        total = spending(look * step, alpha)

        z = _bound(grid, weights * density, look * step, step, total - spent)
        found.append(z)
        edge = z * math.sqrt(look * step)
        ahead, more = _simpson(edge)
        law = norm.pdf((ahead[:, None] - grid[None, :]) / math.sqrt(step)) / math.sqrt(step)
        density, grid, weights = law @ (weights * density), ahead, more
        spent = total
    return found


def _bound(grid: np.ndarray, mass: np.ndarray, now: float, step: float, level: float) -> float:
    """|z| at ``now`` that the paths which have not been rejected exceed with probability ``level``."""

    def beyond(z: float) -> float:
        far = z * math.sqrt(now)
        tails = norm.sf((far - grid) / math.sqrt(step)) + norm.cdf((-far - grid) / math.sqrt(step))
        return float(np.sum(mass * tails)) - level

    return float(brentq(beyond, 0.0, _FURTHEST, xtol=1e-13))


def _simpson(edge: float) -> tuple[np.ndarray, np.ndarray]:
    """Points from −edge to edge, and the weights of Simpson's rule."""
    points = np.linspace(-edge, edge, _GRID)
    weights = np.full(_GRID, 2.0)
    weights[1::2] = 4.0
    weights[[0, -1]] = 1.0
    return points, weights * (points[1] - points[0]) / 3


def rejections(looks: int, runs: int, seed: int) -> int:
    """Of ``runs`` equal arms, how many the five bounds reject on the bad side, when ``looks`` of them are taken.

    Between the planned looks the bound of the next one is used, as somebody does who looks at a dashboard.
    """
    bounds = np.repeat(boundaries(obrien_fleming, PLANNED), looks // PLANNED)
    rng, found = np.random.default_rng(seed), 0
    for _ in range(0, runs, 1000):
        steps = rng.standard_normal((min(1000, runs), looks)).cumsum(axis=1)
        found += int((steps / np.sqrt(np.arange(1, looks + 1)) > bounds).any(axis=1).sum())
    return found


def band(n: float, alpha: float) -> float:
    """Half-width around an empirical distribution function of ``n`` values, at all n and all values at once."""
    return 0.85 * math.sqrt((math.log(math.log(math.e * n)) + 0.8 * math.log(1612 / alpha)) / n)
