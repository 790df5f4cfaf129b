"""The long campaigns of the Makefile, short: they run, and what they claim holds for as long as they last."""

import subprocess
import sys
from pathlib import Path

import psutil

from tests.router.bad_challengers import misbehave
from tests.router.raw import await_until
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


def test_a_campaign_that_is_stopped_leaves_no_process_behind() -> None:
    command = [sys.executable, "-m", "tests.router.soak", "--seconds", "600", "--rate", "20"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as campaign:
        of_it = psutil.Process(campaign.pid)
        # Two servers, the router, and its two workers.
        await_until(lambda: len(of_it.children(recursive=True)) >= 5, 60)
        processes = of_it.children(recursive=True)
        campaign.terminate()
        campaign.communicate(timeout=60)
    _, left = psutil.wait_procs(processes, timeout=30)
    assert left == []
