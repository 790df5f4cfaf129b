"""Throughput: units that ask less are found, bursts of the same units are not taken for a difference."""

import math
from typing import NamedTuple

import numpy as np
import pytest

from controller.core.cells import PPM, Block, EpochPlan, MetricPlan, ScoreCell
from controller.core.evidence import Evidence, Verdict
from controller.core.fold import Fold, fold
from controller.core.plans import declared, metric_plan
from controller.core.scores import ScoreFold, score_effect
from controller.core.sequential import log_e_share
from controller.status import Reason, Verb
from tests.decide.rollouts import rollout
from tests.limits.playing import MINUTE, START, Play

THROUGHPUT = {"name": "visits", "kind": "Throughput", "margin": "5%"}
ALPHA = 0.01


def judged() -> MetricPlan:
    spec = rollout(metrics=[THROUGHPUT, {"name": "errors", "kind": "ErrorRate", "margin": "1pp"}]).spec
    return metric_plan(spec, spec.metrics[0], declared(spec.metrics[0]))


class Told(NamedTuple):
    """One rollout: its fold, and log e ever of the plain share test on requests and on active units."""

    state: ScoreFold
    requests: float
    active: float


def played(seed: int, pi: float, fewer: float = 0.0, n: int = 3_000, blocks: int = 15, heavy: float = 1.0) -> Told:
    """Units of very different zeal, which ask in bursts; the challenger's are active in a smaller share of blocks."""
    rng = np.random.default_rng(seed)
    plan, share = judged(), round(pi * PPM)
    epoch = EpochPlan(1, "weight", share, {"visits": 0})
    arm = rng.random(n) < pi
    zeal = np.minimum(1.0, rng.lognormal(-2.0, heavy, n)) * np.where(arm, 1 - fewer, 1.0)
    before, sums, best = np.zeros(n), np.zeros((2, 2)), np.full(2, -math.inf)
    state: Fold | None = None
    for number in range(blocks):
        active = rng.random(n) < zeal
        asked = np.where(active, 1 + rng.negative_binomial(0.5, 0.1, n), 0)
        cells = []
        for side, whose in ((-share, ~arm), (PPM - share, arm)):
            units, old = int(active[whose].sum()), before[whose & active]
            x, y = units, units * plan.scale
            clustered = round(side * side * plan.scale**2 * float((2 * old + 1).sum()))
            cells.append(ScoreCell(units, x, y, y * plan.scale, y, x, units, clustered))
        before += active
        state = fold(plan, epoch, state, Block("visits", "", 1, number, cells[0], cells[1]))
        for i, count in enumerate((asked, active)):
            sums[i] += (float(count[~arm].sum()), float(count[arm].sum()))
            best[i] = max(best[i], float(log_e_share(*sums[i], 1 - pi, 1e4 * (1 - pi), 1e4 * pi)))
    assert isinstance(state, ScoreFold)
    return Told(state, *best)


def alarms(pi: float, runs: int = 60, fewer: float = 0.0) -> tuple[int, int, int]:
    """In how many rollouts the score of active units, and the share test on requests and on active units, alarmed."""
    found = [played(seed, pi, fewer) for seed in range(runs)]
    needed = -math.log(ALPHA)
    score = sum(told.state.ever_harm >= needed for told in found)
    return score, sum(told.requests >= needed for told in found), sum(told.active >= needed for told in found)


@pytest.mark.parametrize("pi", [0.5, 0.05])
def test_bursts_of_the_same_units_are_no_difference_as_they_are_to_a_share_of_requests(pi: float) -> None:
    score, requests, _ = alarms(pi)
    assert score <= 2
    assert requests > 6


def test_a_challenger_whose_units_come_less_often_is_found_and_measured() -> None:
    found = [played(seed, 0.5, fewer=0.3) for seed in range(10)]
    effects = [score_effect(judged(), told.state) for told in found]
    assert sum(told.state.ever_harm >= -math.log(ALPHA) for told in found) >= 9
    # The relative difference of two rates r and 0.7 r about their mean: (0.7 − 1)/(0.5 · 1.7).
    assert np.mean([e.theta / 1e6 for e in effects]) == pytest.approx(-0.3 / 0.85, abs=0.05)


def test_the_standard_error_is_what_redrawing_the_units_gives() -> None:
    effects = [score_effect(judged(), played(seed, 0.2).state) for seed in range(60)]
    spread = np.std([e.theta for e in effects])
    assert np.mean([math.sqrt(e.se2) for e in effects]) == pytest.approx(spread, rel=0.25)
    assert abs(np.mean([e.theta for e in effects])) < 3 * spread / math.sqrt(60)


def visited(play: Play, challenger: int, champion: int = 300) -> Evidence | None:
    """A minute in which so many units of each arm ask, each three times."""
    for arm, units in (("champion", champion), ("challenger", challenger)):
        for i in range(units):
            for again in range(3):
                play.said(
                    type="exposure", t=play.now + (3 * i + again + 1) * MINUTE // 2_000, attempt=1,
                    epoch=play.status.epoch, request_id=f"{play.now}.{arm}.{i}.{again}", unit=f"{arm}{i}",
                    arm=arm, served_by=arm, assigned_by="hash", stale=False, evidence=True, mirror=False, usable=True,
                    attributes={}, answer=None, cut=False, latency_us=1_000,
                )  # fmt: skip
    play.tick()
    assert play.moved is not None
    return next((e for e in play.moved.evidence if e.metric == "visits"), None)


def test_it_is_evidence_from_the_first_block_on_and_counts_a_unit_once_in_it() -> None:
    play = Play(THROUGHPUT, steps=[{"weight": 50, "hold": "1h"}])
    visited(play, 300)
    found = visited(play, 300)
    assert found is not None
    assert found.units == (600, 600)
    assert (found.estimate, found.champion, found.last, found.verdict) == (0.0, 1.0, True, Verdict.INCONCLUSIVE)
    found = visited(play, 150)
    assert found is not None
    assert found.estimate == pytest.approx((750 - 900) / (0.5 * 1_650))
    assert found.last is False
    while play.status.decision is not Verb.ROLL_BACK and play.now < START + 20 * MINUTE:
        visited(play, 150)
    assert (play.status.reason, play.status.metric) == (Reason.OUTCOME_HARM, "visits")


def test_a_mirror_has_nothing_to_say_of_it() -> None:
    play = Play(THROUGHPUT, steps=[{"mirror": 100, "hold": "10m"}, {"weight": 50, "hold": "1h"}])
    found = visited(play, 0)
    assert found is not None
    assert (found.due, found.verdict) == (False, Verdict.NO_DATA)
