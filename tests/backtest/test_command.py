"""`understudy backtest` as people call it."""

import json
from pathlib import Path

import pytest

from tests.backtest.logs import HEAD, PLAN, World, drawn, write
from tests.cli.states import understudy


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("log")
    exposures, outcomes = write(folder, drawn(World(challenger=0, stretches=((50, 4, 600),))))
    (folder / "rollout.yaml").write_text(HEAD + PLAN)
    return ["backtest", str(folder / "rollout.yaml"), "--exposures", str(exposures), "--outcomes", str(outcomes)]


def test_the_json_has_result_reason_metric_evidence_and_decisions_with_finite_numbers(asked: list[str]) -> None:
    outcome = understudy(*asked, "--output", "json", "--tick", "60s")
    assert outcome.returncode == 0, outcome.stderr
    said = json.loads(outcome.stdout)
    assert (said["result"], said["reason"], said["metric"]) == ("RolledBack", "OutcomeHarm", "ctr")
    assert said["decisions"][-1]["decision"] == "RollBack"
    keys = {"metric", "estimate", "se", "lower", "upper", "log_e_harm", "log_e_non_inferior", "log_e_superior", "units"}
    assert all(keys <= e.keys() for e in said["evidence"])
    assert "Infinity" not in outcome.stdout
    assert "NaN" not in outcome.stdout


def test_the_text_names_the_result_and_every_metric(asked: list[str]) -> None:
    lines = understudy(*asked, "--stop-at-decision").stdout.splitlines()
    assert lines[0].startswith("RolledBack (OutcomeHarm by ctr) at 2023-11-14T")
    assert any(line.startswith("ctr ") and "Worse" in line for line in lines)
    assert lines[-1].endswith("RollBack OutcomeHarm ctr")


def test_a_result_that_was_not_expected_ends_with_1(asked: list[str]) -> None:
    assert understudy(*asked, "--expect", "RolledBack", "--stop-at-decision").returncode == 0
    assert understudy(*asked, "--expect", "Promoted", "--stop-at-decision").returncode == 1


@pytest.mark.parametrize(
    ("more", "text"),
    [
        (["--tick", "soon"], "'soon' is not a duration"),
        (["--tick", "0s"], "must be 1ms or longer"),
        (["--journals", "x"], "leave SPEC and the log out"),
    ],
)
def test_what_does_not_fit_together_is_bad_usage(asked: list[str], more: list[str], text: str) -> None:
    outcome = understudy(*asked, *more)
    assert outcome.returncode == 2
    assert text in outcome.stderr


def test_a_fault_in_a_file_is_a_line_and_no_trace(asked: list[str], tmp_path: Path) -> None:
    (tmp_path / "exposures.csv").write_text("unit,arm,ts,weight,status\na,champion,soon,50,200\n")
    outcome = understudy(*asked[:2], "--exposures", str(tmp_path / "exposures.csv"), *asked[4:])
    assert outcome.returncode == 2
    assert "row 1, column ts: 'soon'" in outcome.stderr
    assert outcome.stderr.count("\n") == 1


def test_without_a_log_it_says_what_is_needed() -> None:
    outcome = understudy("backtest")
    assert outcome.returncode == 2
    assert "SPEC, --exposures and --outcomes are needed" in outcome.stderr


def test_a_spec_that_cannot_be_judged_yet_is_refused(asked: list[str], tmp_path: Path) -> None:
    path = tmp_path / "rollout.yaml"
    path.write_text(HEAD + PLAN.replace("kind: Proportion", "kind: Drift").replace("goal: Increase, ", ""))
    outcome = understudy("backtest", str(path), *asked[2:])
    assert outcome.returncode == 2
    assert "Drift is not supported yet" in outcome.stderr
