"""The mirror's tests: both arms answered the same request."""

import math

import numpy as np
import pytest
from scipy.special import betainc
from scipy.stats import sem, ttest_rel

from controller.core.batches import LEAST_BLOCKS, Batches, spread, with_block
from controller.core.cells import Block, EpochPlan, MetricPlan, PairCountCell, PairScoreCell
from controller.core.fold import fold
from controller.core.pairs import PairFold, pair_effect, pair_harm
from controller.core.scores import ScoreFold
from tests.evidence.drawn import CTR, plan_for

EPOCH = EpochPlan(1, "mirror", 0, {})
RIGHT = {**CTR, "kind": "Accuracy", "role": "Success", "margin": "2pp"}
ERRORS = {"name": "ctr", "kind": "ErrorRate", "margin": "0.5pp"}


def folded(plan: MetricPlan, *cells: PairScoreCell | PairCountCell, epochs: int = 1) -> PairFold:
    state = None
    for i, cell in enumerate(cells):
        epoch = 1 + i * epochs // len(cells)
        state = fold(plan, EPOCH._replace(number=epoch), state, Block("ctr", "", epoch, i, pair=cell))
    assert isinstance(state, PairFold)
    return state


def drawn(seed: int, units: int, blocks: int, harm: float) -> tuple[list[PairScoreCell], np.ndarray]:
    """Cells of units that return in every block, and each unit's own sum of differences."""
    rng = np.random.default_rng(seed)
    own = rng.normal(0, 0.05, units)
    total, cells = np.zeros(units, dtype=np.int64), []
    for _ in range(blocks):
        right_a = rng.random(units) < 0.8
        right_b = np.where(rng.random(units) < 0.1, rng.random(units) < 0.8 + own - harm, right_a)
        d = 1_000_000 * (right_b.astype(np.int64) - right_a)
        clustered = int(sum((int(o) + int(n)) ** 2 - int(o) ** 2 for o, n in zip(total, d, strict=True)))
        cells.append(
            PairScoreCell(
                units, units, int(d.sum()), int((d.astype(object) ** 2).sum()), clustered, int(10**6 * right_a.sum())
            )
        )
        total += d
    return cells, total


def test_the_mirrors_effect_is_the_mean_difference_with_the_variance_of_units() -> None:
    plan = plan_for(RIGHT, mean=800_000, tau=20_000.0)
    cells, total = drawn(1, 400, 5, 0.0)
    found = pair_effect(plan, folded(plan, *cells))
    assert found.theta == pytest.approx(total.mean() / 5)
    of_units = max(float((total.astype(float) ** 2).sum()), sum(c.dd for c in cells)) / 2000**2
    of_blocks = float(sem([c.d / c.x for c in cells])) ** 2
    assert found.se2 == pytest.approx(max(of_units, of_blocks))
    usual = ttest_rel(total / 5, np.zeros(400))
    assert found.theta / math.sqrt(found.se2) == pytest.approx(usual.statistic, rel=0.15, abs=0.2)


def test_units_that_return_in_two_mirrors_are_still_one_unit() -> None:
    plan = plan_for(RIGHT, mean=800_000, tau=20_000.0)
    cells, _ = drawn(2, 300, 6, 0.0)
    assert pair_effect(plan, folded(plan, *cells)) == pair_effect(plan, folded(plan, *cells, epochs=2))


def test_a_worse_challenger_is_proven_harmful_in_the_mirror_and_an_equal_one_is_not() -> None:
    plan = plan_for(RIGHT, mean=800_000, tau=20_000.0)
    assert folded(plan, *drawn(3, 500, 36, 0.5)[0]).ever_harm > math.log(100)
    assert folded(plan, *drawn(4, 500, 36, 0.0)[0]).ever_harm < math.log(20)


def shocked(seed: int, blocks: int, lasting: int, harm: float) -> list[PairScoreCell]:
    """Cells of 300 new units each, whose differences share a shock for ``lasting`` blocks."""
    rng = np.random.default_rng(seed)
    shocks = np.repeat(rng.normal(0, 0.05, blocks // lasting + 1), lasting)
    d = np.round(1e6 * (rng.normal(harm, 0.3, (blocks, 300)) + shocks[:blocks, None])).astype(np.int64)
    squares = [sum(int(v) ** 2 for v in row) for row in d]
    return [PairScoreCell(300, 300, int(row.sum()), q, q, 10**6) for row, q in zip(d, squares, strict=True)]


@pytest.mark.parametrize("lasting", [1, 3])
def test_shocks_that_all_units_share_for_some_blocks_do_not_pass_for_harm(lasting: int) -> None:
    plan = plan_for({**RIGHT, "kind": "LogLoss", "margin": "0.025"}, mean=260_000, tau=25_000.0)
    rolled_back = sum(folded(plan, *shocked(s, 96, lasting, 0.0)).ever_harm >= math.log(100) for s in range(200))
    # Of 200 at one percent each, six or more come up in two of a hundred times.
    assert rolled_back <= 6
    found = [folded(plan, *shocked(s, 96, lasting, 0.1)).ever_harm >= math.log(100) for s in range(20)]
    assert all(found)


def test_a_few_blocks_prove_nothing_however_many_pairs_they_hold() -> None:
    plan = plan_for({**RIGHT, "kind": "LogLoss", "margin": "0.025"}, mean=260_000, tau=25_000.0)
    state = folded(plan, *shocked(1, LEAST_BLOCKS - 1, 1, 5.0))
    assert state.ever_harm == 0.0
    assert pair_effect(plan, state).note == "too few blocks of the mirror yet"


def test_batches_are_sums_over_runs_of_blocks_as_long_as_there_are_twelve_of_them() -> None:
    rng = np.random.default_rng(5)
    d, x = rng.integers(-99, 99, 77), rng.integers(1, 9, 77)
    levels: tuple[Batches, ...] = ()
    for one, rows in zip(d, x, strict=True):
        levels = with_block(levels, (int(one), int(rows)))
    squares = []
    for size in (1, 2, 4):
        sums = [(d[i : i + size] - 1.5 * x[i : i + size]).sum() for i in range(0, 77, size)]
        squares.append(float(np.square(sums).sum()))
    assert spread(levels, (1.0, -1.5)) == pytest.approx(max(squares))
    assert len(levels) == 7


def log_e_truncated_beta(worse: int, better: int) -> float:
    """Log of the mean likelihood of shares uniform above one half, over that of one half."""
    n = worse + better
    a, b = worse + 1, better + 1
    log_beta = math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
    above = 1 - float(betainc(a, b, 0.5))
    return math.log(2) + log_beta + math.log(above) + n * math.log(2)


@pytest.mark.parametrize(("worse", "better"), [(0, 0), (1, 0), (0, 1), (12, 3), (3, 12), (200, 150)])
def test_failures_are_judged_by_the_discordant_units_alone(worse: int, better: int) -> None:
    plan = plan_for(ERRORS, p_hist=0.001)
    found = pair_harm(plan, folded(plan, PairCountCell(5000, worse, better)))
    assert found == pytest.approx(log_e_truncated_beta(worse, better), abs=1e-6)
    assert found == pair_harm(plan, folded(plan, PairCountCell(10**9, worse, better)))


def test_a_challenger_that_fails_where_the_champion_answers_is_found_in_a_dozen_requests() -> None:
    plan = plan_for(ERRORS, p_hist=0.001)
    state = folded(plan, *(PairCountCell(1, 1, 0) for _ in range(12)))
    assert state.ever_harm > math.log(100)


def test_ever_harm_is_the_largest_over_the_blocks_and_names_its_block() -> None:
    plan = plan_for(ERRORS, p_hist=0.001)
    state = folded(plan, PairCountCell(10, 8, 0), PairCountCell(10, 0, 8))
    assert (state.harm_block, state.ever_harm) == (0, pytest.approx(log_e_truncated_beta(8, 0), abs=1e-6))
    assert pair_harm(plan, state) < state.ever_harm


def test_a_mirror_never_goes_into_the_fold_of_the_weights() -> None:
    plan = plan_for(RIGHT, mean=800_000, tau=20_000.0)
    weighted = ScoreFold(clustered=5, last_block=0, last_epoch=1)
    found = fold(plan, EPOCH, weighted, Block("ctr", "", 1, 1, pair=PairScoreCell(1, 1, 0, 0, 0, 0)))
    squares = (0,) * 9 + (1,)
    assert found == PairFold(
        epoch=1, units=1, x=1, blocks=1, batches=(Batches(1, squares, 1, (0, 0, 0, 1)),), last_block=1, last_epoch=1
    )
