"""The long campaigns of the Makefile, short: they run, and what they claim holds for as long as they last."""

from pathlib import Path

from tests.router.bad_challengers import misbehave
from tests.router.shares import shares
from tests.router.soak.run import soak
from tests.router.table_changes import change


def test_under_faults_and_table_changes_every_answer_has_its_exposure_and_nothing_grows(tmp_path: Path) -> None:
    # That there was load enough is among its own claims.
    assert soak(tmp_path, 16, 200)["failures"] == []


def test_weights_change_under_load_and_no_request_meets_an_older_table(tmp_path: Path) -> None:
    found = change(tmp_path, 50)
    assert found["failures"] == {}
    assert found["generations_met"] > 25
    assert found["requests"] > 500


def test_users_meet_the_challenger_as_assigned_also_after_a_restart_and_on_a_second_router(tmp_path: Path) -> None:
    found = shares(tmp_path, 4_000)
    assert found["failures"] == []


def test_a_challenger_that_drips_costs_no_user_an_answer(tmp_path: Path) -> None:
    found = misbehave(tmp_path, "slow", 2_000)
    assert found["failures"] == {}
    assert found["fallbacks"]["Timeout"] > 0
