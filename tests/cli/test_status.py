"""`status` says where a rollout stands, and watches it until it is over."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from controller.edges.store import SqliteStore
from controller.embedded.view import line
from controller.loop import silence
from controller.status import Progress, Reason
from tests.cli.states import MINUTE, ROOT, answer, begun, declared, go_on, harmed, rolled_back, understudy
from tests.decide.rollouts import fresh, rollout


def test_status_says_step_weight_decision_and_why(tmp_path: Path) -> None:
    begun(tmp_path).close()
    outcome = understudy("status", "--state-dir", str(tmp_path))
    assert outcome.returncode == 0
    said = {line[:12].strip(): line[14:] for line in outcome.stdout.splitlines()}
    assert (said["rollout"], said["progress"], said["step"]) == ("late", "Running", "1 of 2")
    assert (said["weight"], said["decision"], said["reason"]) == ("10.0", "Hold", "HoldTime")
    assert "s of the hold are left" in said["message"]


def test_status_says_where_it_is_old_because_ticks_fail(tmp_path: Path) -> None:
    store = begun(tmp_path)
    old = answer(understudy("status", "late", "--state-dir", str(tmp_path), "-o", "json"))
    assert old["stale"].startswith("no tick since 1970-01-01T00:0")
    text = understudy("status", "--state-dir", str(tmp_path)).stdout
    assert "stale  no tick since 1970" in text
    stored = store.load("late")
    assert line(stored.rollout, stored.status, {}, old["stale"]).startswith("no tick since 1970")
    now = stored.status.model_copy(update={"clock": time.time_ns() // 1000})
    store.commit("late", now, stored.version, None)
    store.close()
    assert "stale" not in understudy("status", "--state-dir", str(tmp_path)).stdout


def test_a_tick_is_missed_after_four_and_half_a_minute_at_least_and_never_at_the_end() -> None:
    spec, status = rollout(decision={"tick": "60s", "block": "60s"}).spec, fresh().model_copy(update={"clock": MINUTE})
    assert silence(spec, status, 5 * MINUTE) == ""
    assert silence(spec, status, 5 * MINUTE + 1) == "no tick since 1970-01-01T00:01:00+00:00: this is old"
    quick = rollout(decision={"tick": "1s", "block": "1s"}).spec
    assert silence(quick, status, MINUTE + 30_000_000) == ""
    assert silence(quick, status, MINUTE + 30_000_001)
    over = status.model_copy(update={"progress": Progress.ROLLED_BACK})
    assert silence(quick, over, 10**15) == ""
    assert silence(quick, status.model_copy(update={"clock": 0}), 10**15) == ""


def test_status_as_json_has_the_summary_and_the_whole_status(tmp_path: Path) -> None:
    store = rolled_back(tmp_path)
    status = store.load("late").status
    store.close()
    said = answer(understudy("status", "late", "--state-dir", str(tmp_path), "--output", "json"))
    assert (said["progress"], said["weight"], said["reason"]) == ("RolledBack", 0.0, "ServiceHarm")
    assert said["status"] == status.model_dump(mode="json", by_alias=True)


def test_the_folder_may_come_from_the_environment(tmp_path: Path) -> None:
    begun(tmp_path).close()
    outcome = understudy("status", UNDERSTUDY_STATE_DIR=str(tmp_path))
    assert "late" in outcome.stdout


def test_without_a_name_several_rollouts_get_a_line_each(tmp_path: Path) -> None:
    begun(tmp_path).close()
    begun(tmp_path, "early").close()
    outcome = understudy("status", "--state-dir", str(tmp_path))
    assert outcome.stdout.splitlines() == [
        "early: Running, weight 10 %, HoldTime",
        "late: Running, weight 10 %, HoldTime",
    ]
    listed = answer(understudy("status", "--state-dir", str(tmp_path), "-o", "json"))
    assert [r["rollout"] for r in listed["rollouts"]] == ["early", "late"]


def test_while_a_baseline_is_measured_people_read_that_and_programs_the_reason(tmp_path: Path) -> None:
    store = begun(tmp_path)
    stored = store.load("late")
    waiting = {"reason": Reason.NO_DATA, "metric": "ctr", "message": "ctr has no data yet", "baselines": {}}
    store.commit("late", stored.status.model_copy(update=waiting), stored.version, None)
    store.close()
    text = understudy("status", "--state-dir", str(tmp_path)).stdout
    assert "message  measuring the baseline of ctr" in text
    assert "NoData" not in text
    assert answer(understudy("status", "--state-dir", str(tmp_path), "-o", "json"))["reason"] == "NoData"
    said = line(declared("late"), stored.status.model_copy(update=waiting), {})
    assert said.endswith("Hold · measuring the baseline of ctr")
    counted = {**waiting, "message": "ctr has no data yet: its baseline has 7 of 10 blocks"}
    said = line(declared("late"), stored.status.model_copy(update=counted), {})
    assert said.endswith("Hold · measuring the baseline of ctr: 7 of 10 blocks")
    known = line(
        declared("late"), stored.status.model_copy(update={**waiting, "baselines": stored.status.baselines}), {}
    )
    assert known.endswith("Hold NoData · ctr has no data yet")


def test_a_rollout_nobody_has_ticked_yet_has_a_status(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "rollouts.sqlite")
    store.put(declared("late"))
    store.close()
    said = answer(understudy("status", "--state-dir", str(tmp_path), "-o", "json"))
    assert (said["rollout"], said["progress"], said["step"], said["weight"]) == ("late", "Pending", None, 0.0)


@pytest.mark.parametrize("command", ["status", "explain", "pause"])
def test_an_unknown_rollout_names_those_that_exist(tmp_path: Path, command: str) -> None:
    begun(tmp_path).close()
    begun(tmp_path, "early").close()
    outcome = understudy(command, "nobody", "--state-dir", str(tmp_path))
    assert outcome.returncode == 2
    assert outcome.stderr == "error: ROLLOUT: there is no rollout 'nobody'; there is: early, late\n"


@pytest.mark.parametrize("command", ["explain", "abort"])
def test_with_several_rollouts_one_has_to_be_named(tmp_path: Path, command: str) -> None:
    begun(tmp_path).close()
    begun(tmp_path, "early").close()
    outcome = understudy(command, "--state-dir", str(tmp_path))
    assert outcome.returncode == 2
    assert outcome.stderr == "error: ROLLOUT: say which one; there is: early, late\n"


def test_watching_shows_each_change_and_ends_with_the_rollout(tmp_path: Path) -> None:
    store = begun(tmp_path)
    statistics = harmed(store)
    watch = subprocess.Popen(
        [sys.executable, "-m", "controller", "status", "--watch", "--state-dir", str(tmp_path)],
        cwd=ROOT, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert watch.stdout is not None
        assert watch.stdout.readline().split() == ["rollout", "late"]  # it has seen the first state
        for minute in range(3, 8):
            go_on(store, "late", statistics, minute * MINUTE)
        rest = watch.stdout.read()  # communicate() would lose what readline() has buffered
        assert watch.wait(timeout=60) == 0
    finally:
        watch.kill()
    assert rest.count("progress") >= 2
    assert rest.rindex("RolledBack") > rest.index("Running")
