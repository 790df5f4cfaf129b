"""What happens to clusters happens to a rollout in the middle, and it ends as it should."""

import os
import shutil
import signal
import threading
import time
from pathlib import Path

import pytest

from controller.edges.cluster.resources import ROLLOUTS
from controller.edges.cluster.watch import FIRST_PAUSE_S, LONGEST_PAUSE_S
from controller.edges.memory import MemoryTraffic
from controller.errors import EdgeError
from controller.ports import TrafficObservation
from controller.status import Progress, Reason
from tests.kubernetes.control_plane import ControlPlane
from tests.kubernetes.operating.theatre import LEASE_S, NAMESPACES, SPEC, STAY, Theatre, gone, until

TRIES = next(n for n in range(1, 99) if FIRST_PAUSE_S * 2 ** (n - 1) >= LONGEST_PAUSE_S)  # until a pause is the longest


def test_a_leader_that_is_cut_off_is_followed_by_another_and_decides_nothing_any_more(theatre: Theatre) -> None:
    one = theatre.operator()
    theatre.apply(steps=STAY)
    theatre.reaches(Progress.RUNNING)
    two = theatre.operator()
    theatre.lines[one].set()
    until(two.leader.leads, "the other leads", within=4 * LEASE_S)
    assert not one.leader.leads()
    theatre.reaches(Progress.RUNNING, step=1)
    theatre.ask("promote")
    theatre.lines[one].clear()
    theatre.reaches(Progress.PROMOTED)
    assert not one.leader.leads()
    until(one.watched.synced.is_set, "the old one listens again")
    assert [(m.alias, m.version, m.who) for m in theatre.registry.moves[2:]] == [
        ("champion", "2", "controller"),
        ("challenger", None, "controller"),
    ]


class Gate(MemoryTraffic):
    """A call to the routers that takes until a test lets it go on."""

    def __init__(self) -> None:
        super().__init__()
        self.shut, self.waiting, self.go_on = False, threading.Event(), threading.Event()
        self.applied: list[int] = []

    def observe(self) -> TrafficObservation:
        if self.shut:
            self.shut = False
            self.waiting.set()
            assert self.go_on.wait(30)
        return super().observe()


def test_a_leader_that_slept_past_its_lease_commits_nothing_and_acts_on_nothing(theatre: Theatre) -> None:
    """It is stopped between reading and committing; another has decided meanwhile."""
    gate = Gate()
    scene = theatre.scene("late")
    theatre.scenes[theatre.key()] = scene._replace(traffic=gate)
    one = theatre.operator(ticks=1)
    theatre.apply(steps=STAY)
    theatre.reaches(Progress.RUNNING)
    gate.shut = True
    assert gate.waiting.wait(10)
    theatre.lines[one].set()  # it sleeps: its lease is not renewed
    two = theatre.operator()
    until(two.leader.leads, "the other leads", within=4 * LEASE_S)
    theatre.ask("abort")
    status = theatre.reaches(Progress.ROLLED_BACK)
    theatre.lines[one].clear()
    gate.go_on.set()
    until(lambda: one.queue.idle(5), "its pass is over")
    after = theatre.status()
    assert (after.sequence, after.progress) == (status.sequence, Progress.ROLLED_BACK)
    assert theatre.weight() == 0


def test_a_storm_of_conflicts_delays_and_breaks_nothing(theatre: Theatre) -> None:
    """Somebody writes to the object as fast as he can."""
    theatre.operator()
    end = threading.Event()

    def storm() -> None:
        number = 0
        while not end.is_set():
            number += 1
            meta = {"namespace": theatre.namespace, "name": "late", "annotations": {"storm": str(number)}}
            try:
                theatre.access.patch(ROLLOUTS, {"metadata": meta})
            except EdgeError:
                continue
            end.wait(0.01)

    theatre.apply()
    thread = threading.Thread(target=storm, daemon=True)
    thread.start()
    try:
        theatre.reaches(Progress.PROMOTED, within=40)
    finally:
        end.set()
        thread.join()
    assert theatre.registry.alias("flights", "champion") == "2"


def test_the_api_server_hangs_for_longer_than_the_lease(theatre: Theatre, control_plane: ControlPlane) -> None:
    theatre.operator()
    theatre.apply(steps=STAY)
    theatre.reaches(Progress.RUNNING, step=1)
    until(lambda: theatre.weight() == 5000, "the weight of the step is served")
    before, weight = theatre.status(), theatre.weight()
    pid = control_plane.pids()["kube-apiserver"]
    os.kill(pid, signal.SIGSTOP)
    try:
        time.sleep(2 * LEASE_S)
        assert theatre.weight() == weight
    finally:
        os.kill(pid, signal.SIGCONT)
    after = until(lambda: theatre.status() if theatre.status().clock > before.clock + 4_000_000 else None, "it goes on")
    assert (after.step, after.attempt, after.progress) == (1, before.attempt, Progress.RUNNING)
    status = theatre.reaches(Progress.ROLLED_BACK, errors=0.6, requests=200)
    assert status.reason in (Reason.SERVICE_HARM, Reason.CHALLENGER_UNAVAILABLE)


def test_the_api_server_is_down_for_so_long_that_it_is_hardly_asked_any_more(
    theatre: Theatre, control_plane: ControlPlane
) -> None:
    """A minute, or a night: from here on nothing changes but the clock. Afterwards changes are heard as before."""
    operator = theatre.operator(idle_s=3600)
    theatre.model("other")
    theatre.apply("done", model={"name": "other"})
    theatre.reaches(Progress.PROMOTED, "done")
    theatre.apply(steps=STAY)
    theatre.reaches(Progress.RUNNING, step=1)
    until(lambda: theatre.weight() == 5000, "the weight of the step is served")
    before = theatre.status()
    with control_plane.down():
        asked = operator.calls["watch", "ModelRollout"]
        until(lambda: operator.calls["watch", "ModelRollout"] >= asked + TRIES, "the pauses are at their longest")
        until(lambda: not operator.leader.leads(), "the lease ran out")
        assert theatre.weight() == 5000
        assert operator.healthy() == ""
    until(operator.leader.leads, "it leads again")
    after = until(lambda: (s := theatre.status()).clock > before.clock and s, "it goes on")
    assert (after.step, after.attempt, after.progress) == (1, before.attempt, Progress.RUNNING)
    # Nobody looks at what is over, or would know of what is new: only the watch tells of these.
    theatre.model("third")
    theatre.apply("new", model={"name": "third"}, steps=STAY)
    theatre.reaches(Progress.RUNNING, "new")
    theatre.apply("done", model={"name": "other"}, decision={"tick": "10m", "block": "1m"})
    until(lambda: {c.type: c.reason for c in theatre.status("done").conditions}["Stalled"] == "InvalidSpec", "refused")
    status = theatre.reaches(Progress.ROLLED_BACK, errors=0.6, requests=200)
    assert status.reason in (Reason.SERVICE_HARM, Reason.CHALLENGER_UNAVAILABLE)


def test_a_third_version_in_the_middle_gets_an_attempt_of_its_own(theatre: Theatre) -> None:
    theatre.operator()
    theatre.apply(steps=STAY)
    first = theatre.reaches(Progress.RUNNING, step=1)
    theatre.registry.move("flights", "challenger", "3", "owner")
    second = until(
        lambda: (s := theatre.status()).attempt and s.attempt.number == 2 and s.progress is Progress.RUNNING and s,
        "a second attempt",
    )
    assert first.attempt is not None
    assert (first.attempt.challenger, second.attempt.challenger) == ("2", "3")
    assert second.past == ("2",)
    until(lambda: "AliasMoved" in {e["reason"] for e in theatre.events()}, "it is told")


def test_a_champion_that_somebody_names_in_the_middle_stays_named_and_the_attempt_ends(theatre: Theatre) -> None:
    theatre.operator()
    theatre.apply(steps=STAY)
    theatre.reaches(Progress.RUNNING, step=1)
    theatre.registry.move("flights", "champion", "3", "owner")
    status = theatre.reaches(Progress.ROLLED_BACK)
    assert (status.reason, theatre.weight()) == (Reason.ALIAS_MOVED, 0)
    assert "champion names 3 now, not 1" in status.message
    assert theatre.registry.alias("flights", "champion") == "3"
    assert not [m for m in theatre.registry.moves if m.alias == "champion" and m.who == "controller"]


def test_harm_in_the_holdback_takes_traffic_and_alias_back(theatre: Theatre) -> None:
    theatre.operator()
    theatre.apply(afterPromotion={"holdback": 5, "hold": "1h"})
    theatre.reaches(Progress.HOLDBACK)
    until(lambda: theatre.weight() == 9500, "all but the holdback is served by the promoted version")
    assert theatre.registry.alias("flights", "champion") == "2"
    status = theatre.reaches(Progress.ROLLED_BACK, errors=0.6, requests=200)
    assert status.reason in (Reason.SERVICE_HARM, Reason.CHALLENGER_UNAVAILABLE)
    assert (theatre.weight(), theatre.registry.alias("flights", "champion")) == (0, "1")


def test_a_plan_that_is_edited_in_the_middle_starts_again_as_declared(theatre: Theatre) -> None:
    theatre.operator()
    theatre.apply(steps=STAY)
    theatre.reaches(Progress.RUNNING, step=1)
    theatre.apply(steps=[{"weight": 10, "hold": "1h"}])
    status = until(
        lambda: (s := theatre.status()).attempt and s.attempt.number == 2 and s.progress is Progress.RUNNING and s,
        "a second attempt",
    )
    assert (status.generation, status.step) == (2, 0)
    until(lambda: theatre.weight() == 1000, "the new weight")
    until(lambda: "Superseded" in {e["reason"] for e in theatre.events()}, "it is told")


def test_a_threshold_that_is_edited_in_the_middle_applies_at_once(theatre: Theatre) -> None:
    theatre.operator()
    theatre.apply(steps=STAY)
    theatre.reaches(Progress.RUNNING, step=1)
    theatre.apply(steps=STAY, decision={**SPEC["decision"], "minUnits": 7})
    status = until(lambda: theatre.status() if theatre.status().generation == 2 else None, "it is seen")
    assert status.attempt is not None
    assert (status.attempt.number, status.step) == (1, 1)


def test_gitops_applies_the_old_spec_again_and_again(theatre: Theatre) -> None:
    """While people pause and the controller annotates, the declared fields stay as they are."""
    theatre.operator()
    end = threading.Event()

    def reapply() -> None:
        while not end.wait(0.1):
            theatre.apply()

    theatre.apply()
    thread = threading.Thread(target=reapply, daemon=True)
    thread.start()
    try:
        theatre.reaches(Progress.RUNNING)
        theatre.ask("pause")
        until(lambda: theatre.status().paused, "paused")
        theatre.ask("resume")
        status = theatre.reaches(Progress.PROMOTED)
    finally:
        end.set()
        thread.join()
    assert (status.generation, status.attempts) == (1, 1)


@pytest.mark.parametrize("progress", [Progress.RUNNING, Progress.PROMOTED])
def test_an_object_that_is_declared_anew_begins_anew(theatre: Theatre, progress: Progress) -> None:
    """The cluster is rebuilt from files: no weight comes back with them."""
    theatre.operator()
    theatre.apply(steps=STAY if progress is Progress.RUNNING else SPEC["steps"])
    first = theatre.reaches(progress)
    theatre.access.delete(ROLLOUTS, theatre.namespace, "late")
    until(theatre.gone, "it is gone")
    theatre.registry.move("flights", "challenger", "3", "owner")
    theatre.apply(steps=STAY)
    second = theatre.reaches(Progress.RUNNING)
    assert second.uid != first.uid
    assert second.attempt is not None
    assert (second.attempt.number, second.attempt.challenger) == (1, "3")


def test_one_that_is_deleted_before_it_began_can_be_declared_again(theatre: Theatre) -> None:
    theatre.operator()
    theatre.scene("late").workloads.servers["challenger"].broken = True
    theatre.apply(steps=STAY)
    until(lambda: theatre.status().reason is Reason.SERVERS_NOT_READY and theatre.status().attempt, "it waits")
    theatre.access.delete(ROLLOUTS, theatre.namespace, "late")
    until(theatre.gone, "it is gone")
    theatre.scene("late").workloads.servers["challenger"].broken = False
    theatre.apply(steps=STAY)
    status = theatre.reaches(Progress.RUNNING)
    assert status.attempt is not None
    assert (status.attempt.number, status.attempt.challenger) == (1, "2")


def test_a_rollout_that_is_over_hears_of_a_new_challenger_without_being_looked_at(theatre: Theatre) -> None:
    operator = theatre.operator(idle_s=3600)
    theatre.apply()
    theatre.reaches(Progress.PROMOTED)
    theatre.rests(operator)
    theatre.registry.move("flights", "challenger", "3", "owner")
    status = theatre.reaches(Progress.RUNNING)
    assert status.attempt is not None
    assert (status.attempt.number, status.attempt.champion, status.attempt.challenger) == (2, "2", "3")


def hampered(theatre: Theatre) -> bool:
    """Whether the conditions and an Event say that, and why, an alias cannot be moved."""
    held = {c.type: c for c in theatre.status().conditions}["Stalled"]
    said = held.reason == "AliasPending" and "403: PERMISSION_DENIED" in held.message
    return said and held.status == "True" and "AliasPending" in {e["reason"] for e in theatre.events()}


def test_a_registry_that_answers_and_moves_no_alias_is_told_of_until_it_does(theatre: Theatre) -> None:
    theatre.registry.refuses = True
    theatre.operator()
    theatre.apply()
    theatre.reaches(Progress.PROMOTING)
    until(lambda: hampered(theatre), "it is told")
    since = {c.type: c for c in theatre.status().conditions}["Stalled"].last_transition_time
    clock = theatre.status().clock
    until(lambda: theatre.status().clock > clock + 2_000_000, "time goes on")
    assert hampered(theatre)
    assert {c.type: c for c in theatre.status().conditions}["Stalled"].last_transition_time == since
    theatre.registry.refuses = False
    theatre.reaches(Progress.PROMOTED)
    until(lambda: {c.type: c.status for c in theatre.status().conditions}["Stalled"] == "False", "it is over")
    assert theatre.registry.alias("flights", "champion") == "2"
    assert len([e for e in theatre.events() if e["reason"] == "AliasPending"]) == 1


def test_one_that_is_deleted_does_not_wait_for_a_registry_that_moves_no_alias(theatre: Theatre) -> None:
    theatre.operator()
    theatre.apply(steps=STAY)
    theatre.reaches(Progress.RUNNING, step=1)
    theatre.registry.refuses = True
    theatre.access.delete(ROLLOUTS, theatre.namespace, "late")
    until(lambda: hampered(theatre), "it is told")
    until(theatre.gone, "it is gone")
    assert theatre.weight() == 0
    assert theatre.registry.alias("flights", "challenger") == "2"


def test_one_that_is_deleted_goes_also_where_every_pass_over_it_breaks(theatre: Theatre) -> None:
    """It is not let go at once: whatever breaks it may be over soon, and the traffic is given back."""
    theatre.operator()
    theatre.apply(steps=STAY)
    theatre.reaches(Progress.RUNNING, step=1)
    theatre.registry.defect = TypeError("nobody thought of this")
    theatre.access.delete(ROLLOUTS, theatre.namespace, "late")
    until(lambda: "TickFailed" in {e["reason"] for e in theatre.events()}, "it is told")
    assert not theatre.gone()
    until(theatre.gone, "it is gone", within=60)


def test_one_that_is_deleted_goes_also_where_nothing_can_be_recorded(theatre: Theatre, tmp_path: Path) -> None:
    theatre.operator(state_dir=tmp_path / "one")
    theatre.apply(steps=STAY)
    theatre.reaches(Progress.RUNNING, step=1)
    shutil.rmtree(tmp_path / "one" / "records")
    (tmp_path / "one" / "records").touch()
    theatre.access.delete(ROLLOUTS, theatre.namespace, "late")
    until(theatre.gone, "it is gone", within=60)


def test_a_namespace_that_is_deleted_takes_its_rollout_along_and_leaves_the_champion_serving(
    theatre: Theatre, controllers: ControlPlane
) -> None:
    """Nothing may be created there any more, no Event either, and the rollout goes all the same."""
    theatre.operator_for_all()
    theatre.apply(model={"name": theatre.namespace}, steps=STAY)
    theatre.reaches(Progress.RUNNING, step=1)
    until(lambda: theatre.weight() == 5000, "the weight of the step is served")
    theatre.access.delete(NAMESPACES, None, theatre.namespace)
    until(lambda: gone(theatre.access, NAMESPACES, None, theatre.namespace), "the namespace is gone", within=60)
    assert theatre.weight() == 0
    assert theatre.registry.alias(theatre.namespace, "champion") == "1"
