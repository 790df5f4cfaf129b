"""A rollout goes by what the query of all aliases said, where it asks for what that was about."""

import time
from typing import Any

import orjson
import pytest

from controller.edges.showing import ShowingRegistry
from controller.errors import EdgeError
from controller.operator.aliases import Known, Unmoved, registry_for
from controller.ports import ResolvedVersion
from controller.status import Progress
from tests.kubernetes.operating.theatre import Theatre, until


def test_what_an_edit_names_in_the_middle_of_a_pass_is_looked_up(theatre: Theatre) -> None:
    """A pass reads the rollout before it knows what stands for the registry, and again to tick it."""
    operator = theatre.operator()
    theatre.apply()
    theatre.reaches(Progress.PROMOTED)
    theatre.rests(operator)
    operator.stop()
    registry = theatre.registry
    known = registry_for(
        operator.watched.get(theatre.key()), ShowingRegistry(registry), Known(registry.all_aliases(), 0.0), 1
    )
    assert isinstance(known, Unmoved)
    theatre.model("others", challenger="3")
    registry.move("flights", "stable", "1", "owner")
    asked = registry.asked
    found = [known.resolve("flights", "champion"), known.resolve("flights", "challenger")]
    assert found == [ResolvedVersion("2", "models:/flights/2", True), None]
    assert registry.asked == asked
    assert known.resolve("others", "champion") == ResolvedVersion("1", "models:/others/1", True)
    assert known.resolve("others", "challenger") == ResolvedVersion("3", "models:/others/3", True)
    assert known.resolve("flights", "stable") == ResolvedVersion("1", "models:/flights/1", True)


LONG = [{"weight": 50, "hold": "1h"}]
SLOW = {"tick": "1s", "grace": "0s", "minUnits": 5}  # slower than all aliases are asked for


def three_ticks(theatre: Theatre) -> None:
    clocks = set[int]()

    def done() -> bool:
        clocks.add(theatre.status().clock)
        return len(clocks) > 3

    until(done, "three ticks")


def test_one_on_its_way_asks_the_registry_nothing_by_itself(theatre: Theatre) -> None:
    theatre.operator()
    theatre.apply(steps=LONG, decision=SLOW)
    theatre.reaches(Progress.RUNNING, step=0)

    def silent() -> bool:
        before = theatre.registry.asked
        three_ticks(theatre)
        return theatre.registry.asked == before

    until(silent, "ticks without a question")
    theatre.registry.move("flights", "challenger", "3", "owner")
    until(lambda: theatre.status().attempts == 2, "the next attempt")
    attempt = theatre.status().attempt
    assert attempt is not None
    assert attempt.challenger == "3"


def test_a_challenger_that_could_not_be_looked_up_when_it_was_told_of_is_met_when_the_registry_answers(
    theatre: Theatre, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All aliases are compared with those of before: of one that moved nobody tells twice."""
    monkeypatch.setattr("controller.operator.passes.ASK_AGAIN_S", 0.2)
    operator = theatre.operator(idle_s=3600)
    theatre.apply()
    theatre.reaches(Progress.PROMOTED)
    theatre.rests(operator)
    theatre.registry.defect = EdgeError("away")
    theatre.registry.move("flights", "challenger", "3", "owner")
    until(lambda: theatre.status().observed.registry_error, "it could not be looked up")
    theatre.registry.defect = None
    until(lambda: theatre.status().attempts == 2, "the next attempt")


@pytest.mark.parametrize("version", [1, "1"])
def test_a_version_may_be_a_number_of_yaml(theatre: Theatre, version: int | str) -> None:
    """It is looked up, on the way and when it is over."""
    theatre.operator()
    theatre.apply(steps=LONG, decision=SLOW, model={"name": "flights", "champion": version})
    theatre.reaches(Progress.RUNNING, step=0)
    three_ticks(theatre)
    theatre.ask("abort")
    theatre.reaches(Progress.ROLLED_BACK)
    theatre.registry.move("flights", "challenger", "3", "owner")
    until(lambda: theatre.status().attempts == 2, "the next attempt")


RUNNING = {"progress": "Running"}


@pytest.mark.parametrize(
    ("status", "age_s", "tick_s", "asks"),
    [
        (RUNNING, 0.0, 2, False),
        (RUNNING, 6.0, 2, False),
        (RUNNING, 9.0, 2, True),
        (RUNNING, 110.0, 60, False),
        (RUNNING, 130.0, 60, True),
        ({**RUNNING, "aliasStrange": 1}, 0.0, 2, True),
        ({"progress": "Promoting"}, 0.0, 2, True),
        ({"progress": "Pending"}, 0.0, 2, True),
    ],
)
def test_what_is_known_counts_for_some_ticks_and_not_while_an_alias_is_moved(
    theatre: Theatre, status: dict[str, Any], age_s: float, tick_s: int, asks: bool
) -> None:
    operator = theatre.operator()
    theatre.apply(steps=LONG)
    theatre.reaches(Progress.RUNNING, step=0)
    operator.stop()
    entry, named = operator.watched.get(theatre.key()), theatre.registry.all_aliases()
    tree, shown = entry.object, ShowingRegistry(theatre.registry)
    tree["status"] |= status
    entry = entry._replace(body=orjson.dumps(tree))
    taken = registry_for(entry, shown, Known(named, time.monotonic() - age_s), tick_s * 1_000_000)
    assert (taken is shown) == asks
