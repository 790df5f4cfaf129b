"""A rollout that is over goes by what the query of all aliases said, where it asks for what that was about."""

from controller.operator.aliases import Unmoved, registry_for
from controller.ports import ResolvedVersion
from controller.status import Progress
from tests.kubernetes.operating.theatre import Theatre


def test_what_an_edit_names_in_the_middle_of_a_pass_is_looked_up(theatre: Theatre) -> None:
    """A pass reads the rollout before it knows what stands for the registry, and again to tick it."""
    operator = theatre.operator()
    theatre.apply()
    theatre.reaches(Progress.PROMOTED)
    theatre.rests(operator)
    operator.stop()
    registry = theatre.registry
    known = registry_for(operator.watched.get(theatre.key()), registry, registry.all_aliases())
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
