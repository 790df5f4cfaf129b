"""The area under the ROC curve: right by independent oracles, combined over strata, and seldom wrong."""

import math

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from controller.core import evidence
from controller.core.areas import DAY, LAST, SCORE_EDGES, AreaFold, Scored, area_effect, area_gain, score_bin
from controller.core.cells import AreaCell, Block, EpochPlan, Histogram, MetricPlan, StatisticsQuery
from controller.core.evidence import Verdict
from controller.core.fold import EMPTY, fold
from controller.core.plans import declared, metric_plan, with_baselines
from controller.core.scores import Effect
from controller.core.sequential import log_e_one_sided
from controller.core.statistics import delong
from controller.edges.engine import ExposureRow, OutcomeRow
from controller.kinds import Kind
from controller.status import Epoch
from tests.decide.rollouts import fresh, rollout
from tests.engine.test_counting import counted, said, seen
from tests.engine.twins import Twins
from tests.engine.worlds import SECOND, plan
from tests.kinds.rollouts import allowed

AUC = {"name": "m", "kind": "Auc", "outcome": "late", "window": "1m", "role": "Guardrail", "margin": "0.03"}
FROM_ZERO = {**AUC, "harmMargin": "0"}
Rows = tuple[list[float], list[int]]  # scores and labels


def judged(metric: dict[str, str] = AUC) -> MetricPlan:
    spec = rollout(metrics=[metric]).spec
    return metric_plan(spec, spec.metrics[0], declared(spec.metrics[0]))


def drawn(rng: np.random.Generator, n: int, apart: float, positive: float = 0.2) -> Rows:
    """Scores between 0 and 1, those of positives higher."""
    label = rng.binomial(1, positive, n)
    score = 1 / (1 + np.exp(-rng.normal(apart * label - 2, 1.5, n)))
    return score.tolist(), label.tolist()


def cell(rows: Rows) -> AreaCell:
    """Each row of a new unit."""
    scores, labels = rows
    by_label: list[Histogram] = []
    for wanted in (1, 0):
        bins, counts = np.unique(
            [score_bin(s, wanted == 1) for s, label in zip(scores, labels, strict=True) if label == wanted],
            return_counts=True,
        )
        by_label.append(tuple(zip(bins.astype(int).tolist(), counts.tolist(), strict=True)))
    return AreaCell(len(scores), len(scores), *by_label)


def folded(metric: MetricPlan, blocks: list[tuple[int, int, Rows, Rows]]) -> AreaFold:
    """(epoch, block, champion's rows, challenger's rows)."""
    state = None
    for number, at, a, b in blocks:
        epoch = EpochPlan(number, "weight", 500_000, {})
        state = fold(metric, epoch, state, Block("m", "", number, at, cell(a), cell(b)))
    assert isinstance(state, AreaFold)
    return state


def test_the_bins_keep_the_order_of_scores_on_every_scale() -> None:
    scores = [-1e12, -3.0, -1e-9, 0.0, 1e-5, 1e-4, 0.3, 0.33, 0.97, 0.999, 0.99999, 1.0, 2.0, 2.2, 1e12]
    bins = [score_bin(s, True) for s in scores]
    assert bins == sorted(set(bins))
    assert 0 < bins[0] < bins[-1] < LAST
    assert list(SCORE_EDGES) == sorted(set(SCORE_EDGES))
    assert (score_bin(None, True), score_bin(None, False)) == (0, LAST)


def through_the_engine(a: Rows, b: Rows) -> Effect:
    exposures, outcomes = [], []
    for challenger, (scores, labels) in enumerate((a, b)):
        for i, (score, label) in enumerate(zip(scores, labels, strict=True)):
            name, t = f"{challenger}.{i}", (i % 50) * SECOND
            exposures.append(
                ExposureRow(1, 1, t, name, name, bool(challenger), hashed=True, evidence=True, scores=(score,))
            )
            outcomes.append(OutcomeRow(name, t + SECOND, t + SECOND, "late", float(label), None, name))
    metric = plan(Kind.AUC)
    engine = Twins()
    engine.ingest(exposures, outcomes)
    query = StatisticsQuery("r", 1, (EpochPlan(1, "weight", 500_000, {}),), (metric,), (), SECOND)
    state = engine.advance(query, 1_000 * SECOND).folds["Auc", ""]
    engine.close()
    assert isinstance(state, AreaFold)
    return area_effect(metric, state)


def test_areas_and_their_errors_are_those_of_scikit_learn_and_of_all_pairs() -> None:
    rng = np.random.default_rng(1)
    a, b = drawn(rng, 900, 1.5), drawn(rng, 900, 1.2)
    found = through_the_engine(a, b)
    areas = [roc_auc_score(labels, scores) for scores, labels in (a, b)]
    variance = 0.0
    for scores, labels in (a, b):
        split = [[s for s, label in zip(scores, labels, strict=True) if label == wanted] for wanted in (1, 0)]
        variance += delong(*split)[1]
    assert found.champion_mean / 1e6 == pytest.approx(areas[0], abs=1e-3)  # bins make a few ties
    assert found.theta / 1e6 == pytest.approx(areas[1] - areas[0], abs=1e-3)
    assert math.sqrt(found.se2) / 1e6 == pytest.approx(math.sqrt(variance), rel=0.03)


def test_a_missing_answer_ranks_a_positive_last_and_a_negative_first() -> None:
    exposures = [
        seen(1, "a", scores=(0.2,)),
        seen(2, "b", usable=False),
        seen(3, "c", scores=(None,)),
        seen(4, "d", scores=None),
    ]
    labels = [said(20, "late", v, request=e.request_id) for v, e in zip((1, 1, 0, 1), exposures, strict=True)]
    [block] = counted(plan(Kind.AUC), exposures, labels)
    # The fourth answer was not kept whole.
    assert block.champion == AreaCell(3, 3, ((0, 1), (score_bin(0.2, True), 1)), ((LAST, 1),))


def test_strata_are_averaged_by_counts_and_never_pooled() -> None:
    """Two epochs with other prevalences and score levels: pooled, the champion would look far better than it is."""
    rng, blocks = np.random.default_rng(2), []
    for number, (positive, level) in enumerate([(0.5, 0.3), (0.05, -0.3)], 1):
        a, b = drawn(rng, 2_000, 1.0, positive), drawn(rng, 2_000, 1.0, positive)
        blocks.append((number, number, *(([min(1, max(0, s + level)) for s in scores], y) for scores, y in (a, b))))
    state, expected, total = folded(judged(), blocks), 0.0, 0.0
    for _, _, a, b in blocks:
        counts = [sum(y == wanted for y in labels) for _, labels in (a, b) for wanted in (0, 1)]
        weight = 1 / sum(1 / n for n in counts)
        expected += weight * (roc_auc_score(b[1], b[0]) - roc_auc_score(a[1], a[0]))
        total += weight
    assert state.theta == pytest.approx(expected / total, abs=1e-3)
    pooled = roc_auc_score([y for x in blocks for y in x[2][1]], [s for x in blocks for s in x[2][0]])
    assert pooled > state.champion_area + 0.05
    assert area_gain(state, 2) == pytest.approx(
        roc_auc_score(blocks[1][3][1], blocks[1][3][0]) - roc_auc_score(blocks[1][2][1], blocks[1][2][0]), abs=1e-3
    )


def test_days_are_strata_once_both_arms_have_enough_rows_of_both_labels() -> None:
    metric, rng = judged(), np.random.default_rng(3)
    a_day = DAY // metric.block
    state = folded(metric, [(1, d * a_day, drawn(rng, 300, 1.0), drawn(rng, 300, 1.0)) for d in range(4)])
    assert state.areas[0].weight > 0
    assert sum(state.areas[0].champion.rows) == 300  # three days are closed, one is open
    few = folded(metric, [(1, d * a_day, drawn(rng, 30, 1.0), drawn(rng, 30, 1.0)) for d in range(2)])
    assert few.areas[0].weight == 0
    assert sum(few.areas[0].champion.rows) == 60


def looked(seed: int, metric: MetricPlan, apart: float) -> tuple[bool, bool]:
    """Whether harm, or a proof, stood at any of 24 looks over two epochs and six days; areas of .76 drift to .70."""
    rng, state, proven = np.random.default_rng(seed), None, False
    for look in range(24):
        number, share = (1, 0.1) if look < 8 else (2, 0.5)
        drift = 1.0 - 0.25 * look / 24
        a, b = drawn(rng, round(800 * (1 - share)), 1.5 * drift), drawn(rng, round(800 * share), apart * drift)
        block = Block("m", "", number, look * DAY // 4 // metric.block, cell(a), cell(b))
        state = fold(metric, EpochPlan(number, "weight", round(share * 1e6), {}), state, block)
        assert isinstance(state, AreaFold)
        found = area_effect(metric, state)
        if found.guarded:
            proven |= log_e_one_sided(found.good(metric) + found.margin, found.se2, metric.tau) >= math.log(20)
    assert isinstance(state, AreaFold)
    return state.ever_harm >= math.log(20), proven


def test_equal_areas_are_no_harm_and_an_area_at_the_margin_is_not_proven() -> None:
    metric = judged(FROM_ZERO)
    assert sum(looked(seed, metric, 1.5)[0] for seed in range(40)) <= allowed(40)
    # From .76 to .73 at first: .03 less.
    assert sum(looked(seed, metric, 1.30)[1] for seed in range(40)) <= allowed(40)


def test_the_tests_of_an_area_have_power() -> None:
    assert sum(looked(seed, judged(FROM_ZERO), 0.9)[0] for seed in range(8)) == 8
    assert sum(looked(seed, judged({**AUC, "margin": "0.06"}), 1.5)[1] for seed in range(8)) >= 7


def test_units_with_many_rows_count_as_units_at_most() -> None:
    rng, metric = np.random.default_rng(4), judged()
    a, b = cell(drawn(rng, 500, 1.5)), cell(drawn(rng, 500, 1.5))
    block = Block("m", "", 1, 1, a, b)
    tens = [c._replace(units=50, clustered=50 * 10**2) for c in (a, b)]
    epoch = EpochPlan(1, "weight", 500_000, {})
    alone, clustered = (
        fold(metric, epoch, None, x) for x in (block, block._replace(champion=tens[0], challenger=tens[1]))
    )
    assert isinstance(alone, AreaFold)
    assert isinstance(clustered, AreaFold)
    assert clustered.se2 == pytest.approx(10 * (alone.se2 or 0.0))


def test_few_rows_that_look_separated_are_no_certainty() -> None:
    metric, rng = judged(), np.random.default_rng(5)
    state = folded(metric, [(1, 1, drawn(rng, 2_000, 1.5), ([0.9, 0.8, 0.1, 0.2, 0.3], [1, 1, 0, 0, 0]))])
    assert state.theta > 0.1
    assert math.sqrt(state.se2 or 0.0) > 0.2
    assert not area_effect(metric, state).guarded
    assert Scored().rows == (0, 0)


def test_it_is_read_without_a_baseline() -> None:
    spec = rollout(metrics=[AUC]).spec
    epoch = Epoch(number=1, kind="weight", step=0, weight_bp=5_000, pi_ppm=500_000, opened_at=0)
    status = with_baselines(spec, fresh(epochs=(epoch,), epoch=1), EMPTY)
    rng = np.random.default_rng(6)
    state = folded(judged(), [(1, 1, drawn(rng, 20_000, 1.5), drawn(rng, 20_000, 1.0))])
    [found] = evidence.read(spec, status, EMPTY._replace(folds={("m", ""): state}), 10**12)
    assert (found.verdict, found.due, found.last) == (Verdict.WORSE, True, False)
    assert found.estimate == pytest.approx(state.theta)
    assert found.upper < 0
