"""The campaign finds what it looks for: a history that is right has no breach, and each wrong one is told."""

import json
from typing import Any

import pytest

from controller.core.record import Record, digest
from controller.status import AliasMove, Attempt, Notice, Progress, RolloutStatus
from router.table import RouteTable, Source, Target
from tests.kubernetes.kill_leader import claims, fencing, moments
from tests.kubernetes.kill_leader.history import Move

LEASE_S = 3.0


def table(generation: int, champion: str, challenger: str | None = None, weight_bp: int = 0) -> RouteTable:
    return RouteTable(
        generation=generation,
        rollout="shop/prices",
        attempt=1,
        salt="salt",
        champion=Target(version=champion, upstreams=("10.0.0.1:80",)),
        challenger=challenger and Target(version=challenger, upstreams=("10.0.0.2:80",)),
        unit=Source(header="x-unit"),
        weight_bp=weight_bp,
    )


def status(sequence: int, progress: Progress, served: RouteTable, **more: Any) -> RolloutStatus:
    attempt = Attempt(number=1, champion="1", challenger="2", salt="salt", started_at=1)
    made = {"uid": "u", "attempts": 1, "attempt": attempt, "clock": 10 * sequence, **more}
    return RolloutStatus(sequence=sequence, progress=progress, table=served, **made)


NOTICE = Notice(key="u/1/2", title="promoting", text="")
PENDING = status(1, Progress.PENDING, table(1, "1"))
RUNNING = status(2, Progress.RUNNING, table(2, "1", "2", 1000))
PROMOTING = status(3, Progress.PROMOTING, table(3, "1", "2", 10_000), notices=(NOTICE,))
TOLD = PROMOTING.model_copy(update={"notices": ()})
PROMOTED = status(4, Progress.PROMOTED, table(4, "2"))
ALL = [PENDING, RUNNING, PROMOTING, TOLD, PROMOTED]
EXPECTED = {"2": Progress.PROMOTED}


def record(of: RolloutStatus, text: str = "") -> Record:
    return Record("u", 1, of.sequence, of.clock, "Hold", "Gate", text, "{}", text or digest(of))


def moved(version: str, generation: int, *serving: str) -> list[Move]:
    first = Move("champion", "1", frozenset(), {})
    return [first, Move("champion", version, frozenset(serving), {"router-0": generation})]


def test_a_rollout_without_a_fault_has_no_breach() -> None:
    disks = {"one": [record(RUNNING), record(PROMOTED)], "two": [record(PROMOTING)]}
    assert claims.in_order(ALL) == []
    assert claims.ended_once(ALL, EXPECTED) == []
    assert claims.recorded(ALL, disks, disks) == []
    assert claims.logged(ALL, [record(RUNNING), record(PROMOTING)]) == ([], 1)
    assert claims.aliases(moved("2", 3, "1", "2"), ALL, ["1", "2"]) == []
    assert claims.forward([("router-0", 1), ("router-1", -1), ("router-0", 4)], ALL) == []
    assert claims.told(ALL, ["event"], [NOTICE.key, NOTICE.key], kills=1) == []


@pytest.mark.parametrize(
    ("statuses", "said"),
    [
        ([RUNNING, PROMOTED], "decision 4 follows 2"),
        ([PROMOTING, RUNNING], "decision 2 follows 3"),
        ([RUNNING, status(3, Progress.RUNNING, table(2, "1", "2"), clock=5)], "the clock goes back in decision 3"),
        ([RUNNING, status(3, Progress.RUNNING, table(1, "1"))], "table 1 follows 2"),
        ([RUNNING, status(3, Progress.RUNNING, table(2, "1", "2"), attempts=3)], "attempt 3 follows 1"),
    ],
)
def test_memory_that_does_not_go_forward_is_a_breach(statuses: list[RolloutStatus], said: str) -> None:
    assert said in claims.in_order(statuses)


@pytest.mark.parametrize(
    "statuses",
    [
        [PENDING, RUNNING, PROMOTING],
        [PENDING, RUNNING, PROMOTING, PROMOTED, PROMOTING, PROMOTED],
        [PENDING, RUNNING, status(3, Progress.ROLLING_BACK, table(3, "1")), PROMOTED],
        [PENDING, RUNNING, PROMOTED],
    ],
)
def test_an_attempt_that_does_not_end_once_as_it_should_is_a_breach(statuses: list[RolloutStatus]) -> None:
    assert len(claims.ended_once(statuses, EXPECTED)) == 1


@pytest.mark.parametrize(
    ("disks", "said"),
    [
        ({"one": [record(PROMOTED)]}, "decision 3 is recorded on no disk"),
        ({"one": [record(PROMOTING), record(PROMOTED)], "two": [record(PROMOTED)]}, "is recorded on ['one', 'two']"),
        ({"one": [record(PROMOTING, "other"), record(PROMOTED)], "two": [record(PROMOTING)]}, "that was never made"),
    ],
)
def test_a_record_that_is_lost_doubled_or_made_up_is_a_breach(disks: dict[str, list[Record]], said: str) -> None:
    assert any(said in each for each in claims.recorded([RUNNING, PROMOTING, PROMOTED], disks, disks))


def test_a_decision_in_mlflow_that_was_never_made_is_a_breach() -> None:
    assert claims.logged(ALL, [record(PROMOTING, "other")])[0] == ["MLflow has a decision 3 that was never made"]


@pytest.mark.parametrize(
    ("moves", "said"),
    [
        (moved("2", 3, "1"), "the alias was moved to version 2, which nobody serves"),
        (moved("2", 2, "1", "2"), "the alias was moved to 2 while router-0 sent users to ['1', '2']"),
        (moved("3", 3, "3"), "the alias was moved to ['1', '3'], not to ['1', '2']"),
    ],
)
def test_an_alias_that_names_what_does_not_serve_everybody_is_a_breach(moves: list[Move], said: str) -> None:
    assert said in claims.aliases(moves, ALL, ["1", "2"])


def test_a_router_that_goes_back_or_ahead_is_a_breach() -> None:
    assert claims.forward([("a", 3), ("b", 2), ("a", 2)], ALL) == ["a went back from table 3 to 2"]
    assert claims.forward([("a", 9)], ALL) == ["a has table 9, which nobody has committed"]


@pytest.mark.parametrize(
    ("events", "lines", "said"),
    [
        ([], [NOTICE.key], "1 notices were due, and there are 0 Events"),
        (["event"], [], "nobody was told: promoting"),
        (["event", "event"], [NOTICE.key], "the Event event is there 2 times"),
        (["event"], [NOTICE.key, "u/9/9"], "told, and never due: u/9/9"),
        (["event"], [NOTICE.key] * 2, "1 lines of the log are repeats, after 0 kills"),
    ],
)
def test_news_that_are_lost_or_told_twice_are_a_breach(events: list[str], lines: list[str], said: str) -> None:
    assert said in claims.told(ALL, events, lines, kills=0)


def line(at: float, credential: str, verb: str, resource: str, code: int = 200, subresource: str = "") -> bytes:
    """Of an audit log; ``at``: seconds after noon."""
    return json.dumps(
        {
            "verb": verb,
            "user": {"extra": {fencing.CREDENTIAL: [credential]}},
            "objectRef": {"resource": resource, "subresource": subresource},
            "requestURI": f"/apis/{resource}",
            "responseStatus": {"code": code},
            "requestReceivedTimestamp": f"2026-01-01T12:00:{at:09.6f}Z",
        }
    ).encode()


def test_writes_of_who_holds_the_lease_are_no_breach_and_an_interregnum_is_measured() -> None:
    made = fencing.calls(
        [
            line(1.0, "a", "create", "leases"),
            line(1.1, "b", "update", "leases", 409),
            line(1.2, "a", "update", "modelrollouts", subresource="status"),
            line(1.3, "b", "list", "pods"),
            line(5.0, "b", "update", "leases"),
            line(5.1, "b", "patch", "deployments"),
            line(5.2, "a", "create", "selfsubjectreviews"),
            b'{"torn',
        ]
    )
    assert [call.what for call in made if call.credential == "a"][1] == "modelrollouts/status"
    assert fencing.fenced(made, LEASE_S) == []
    kept = fencing.terms(made)
    noon = made[0].at - 1.0
    assert (fencing.led(kept, noon + 4.0), fencing.led(kept, noon)) == ("a", None)
    assert fencing.interregnum(kept, noon + 2.0, "a") == pytest.approx(3.0)
    assert fencing.interregnum(kept, noon + 6.0, "b") is None


def test_a_write_of_who_has_lost_the_lease_or_never_had_it_is_a_breach() -> None:
    lost = [
        line(1.0, "a", "create", "leases"),
        line(2.0, "b", "update", "leases"),
        line(2.1, "a", "update", "modelrollouts", 409),
    ]
    late = [line(1.0, "a", "create", "leases"), line(4.1, "a", "patch", "deployments")]
    assert "the Lease is of b" in fencing.fenced(fencing.calls(lost), LEASE_S)[0]
    assert "its lease was over 0.100 s ago" in fencing.fenced(fencing.calls(late), LEASE_S)[0]
    assert "the Lease is of None" in fencing.fenced(fencing.calls(late[1:]), LEASE_S)[0]


def test_every_moment_of_a_rollout_is_aimed_at_and_called_by_its_name() -> None:
    announced = PROMOTING.model_copy(update={"alias_moves": (AliasMove(alias="champion", version="2", was="1"),)})
    hit = {moment.name for each in [*ALL, announced] for moment in moments.GOOD if moment.holds(each)}
    assert hit == {moment.name for moment in moments.GOOD}
    assert moments.stands(announced) == "Promoting, moving aliases"
    assert moments.stands(RUNNING) == "Running, step 0, a table under way"
    assert moments.stands(None) == "before the first tick"
