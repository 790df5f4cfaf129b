"""Margins as people write them, in the integer units of each kind; defaults; what can never be counted on."""

from typing import Any

import pytest

from controller.core import plans
from controller.core.cells import Block, EpochPlan, LatencyCell, MetricPlan
from controller.core.counts import CountFold, absolute, count_tests
from controller.core.fold import Fold, fold
from controller.core.plans import bucket_of
from controller.metric import Metric
from controller.quantities import SECOND
from controller.status import Frozen
from tests.decide.rollouts import rollout
from tests.evidence.drawn import once

OF_LABEL = {"outcome": "late", "window": "1m"}
EPOCH = EpochPlan(1, "weight", 100_000, {})


def plan(frozen: Frozen | None = None, **fields: Any) -> MetricPlan:
    metric = {"name": "m", **fields}
    return plans.metric_plan(rollout(metrics=[metric]).spec, Metric.model_validate(metric), frozen)


@pytest.mark.parametrize(
    ("kind", "margin", "counted", "relative"),
    [
        ("Proportion", "0.5pp", 5000.0, False),
        ("Proportion", "5%", 0.05, True),
        ("Proportion", "0.01", 10_000.0, False),
        ("Mean", "0.5", 500.0, False),
        ("Mean", "5%", 0.05, True),
        ("Accuracy", "1.5pp", 15_000.0, False),
        ("LogLoss", "0.025", 25_000.0, False),
        ("Brier", "0.008", 8000.0, False),
        ("ErrorRate", "0.05pp", 0.0005, False),
        ("ErrorRate", "50%", 0.5, True),
    ],
)
def test_a_margin_is_counted_in_the_integer_unit_of_its_kind(
    kind: str, margin: str, counted: float, relative: bool
) -> None:
    more = {} if kind == "ErrorRate" else OF_LABEL
    found = plan(kind=kind, margin=margin, **more)
    assert found.margin == pytest.approx(counted, rel=1e-12)
    assert found.margin_relative is relative


@pytest.mark.parametrize(
    ("role", "kind", "given", "expected", "relative"),
    [
        ("Success", "Proportion", None, 0.0, False),
        ("Guardrail", "Proportion", None, 0.05, True),
        ("Guardrail", "Proportion", "1pp", 10_000.0, False),
        ("Guardrail", "LogLoss", None, 0.05, True),
        ("Success", "Brier", "2%", 0.02, True),
        ("Guardrail", "ErrorRate", None, 0.0, False),
        ("Guardrail", "Latency", None, 0.05, True),
        ("Success", "Latency", None, 0.05, True),
        ("Guardrail", "Latency", "0%", 0.0, True),
        ("Guardrail", "ErrorRate", "0.1pp", 0.001, False),
    ],
)
def test_harm_margin_defaults_to_nothing_for_errors_and_success_and_to_the_margin_for_latency_and_other_guardrails(
    role: str, kind: str, given: str | None, expected: float, relative: bool
) -> None:
    more: dict[str, Any] = {} if kind in ("ErrorRate", "Latency") else dict(OF_LABEL)
    if given is not None:
        more["harmMargin"] = given
    found = plan(kind=kind, role=role, margin="5%", **more)
    assert (found.harm_margin, found.harm_relative) == (pytest.approx(expected), relative)


def test_tau_is_the_margin_on_the_metrics_own_scale() -> None:
    assert plans.declared(Metric.model_validate(_proportion("5%"))).tau == 2500.0  # type: ignore[union-attr]
    assert plans.declared(Metric.model_validate(_proportion("0.5pp"))).tau == 5000.0  # type: ignore[union-attr]
    falling = {"name": "m", "kind": "Mean", "margin": "5%", "baseline": {"mean": -4, "cap": 9}, **OF_LABEL}
    assert plans.declared(Metric.model_validate(falling)).tau == 200.0  # type: ignore[union-attr]


def _proportion(margin: str) -> dict[str, Any]:
    return {"name": "m", "kind": "Proportion", "margin": margin, "baseline": {"mean": 0.05}, **OF_LABEL}


@pytest.mark.parametrize(
    ("holds", "tick", "declared", "expected"),
    [
        (["1h", "2h"], "5s", None, 120 * SECOND),
        (["30d"], "5s", None, 600 * SECOND),
        (["60s"], "5s", None, 5 * SECOND),
        (["1h"], "5s", "7m", 420 * SECOND),
    ],
)
def test_a_block_is_a_thirtieth_of_the_shortest_weighted_hold_up_to_ten_minutes_and_never_below_a_tick(
    holds: list[str], tick: str, declared: str | None, expected: int
) -> None:
    steps = [{"mirror": 10, "hold": "1s"}, *({"weight": 10, "hold": h} for h in holds)]
    spec = rollout(steps=steps, decision={"tick": tick, "block": declared, "maxDuration": "60d"}).spec
    frozen = {m.name: plans.metric_plan(spec, m, None).block for m in spec.metrics}
    assert frozen == {"ctr": expected, "errors": 5 * SECOND}


def folded(of: MetricPlan, *blocks: Block) -> CountFold:
    state: Fold | None = None
    for block in blocks:
        state = fold(of, EPOCH, state, block)
    assert isinstance(state, CountFold)
    return state


@pytest.mark.parametrize(("margin", "relative"), [(1.0, False), (1.5, False), (1000.0, True)])
def test_a_margin_that_no_difference_of_rates_exceeds_is_no_error_and_no_proof_by_itself(
    margin: float, relative: bool
) -> None:
    # A file cannot declare such a margin; one that is relative becomes as large by itself where the rate is large.
    of = plan(Frozen(source="Declared", p_hist=0.2), kind="ErrorRate", margin="1pp")
    of = of._replace(margin=margin, margin_relative=relative, harm_margin=margin, harm_relative=relative)
    assert absolute(of, of.margin, of.margin_relative) < 1
    some = Block("m", "", 1, 0, *once(EPOCH.pi_ppm, (9, 0), (1, 1)))
    assert count_tests(of, folded(of, some)).non_inferior < 3


USUAL = Frozen(source="Declared", edges=tuple(bucket_of(1000 * x) for x in (10, 20, 25, 40, 60)), judged=(536, 541))


def _arms(block: int, slower: float) -> Block:
    """Forty champion and forty challenger units, the challenger's times longer by a factor."""
    times = [1000 * (5 + i % 41) for i in range(40)]
    cells = []
    for factor in (1.0, slower):
        places = [bucket_of(factor * t) for t in times]
        cells.append(LatencyCell(40, tuple((b, places.count(b)) for b in sorted(set(places)))))
    return Block("m", "", 1, block, *cells)


@pytest.mark.parametrize("beyond", ["30%", "20"])
def test_slowness_within_a_declared_harm_margin_is_no_harm_and_beyond_it_is(beyond: str) -> None:
    strict = plan(USUAL, kind="Latency", margin="10%", harmMargin="0%")
    lenient = plan(USUAL, kind="Latency", margin="10%", harmMargin=beyond)
    little, much = ([_arms(b, f) for b in range(40)] for f in (1.15, 3.0))
    assert folded(strict, *little).ever_harm > 7
    assert folded(lenient, *little).ever_harm < 1
    assert folded(lenient, *much).ever_harm > 7
