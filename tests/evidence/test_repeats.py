"""Failures counted every time: the difference, its error, and what a unit that was not met yet may change."""

import math

import numpy as np
import pytest
from statsmodels.stats.proportion import confint_proportions_2indep

from controller.core import evidence
from controller.core.cells import PPM, Block, CountCell
from controller.core.repeats import repeated
from tests.evidence.test_reading import PI, folded, world

ONE = (PPM - PI) ** 2


def test_of_units_that_come_once_it_is_the_difference_of_two_proportions() -> None:
    a, b = CountCell(9000, 90, 9000, 90, 90 * PI**2), CountCell(1000, 14, 1000, 14, 14 * ONE)
    found = repeated([(PI, a, b)])
    assert found is not None
    assert (found.theta, found.blocks) == (pytest.approx(0.004), 1)
    low, high = confint_proportions_2indep(14, 1000, 90, 9000, compare="diff", method="wald", alpha=0.05)
    wald = ((high - low) / (2 * 1.959964)) ** 2
    assert found.variance == pytest.approx(wald + (2 / 1000) ** 2, rel=1e-4)


def _drawn(rng: np.random.Generator, units: int, share: float, blocks: int) -> tuple[CountCell, list[int]]:
    """The cell of units that come in every block, of which a share always fails, and how often each has failed."""
    sick = int(rng.binomial(units, share))
    return CountCell(0, sick, units * blocks, sick * blocks, 0), [blocks] * sick


def test_of_units_that_always_fail_the_variance_is_that_between_units() -> None:
    rng, blocks, share = np.random.default_rng(1), 20, 0.02
    thetas, variances = [], []
    for _ in range(400):
        cells = []
        for units, side in ((9000, PI), (1000, PPM - PI)):
            cell, failed = _drawn(rng, units, share, blocks)
            cells.append(cell._replace(clustered=sum((f * side) ** 2 for f in failed)))
        found = repeated([(PI, *cells)])
        assert found is not None
        assert found.blocks == blocks
        thetas.append(found.theta)
        variances.append(found.variance - (2 * blocks / (1000 * blocks)) ** 2)
    assert float(np.mean(variances)) == pytest.approx(float(np.var(thetas)), rel=0.2)


def test_epochs_are_weighed_by_how_well_they_compare_and_never_pooled() -> None:
    # Twice as many failures in the second epoch, in both arms alike: pooled, the challenger would look worse.
    calm = (PI, CountCell(0, 0, 9000, 90), CountCell(0, 0, 1000, 10))
    stormy = (500_000, CountCell(0, 0, 5000, 100), CountCell(0, 0, 5000, 100))
    found = repeated([calm, stormy])
    assert found is not None
    assert found.theta == pytest.approx(0.0, abs=1e-15)
    assert repeated([(PI, CountCell(5, 0, 5), CountCell())]) is None


def _read(first: tuple[int, int], active: tuple[int, int], failing: tuple[int, int], often: int) -> evidence.Evidence:
    spec, status = world("weight")
    sides = (PI, PPM - PI)
    cells = [
        CountCell(n, e, m, f, often * f * s * s)
        for n, e, m, f, s in zip(active, first, active, failing, sides, strict=True)
    ]
    found = evidence.read(spec, status, folded(spec, status, Block("errors", "", 1, 7, *cells)), 10**9)
    return next(e for e in found if e.metric == "errors")


def test_what_the_bets_prove_waits_for_the_failures_that_come_again() -> None:
    well = _read((20, 2), (180_000, 20_000), (20, 2), 1)
    assert (well.verdict, well.note) == (evidence.Verdict.NOT_WORSE, "")
    sticky = _read((20, 6), (180_000, 20_000), (400, 120), 20)
    assert sticky.verdict is evidence.Verdict.INCONCLUSIVE
    assert sticky.log_e_non_inferior < math.log(20)
    assert sticky.note == "units that fail do so in 20.0 blocks: counted every time, 0.222 % and 0.6 %"
    assert (sticky.gate, sticky.last) == (True, True)


def test_a_step_does_not_open_to_units_that_are_broken_for_good() -> None:
    sticky = _read((20, 20), (180_000, 20_000), (400, 400), 20)
    assert sticky.estimate < sticky.margin  # of first failures
    assert (sticky.gate, sticky.last) == (False, False)


def test_failures_without_the_units_that_were_active_prove_nothing() -> None:
    spec, status = world("weight")
    block = Block("errors", "", 1, 7, CountCell(180_000, 0), CountCell(20_000, 0))
    found = evidence.read(spec, status, folded(spec, status, block), 10**9)
    assert next(e for e in found if e.metric == "errors").log_e_non_inferior == 0.0
