"""What people ask for waits in the store, with who and why, and the next tick obeys it once."""

from pathlib import Path

import pytest

from controller.core.fold import EMPTY
from controller.status import Progress, Reason
from tests.cli.states import MINUTE, answer, begun, go_on, rolled_back, understudy

VERBS = ["approve", "pause", "resume", "abort", "promote"]


@pytest.mark.parametrize("verb", VERBS)
def test_a_request_is_stored_with_who_and_why(tmp_path: Path, verb: str) -> None:
    store = begun(tmp_path)
    outcome = understudy(verb, "late", "--why", "release freeze", "--who", "ada", "--state-dir", str(tmp_path))
    assert (outcome.returncode, outcome.stderr) == (0, "")
    (request,) = store.load("late").requests
    assert (request.verb, request.who, request.why) == (verb, "ada", "release freeze")
    assert request.at > 0


def test_what_a_terminal_cannot_encode_does_not_lose_the_request(tmp_path: Path) -> None:
    store = begun(tmp_path)
    outcome = understudy("abort", "late", "--why", b"caf\xe9", "--who", b"z\xf6e", "--state-dir", str(tmp_path))
    assert (outcome.returncode, outcome.stderr) == (0, "")
    (request,) = store.load("late").requests
    assert (request.who, request.why) == ("z\ufffde", "caf\ufffd")


def test_with_one_rollout_the_name_may_be_left_out_and_json_names_the_request(tmp_path: Path) -> None:
    store = begun(tmp_path)
    said = answer(understudy("pause", "--state-dir", str(tmp_path), "--output", "json"))
    (request,) = store.load("late").requests
    assert said == {"rollout": "late", "request": request.id, "verb": "pause"}


def test_the_next_tick_obeys_in_order_and_once(tmp_path: Path) -> None:
    store = begun(tmp_path)
    for verb in ("pause", "resume", "pause"):
        understudy(verb, "--why", "wait", "--who", "ada", "--state-dir", str(tmp_path))
    go_on(store, "late", EMPTY, 3 * MINUTE)
    stored = store.load("late")
    assert stored.status.paused
    assert stored.requests == ()
    assert len(stored.status.handled) == 3


def test_an_abort_rolls_the_rollout_back_by_name_of_who_asked(tmp_path: Path) -> None:
    store = begun(tmp_path)
    understudy("abort", "--who", "ada", "--why", "wrong model", "--state-dir", str(tmp_path))
    go_on(store, "late", EMPTY, 3 * MINUTE)
    status = store.load("late").status
    assert (status.progress, status.reason) == (Progress.ROLLING_BACK, Reason.ABORTED)
    assert "ada" in status.message
    assert "wrong model" in status.message


@pytest.mark.parametrize("verb", VERBS)
def test_a_rollout_that_is_over_takes_no_requests(tmp_path: Path, verb: str) -> None:
    store = rolled_back(tmp_path)
    outcome = understudy(verb, "--state-dir", str(tmp_path))
    assert outcome.returncode == 2
    assert outcome.stderr == f"error: ROLLOUT: late is over (RolledBack); nothing is left to {verb}\n"
    assert store.load("late").requests == ()
