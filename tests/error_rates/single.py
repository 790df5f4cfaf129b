"""Single metrics where the field goes wrong: heavy tails at one percent, and how soon real harm is found."""

import math

import numpy as np

from controller.core import plans
from controller.core.cells import PPM, Block, EpochPlan, LatencyCell, ScoreCell
from controller.core.counts import EDGE_QUANTILES, CountFold
from controller.core.fold import Fold, fold
from controller.core.plans import GAMMA, bucket_of
from controller.core.scores import ScoreFold
from controller.metric import Metric
from controller.spec import RolloutSpec
from controller.status import Frozen
from router.assignment import challenger_share_ppm
from tests.error_rates.world import LOOKS, SPEC, UNITS_A_LOOK
from tests.evidence.drawn import once

BUYERS = 0.03
ALPHA = 0.01
SIGMA = 0.6  # of the lognormal latencies
SLOWER = 1.3
REQUESTS = {1.0: 10, 5.0: 25}  # challenger requests in a block, by weight
CONTROL = 0.5


def gmv_false_alarm(seed: int, spread: float = 1.0) -> bool:
    """Whether a Mean of purchases (3 % buyers, lognormal) at 1 % weight ever shows harm between equal arms."""
    rng = np.random.default_rng(seed)
    spec = alone(
        Metric.model_validate({"name": "gmv", "kind": "Mean", "outcome": "buy", "window": "1s", "margin": "5%"})
    )
    pi = challenger_share_ppm(100, 5000)
    sample = np.exp(rng.normal(3.0, spread, 200_000)) * (rng.random(200_000) < BUYERS)
    cap, mean = round(1000 * np.quantile(sample, 0.999)), 1000 * sample.mean()
    frozen = Frozen(source="Blocks", mean=mean, tau=0.05 * mean, cap=cap)
    plan = plans.metric_plan(spec, spec.metrics[0], frozen)
    epoch = EpochPlan(1, "weight", pi, {"gmv": round(mean)})
    limit = -math.log(SPEC.decision.rollback_alpha / 4)
    state: Fold | None = None
    for look in range(LOOKS):
        cells = []
        for n, share in ((rng.binomial(UNITS_A_LOOK, CONTROL), -pi), (rng.binomial(UNITS_A_LOOK, 0.01), PPM - pi)):
            k = rng.binomial(n, BUYERS)
            y = np.minimum(np.rint(1000 * np.exp(rng.normal(3.0, spread, k))), cap).astype(np.int64)
            cells.append(_spent(int(n), y, share, round(mean)))
        state = fold(plan, epoch, state, Block("gmv", "", 1, look, *cells))
        assert isinstance(state, ScoreFold)
        if state.ever_harm >= limit:
            return True
    return False


def _spent(n: int, y: np.ndarray, share: int, mean: int) -> ScoreCell:
    k, total, squares = len(y), int(y.sum()), int((y.astype(object) ** 2).sum()) if len(y) else 0
    clustered = share * share * (squares - 2 * mean * total + n * mean * mean)
    return ScoreCell(n, n, total, squares, total, n, k, clustered)


def alone(metric: Metric) -> RolloutSpec:
    """A rollout with this metric only."""
    return SPEC.model_copy(update={"metrics": (metric,)})


def errors_found_after(seed: int, weight: float) -> int:
    """Challenger requests until an error rate of 2 % instead of .1 % is proven harm at α = .01."""
    rng = np.random.default_rng(seed)
    metric = Metric.model_validate({"name": "errors", "kind": "ErrorRate", "margin": "0.05pp"})
    plan = plans.metric_plan(SPEC, metric, Frozen(source="Declared", p_hist=0.001))
    n_b = REQUESTS[weight]
    n_a = round(n_b * 100 * CONTROL / weight)
    epoch = EpochPlan(1, "weight", round(PPM * n_b / (n_a + n_b)), {})
    state: Fold | None = None
    for block in range(1, 2000):
        a, b = int(rng.binomial(n_a, 0.001)), int(rng.binomial(n_b, 0.02))
        state = fold(plan, epoch, state, Block("errors", "", 1, block, *once(epoch.pi_ppm, (n_a, a), (n_b, b))))
        assert isinstance(state, CountFold)
        if state.ever_harm >= -math.log(ALPHA):
            return block * n_b
    return 2000 * n_b


def slowness_found_after(seed: int, weight: float) -> int:
    """Challenger requests until latencies 30 % longer are proven harm at α = .01, with no harm margin."""
    rng = np.random.default_rng(seed)
    metric = Metric.model_validate({"name": "latency", "kind": "Latency", "margin": "10%", "harmMargin": 0})
    usual = [20_000 * math.exp(SIGMA * z) for z in (0.0, 1.2816, 1.6449, 2.3263, 3.0902)]
    edges = tuple(bucket_of(x) for x in usual)
    at = edges[EDGE_QUANTILES.index(0.99)]
    frozen = Frozen(source="Declared", edges=edges, judged=plans.judged(metric, at))
    plan = plans.metric_plan(SPEC, metric, frozen)
    n_b = REQUESTS[weight]
    n_a = round(n_b * 100 * CONTROL / weight)
    epoch = EpochPlan(1, "weight", round(PPM * n_b / (n_a + n_b)), {})
    state: Fold | None = None
    for block in range(1, 2000):
        a, b = _latencies(rng, n_a, 1.0), _latencies(rng, n_b, SLOWER)
        state = fold(plan, epoch, state, Block("latency", "", 1, block, a, b))
        assert isinstance(state, CountFold)
        if state.ever_harm >= -math.log(ALPHA):
            return block * n_b
    return 2000 * n_b


def _latencies(rng: np.random.Generator, n: int, factor: float) -> LatencyCell:
    return latencies(factor * 20_000 * np.exp(rng.normal(0.0, SIGMA, n)))


def latencies(micros: np.ndarray) -> LatencyCell:
    """The cell of units whose slowest requests took so long (µs), each seen for the first time."""
    n = len(micros)
    buckets, counts = np.unique(np.ceil(np.log(micros) / math.log(GAMMA)).astype(int), return_counts=True)
    return LatencyCell(n, tuple(zip(buckets.tolist(), counts.tolist(), strict=True)))
