"""A rollout that is being deleted goes back or stays where it ended, and begins nothing any more."""

from controller.edges.cluster.resources import ROLLOUTS
from controller.status import Progress
from tests.kubernetes.operating.theatre import STAY, Theatre, until


def test_another_challenger_that_is_named_before_the_deletion_is_not_tried(theatre: Theatre) -> None:
    first = theatre.operator()
    theatre.apply()
    theatre.reaches(Progress.PROMOTED)
    theatre.rests(first)
    assert first.stop()  # as in an upgrade: nobody sees the one before the other
    theatre.registry.move("flights", "challenger", "3", "owner")
    theatre.access.delete(ROLLOUTS, theatre.namespace, "late")
    theatre.operator()
    until(theatre.gone, "it is gone")
    assert theatre.weight() == 0
    assert theatre.registry.alias("flights", "champion") == "2"
    assert theatre.registry.alias("flights", "challenger") == "3"


def test_a_plan_that_is_edited_before_the_deletion_is_not_tried(theatre: Theatre) -> None:
    first = theatre.operator()
    theatre.apply(steps=STAY)
    theatre.reaches(Progress.RUNNING, step=1)
    assert first.stop()
    theatre.apply()  # it would be promoted
    theatre.access.delete(ROLLOUTS, theatre.namespace, "late")
    theatre.operator()
    until(theatre.gone, "it is gone")
    assert theatre.weight() == 0
    assert theatre.registry.alias("flights", "champion") == "1"
