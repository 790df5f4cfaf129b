"""A plan that could never do what it says is refused before it starts, with the path and what is allowed."""

from typing import Any

import pytest

from controller.specfile import parse
from tests.spec.documents import TEXT, changed, refusals

MEAN = {"name": "gmv", "kind": "Mean", "outcome": "buy", "window": "1h", "margin": "5%"}
LATENCY = {"name": "latency", "kind": "Latency", "margin": "10%"}


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("decision.maxDuration", "12h", "spec.steps: their holds add up to 1d1h10m, more than decision.maxDuration"),
        ("steps.2.hold", "15d", "spec.steps: their holds add up to 15d1h10m, more than decision.maxDuration, which is"),
        ("steps.2.hold", "9" * 20 + "w", "spec.steps[2].hold: 99999999999999999999w is longer than 3650d"),
        ("steps.2.hold", "9" * 400 + "d", "spec.steps[2].hold: '9999"),
        ("steps.2.hold", "١٠m", "spec.steps[2].hold: '١٠m' is not a duration"),
        ("decision.minAge", "15d", "spec.decision.minAge: 15d is longer than decision.maxDuration, which is 14d"),
        ("decision.block", "2d", "spec.decision.block: 2d is longer than every step's hold"),
        ("decision.block", "1s", "spec.decision.block: must not be shorter than decision.tick, which is 5s"),
        ("decision.tick", "0s", "spec.decision.tick: 0s is out of range; allowed is a duration from 100ms to 1d"),
        ("decision.minUnits", True, "spec.decision.minUnits: a whole number is needed, such as 10, got true"),
        ("decision.minUnits", int("9" * 60), "spec.decision.minUnits: 9999"),
        ("decision.minUnits", "2013-99-99", "spec.decision.minUnits: a whole number is needed, such as 10, got '2013-"),
        ("decision.minUnits", "5", "spec.decision.minUnits: a whole number is needed, such as 10, got '5'"),
        ("decision.maxFallback", "-1%", "spec.decision.maxFallback: '-1%' is not a percentage; write one from 0% to 1"),
        ("decision.maxFallback", 101, "spec.decision.maxFallback: 101 is not a percentage"),
        ("metrics.1.window", "14d", "spec.metrics[1].window (ctr): 14d must be shorter than decision.maxDuration"),
        ("metrics.1.margin", "100%", "spec.metrics[1].margin (ctr): 100% would allow anything; a relative margin is b"),
        ("metrics.1.margin", "1500pp", "spec.metrics[1].margin (ctr): 1500pp is as large as Proportion can be; allowe"),
        ("metrics.1.harmMargin", 2, "spec.metrics[1].harmMargin (ctr): 2 is as large as Proportion can be"),
        ("metrics.1.margin", "0pp", "spec.metrics[1].margin (ctr): 0pp must be above 0"),
        ("metrics.0", {**LATENCY, "margin": "5pp"}, "spec.metrics[0].margin (latency): 5pp is in percentage points"),
        ("metrics.1.baseline", {"mean": 1.5}, "spec.metrics[1].baseline.mean (ctr): 1.5 is no share"),
        ("metrics.0", {**LATENCY, "baseline": {"latencies": [5, 4, 3, 2, 1]}}, "spec.metrics[0].baseline.latencies (l"),
        ("metrics.0", {**MEAN, "cap": "p0"}, "spec.metrics[0].cap (gmv): 'p0' is not a cap; write a quantile between"),
        ("metrics.0", {**MEAN, "cap": "p100"}, "spec.metrics[0].cap (gmv): 'p100' is not a cap"),
        ("metrics.0", {**MEAN, "cap": 0}, "spec.metrics[0].cap (gmv): 0 is not a cap"),
        ("metrics.0", {**MEAN, "cap": True}, "spec.metrics[0].cap (gmv): true is not a cap"),
        ("metrics.1.outcome", "cl\r\nick", "spec.metrics[1].outcome (ctr): 'cl\\r\\nick' is not allowed; allowed: a t"),
        ("unit.header", "x-unit\r\nevil: 1", "spec.unit.header: 'x-unit\\r\\nevil: 1' is not allowed; allowed: letter"),
        ("unit.header", "x unit", "spec.unit.header: 'x unit' is not allowed; allowed: letters, digits and"),
        ("unit", {"json": "user/id"}, "spec.unit.json: 'user/id' is not allowed; allowed: a JSON pointer, which start"),
        ("prediction.json", "", "spec.prediction.json: '' is not allowed; allowed: a JSON pointer"),
        ("prediction.json", "/a~2", "spec.prediction.json: '/a~2' is not allowed; allowed: a JSON pointer"),
        ("prediction.threshold", "nan", "spec.prediction.threshold: a number is needed, such as 0.5, got 'nan'"),
        ("traffic.router", {"overrideHeader": "X-Unit-ID"}, "spec.traffic.router.overrideHeader: X-Unit-ID is unit.he"),
        ("traffic.router", {"tableTtl": "5s"}, "spec.traffic.router.tableTtl: 5s must be longer than decision.tick"),
        ("traffic.router", {"timeout": "0s"}, "spec.traffic.router.timeout: 0s is out of range; allowed is a duration"),
        ("traffic.router", {"timeout": "5s", "championTimeout": "1s"},
         "spec.traffic.router.championTimeout: 1s is shorter than timeout, which is 5s; allowed is at least that"),
        ("traffic.router", {"timeout": "1m"},
         "spec.traffic.router.championTimeout: its default of 30s is shorter than timeout, which is 1m; allowed is"),
        ("traffic.router", {"championTimeout": "999ms"},
         "spec.traffic.router.championTimeout: 999ms is shorter than timeout, which is 1s; allowed is at least that"),
        ("model", {"name": "m", "champion": 3, "challenger": "03"}, "spec.model.challenger: is '3' like the champion"),
        ("model", {"name": "m", "challenger": "v3"}, "spec.model.challenger: 'v3' is no alias, MLflow keeps it for it"),
        ("model", {"name": "m", "challenger": -1}, "spec.model.challenger: -1 is no version number"),
        ("model", {"name": "m", "challenger": 3.0}, "spec.model.challenger: 3.0 is neither; allowed is a version numb"),
        ("model", {"name": "a/b"}, "spec.model.name: 'a/b' is not allowed; allowed: the name of a registered model"),
        ("servers", {"champion": {"url": "http://a:1"}, "challenger": {"url": "http://A:1/"}},
         "spec.servers.challenger.url: http://A:1/ is the champion's server too"),
        ("servers", {"champion": {"url": "http://a:99999"}}, "spec.servers.champion: http://a:99999 has no host and p"),
        ("servers", {"champion": {"url": "http://\u00f6:80"}}, "spec.servers.champion: http://\u00f6:80 has no host"),
        ("servers", {"champion": {"url": "http://a:"}}, "spec.servers.champion: http://a: has no host and p"),
        ("servers", {"champion": {"url": "http://a..b:80"}}, "spec.servers.champion: http://a..b:80 has no host and p"),
        ("servers", {"champion": {"url": "ftp://a"}}, "spec.servers.champion.url: 'ftp://a' is not allowed; allowed:"),
    ],
)  # fmt: skip
def test_an_impossible_plan_is_refused_with_its_path(path: str, value: Any, said: str) -> None:
    found = refusals(changed(path, value))
    assert len(found) == 1, found
    assert found[0].startswith(said)


@pytest.mark.parametrize("kind", ["ErrorRate", "Latency"])
def test_superior_refuses_a_success_that_is_never_proven_better(kind: str) -> None:
    text = TEXT.replace("kind: ErrorRate, margin: 0.05pp", f"kind: {kind}, margin: 5%, role: Success")
    assert refusals(text) == []
    (said,) = refusals(text.replace("decision: {", "decision: {mode: Superior, "))
    assert said.startswith(f"spec.metrics[0].role (errors): kind {kind} is never proven better")


@pytest.mark.parametrize(
    "router", [{"timeout": "1m", "championTimeout": "60s"}, {"timeout": "30s"}, {"championTimeout": "1s"}]
)
def test_the_champion_may_have_as_long_as_the_challenger(router: dict[str, str]) -> None:
    assert refusals(changed("traffic.router", router)) == []


def test_infinities_and_what_is_no_number_are_refused_wherever_a_number_is_wanted() -> None:
    for name in (".inf", "-.inf", ".nan", "inf", "NaN"):
        (said,) = refusals(TEXT.replace("decision:", f"prediction: {{positive: {name}}}\n  decision:"))
        assert said.startswith("spec.prediction.positive: a number is needed")


@pytest.mark.parametrize("written", ["03", "'3'", "003"])
def test_a_version_has_one_spelling(written: str) -> None:
    model = parse(
        TEXT.replace("{name: ranking}\n  unit", f"{{name: ranking, challenger: {written}}}\n  unit")
    ).spec.model
    assert model.challenger == "3"


@pytest.mark.parametrize("cap", [500, "500", 0.5, "p99.9", "p0.5"])
def test_a_cap_may_be_a_number_or_a_quantile(cap: Any) -> None:
    assert refusals(changed("metrics.0", {**MEAN, "cap": cap})) == []


@pytest.mark.parametrize("margin", [0.00001, 1e-7, 5, 0.05])
def test_a_margin_that_is_a_small_number_is_read_as_that_number_again_and_again(margin: float) -> None:
    first = parse(changed("metrics.0", {**MEAN, "margin": margin}))
    again = parse(first.model_dump_json(by_alias=True, exclude_none=True))
    assert first.spec.metrics[0].margin == again.spec.metrics[0].margin
    assert again.spec.metrics[0].margin is not None
    assert again.spec.metrics[0].margin.value == margin


def test_one_server_for_both_is_right_where_both_are_the_same_version() -> None:
    servers = (
        "servers: {champion: {url: 'http://a:1'}, challenger: {url: 'http://a:1'}}\n  allowSameVersion: true\n  unit"
    )
    assert refusals(TEXT.replace("unit", servers, 1)) == []


def test_a_plan_without_time_is_refused() -> None:
    assert "spec.decision.maxDuration: 0s must not be shorter than decision.tick" in refusals(
        changed("decision.maxDuration", "0s")
    )


def test_all_faults_of_a_plan_are_said_at_once() -> None:
    text = TEXT.replace("hold: 1d", "hold: 20d").replace("minUnits: 2000", "minAge: 20d, block: 1s")
    assert [line.split(":")[0] for line in refusals(text)] == [
        "spec.decision.block",
        "spec.steps",
        "spec.decision.minAge",
    ]
