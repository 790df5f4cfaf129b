"""Guards count what the champion leads one to expect of the challenger; what it shows itself never shuts a test."""

import math

import pytest

from controller.core.cells import Block, EpochPlan, MetricPlan, ScoreCell
from controller.core.fold import fold
from controller.core.scores import ScoreFold, score_effect
from tests.evidence.drawn import CTR, plan_for

EPOCH = EpochPlan(1, "weight", 100_000, {"ctr": 50_000})
BUYS = {**CTR, "kind": "Mean", "role": "Guardrail", "margin": "5%"}
RIGHT = {**CTR, "kind": "Accuracy", "role": "Guardrail", "margin": "1pp"}
LOSS = {**CTR, "kind": "LogLoss", "role": "Guardrail", "margin": "0.02"}


def hits(n: int, k: int, share: int, value: int = 1_000_000, mean: int = 50_000) -> ScoreCell:
    clustered = k * (share * (value - mean)) ** 2 + (n - k) * (share * mean) ** 2
    return ScoreCell(n, n, k * value, k * value * value, k * value, n, k, clustered)


def state(plan: MetricPlan, a: tuple[int, int], b: tuple[int, int]) -> ScoreFold:
    block = Block("ctr", "", 1, 0, hits(*a, -100_000), hits(*b, 900_000))
    found = fold(plan, EPOCH, None, block)
    assert isinstance(found, ScoreFold)
    return found


@pytest.mark.parametrize(
    ("metric", "champion", "challenger", "guarded"),
    [
        (CTR, (9000, 450), (600, 30), True),  # 30 clicks are expected
        (CTR, (9000, 450), (600, 0), True),  # and none came: that is evidence
        (CTR, (9000, 450), (599, 599), False),
        (CTR, (9000, 8550), (599, 30), False),  # the rarer side counts
        (CTR, (9000, 8550), (600, 30), True),
        (CTR, (9000, 0), (10**6, 10**5), False),
        (RIGHT, (9000, 7200), (150, 0), True),  # 30 wrong answers are expected
        (RIGHT, (9000, 7200), (149, 149), False),
        (BUYS, (9000, 270), (3334, 0), True),  # 100 buyers are expected
        (BUYS, (9000, 270), (3333, 3333), False),
        (LOSS, (30, 15), (30, 15), True),
        (LOSS, (29, 15), (3000, 1500), False),
        (LOSS, (3000, 1500), (29, 15), False),
    ],
)
def test_a_test_opens_when_enough_is_expected(
    metric: dict[str, object], champion: tuple[int, int], challenger: tuple[int, int], guarded: bool
) -> None:
    plan = plan_for(metric, mean=50_000, tau=2500.0)
    found = score_effect(plan, state(plan, champion, challenger))
    assert found.guarded is guarded
    assert (found.note == "") is guarded


def test_a_challenger_without_a_single_click_is_proven_harmful_as_soon_as_the_guard_opens_wide() -> None:
    plan = plan_for(CTR, mean=50_000, tau=2500.0)
    assert state(plan, (9000, 450), (1000, 0)).ever_harm > math.log(100)


def test_shut_guards_leave_no_trace_in_ever_harm() -> None:
    plan = plan_for(CTR, mean=50_000, tau=2500.0)
    assert state(plan, (9000, 450), (599, 0)).ever_harm == 0.0
