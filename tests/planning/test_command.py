"""``understudy plan``: what it prints, and what it refuses."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from controller.cli.group import understudy
from tests.planning.examples import CTR, ERRORS, GMV, LATENCY, document

BARE = CTR.replace(", baseline: {mean: 0.05}", "")
SHORT = ["--runs", "40", "--units-per-day", "500000"]
PRODUCT = """
apiVersion: understudy.dev/v1alpha1
kind: ModelRollout
metadata: {name: flight-delay}
spec:
  model: {name: flight-delay}
  unit: {header: x-unit-id}
  segments: [{name: carrier, feature: carrier, protected: true}]
  steps:
    - {mirror: 100, hold: 10m}
    - {weight: 1,  hold: 30m}
    - {weight: 5,  hold: 1h}
    - {weight: 25, hold: 1d}
    - {weight: 50, hold: 1d, approve: true}
  metrics:
    - {name: errors,  kind: ErrorRate, role: Guardrail, margin: 0.05pp}
    - {name: latency, kind: Latency,   role: Guardrail, margin: 10%}
    - {name: ctr,     kind: Proportion, outcome: click, window: 30m, role: Success, margin: 2%, harmMargin: 0%}
    - {name: gmv,     kind: Mean, outcome: purchase, window: 7d, role: Guardrail, margin: 5%, cap: p99.9}
    - {name: loss,    kind: LogLoss, outcome: late, window: 1d, role: Guardrail, margin: 5%}
"""


def run(folder: Path, text: str, *options: str) -> Result:
    path = folder / "rollout.yaml"
    path.write_text(text, encoding="utf-8")
    return CliRunner().invoke(understudy, ["plan", str(path), *options])


def test_json_has_every_metric_and_step_and_only_finite_numbers(tmp_path: Path) -> None:
    said = run(tmp_path, document(CTR, ERRORS, LATENCY), *SHORT, "--output", "json")
    assert said.exit_code == 0, said.output
    found = json.loads(said.stdout, parse_constant=pytest.fail)
    assert found["rollout"] == "planned"
    assert [m["metric"] for m in found["metrics"]] == ["ctr", "errors", "latency"]
    for metric in found["metrics"]:
        assert [s["step"] for s in metric["steps"]] == [1, 2, 3]
        assert all(s["units_to_prove_not_worse"] > 0 for s in metric["steps"])
        assert metric["gross_harm"]["units_exposed_mean"] <= metric["gross_harm"]["units_exposed_worst_twentieth"]
        assert metric["equal_challenger"]["proven"] <= 1
    assert [s["challenger_units"] for s in found["steps"]] == pytest.approx([25_000, 125_000, 250_000])
    assert [s["champion_units"] for s in found["steps"]] == pytest.approx([250_000] * 3)


def test_the_same_seed_gives_the_same_plan_and_another_seed_another(tmp_path: Path) -> None:
    plans = [run(tmp_path, document(CTR), *SHORT, "--seed", seed, "-o", "json").stdout for seed in ("1", "1", "2")]
    assert plans[0] == plans[1]
    assert json.loads(plans[0])["metrics"] != json.loads(plans[2])["metrics"]


def test_a_metric_has_the_same_figures_in_whatever_company(tmp_path: Path) -> None:
    """Each draws its own numbers; only the threshold of harm depends on how many there are."""
    alone = json.loads(run(tmp_path, document(CTR), *SHORT, "-o", "json").stdout)["metrics"][0]
    both = json.loads(run(tmp_path, document(ERRORS, CTR), *SHORT, "-o", "json").stdout)["metrics"][1]
    for a, b in zip(alone["steps"], both["steps"], strict=True):
        assert a["units_to_prove_not_worse"] == b["units_to_prove_not_worse"]
    assert both["log_e_harm_needed"] > alone["log_e_harm_needed"]


def test_text_says_units_days_exposure_and_warnings(tmp_path: Path) -> None:
    said = run(tmp_path, document(CTR, GMV), *SHORT)
    assert said.exit_code == 0, said.output
    for words in (
        "500,000 units a day",
        "ctr (Proportion, Guardrail)",
        "finds a harm of",
        "gross harm (−2.5 pp (50 %))",
        "units exposed on average",
        "in the worst twentieth",
        "AssumedSpread: gmv",
    ):
        assert words in said.stdout


def test_progress_goes_to_stderr_and_counts_to_the_end(tmp_path: Path) -> None:
    said = run(tmp_path, document(CTR), *SHORT)
    lines = [line for line in said.stderr.splitlines() if line.startswith("plan ")]
    assert lines[0].startswith("plan 0/4")
    assert lines[-1].startswith("plan 4/4")
    assert "plan 0/4" not in said.stdout


def test_without_traffic_it_still_says_units(tmp_path: Path) -> None:
    found = json.loads(run(tmp_path, document(CTR), "--runs", "40", "-o", "json").stdout)
    step = found["metrics"][0]["steps"][0]
    assert step["units_to_prove_not_worse"] > 1000
    assert step["days_to_prove_not_worse"] is None
    assert step["detectable_harm"] is None
    assert found["metrics"][0]["gross_harm"] is None
    assert found["most_exposed"] is None


def test_a_percentage_is_a_share(tmp_path: Path) -> None:
    plans = [run(tmp_path, document(BARE), *SHORT, "--base", f"ctr={v}", "-o", "json").stdout for v in ("5%", "0.05")]
    assert plans[0] == plans[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--base", "clicks=0.1"], "--base clicks=0.1: no Guardrail or Success is called 'clicks'; there is: ctr, gmv"),
        (["--base", "ctr"], "error: --base ctr: write METRIC=VALUE, such as clicks=0.05 or clicks=5%"),
        (["--base", "ctr=many"], "error: --base ctr=many: write METRIC=VALUE"),
        (["--base", "ctr=nan"], "error: --base ctr=nan: write METRIC=VALUE"),
        (["--base", "ctr=.1", "--base", "ctr=.2"], "error: --base ctr=.2: ctr is given twice"),
        (["--base", "ctr=1.5"], "--base ctr=1.5: ctr is of kind Proportion; allowed is a share above 0 and below 1"),
        (["--base", "gmv=0"], "error: --base gmv=0: gmv is of kind Mean; allowed is any number but 0"),
        (["--spread", "ctr=1"], "error: --spread ctr=1: ctr is of kind Proportion; its spread follows from its base"),
        (["--spread", "gmv=-1"], "--spread gmv=-1: gmv is of kind Mean; allowed is a standard deviation above 0"),
        (["--nonzero", "ctr=.1"], "ctr=0.1: ctr is of kind Proportion; only a Mean or a Ratio takes --nonzero"),
        (["--nonzero", "gmv=2"], "error: --nonzero gmv=2: gmv is of kind Mean; allowed is a share above 0 and up to 1"),
        (["--units-per-day", "0"], "error: --units-per-day: allowed is a number above 0"),
        (["--requests-per-unit", "-1"], "error: --requests-per-unit: allowed is a number above 0"),
        (["--runs", "3"], "error: --runs: allowed is 20 to 10000, got 3"),
        (["--seed", "-3"], "error: --seed: allowed is a whole number from 0, got -3"),
    ],
)  # fmt: skip
def test_an_option_that_cannot_be_is_named_with_what_is_allowed(
    tmp_path: Path, options: list[str], message: str
) -> None:
    said = run(tmp_path, document(BARE, GMV), *options)
    assert said.exit_code == 2
    assert message in said.stderr


def test_without_any_base_rate_it_says_which_to_give(tmp_path: Path) -> None:
    bare = GMV.replace(", baseline: {mean: 2}", "")
    said = run(tmp_path, document(BARE, bare))
    assert said.exit_code == 2
    assert "--base: ctr has no base rate; give --base ctr=VALUE (a share such as 0.05 or 5%)" in said.stderr
    assert "--base: gmv has no base rate; give --base gmv=VALUE (its mean per unit)" in said.stderr


def test_a_baseline_that_cannot_be_is_named(tmp_path: Path) -> None:
    said = run(tmp_path, document(CTR.replace("mean: 0.05", "mean: 1")))
    assert said.exit_code == 2
    assert "spec.metrics[0].baseline.mean (ctr): 1 cannot be; allowed is a share above 0 and below 1" in said.stderr


def test_a_whole_product_is_planned_and_names_what_cannot_gate(tmp_path: Path) -> None:
    said = run(
        tmp_path, PRODUCT, "--units-per-day", "1000000", "-o", "json",
        "--base", "errors=.1%", "--base", "ctr=5%", "--base", "gmv=2", "--base", "loss=.265",
    )  # fmt: skip
    assert said.exit_code == 0, said.output
    found = json.loads(said.stdout)
    warned = {(w["code"], w["metric"], w["step"]) for w in found["warnings"]}
    assert ("HeavyTail", "gmv", 2) in warned
    assert ("HoldTooShort", "gmv", 5) in warned
    assert ("MinUnits", None, 2) in warned
    assert {m["metric"] for m in found["metrics"]} == {"errors", "latency", "ctr", "gmv", "loss"}
