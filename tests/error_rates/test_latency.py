"""What a latency's baseline and its harm margin are for: slow tails are not let through, cold caches are no harm."""

import math

import numpy as np
import pytest

from controller.core import plans
from controller.core.cells import BaselineSums, Block, EpochPlan
from controller.core.counts import CountFold, count_tests
from controller.core.fold import Fold, fold
from controller.metric import Metric
from controller.status import Frozen
from tests.error_rates.single import alone, latencies
from tests.error_rates.world import SPEC

HARM = -math.log(SPEC.decision.rollback_alpha / 3)
PROOF = -math.log(SPEC.decision.promote_alpha)
EPOCH = EpochPlan(1, "weight", 500_000, {})
ARRIVALS = 16  # champion requests of a block while the baseline is gathered: ten blocks bring 160


def _frozen(metric: Metric, rng: np.random.Generator) -> Frozen:
    """The baseline as it is frozen, block after block."""
    seen: list[float] = []
    for block in range(1000):
        seen += (16_000 * rng.lognormal(0, 0.6, ARRIVALS)).tolist()
        buckets = latencies(np.array(seen)).buckets
        frozen = plans.measured(metric, BaselineSums(block + 1, block, 1, len(seen), len(seen), 0, 0, buckets), False)
        if frozen is not None:
            return frozen
    raise AssertionError("never frozen")


def test_a_challenger_with_a_few_very_slow_answers_is_not_proven_not_worse_by_an_early_baseline() -> None:
    """1.2 % of its answers take 10 s. Frozen from 160 requests, 4 of these 20 would be proven before the harm is."""
    metric = Metric.model_validate({"name": "m", "kind": "Latency", "margin": "50%", "harmMargin": "50%"})
    for seed in range(20):
        rng = np.random.default_rng(seed)
        plan = plans.metric_plan(alone(metric), metric, _frozen(metric, rng))
        state: Fold | None = None
        for block in range(40):
            usual, slow = 16_000 * rng.lognormal(0, 0.6, (2, 200))
            slow = np.where(rng.random(200) < 0.012, 1e7, slow)
            state = fold(plan, EPOCH, state, Block("m", "", 1, block, latencies(usual), latencies(slow)))
            assert isinstance(state, CountFold)
            if state.ever_harm >= HARM:
                break
            assert count_tests(plan, state).non_inferior < PROOF, seed


@pytest.mark.parametrize(("harm", "found"), [({}, False), ({"harmMargin": "0%"}, True)])
def test_three_tenths_of_a_millisecond_are_harm_only_where_that_is_asked_for(harm: dict[str, str], found: bool) -> None:
    """20 ms that vary by a twentieth, at one challenger request in 51."""
    metric = Metric.model_validate({"name": "m", "kind": "Latency", "margin": "10%", **harm})
    rng = np.random.default_rng(1)
    usual = 20_000 * np.exp(0.05 * np.array([0.0, 1.2816, 1.6449, 2.3263, 3.0902]))
    edges = tuple(plans.bucket_of(x) for x in usual)
    frozen = Frozen(source="Declared", edges=edges, judged=plans.judged(metric, edges[3]))
    plan = plans.metric_plan(alone(metric), metric, frozen)
    state: Fold | None = None
    for block in range(30):
        arms = (20_000 * rng.lognormal(0, 0.05, 5000), 300 + 20_000 * rng.lognormal(0, 0.05, 100))
        state = fold(plan, EPOCH, state, Block("m", "", 1, block, *map(latencies, arms)))
    assert isinstance(state, CountFold)
    assert (state.ever_harm >= HARM) is found
