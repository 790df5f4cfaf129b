"""What is read from folded evidence: due or not, the gate, the last epoch, verdicts with a reason, segments, alphas."""

import math
from typing import Any

import numpy as np
import pytest

from controller.core import decide, evidence
from controller.core.cells import Block, EpochPlan, LatencyCell, PairCountCell, PairScoreCell, ScoreCell
from controller.core.evidence import Evidence, Verdict
from controller.core.fold import EMPTY, Fold, Statistics, fold
from controller.core.plans import query
from controller.core.statistics import bucket_of as bucket_of_number
from controller.spec import RolloutSpec
from controller.status import Epoch, RolloutStatus
from tests.decide.rollouts import fresh, rollout
from tests.error_rates.single import latencies
from tests.evidence.drawn import once

SECOND = 1_000_000
MINUTE = 60 * SECOND
LABEL = {"outcome": "late", "window": "3m", "margin": "2pp"}
CTR = {"name": "ctr", "kind": "Proportion", "outcome": "click", "window": "1m", "margin": "5%", "role": "Success"}
METRICS = [
    {**CTR, "baseline": {"mean": 0.05}},
    {"name": "accuracy", "kind": "Accuracy", **LABEL, "baseline": {"mean": 0.8}},
    {"name": "errors", "kind": "ErrorRate", "margin": "0.5pp", "baseline": {"mean": 0.001}},
]
STEPS = [{"mirror": 10, "hold": "10m"}, {"weight": 10, "hold": "10m"}, {"weight": 50, "hold": "10m"}]
PROTECTED = [{"name": "part", "header": "x-part", "protected": True}]
PI = 100_000


def world(*kinds: str, **spec: Any) -> tuple[RolloutSpec, RolloutStatus]:
    """A rollout whose epochs are of these kinds, the last one in force and open since the time 0."""
    declared = rollout(**{"steps": STEPS, "metrics": METRICS, "decision": {"grace": "30s"}, **spec}).spec
    means = {"ctr": 50_000, "accuracy": 800_000, "errors": 0}
    epochs = tuple(
        Epoch(number=i + 1, kind=kind, step=i, weight_bp=1000, pi_ppm=PI, means=means, opened_at=0)
        for i, kind in enumerate(kinds)
    )
    status = fresh(epochs=epochs, epoch=len(kinds))
    from controller.core.plans import with_baselines

    return declared, with_baselines(declared, status, EMPTY)


def hits(n: int, k: int, share: int, mean: int) -> ScoreCell:
    """``n`` units of which ``k`` have the value 1."""
    y = 1_000_000
    clustered = k * (share * (y - mean)) ** 2 + (n - k) * (share * mean) ** 2
    return ScoreCell(n, n, k * y, k * y * y, k * y, n, k, clustered)


def arms(a: tuple[int, int], b: tuple[int, int], mean: int = 50_000) -> tuple[ScoreCell | None, ScoreCell | None]:
    return (hits(*a, -100_000, mean) if a[0] else None), (hits(*b, 900_000, mean) if b[0] else None)


def folded(spec: RolloutSpec, status: RolloutStatus, *blocks: Block) -> Statistics:
    asked = query("late", spec, status)
    plan_of = {p.name: p for p in asked.metrics}
    folds: dict[tuple[str, str], Fold] = {}
    pairs: dict[tuple[str, str], Fold] = {}
    for block in blocks:
        epoch: EpochPlan = asked.epochs[block.epoch - 1]
        into = pairs if block.pair is not None else folds
        key = (block.metric, block.segment)
        into[key] = fold(plan_of[block.metric], epoch, into.get(key), block)
    return EMPTY._replace(folds=folds, pairs=pairs)  # type: ignore[arg-type]


def read(spec: RolloutSpec, status: RolloutStatus, *blocks: Block, now: int = 10**9) -> dict[str, Evidence]:
    found = evidence.read(spec, status, folded(spec, status, *blocks), now)
    return {e.metric: e for e in found if not e.segment}


def test_outcomes_are_due_two_blocks_after_window_and_grace_and_service_after_two_ticks() -> None:
    spec, status = world("weight")
    block, tick = spec.block, spec.decision.tick
    for metric, wait in (
        ("ctr", 90 * SECOND + 2 * block),
        ("accuracy", 210 * SECOND + 2 * block),
        ("errors", 2 * tick),
    ):
        assert not read(spec, status, now=wait - 1)[metric].due
        assert read(spec, status, now=wait)[metric].due


def test_in_a_mirror_business_outcomes_are_never_due_and_labels_and_failures_are() -> None:
    spec, status = world("mirror")
    found = read(spec, status, now=10**12)
    assert {name: (e.due, e.paired, e.verdict) for name, e in found.items()} == {
        "ctr": (False, True, Verdict.NO_DATA),
        "accuracy": (True, True, Verdict.NO_DATA),
        "errors": (True, True, Verdict.NO_DATA),
    }


def test_mirror_evidence_is_read_in_the_mirror_and_never_after_it() -> None:
    pair = Block("accuracy", "", 1, 5, pair=PairScoreCell(100, 100, -(10**7), 10**13, 10**13, 8 * 10**7))
    spec, status = world("mirror")
    assert read(spec, status, pair)["accuracy"].units == (100, 100)
    spec, status = world("mirror", "weight")
    assert read(spec, status, pair)["accuracy"].verdict is Verdict.NO_DATA


@pytest.mark.parametrize(("a", "b"), [((5000, 250), (0, 0)), ((0, 0), (500, 25)), ((0, 0), (0, 0))])
def test_one_arm_alone_is_no_data_and_no_estimate(a: tuple[int, int], b: tuple[int, int]) -> None:
    spec, status = world("weight")
    blocks = [Block("ctr", "", 1, 7, *arms(a, b))] if a[0] or b[0] else []
    blocks += [Block("errors", "", 1, 7, *once(PI, a, b))] * bool(blocks)
    found = read(spec, status, *blocks)
    for name in ("ctr", "errors"):
        e = found[name]
        assert (e.verdict, e.estimate, e.se, e.last) == (Verdict.NO_DATA, 0.0, math.inf, None)
        assert (e.log_e_harm, e.log_e_non_inferior, e.log_e_superior) == (0.0, 0.0, 0.0)
        assert e.note


def test_a_due_guardrail_that_only_the_champion_has_data_of_holds_the_step() -> None:
    spec, status = world("weight")
    blocks = [Block("ctr", "", 1, 7, *arms((5000, 250), (500, 25)))]
    blocks += [Block("accuracy", "", 1, 7, *arms((5000, 4000), (0, 0), 800_000))]
    blocks += [Block("errors", "", 1, 7, *once(PI, (5000, 0), (500, 0)))]
    found = evidence.read(spec, status, folded(spec, status, *blocks), 10**9)
    facts = decide.Facts(step=1, is_last=False, step_elapsed=10**10, units=10**6, requests=10**6)
    said = decide.decide(spec, facts, found, decide.Validity())
    assert (said.reason.value, said.metric) == ("NoData", "accuracy")


def test_the_gate_lets_through_what_two_standard_errors_could_explain() -> None:
    spec, status = world("weight")
    for clicks, passes in ((240, True), (200, False)):
        e = read(spec, status, Block("ctr", "", 1, 7, *arms((50_000, 2500), (5000, clicks))))["ctr"]
        assert (e.estimate + 2 * e.se >= -e.margin) is passes
        assert e.gate is passes


def test_the_last_epoch_is_judged_by_itself_and_where_both_arms_have_data() -> None:
    spec, first = world("weight")
    _, second = world("weight", "weight")
    _, third = world("weight", "weight", "weight")
    good = Block("ctr", "", 1, 7, *arms((50_000, 2500), (50_000, 2500)))
    bad = Block("ctr", "", 2, 8, *arms((5000, 250), (500, 20)))
    alone = Block("ctr", "", 3, 9, *arms((5000, 250), (0, 0)))
    assert read(spec, first, good)["ctr"].last is True
    assert read(spec, second, good)["ctr"].last is None
    assert read(spec, second, good, bad)["ctr"].last is False
    assert read(spec, third, good, bad, alone)["ctr"].last is None


def test_figures_are_in_the_metrics_unit_and_direction() -> None:
    spec, status = world("weight")
    found = read(
        spec,
        status,
        Block("ctr", "", 1, 7, *arms((90_000, 4500), (10_000, 550))),
        Block("errors", "", 1, 7, *once(PI, (9000, 9), (1000, 4))),
    )
    ctr, errors = found["ctr"], found["errors"]
    assert ctr.estimate == pytest.approx(0.005, rel=0.01)
    assert ctr.champion == pytest.approx(0.05)
    assert ctr.margin == pytest.approx(0.0025)
    assert ctr.lower < ctr.estimate < ctr.upper
    assert (errors.estimate, errors.champion) == (pytest.approx(0.003), pytest.approx(0.001))
    assert errors.margin == pytest.approx(0.005)


@pytest.mark.parametrize(
    ("units", "clicks", "verdict"),
    [
        (1_000_000, 50_000, Verdict.NOT_WORSE),
        (1_000_000, 53_000, Verdict.BETTER),
        (1_000_000, 46_000, Verdict.WORSE),
        (10_000, 490, Verdict.INCONCLUSIVE),
    ],
)
def test_verdicts(units: int, clicks: int, verdict: Verdict) -> None:
    spec, status = world("weight")
    blocks = [Block("ctr", "", 1, 7, *arms((9 * units, 9 * units // 20), (units, clicks)))]
    assert read(spec, status, *blocks)["ctr"].verdict is verdict


def test_values_without_any_spread_prove_nothing_and_say_so() -> None:
    spec, status = world("weight")
    same = ScoreCell(1000, 1000, 50_000_000, 50_000**2 * 1000, 50_000_000, 1000, 1000, 0)
    e = read(spec, status, Block("ctr", "", 1, 7, same, same))["ctr"]
    assert (e.verdict, e.gate) == (Verdict.INCONCLUSIVE, True)
    assert "vary" in e.note
    few = read(spec, status, Block("ctr", "", 1, 7, *arms((40, 2), (40, 2))))["ctr"]
    assert "too few" in few.note


def test_a_mirror_without_a_disagreement_is_inconclusive_and_no_error() -> None:
    spec, status = world("mirror")
    found = read(
        spec,
        status,
        Block("errors", "", 1, 7, pair=PairCountCell(1000, 0, 0)),
        Block("accuracy", "", 1, 7, pair=PairScoreCell(1000, 1000, 0, 0, 0, 8 * 10**8)),
    )
    for name in ("errors", "accuracy"):
        assert (found[name].verdict, found[name].log_e_harm, found[name].gate) == (Verdict.INCONCLUSIVE, 0.0, True)
        assert found[name].note


def _in(segment: str, metric: str, block: int) -> Block:
    return Block(metric, segment, 1, block, *once(PI, (900, 0), (100, 0)))


def test_segments_come_after_everything_in_the_order_in_which_their_values_appeared() -> None:
    spec, status = world("weight", segments=[{"name": "part", "header": "x-part"}])
    status = status.model_copy(update={"segment_values": ("part=b", "part=a", "part=c")})
    blocks = [_in("", "errors", 1), _in("part=a", "errors", 1), _in("part=b", "errors", 1)]
    found = evidence.read(spec, status, folded(spec, status, *blocks), 10**9)
    assert [e.metric for e in found if not e.segment] == ["ctr", "accuracy", "errors"]
    assert [(e.segment, e.metric) for e in found if e.segment] == [("part=b", "errors"), ("part=a", "errors")]


def test_a_protected_value_keeps_its_alpha_though_earlier_ones_have_no_evidence_now() -> None:
    spec, status = world("weight", segments=PROTECTED)
    status = status.model_copy(update={"segment_values": ("part=b", "part=a")})
    for blocks in ([_in("part=a", "errors", 1)], [_in("part=a", "errors", 1), _in("part=b", "errors", 1)]):
        found = evidence.read(spec, status, folded(spec, status, *blocks), 10**9)
        said = {e.segment: threshold for e, threshold in decide.harm_thresholds(spec, found) if e.metric == "errors"}
        tests = math.exp(-said["part=a"]) / (0.02 * 0.25 / 6)
        assert tests == pytest.approx(math.exp(-said["part=b"]) / (0.02 * 0.25 / 2))


@pytest.mark.parametrize("segments", [[], PROTECTED])
def test_the_alphas_of_the_mirrors_tests_and_of_the_weights_sum_to_no_more_than_rollback_alpha(
    segments: list[dict[str, Any]],
) -> None:
    spec, _ = world("weight", segments=segments)
    values = tuple(f"part={i}" for i in range(50)) if segments else ()
    spent = 0.0
    for kind, metrics in (("mirror", ("accuracy", "errors")), ("weight", ("ctr", "accuracy", "errors"))):
        _, status = world(kind, segments=segments)
        status = status.model_copy(update={"segment_values": values})
        found = evidence.read(spec, status, EMPTY, 10**9)
        spent += sum(math.exp(-t) for e, t in decide.harm_thresholds(spec, found) if e.metric in metrics)
    assert 0.9 * 0.02 < spent <= 0.02 + 1e-12


def test_slowness_in_the_middle_is_shown_where_it_is() -> None:
    """A p99 of both arms says nothing of a challenger that is slower on most requests."""
    slow = {
        "name": "latency", "kind": "Latency", "margin": "20%",
        "baseline": {"latencies": [10, 20, 25, 40, 60]},
    }  # fmt: skip
    spec, status = world("weight", metrics=[slow])
    usual, later, tail = (bucket_of_number(1000 * ms) for ms in (9, 15, 39))
    blocks = [
        Block(
            "latency", "", 1, i,
            LatencyCell(100, ((usual, 60), (later, 39), (tail, 1))),
            LatencyCell(100, ((usual, 10), (later, 89), (tail, 1))),
        )
        for i in range(3)
    ]  # fmt: skip
    e = read(spec, status, *blocks)["latency"]
    assert e.verdict is Verdict.WORSE
    assert e.note.endswith("above the usual p50 of 10.2 ms 40.0 % and 90.0 %")
    equal = [b._replace(challenger=b.champion) for b in blocks]
    assert "usual" not in read(spec, status, *equal)["latency"].note


def _slower(factor: float) -> Evidence:
    """What is read of a latency (p99 of 81 ms, margin 20 %) where every answer takes ``factor`` times as long."""
    slow = {"name": "slow", "kind": "Latency", "margin": "20%", "baseline": {"latencies": [20, 43, 54, 81, 128]}}
    spec, status = world("weight", metrics=[slow])
    micros = 20_000 * np.random.default_rng(8).lognormal(0, 0.6, 50_000)
    block = Block("slow", "", 1, 1, latencies(micros), latencies(factor * micros))
    return read(spec, status, block)["slow"]


def test_equal_latencies_show_no_difference_and_not_what_a_margin_allows() -> None:
    e = _slower(1.0)
    assert e.estimate == 0.0
    assert e.lower < 0 < e.upper
    assert e.verdict is Verdict.NOT_WORSE


def test_a_latency_that_is_slower_by_its_margin_shows_its_margin_and_is_not_held() -> None:
    e = _slower(1.2)
    assert e.champion == pytest.approx(0.01, rel=0.1)
    assert e.estimate == pytest.approx(e.margin - 0.001, rel=0.1)  # δ is a tenth of 1 - quantile
    assert (e.gate, e.last) == (True, True)
    worse = _slower(1.4)
    assert worse.estimate > 1.5 * worse.margin
    assert (worse.gate, worse.last) == (False, False)
