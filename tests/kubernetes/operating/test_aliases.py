"""A rollout goes by what the query of all aliases said, where it asks for what that was about."""

import time

import orjson
import pytest

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
    known = registry_for(operator.watched.get(theatre.key()), registry, Known(registry.all_aliases(), 0.0))
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


def test_one_on_its_way_asks_the_registry_nothing_by_itself(theatre: Theatre) -> None:
    theatre.operator()
    theatre.apply(steps=LONG)
    theatre.reaches(Progress.RUNNING, step=0)

    def three_ticks() -> int:
        """How often it looked up a name in them."""
        before, clocks = theatre.registry.asked, set[int]()
        until(lambda: len(clocks.add(theatre.status().clock) or clocks) > 3, "three ticks")
        return theatre.registry.asked - before

    until(lambda: three_ticks() == 0, "ticks without a question")
    theatre.registry.move("flights", "challenger", "3", "owner")
    until(lambda: theatre.status().attempts == 2, "the next attempt")
    attempt = theatre.status().attempt
    assert attempt is not None
    assert attempt.challenger == "3"


@pytest.mark.parametrize(
    ("progress", "age_s", "asks"),
    [("Running", 0.0, False), ("Running", 60.0, True), ("Promoting", 0.0, True), ("Pending", 0.0, True)],
)
def test_what_is_known_counts_for_a_short_time_and_not_while_an_alias_is_moved(
    theatre: Theatre, progress: str, age_s: float, asks: bool
) -> None:
    operator = theatre.operator()
    theatre.apply(steps=LONG)
    theatre.reaches(Progress.RUNNING, step=0)
    operator.stop()
    entry, known = operator.watched.get(theatre.key()), theatre.registry.all_aliases()
    tree = entry.object
    tree["status"]["progress"] = progress
    entry = entry._replace(body=orjson.dumps(tree))
    taken = registry_for(entry, theatre.registry, Known(known, time.monotonic() - age_s))
    assert (taken is theatre.registry) == asks
