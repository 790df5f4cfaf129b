"""The classical rules that stand beside ours are what their books say."""

import numpy as np
import pytest

from tests.error_rates import classical


def test_obrien_fleming_bounds_are_the_published_ones() -> None:
    expected = [4.87688, 3.35701, 2.68028, 2.28982, 2.03103]
    assert classical.boundaries(classical.obrien_fleming, 5) == pytest.approx(expected, abs=5e-6)


def test_pocock_bounds_are_the_published_ones() -> None:
    expected = [2.43798, 2.42681, 2.41019, 2.39664, 2.38598]
    assert classical.boundaries(classical.pocock, 5) == pytest.approx(expected, abs=1e-5)


def test_the_bounds_spend_what_they_should() -> None:
    bounds = np.array(classical.boundaries(classical.obrien_fleming, 5))
    steps = np.random.default_rng(1).standard_normal((200_000, 5)).cumsum(axis=1)
    rejected = (np.abs(steps / np.sqrt(np.arange(1, 6))) > bounds).any(axis=1).mean()
    assert rejected == pytest.approx(0.05, abs=4 * (0.05 * 0.95 / 200_000) ** 0.5)


@pytest.mark.parametrize(("n", "width"), [(1000, 0.08656912838), (10_000, 0.02771074508)])
def test_the_band_of_howard_and_ramdas(n: int, width: float) -> None:
    assert classical.band(n, 0.05) == pytest.approx(width, abs=1e-10)


def test_looking_more_often_than_planned_costs_the_level() -> None:
    planned = classical.rejections(5, 20_000, 3) / 20_000
    peeked = classical.rejections(120, 20_000, 3) / 20_000
    assert planned == pytest.approx(0.025, abs=4 * (0.025 * 0.975 / 20_000) ** 0.5)
    assert peeked > 1.5 * planned
