"""Answers that differ in a mirror: counted by request, held against the margin, and silent under weights."""

import math
from typing import Any

import numpy as np
import pytest
from scipy.stats import beta

from controller.core import evidence
from controller.core.cells import Block, EpochPlan, MetricPlan, PairScoreCell
from controller.core.evidence import Evidence, Verdict
from controller.core.fold import EMPTY, fold
from controller.core.pairs import PairFold, pair_effect, pair_non_inferior
from controller.core.plans import declared, metric_plan, query, with_baselines
from controller.kinds import Kind
from controller.metric import Role
from controller.status import Epoch
from tests.decide.rollouts import fresh, rollout
from tests.engine.test_counting import counted, seen
from tests.engine.worlds import SECOND, plan
from tests.kinds.rollouts import allowed

ONE = 1_000_000
DIFFER = {"name": "m", "kind": "Disagreement", "role": "Guardrail", "margin": "5pp"}
STEPS = [{"mirror": 100, "hold": "10m"}, {"weight": 10, "hold": "10m"}, {"weight": 50, "hold": "10m"}]
ERRORS = {"name": "errors", "kind": "ErrorRate", "margin": "0.5pp", "baseline": {"mean": 0.001}}


@pytest.mark.parametrize(
    ("champion", "challenger", "differs"),
    [
        ({"scores": (0.6,)}, {"scores": (0.9,)}, 0),
        ({"scores": (0.6,)}, {"scores": (0.4,)}, 1),
        ({"scores": (0.6, 0.1)}, {"scores": (0.6, 0.2)}, 0),
        ({"scores": (0.6, 0.1)}, {"scores": (0.6,)}, 1),
        ({"scores": (None,)}, {"scores": (None,)}, 0),
        ({"scores": (None,)}, {"scores": (0.1,)}, 1),
        ({"usable": False}, {"scores": (0.1,)}, 1),
        ({"scores": None}, {"usable": False}, 1),
        ({"usable": False}, {"usable": False}, None),
        ({"scores": None}, {"scores": (0.1,)}, None),
    ],
)
def test_answers_differ_by_the_side_of_the_threshold(
    champion: dict[str, Any], challenger: dict[str, Any], differs: int | None
) -> None:
    served = seen(1, "a", **champion)
    shadow = seen(1, "a", **{**challenger, "mirror": True})
    blocks = counted(plan(Kind.DISAGREEMENT, block=SECOND), [served, shadow], [], "m")
    if differs is None:
        assert blocks == []
    else:
        d = ONE * differs
        assert blocks == [Block("Disagreement", "", 1, 1, pair=PairScoreCell(1, 1, d, d * d, d * d, 0))]


def judged() -> MetricPlan:
    spec = rollout(steps=STEPS, metrics=[DIFFER, ERRORS]).spec
    return metric_plan(spec, spec.metrics[0], declared(spec.metrics[0]))


def folded(seed: int, share: float, blocks: int = 60, units: int = 40) -> PairFold:
    """A mirror in which each of so many new units in a block asks once."""
    rng, metric, state = np.random.default_rng(seed), judged(), None
    for number in range(blocks):
        d = ONE * int(rng.binomial(units, share))
        cell = PairScoreCell(units, units, d, d * ONE, d * ONE, 0)
        state = fold(metric, EpochPlan(1, "mirror", 0, {}), state, Block("m", "", 1, number, pair=cell))
    assert isinstance(state, PairFold)
    return state


def proof(state: PairFold) -> float:
    metric = judged()
    return pair_non_inferior(metric, state, pair_effect(metric, state))


def test_a_share_at_the_margin_is_neither_harm_nor_proven() -> None:
    states = [folded(seed, 0.05) for seed in range(150)]
    assert sum(s.ever_harm >= math.log(20) for s in states) <= allowed(150)
    assert sum(proof(s) >= math.log(20) for s in states) <= allowed(150)


def test_a_large_share_is_harm_and_a_small_one_is_proven() -> None:
    assert all(folded(seed, 0.15).ever_harm >= math.log(50) for seed in range(10))
    assert all(proof(folded(seed, 0.01)) >= math.log(20) for seed in range(10))


def test_the_estimate_lies_in_the_exact_interval_of_its_share() -> None:
    state = folded(1, 0.08)
    metric = judged()
    found, k, n = pair_effect(metric, state), state.d // ONE, state.x
    assert found.theta / ONE == pytest.approx(k / n)
    exact = (beta.ppf(0.975, k + 1, n - k) - beta.ppf(0.025, k, n - k + 1)) / 3.92
    assert math.sqrt(found.se2) / ONE == pytest.approx(exact, rel=0.25)


def read_in(kind: str, d: int, rows: int = 1_000) -> Evidence:
    """The evidence of the metric in an epoch of this kind, after 30 blocks."""
    spec = rollout(steps=STEPS, metrics=[DIFFER, ERRORS]).spec
    epoch = Epoch(number=1, kind=kind, step=0, mirror_bp=10_000, opened_at=0)
    status = with_baselines(spec, fresh(epochs=(epoch,), epoch=1), EMPTY)
    asked = query("late", spec, status)
    pairs: dict[tuple[str, str], PairFold] = {}
    for number in range(30):
        cell = PairScoreCell(rows, rows, d * ONE, d * ONE * ONE, d * ONE * ONE, 0)
        state = fold(asked.metrics[0], asked.epochs[0], pairs.get(("m", "")), Block("m", "", 1, number, pair=cell))
        assert isinstance(state, PairFold)
        pairs["m", ""] = state
    return evidence.read(spec, status, EMPTY._replace(pairs=pairs), 10**10)[0]


def test_it_needs_no_baseline_and_says_what_it_found() -> None:
    assert read_in("mirror", 10).verdict is Verdict.NOT_WORSE
    assert read_in("mirror", 10).estimate == pytest.approx(0.01)
    bad = read_in("mirror", 200)
    assert (bad.verdict, bad.gate) == (Verdict.WORSE, False)
    same = read_in("mirror", 0)
    assert (same.verdict, same.gate, same.note) == (Verdict.INCONCLUSIVE, True, "no answer differed")


def test_under_weights_it_vetoes_nothing() -> None:
    found = read_in("weight", 200)
    assert (found.role, found.verdict, found.due) == (Role.OBSERVE, Verdict.NO_DATA, False)
    assert found.note == "only seen in a mirror"
