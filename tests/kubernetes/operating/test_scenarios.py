"""What happens to clusters happens to a rollout in the middle, and it ends as it should."""

import os
import signal
import threading
import time

import pytest

from controller.edges.cluster.resources import ROLLOUTS
from controller.edges.memory import MemoryTraffic
from controller.errors import EdgeError
from controller.ports import TrafficObservation
from controller.status import Progress, Reason
from tests.kubernetes.control_plane import ControlPlane
from tests.kubernetes.operating.theatre import LEASE_S, NAMESPACES, SPEC, STAY, Theatre, gone, until


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


def test_a_rollout_that_is_over_hears_of_a_new_challenger_without_being_looked_at(theatre: Theatre) -> None:
    operator = theatre.operator(idle_s=3600)
    theatre.apply()
    theatre.reaches(Progress.PROMOTED)
    theatre.rests(operator)
    theatre.registry.move("flights", "challenger", "3", "owner")
    status = theatre.reaches(Progress.RUNNING)
    assert status.attempt is not None
    assert (status.attempt.number, status.attempt.champion, status.attempt.challenger) == (2, "2", "3")


def test_a_namespace_that_is_deleted_takes_its_rollout_along_and_leaves_the_champion_serving(
    theatre: Theatre, controllers: ControlPlane
) -> None:
    """Nothing may be created there any more, no Event either, and the rollout goes all the same."""
    theatre.operator(namespaced=False, lease=theatre.namespace, lease_namespace="default")
    theatre.apply(steps=STAY)
    theatre.reaches(Progress.RUNNING, step=1)
    until(lambda: theatre.weight() == 5000, "the weight of the step is served")
    theatre.access.delete(NAMESPACES, None, theatre.namespace)
    until(lambda: gone(theatre.access, NAMESPACES, None, theatre.namespace), "the namespace is gone", within=60)
    assert theatre.weight() == 0
    assert theatre.registry.alias("flights", "champion") == "1"
