"""What the spec and MLflow's aliases name after the end of an attempt, and whom users get then."""

import itertools

from controller.core import endings
from controller.edges.cluster.requests import PREFIX
from controller.edges.cluster.resources import ROLLOUTS
from controller.edges.memory import MemorySource, MemoryTraffic, MemoryWorkloads
from controller.status import Progress, Replacement, RolloutStatus
from router.table import RouteTable
from tests.kubernetes.operating.theatre import STAY, Scene, Theatre, until

NEVER = 1 << 62  # µs


class Seen(MemoryTraffic):
    """Routers that remember every champion that they were given."""

    def __init__(self) -> None:
        super().__init__()
        self.champions: list[str] = []

    def apply(self, table: RouteTable) -> None:
        self.champions.append(table.champion.version)
        super().apply(table)


def promoted(theatre: Theatre, **model: str) -> RolloutStatus:
    """Version 2, by hand."""
    theatre.apply(steps=STAY, model={"name": "flights", **model})
    theatre.reaches(Progress.RUNNING)
    theatre.ask("promote")
    return theatre.reaches(Progress.PROMOTED)


def test_a_champion_named_by_number_does_not_come_back_after_its_challenger_has_won(theatre: Theatre) -> None:
    traffic = Seen()
    theatre.scenes[theatre.key()] = Scene(MemorySource(), traffic, MemoryWorkloads(), itertools.count(1))
    operator = theatre.operator()
    status = promoted(theatre, champion="1")
    assert status.replacement == Replacement(model="flights", named="1", version="2")
    assert "model.champion is 1: version 2 is champion in its place" in status.message
    theatre.rests(operator)
    (told,) = (e for e in theatre.events() if "is promoted" in e["note"])
    assert "model.champion is 1" in told["note"]
    theatre.registry.move("flights", "challenger", "3", "owner")
    status = theatre.reaches(Progress.RUNNING, step=1)
    assert status.attempt is not None
    assert (status.attempt.champion, status.attempt.challenger) == ("2", "3")
    assert sorted(traffic.champions) == traffic.champions, "users went back to the version that had lost"
    theatre.ask("promote")
    status = theatre.reaches(Progress.PROMOTED)
    assert status.replacement == Replacement(model="flights", named="1", version="3")


def test_another_champion_that_is_declared_after_the_promotion_is_meant(theatre: Theatre) -> None:
    operator = theatre.operator()
    promoted(theatre, champion="1")
    theatre.apply(steps=STAY, model={"name": "flights", "champion": "3"})
    until(lambda: theatre.status().replacement is None, "the replaced champion is forgotten")
    theatre.rests(operator)
    theatre.apply(steps=STAY, model={"name": "flights", "champion": "1"})
    theatre.rests(operator)
    assert theatre.status().replacement is None
    theatre.registry.move("flights", "challenger", "3", "owner")
    status = theatre.reaches(Progress.RUNNING, step=1)
    assert status.attempt is not None
    assert (status.attempt.champion, status.attempt.challenger) == ("1", "3")


def test_a_champion_that_is_moved_back_by_hand_after_the_promotion_is_told_once_and_moves_nobody(
    theatre: Theatre,
) -> None:
    operator = theatre.operator()
    before = promoted(theatre)
    theatre.rests(operator)
    for _ in range(2):
        theatre.registry.move("flights", "champion", "1", "owner")
        until(lambda: conditions(theatre)["Stalled"][:2] == ("True", "AliasMoved"), "the conditions tell it")
        assert "names version 1 now, and users are served by version 2" in conditions(theatre)["Ready"][2]
        assert (conditions(theatre)["Ready"][0], conditions(theatre)["Succeeded"][0]) == ("False", "True")
        theatre.rests(operator)
        status = theatre.status()
        assert status.table is not None
        assert (status.table.champion.version, status.sequence, status.end) == ("2", before.sequence, "Promoted")
        theatre.registry.move("flights", "champion", "2", "owner")
        until(lambda: conditions(theatre)["Ready"][:2] == ("True", "ByHand"), "the conditions tell the end again")
        assert conditions(theatre)["Stalled"][0] == "False"
        theatre.rests(operator)
    told = [e for e in theatre.events() if e["reason"] == "AliasMoved"]
    assert len(told) == 2, "not each move was told once"
    assert all("the champion was moved after the end" in e["note"] for e in told)


def test_the_next_attempt_begins_with_the_champion_that_was_named_by_hand(theatre: Theatre) -> None:
    operator = theatre.operator()
    promoted(theatre)
    theatre.registry.move("flights", "champion", "1", "owner")
    until(lambda: conditions(theatre)["Stalled"][1] == "AliasMoved", "the conditions tell it")
    theatre.rests(operator)
    theatre.registry.move("flights", "challenger", "3", "owner")
    status = theatre.reaches(Progress.RUNNING, step=1)
    assert status.attempt is not None
    assert (status.attempt.champion, status.attempt.challenger) == ("1", "3")
    assert conditions(theatre)["Stalled"][0] == "False"


def test_who_aborts_and_declares_another_model_in_one_update_moves_none_of_its_aliases(theatre: Theatre) -> None:
    theatre.model("others")
    theatre.operator(allow_models=[f"{theatre.namespace}=*"])
    theatre.apply(steps=STAY)
    theatre.reaches(Progress.RUNNING, step=1)
    server = theatre.scene("late").workloads.servers["challenger"]
    server.version, server.ready_at = None, NEVER  # weight 0 without a rollback, which then has to wait for nobody
    until(lambda: theatre.weight() == 0, "nobody is sent to the challenger")
    until(lambda: (s := theatre.status()) and endings.confirmed(s), "that is confirmed")
    asked = {f"{PREFIX}x": '{"verb":"abort","who":"ada","why":""}'}
    meta = {"namespace": theatre.namespace, "name": "late", "annotations": asked}
    model = {"name": "others", "champion": "other", "challenger": "champion"}
    theatre.access.patch(ROLLOUTS, {"metadata": meta, "spec": {"model": model}})
    until(lambda: theatre.registry.alias("flights", "challenger") is None, "what was on trial has lost its alias")
    until(lambda: theatre.status().progress is not Progress.ROLLING_BACK, "it is back")
    assert {(m.model, m.alias, m.version) for m in theatre.registry.moves if m.who != "owner"} == {
        ("flights", "challenger", None)
    }


def conditions(theatre: Theatre) -> dict[str, tuple[str, str, str]]:
    """Status, reason and message, by type."""
    return {c.type: (c.status, c.reason, c.message) for c in theatre.status().conditions}
