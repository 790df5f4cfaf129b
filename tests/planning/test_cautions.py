"""Every warning of a plan, each where it belongs and not where it does not."""

import pytest

from controller.planning.cautions import Code
from controller.planning.champion import Given
from controller.planning.forecast import forecast
from tests.planning.examples import CTR, ERRORS, GMV, LATENCY, LOSS, spec_of

QUIET = {
    "steps": "[{weight: 10, hold: 2d}, {weight: 50, hold: 2d}]",
    "decision": "{tick: 60s, minUnits: 100, minAge: 7d, maxDuration: 14d}",
}
AUC = "{name: auc, kind: Auc, outcome: late, window: 1h, margin: 0.01}"
MEMORY = "{name: memory, kind: Resource, query: memory, limit: 2Gi}"
FAST = "[{weight: 1, hold: 20m}, {weight: 50, hold: 2d}]"
CASES: dict[Code, tuple[list[str], dict[str, str], dict[str, object], str]] = {
    Code.MISSING_BASE: ([CTR, ERRORS.replace(", baseline: {mean: 0.001}", "")], {}, {}, "--base errors=VALUE"),
    Code.NOT_SIMULATED: (
        [CTR, "{name: flow, kind: Throughput, margin: 5%}"], {}, {}, "flow: the kind Throughput is not simulated"
    ),
    Code.LIMIT: ([CTR, MEMORY], {}, {}, "memory: its limit is a rule, no sample size"),
    Code.ASSUMED_BASE: ([CTR, AUC], {}, {}, "auc: positives are 10 % of the rows, it is assumed"),
    Code.NO_TRAFFIC: ([CTR], {}, {"units_per_day": None}, "--units-per-day"),
    Code.ASSUMED_SPREAD: ([GMV], {}, {}, "--spread gmv=SD or --nonzero gmv=SHARE"),
    Code.HEAVY_TAIL: ([GMV], {"steps": FAST}, {}, "gmv cannot gate step 1: a heavy-tailed Mean at 1 % weight"),
    Code.HOLD_TOO_SHORT: ([CTR], {"steps": FAST}, {}, "ctr cannot gate step 1: its first evidence comes after 30m30s"),
    Code.MIN_UNITS: (
        [CTR], {"decision": "{minUnits: 600000, minAge: 7d, tick: 60s}"}, {}, "minUnits 600000 takes 6 d at 10 %"
    ),
    Code.MIN_AGE: ([CTR], {"decision": "{tick: 60s, minUnits: 100}"}, {}, "minAge: 7d"),
    Code.SHORT_MIRROR: (
        [LOSS],
        {"steps": "[{mirror: 50, hold: 5h}, {weight: 10, hold: 2d}, {weight: 50, hold: 2d}]"}, {},
        "its hold 5h has 30 blocks of 10m, and its test in a mirror needs 34",
    ),
    Code.GUARD: (
        [CTR.replace("0.05}", "0.0001}")], {}, {"units_per_day": 1e6}, "its tests begin at 30 expected events"
    ),
    Code.THIN_BLOCKS: (
        [ERRORS], {"decision": "{minUnits: 100, minAge: 7d}"}, {"units_per_day": 1e4}, "a longer decision.tick"
    ),
    Code.COVARIATE: ([CTR.replace("{name", "{covariate: {header: x-visits}, name")], {}, {}, "times 1 - ρ²"),
    Code.NOT_PROVEN: ([CTR], {}, {"units_per_day": 2e4}, "is proven not worse in"),
}  # fmt: skip


def _codes(metrics: list[str], how: dict[str, str], asked: dict[str, object]) -> dict[Code, str]:
    spec = spec_of(*metrics, **{**QUIET, **how})
    known: dict[str, object] = {"units_per_day": 1e6, "runs": 40, **asked}
    said = forecast(spec, Given(), **known)  # type: ignore[arg-type]
    return {c.code: c.message for c in said.cautions}


@pytest.mark.parametrize("code", list(Code))
def test_a_plan_that_cannot_work_is_warned_of(code: Code) -> None:
    metrics, how, asked, words = CASES[code]
    said = _codes(metrics, how, asked)
    assert code in said
    assert words in said[code]


def test_a_plan_that_works_has_no_warning() -> None:
    spec = spec_of(CTR, ERRORS, LATENCY, GMV, LOSS, **QUIET)
    known = Given(spread={"loss": 0.5}, nonzero={"gmv": 0.2})
    assert forecast(spec, known, 1e7, runs=40).cautions == ()


def test_a_limit_alone_does_not_leave_the_days_unknown() -> None:
    days = [forecast(spec_of(*metrics, **QUIET), Given(), 1e7, runs=40).days for metrics in ((CTR,), (CTR, MEMORY))]
    assert days[0] == days[1] == pytest.approx(7)


def test_a_long_window_counts_towards_a_week() -> None:
    week = CTR.replace("30m", "7d")
    assert Code.MIN_AGE not in _codes([week], {"decision": "{tick: 60s, minUnits: 100}"}, {})


def test_service_metrics_alone_need_no_week() -> None:
    assert Code.MIN_AGE not in _codes([ERRORS, LATENCY], {"decision": "{tick: 60s, minUnits: 100}"}, {})


@pytest.mark.parametrize(("nonzero", "words"), [(0.001, "100 expected values other than 0"), (0.9, None)])
def test_a_mean_says_nothing_below_a_hundred_values(nonzero: float, words: str | None) -> None:
    spec = spec_of(GMV, **QUIET)
    said = [c for c in forecast(spec, Given(nonzero={"gmv": nonzero}), 1e5, runs=40).cautions if c.code is Code.GUARD]
    assert bool(said) is (words is not None)
    if words is not None:
        assert words in said[0].message
        assert (said[0].metric, said[0].step) == ("gmv", 1)


def test_an_area_says_nothing_below_fifty_rows_of_each_label() -> None:
    known = Given(base={"auc": 0.8}, share={"auc": 0.01})
    [first, *_] = [c for c in forecast(spec_of(AUC, **QUIET), known, 1e4, runs=40).cautions if c.code is Code.GUARD]
    assert (first.step, "50 expected rows of each label" in first.message) == (1, True)
    assert "it brings 1" in first.message


def test_a_longer_tick_thickens_the_blocks_and_shortens_the_proof() -> None:
    needs = []
    for tick, thin in (("5s", True), ("120s", False)):
        spec = spec_of(ERRORS, steps=QUIET["steps"], decision=f"{{minUnits: 100, tick: {tick}}}")
        said = forecast(spec, Given(), 1e5, runs=100)
        assert (Code.THIN_BLOCKS in {c.code for c in said.cautions}) is thin
        needs.append(said.metrics[0].steps[0].proof.units or 0)
    assert needs[0] > 1.2 * needs[1]
