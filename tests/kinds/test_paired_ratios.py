"""Precision and F1 in a mirror: both arms' answers in one residual, right by independent oracles and seldom wrong."""

import math
from typing import NamedTuple

import numpy as np
import pytest
from sklearn.metrics import f1_score, precision_score

from controller.core import evidence
from controller.core.cells import Block, EpochPlan, MetricPlan, PairScoreCell, StatisticsQuery
from controller.core.evidence import Verdict
from controller.core.fold import EMPTY, fold
from controller.core.pairs import PairFold, pair_effect, pair_non_inferior, pair_units
from controller.core.plans import with_baselines
from controller.core.scores import Effect
from controller.edges.engine import ExposureRow, OutcomeRow
from controller.kinds import Kind
from controller.status import Epoch
from tests.decide.rollouts import fresh, rollout
from tests.engine.twins import Twins
from tests.engine.worlds import SECOND
from tests.engine.worlds import plan as counted
from tests.evidence.drawn import plan_for
from tests.kinds.rollouts import allowed

ONE = 1_000_000
PRECISION = {"name": "m", "kind": "Precision", "outcome": "late", "window": "1m", "role": "Guardrail", "margin": "3pp"}
FROM_ZERO = {**PRECISION, "harmMargin": "0pp"}
BLOCKS = 48


class Answers:
    """Labels of ``n`` rows of ``units`` units, and both arms' scores, whose errors are mostly the same."""

    def __init__(self, seed: int, n: int, units: int) -> None:
        rng = np.random.default_rng(seed)
        self.unit = rng.integers(0, units, n)
        self.label = rng.binomial(1, 0.4, n)
        noise = rng.normal(0, 0.2, n)
        self.champion = np.clip(0.4 + 0.25 * self.label + noise, 0, 1).round(3)
        self.challenger = np.clip(0.33 + 0.25 * self.label + noise + rng.normal(0, 0.05, n), 0, 1).round(3)


def mirrored(plan: MetricPlan, answers: Answers, centre: int = ONE // 2) -> PairFold:
    """What the engine and the core make of them in one block of a mirror."""
    exposures, outcomes = [], []
    for i, (unit, label) in enumerate(zip(answers.unit, answers.label, strict=True)):
        served = ExposureRow(1, 1, SECOND, f"q{i}", f"u{unit}", False, hashed=True, evidence=True)
        exposures.append(served._replace(scores=(float(answers.champion[i]),)))
        exposures.append(served._replace(mirror=True, scores=(float(answers.challenger[i]),)))
        outcomes.append(OutcomeRow(f"o{i}", 2 * SECOND, 2 * SECOND, "late", float(label), None, f"q{i}"))
    engine = Twins()
    engine.ingest(exposures, outcomes)
    asked = StatisticsQuery("r", 1, (EpochPlan(1, "mirror", 0, {plan.name: centre}),), (plan,), (), SECOND)
    said = engine.advance(asked, 1_000 * SECOND)
    engine.close()
    return said.pairs[plan.name, ""]


def by_unit(kind: Kind, answers: Answers) -> "np.ndarray[tuple[int, int], np.dtype[np.float64]]":
    """Columns: numerator and denominator of champion and of challenger, a row per unit."""
    columns = []
    for scores in (answers.champion, answers.challenger):
        said, true = scores >= 0.5, answers.label == 1
        times = 2 if kind is Kind.F1 else 1
        columns += [times * (said & true), said.astype(int) + (true if kind is Kind.F1 else 0)]
    sums = [np.bincount(answers.unit, column, minlength=answers.unit.max() + 1) for column in columns]
    table = np.stack(sums, axis=1)
    return np.asarray(table[(table[:, 1] > 0) | (table[:, 3] > 0)])


def delta_variance(
    table: "np.ndarray[tuple[int, int], np.dtype[np.float64]]", paired: bool = True, alike: bool = False
) -> float:
    """Of the difference of two ratios of sums, from the covariance matrix of the four columns and the gradient, which
    is taken where both ratios are the champion's if ``alike``."""
    (y_a, x_a, y_b, x_b), n = table.mean(axis=0), len(table)
    gradient = np.array([-1 / x_a, y_a / x_a**2, 1 / x_b, -(y_a / x_a if alike else y_b / x_b) / x_b])
    covariance = np.cov(table, rowvar=False)
    if not paired:
        covariance[:2, 2:] = covariance[2:, :2] = 0
    return float(gradient @ covariance @ gradient / n)


@pytest.mark.parametrize(("kind", "score"), [(Kind.PRECISION, precision_score), (Kind.F1, f1_score)])
def test_the_effect_is_scikit_learns_and_its_error_that_of_the_delta_method_with_covariance(
    kind: Kind, score: object
) -> None:
    answers = Answers(1, 3_000, 1_500)
    plan = counted(kind)
    state = mirrored(plan, answers)
    found, truth = pair_effect(plan, state), answers.label
    theirs = [score(truth, s >= 0.5) for s in (answers.champion, answers.challenger)]  # type: ignore[operator]
    assert found.champion_mean / ONE == pytest.approx(theirs[0], abs=1e-12)
    assert found.theta / ONE == pytest.approx(theirs[1] - theirs[0], abs=1e-12)
    table = by_unit(kind, answers)
    assert state.units == len(table)
    n = len(table)
    # Ours is about no difference: with the champion's ratio for both, and squares about 0.
    expected = delta_variance(table, alike=True) * (n - 1) / n + (theirs[1] - theirs[0]) ** 2 / n
    assert found.se2 / ONE**2 == pytest.approx(expected, rel=1e-9)
    assert expected == pytest.approx(delta_variance(table), rel=0.05)
    assert expected < 0.5 * delta_variance(table, paired=False)


class Mirror(NamedTuple):
    """Rows of new units. ``said``: how often the challenger says yes for each yes of the champion, who says it to one
    in four; ``worse``: by how much its precision falls short of .7; ``shock``: how precisions differ between times."""

    said: float = 1.0
    worse: float = 0.0
    shock: float = 0.0
    lasting: int = 1
    rows: int = 400


def drawn(rng: np.random.Generator, mirror: Mirror) -> list[PairScoreCell]:
    """Cells of a Precision. A yes of one arm makes one of the other likelier; shocks of both, and of one, last."""
    times = BLOCKS // mirror.lasting + 1
    common, own = (np.repeat(rng.normal(0, mirror.shock, times), mirror.lasting)[:BLOCKS] for _ in range(2))
    cells = []
    for both, alone in zip(common, own, strict=True):
        true = float(np.clip(0.7 + both, 0.05, 0.95))
        right = float(np.clip(true - mirror.worse + alone, 0.01, 0.99))
        label = rng.random(mirror.rows) < true
        a = rng.random(mirror.rows) < 0.25
        chance = 0.25 * mirror.said * np.where(label, right / true, (1 - right) / (1 - true))
        b = rng.random(mirror.rows) < np.clip(chance + 0.3 * np.minimum(chance, 1 - chance) * (a - 0.25), 0, 1)
        cells.append(cell(a, b, label))
    return cells


def cell(a: np.ndarray, b: np.ndarray, label: np.ndarray) -> PairScoreCell:
    """Of the rows to which either arm said yes, each of a new unit; centred on .6, which the precision never was."""
    v = np.stack(
        [ONE * ((b & label).astype(float) - (a & label)), b * 1.0 - a, ONE * (a & label).astype(float), a * 1.0]
    )
    products = (v @ v.T)[np.triu_indices(4)].astype(int).tolist()
    d, more, y, x = v.sum(axis=1).astype(int).tolist()
    clustered = int(np.sum(np.square(v[0] - 600_000 * v[1])))
    return PairScoreCell(int((a | b).sum()), x, d, products[0], clustered, y, more, tuple(products[1:]))


def folded(plan: MetricPlan, cells: list[PairScoreCell]) -> tuple[PairFold, float]:
    """The state after all cells, and the largest log e of a proof at any of them."""
    state, proof = None, 0.0
    for i, one in enumerate(cells):
        state = fold(plan, EpochPlan(1, "mirror", 0, {"m": 600_000}), state, Block("m", "", 1, i, pair=one))
        assert isinstance(state, PairFold)
        proof = max(proof, pair_non_inferior(plan, state, pair_effect(plan, state)))
    assert isinstance(state, PairFold)
    return state, proof


def played(metric: dict[str, str], seed: int, mirror: Mirror) -> tuple[PairFold, float]:
    plan = plan_for(metric, mean=0.7 * ONE, tau=0.03 * ONE)
    return folded(plan, drawn(np.random.default_rng(seed), mirror))


@pytest.mark.parametrize(
    "mirror", [Mirror(), Mirror(said=0.3), Mirror(said=2.0), Mirror(shock=0.1), Mirror(0.5, 0.0, 0.1, 3)]
)
def test_equal_precisions_are_no_harm_however_often_yes_is_said_and_whatever_the_times_share(mirror: Mirror) -> None:
    runs = 60
    harmed = sum(played(FROM_ZERO, seed, mirror)[0].ever_harm >= math.log(20) for seed in range(runs))
    assert harmed <= allowed(runs)


def test_a_precision_at_the_margin_is_not_proven_and_an_equal_one_mostly_is() -> None:
    runs = 60
    at = sum(
        played(PRECISION, seed, Mirror(said=0.5, worse=0.03, shock=0.03))[1] >= math.log(20) for seed in range(runs)
    )
    assert at <= allowed(runs)
    assert sum(played(PRECISION, seed, Mirror(rows=2_000))[1] >= math.log(20) for seed in range(10)) >= 9


def test_a_clearly_lower_precision_is_found_though_times_differ() -> None:
    found = [played(FROM_ZERO, seed, Mirror(0.7, 0.15, 0.05)) for seed in range(10)]
    assert all(state.ever_harm >= math.log(200) for state, _ in found)
    estimates = [pair_effect(plan_for(FROM_ZERO, mean=0.7 * ONE, tau=1.0), state).theta for state, _ in found]
    assert np.mean(estimates) / ONE == pytest.approx(-0.15, abs=0.02)


def effect(cells: list[PairScoreCell]) -> tuple[Effect, tuple[int, int], float]:
    plan = plan_for(FROM_ZERO, mean=0.7 * ONE, tau=0.03 * ONE)
    state, proof = folded(plan, cells)
    return pair_effect(plan, state), pair_units(plan, state), max(proof, state.ever_harm)


def test_without_a_yes_of_an_arm_there_is_no_precision_and_no_verdict() -> None:
    yes, no, right = np.ones(50, dtype=bool), np.zeros(50, dtype=bool), np.arange(50) < 35
    for a, b, units in ((yes, no, (50 * BLOCKS, 0)), (no, yes, (0, 50 * BLOCKS)), (no, no, (0, 0))):
        found, counted_units, log_e = effect([cell(a, b, right)] * BLOCKS)
        assert (found.guarded, found.se2, log_e, counted_units) == (False, math.inf, 0.0, units)
        assert found.note


def test_answers_that_never_differ_prove_nothing_and_say_so() -> None:
    rng = np.random.default_rng(3)
    said, right = rng.random(300) < 0.3, rng.random(300) < 0.7
    found, _, log_e = effect([cell(said, said, right)] * BLOCKS)
    assert (found.theta, found.se2, found.guarded, log_e) == (0.0, math.inf, False, 0.0)
    assert found.note == "the values do not vary, which proves nothing"


def test_a_challenger_whose_few_yeses_were_all_wrong_is_not_tested_before_hits_are_expected() -> None:
    rng = np.random.default_rng(4)
    cells = []
    for i in range(BLOCKS):
        said, right = rng.random(200) < 0.5, rng.random(200) < 0.7
        cells.append(cell(said, ~right & (np.cumsum(~right) == 1) & (i < 30), right))
    found, _, log_e = effect(cells)
    assert (found.guarded, log_e, found.note) == (False, 0.0, "too few expected events yet")


def test_units_that_come_back_count_as_units() -> None:
    """The same 60 units in every block, some of whom the challenger always gets wrong and others always right."""
    told, alone = [], []
    plan = plan_for(PRECISION, mean=0.7 * ONE, tau=0.03 * ONE)
    for seed in range(60):
        rng = np.random.default_rng(seed)
        habit, total = ONE * rng.choice([-1, 0, 1], 60, p=[0.2, 0.6, 0.2]), np.zeros(60, dtype=np.int64)
        cells = []
        for _ in range(3):
            y = np.where(habit > 0, 0, np.where(habit < 0, ONE, ONE * rng.binomial(1, 0.7, 60)))
            v = np.stack([habit * 1.0, np.zeros(60), y * 1.0, np.ones(60)])
            products = (v @ v.T)[np.triu_indices(4)].astype(int).tolist()
            clustered = int(np.sum(np.square(total + habit) - np.square(total)))
            total += habit
            cells.append(
                PairScoreCell(60, 60, int(habit.sum()), products[0], clustered, int(y.sum()), 0, tuple(products[1:]))
            )
        state, _ = folded(plan, cells)
        found = pair_effect(plan, state)
        told.append(found.theta / math.sqrt(found.se2))
        bare = pair_effect(plan, state._replace(clustered=0))
        alone.append(found.theta / math.sqrt(bare.se2))
    assert np.mean(np.square(told)) < 1.6
    assert np.mean(np.square(alone)) > 2.0


def test_it_is_read_in_a_mirror_with_a_reason_where_there_is_no_verdict() -> None:
    metric = {**FROM_ZERO, "baseline": {"mean": 0.7}}
    steps = [{"mirror": 100, "hold": "10m"}, {"weight": 50, "hold": "10m"}]
    spec = rollout(metrics=[metric], steps=steps).spec
    epoch = Epoch(number=1, kind="mirror", step=0, mirror_bp=10_000, opened_at=0)
    status = with_baselines(spec, fresh(epochs=(epoch,), epoch=1), EMPTY)
    said, right = np.ones(50, dtype=bool), np.arange(50) < 35
    silent, _ = folded(plan_for(FROM_ZERO, mean=0.7 * ONE, tau=0.03 * ONE), [cell(said, ~said, right)] * BLOCKS)
    read = []
    for state in (silent, played(FROM_ZERO, 1, Mirror(worse=0.15))[0], played(FROM_ZERO, 1, Mirror(rows=2_000))[0]):
        found = evidence.read(spec, status, EMPTY._replace(pairs={("m", ""): state}), 10**12)[0]
        assert not any(math.isnan(x) for x in found if isinstance(x, float))
        read.append(found)
    assert [e.verdict for e in read] == [Verdict.NO_DATA, Verdict.WORSE, Verdict.NOT_WORSE]
    assert (read[0].due, read[0].note) == (True, "one arm's answers leave nothing to take the ratio of yet")
    assert read[1].champion == pytest.approx(0.7, abs=0.02)
    assert read[1].upper < 0
