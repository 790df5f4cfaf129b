"""The watch is broken off for so long that the server has forgotten where it stood, while all else works."""

import pytest

from controller.edges.cluster.resources import ROLLOUTS
from controller.status import Progress, Reason
from tests.kubernetes.control_plane import ControlPlane
from tests.kubernetes.operating.theatre import SPEC, STAY, Theatre, until


@pytest.mark.timeout(240)
def test_what_changed_while_no_watch_held_is_seen_and_the_rollout_at_work_goes_on(
    theatre: Theatre, control_plane: ControlPlane
) -> None:
    for name in ("ended", "leaves", "new"):
        theatre.model(name)
    operator = theatre.operator(idle_s=3600)
    for name in ("ended", "leaves"):
        theatre.apply(name, model={"name": name})
        theatre.reaches(Progress.PROMOTED, name)
        theatre.rests(operator, name)  # a pass that fails to write is made again, and reads what changed
    theatre.apply(steps=STAY)
    before = theatre.reaches(Progress.RUNNING, step=1)
    until(lambda: theatre.weight() == 5000, "the weight of the step is served")
    theatre.deaf.set()
    with control_plane.down():
        pass
    until(operator.leader.leads, "it leads again")
    lists, clock = operator.watched.lists, theatre.status().clock
    until(lambda: theatre.status().clock > clock, "it goes on looking")
    theatre.apply("new", model={"name": "new"}, steps=STAY)
    theatre.apply("ended", model={"name": "ended"}, decision={"tick": "10m", "block": "1m"})
    theatre.access.delete(ROLLOUTS, theatre.namespace, "leaves")
    theatre.apply(steps=STAY, decision={**SPEC["decision"], "minUnits": 7})
    until(lambda: theatre.status().generation == 2, "of what it writes itself it sees the edit")
    with control_plane.down():  # what it begins with is younger than where the watch stood
        pass
    until(operator.leader.leads, "it leads again")
    clock = theatre.status().clock
    until(lambda: theatre.status().clock > clock, "it goes on looking")
    assert operator.watched.lists == lists
    assert theatre.key("new") not in operator.watched.known()
    assert not theatre.gone("leaves")
    theatre.deaf.clear()
    theatre.reaches(Progress.RUNNING, "new")
    assert operator.watched.lists == lists + 1  # the server no longer knew where it stood
    until(lambda: {c.type: c.reason for c in theatre.status("ended").conditions}["Stalled"] == "InvalidSpec", "refused")
    until(lambda: theatre.gone("leaves"), "it is let go")
    status = theatre.status()
    assert (status.progress, status.step, status.attempt) == (Progress.RUNNING, 1, before.attempt)
    status = theatre.reaches(Progress.ROLLED_BACK, errors=0.6, requests=200)
    assert status.reason in (Reason.SERVICE_HARM, Reason.CHALLENGER_UNAVAILABLE)
    assert theatre.weight() == 0
