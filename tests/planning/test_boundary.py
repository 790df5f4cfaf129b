"""The plan reads drawn rollouts with the rule's own tests: on the same sums it gives the numbers of the core."""

import math

import numpy as np
import pytest

from controller.core import sequential
from controller.core.cells import PPM, Block, CountCell, EpochPlan, LatencyCell, ScoreCell
from controller.core.counts import CountFold, count_tests
from controller.core.decide import harm_thresholds
from controller.core.evidence import read
from controller.core.fold import EMPTY, Fold, fold
from controller.core.scores import ScoreFold, score_tests
from controller.planning.boundary import Counts, Scores, State, Traffic
from controller.planning.champion import Given, champions, thresholds
from controller.status import RolloutStatus
from tests.planning.examples import CTR, ERRORS, GMV, LATENCY, LOSS, one, spec_of

PI = 90_909  # of a million: 5 % against a control of 50 %


@pytest.mark.parametrize(
    "metric",
    [
        CTR,
        CTR.replace("0.25pp", "5%, role: Success"),
        CTR.replace("0.25pp", "5%, goal: Decrease"),
        CTR.replace("0.25pp", "5%, harmMargin: 1%"),
    ],
)
def test_the_score_tests_of_a_plan_are_those_of_the_core(metric: str) -> None:
    _, simulated = one(metric)
    assert isinstance(simulated, Scores)
    plan, mean = simulated.champion.plan, 50_000
    epoch = EpochPlan(1, "weight", PI, {"ctr": mean})
    (n_a, k_a), (n_b, k_b) = (20_000, 1010), (2000, 77)
    cells = [_hits(n_a, k_a, -PI, mean), _hits(n_b, k_b, PPM - PI, mean)]
    state = fold(plan, epoch, None, Block("ctr", "", 1, 0, *cells))
    assert isinstance(state, ScoreFold)
    ours = score_tests(plan, state)
    pi, co = PI / PPM, 1 - PI / PPM
    q_a, q_b = (k * 0.95**2 + (n - k) * 0.05**2 for n, k in ((n_a, k_a), (n_b, k_b)))
    s = co * (k_b - 0.05 * n_b) - pi * (k_a - 0.05 * n_a)
    sums = [s, pi * co * (n_a + n_b), co**2 * q_b + pi**2 * q_a, pi * co * (q_a + q_b), n_a, n_b, k_a, pi**2 * q_a]
    found = simulated.read(np.array(sums, dtype=float)[:, None, None])
    assert ours.guarded
    assert found.harm[0, 0] == pytest.approx(ours.harm, rel=1e-6)
    assert found.proof[0, 0] == pytest.approx(ours.non_inferior, rel=1e-6, abs=1e-9)


def _hits(n: int, k: int, share: int, mean: int) -> ScoreCell:
    clustered = k * (share * (PPM - mean)) ** 2 + (n - k) * (share * mean) ** 2
    return ScoreCell(n, n, k * PPM, k * PPM * PPM, k * PPM, n, k, clustered)


@pytest.mark.parametrize(
    "metric",
    [
        ERRORS,
        ERRORS.replace("0.05pp", "0.05pp, harmMargin: 0.02pp"),
        LATENCY,
        LATENCY.replace("kind: Latency", "kind: Latency, harmMargin: 8%"),
    ],
)
def test_the_counting_tests_of_a_plan_are_those_of_the_core(metric: str) -> None:
    _, simulated = one(metric)
    assert isinstance(simulated, Counts)
    plan, rng = simulated.champion.plan, np.random.default_rng(3)
    n_a, n_b = rng.integers(900, 1100, (1, 30)), rng.integers(90, 110, (1, 30))
    above_a, above_b = _above(rng, simulated, n_a, 0.0), _above(rng, simulated, n_b, simulated.gross() / 3)
    arms = [(n.astype(float), above.astype(float)) for n, above in ((n_a, above_a), (n_b, above_b))]
    _, found = simulated.read(State(), arms[0], arms[1], np.zeros(1))
    state: Fold | None = None
    epoch = EpochPlan(1, "weight", PI, {})
    for look in range(30):
        cells = [_cell(simulated, n[0, look], above[0, :, look]) for n, above in ((n_a, above_a), (n_b, above_b))]
        state = fold(plan, epoch, state, Block(plan.name, "", 1, look, *cells))
        assert isinstance(state, CountFold)
        ours = count_tests(plan, state)
        assert found.harm[0, look] == pytest.approx(ours.harm, rel=1e-9, abs=1e-9)
        assert found.proof[0, look] == pytest.approx(ours.non_inferior, rel=1e-9, abs=1e-9)


def _above(rng: np.random.Generator, simulated: Counts, n: np.ndarray, harm: float) -> np.ndarray:
    tails = simulated.tails(np.array([harm]))[0]
    said, left, before = [], n, 1.0
    for tail in tails:
        left = rng.binomial(left, tail / before)
        before = tail
        said.append(left)
    return np.stack(said, axis=1)


def _cell(simulated: Counts, n: int, above: np.ndarray) -> CountCell | LatencyCell:
    if not simulated.latency:
        return CountCell(int(n), int(above[0]), int(n), int(above[0]))
    between = np.diff(np.concatenate([[n], above, [0]]))
    buckets = [simulated.cuts[0], *(c + 1 for c in simulated.cuts)]
    return LatencyCell(int(n), tuple((b, int(-k)) for b, k in zip(buckets, between, strict=True) if k))


def test_folding_look_by_look_is_folding_at_once() -> None:
    _, simulated = one(ERRORS)
    assert isinstance(simulated, Counts)
    rng = np.random.default_rng(1)
    n_a, n_b = np.full((4, 12), 1000.0), np.full((4, 12), 100.0)
    y_a, y_b = rng.binomial(1000, 0.001, (4, 1, 12)) * 1.0, rng.binomial(100, 0.004, (4, 1, 12)) * 1.0
    _, whole = simulated.read(State(), (n_a, y_a), (n_b, y_b), np.zeros(4))
    state = State()
    for look in range(12):
        now = slice(look, look + 1)
        state, part = simulated.read(state, (n_a[:, now], y_a[..., now]), (n_b[:, now], y_b[..., now]), np.zeros(4))
        np.testing.assert_allclose(part.harm[:, 0], whole.harm[:, look], rtol=1e-12)
        np.testing.assert_allclose(part.proof[:, 0], whole.proof[:, look], rtol=1e-12)
    assert (part.gate == whole.gate).all()


def test_thin_blocks_are_taken_as_they_would_be_counted() -> None:
    """Against the real thing: 40,000 blocks of 0.25 challenger and 1.25 champion requests on average."""
    _, simulated = one(ERRORS.replace("0.001", "0.01"))
    rng, blocks, runs = np.random.default_rng(5), 40_000, 60
    n_a, n_b = rng.poisson(1.25, (runs, blocks)), rng.poisson(0.25, (runs, blocks))
    real = sequential.log_e_harm_counts(n_a, rng.binomial(n_a, 0.01), n_b, rng.binomial(n_b, 0.02), np.full(runs, 0.01))
    traffic = Traffic(
        np.array([[1.25 * blocks]]), np.array([[0.25 * blocks]]), np.array([[blocks]]), np.array([[1 / 6]]), np.zeros(1)
    )
    _, ours = simulated.fold(rng, State(), np.full(400, 0.01), traffic)
    dense = traffic._replace(blocks=np.ones((1, 1)))
    _, whole = simulated.fold(rng, State(), np.full(400, 0.01), dense)
    spread = real[:, -1].std() / math.sqrt(runs)
    assert abs(ours.harm.mean() - real[:, -1].mean()) < 4 * spread + 0.05 * real[:, -1].mean()
    assert whole.harm.mean() > 1.5 * real[:, -1].mean()


def test_the_thresholds_of_a_plan_are_those_of_the_rule() -> None:
    spec = spec_of(CTR, ERRORS, GMV, "{name: seen, kind: Brier, outcome: late, window: 1h, role: Observe}")
    protected = spec.model_copy(
        update={"segments": type(spec).model_validate({**spec.model_dump(), "segments": _segments()}).segments}
    )
    for declared, share in ((spec, 1.0), (protected, 0.75)):
        evidence = read(declared, RolloutStatus(uid="x"), EMPTY, 0)
        rule = {e.metric: needed for e, needed in harm_thresholds(declared, evidence)}
        assert thresholds(declared) == rule == dict.fromkeys(("ctr", "errors", "gmv"), -math.log(0.02 * share / 3))


def _segments() -> list[dict[str, object]]:
    return [{"name": "carrier", "feature": "carrier", "protected": True}]


def test_declared_latencies_are_met_at_their_quantiles() -> None:
    _, simulated = one(LATENCY)
    assert isinstance(simulated, Counts)
    tails = simulated.tails(np.zeros(1))[0][simulated.edges]
    # Edges snap to the next bound of a histogram whose bounds are 2 % apart.
    assert np.all(tails <= np.array([0.5, 0.1, 0.05, 0.01, 0.001]) + 1e-12)
    assert np.all(tails >= np.array([0.5, 0.1, 0.05, 0.01, 0.001]) * 0.85)
    assert simulated.champion.base == pytest.approx(81)


@pytest.mark.parametrize("declared", ["[43, 43, 54, 54, 128]", "[20, 43, 54, 128, 128]", "[100, 100, 100, 100, 100]"])
def test_latencies_may_be_the_same_at_several_quantiles(declared: str) -> None:
    _, simulated = one(LATENCY.replace("[20, 43, 54, 81, 128]", declared))
    assert isinstance(simulated, Counts)
    equal, slower = simulated.tails(np.array([0.0, 0.3]))
    assert np.all(np.isfinite(equal))
    assert np.all(equal[simulated.edges] <= np.array([0.5, 0.1, 0.05, 0.01, 0.001]) + 1e-12)
    assert np.all(slower >= equal)
    assert slower[simulated.edges].max() > 0.5


def test_slower_answers_lie_above_more_often_and_errors_add_up() -> None:
    for metric in (ERRORS, LATENCY):
        _, simulated = one(metric)
        assert isinstance(simulated, Counts)
        tails = simulated.tails(np.array([0.0, 0.1, 0.3]))
        assert np.all(np.diff(tails, axis=0) > 0)
    assert simulated.champion.latencies == (20, 43, 54, 81, 128)


def test_the_spread_of_a_mean_follows_from_its_share_of_values_and_back() -> None:
    spec = spec_of(GMV, LOSS)
    by_share = champions(spec, Given(nonzero={"gmv": 0.1}))[0][0]
    by_spread = champions(spec, Given(spread={"gmv": by_share.spread}))[0][0]
    assert by_share.spread == pytest.approx(2 * math.sqrt(19))
    assert by_spread.nonzero == pytest.approx(0.1)
    assert not by_share.assumed
    assert not by_spread.assumed
    gmv, loss = champions(spec, Given())[0]
    assert gmv.assumed
    assert loss.assumed
    assert loss.spread == pytest.approx(0.6)
