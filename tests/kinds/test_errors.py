"""Absolute and squared errors: right by independent oracles, seldom wrong, and a missing answer costs the cap."""

import numpy as np
import pytest
from sklearn.metrics import mean_absolute_error, mean_squared_error

from controller.core.cells import BaselineSums, Block, EpochPlan, ScoreCell, StatisticsQuery
from controller.core.plans import GAMMA, bucket_of, declared, measured
from controller.edges.engine import ExposureRow, OutcomeRow
from controller.kinds import Kind
from controller.metric import Metric
from tests.engine.twins import Twins
from tests.engine.worlds import SECOND
from tests.engine.worlds import plan as counted
from tests.evidence.drawn import plan_for
from tests.kinds.labelled import Answers, effect_of
from tests.kinds.rollouts import Column, Units, allowed, often

ERROR = {"name": "m", "kind": "AbsoluteError", "outcome": "late", "window": "1m", "role": "Guardrail", "margin": "5%"}
FROM_ZERO = {**ERROR, "harmMargin": "0%"}
MEAN, CAP = 1_000, 20_000


@pytest.mark.parametrize(
    ("kind", "error"), [(Kind.ABSOLUTE_ERROR, mean_absolute_error), (Kind.SQUARED_ERROR, mean_squared_error)]
)
def test_the_effect_is_the_difference_that_scikit_learn_finds(kind: Kind, error: object) -> None:
    answers = Answers(3, 500)
    ours = effect_of(counted(kind, cap=None), answers)
    theirs = [error(answers.label[arm], answers.score[arm]) for arm in (0, 1)]  # type: ignore[operator]
    # Every row is rounded to a thousandth.
    assert ours.champion_mean / 1000 == pytest.approx(theirs[0], abs=2e-3)
    assert ours.theta / 1000 == pytest.approx(theirs[1] - theirs[0], abs=2e-3)


def rows(first: float | None, second: float | None, cap: int | None) -> list[Block]:
    """A champion's and a challenger's answer to a truth of 3; None: no usable answer."""
    served = [
        ExposureRow(
            1, 1, SECOND, name, name, name == "b", hashed=True, evidence=True, usable=score is not None,
            scores=None if score is None else (score,),
        )
        for name, score in (("a", first), ("b", second))
    ]  # fmt: skip
    labels = [OutcomeRow(n, 2 * SECOND, 2 * SECOND, "late", 3.0, None, n) for n in ("a", "b")]
    metric = counted(Kind.SQUARED_ERROR, cap=cap)
    engine = Twins()
    engine.ingest(served, labels)
    query = StatisticsQuery("r", 1, (EpochPlan(1, "weight", 500_000, {}),), (metric,), (), SECOND)
    engine.advance(query, 1_000 * SECOND)
    return engine.blocks()


def test_an_error_is_cut_at_the_cap_and_a_missing_answer_costs_the_cap() -> None:
    [block] = rows(1.5, None, 9_000)
    assert isinstance(block.champion, ScoreCell)
    assert isinstance(block.challenger, ScoreCell)
    assert (block.champion.x, block.champion.y) == (1, 2_250)
    assert (block.challenger.x, block.challenger.y) == (1, 9_000)
    [block] = rows(1e200, 3.0, 9_000)
    assert isinstance(block.champion, ScoreCell)
    assert (block.champion.x, block.champion.y) == (1, 9_000)


def test_the_cap_is_a_quantile_of_the_champions_rows_unless_a_number_is_declared() -> None:
    sizes = np.random.default_rng(1).lognormal(7, 1, 5_000).astype(int)
    buckets: dict[int, int] = {}
    for size in sizes:
        buckets[bucket_of(int(size))] = buckets.get(bucket_of(int(size)), 0) + 1
    sums = BaselineSums(10, 10, 1, 400, 5_000, int(sizes.sum()), 400, tuple(sorted(buckets.items())))
    frozen = measured(Metric.model_validate(ERROR), sums, mirror=False)
    assert frozen is not None
    assert frozen.cap == pytest.approx(np.quantile(sizes, 0.999), rel=GAMMA - 1 + 0.01)
    assert frozen.tau == pytest.approx(0.05 * np.minimum(sizes, frozen.cap).mean(), rel=0.03)
    of_number = measured(Metric.model_validate({**ERROR, "cap": "2.5"}), sums, mirror=False)
    assert of_number is not None
    assert of_number.cap == 2_500
    written = Metric.model_validate({**ERROR, "cap": "2.5", "baseline": {"mean": 1.0}})
    assert (declared(written) or frozen).cap == 2_500
    assert declared(Metric.model_validate({**ERROR, "baseline": {"mean": 1.0}})) is None  # a cap is needed as well


def errors(worse: float) -> Units:
    """A few requests a unit whose errors are lognormal, cut at the cap; they grow by a fifth over the rollout."""

    def drawn(rng: np.random.Generator, n: int, challenger: bool, when: float) -> tuple[Column, Column]:
        x = rng.integers(1, 4, n)
        size = MEAN * (1 + 0.2 * when) * (1 + (worse if challenger else 0.0))
        cut = np.minimum(size * np.exp(rng.normal(-0.5, 1.0, (n, 3))), CAP).round()
        return x, (cut * (np.arange(3) < x[:, None])).sum(axis=1).astype(np.int64)

    return drawn


def test_equal_errors_are_no_harm_and_errors_at_the_margin_are_not_proven() -> None:
    assert often(plan_for(FROM_ZERO, mean=MEAN, tau=50.0, cap=CAP), errors(0.0), MEAN, runs=60).harm <= allowed(60)
    found = often(plan_for(ERROR, mean=MEAN, tau=50.0, cap=CAP), errors(0.05), MEAN, runs=60)
    assert found.proof <= allowed(60)
    assert found.theta == pytest.approx(0.05 * 1.1 * MEAN, rel=0.15)


def test_the_tests_of_an_error_have_power() -> None:
    assert often(plan_for(FROM_ZERO, mean=MEAN, tau=50.0, cap=CAP), errors(0.15), MEAN, runs=20).harm >= 19
    assert often(plan_for(ERROR, mean=MEAN, tau=50.0, cap=CAP), errors(0.0), MEAN, runs=20).proof >= 15
