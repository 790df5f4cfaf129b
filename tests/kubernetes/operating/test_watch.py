"""The watch's view of the rollouts becomes true again after whatever went wrong."""

from collections.abc import Iterator

import pytest

from controller.edges.cluster.access import Access, Node
from controller.edges.cluster.resources import ROLLOUTS, Resource
from controller.edges.cluster.store import FINALIZER
from controller.edges.cluster.watch import Entry, Watched, claim
from controller.errors import EdgeError, NotFound
from controller.status import Progress, RolloutStatus
from tests.kubernetes.control_plane import ControlPlane
from tests.kubernetes.operating.theatre import Theatre, deep, running, until
from tests.ports.contracts.rollouts import attempt


def test_declared_changed_and_deleted_rollouts_are_fed(theatre: Theatre) -> None:
    fed: list[str] = []
    watched = Watched(theatre.access, theatre.namespace, fed.append)
    theatre.apply("first")
    with running(watched):
        assert watched.synced.wait(10)
        assert fed == [theatre.key("first")]
        theatre.apply("second", model={"name": "other"})
        until(lambda: fed[1:] == [theatre.key("second")], "the second is fed")
        theatre.apply("second", model={"name": "other"}, decision={"minUnits": 7})
        until(lambda: len(fed) == 3, "its change is fed")
        theatre.access.delete(ROLLOUTS, theatre.namespace, "second")
        until(lambda: len(fed) == 4, "its end is fed")
        with pytest.raises(NotFound):
            watched.get(theatre.key("second"))


def test_a_status_a_label_and_the_same_spec_feed_nothing(theatre: Theatre) -> None:
    fed: list[str] = []
    watched = Watched(theatre.access, theatre.namespace, fed.append)
    theatre.apply()
    with running(watched):
        assert watched.synced.wait(10)
        first = watched.get(theatre.key()).version
        theatre.apply(labels={"team": "a"})
        theatre.apply(labels={"team": "a"})
        found = theatre.object()
        status = {**theatre.status().model_dump(mode="json", by_alias=True), "message": "new"}
        written = theatre.access.replace(ROLLOUTS, {**found, "status": status}, "status")
        last = int(written["metadata"]["resourceVersion"])
        until(lambda: watched.get(theatre.key()).version == last, "all of it was heard")
        assert last > first
        assert fed == [theatre.key()]


def test_those_of_one_model_are_fed_when_another_may_release_it(theatre: Theatre) -> None:
    """And only then: what each of three hundred that wait writes concerns none of the others."""
    fed: list[str] = []
    watched = Watched(theatre.access, theatre.namespace, fed.append)
    first, second, third = map(theatre.key, ("first", "second", "third"))
    with running(watched):
        assert watched.synced.wait(10)
        made = theatre.apply("first")["metadata"]["creationTimestamp"]
        until(lambda: fed == [first], "the first")
        # The age decides, and it is told in seconds.
        until(
            lambda: theatre.apply("clock")["metadata"]["creationTimestamp"] > made or remove(theatre, "clock"), "later"
        )
        remove(theatre, "clock")
        until(lambda: watched.known() == [first], "it is alone again")
        fed.clear()
        for name in ("second", "third"):
            theatre.apply(name)
            meta = {"namespace": theatre.namespace, "name": name, "finalizers": [FINALIZER]}
            theatre.access.patch(ROLLOUTS, {"metadata": meta})
        until(lambda: len(fed) == 4, "each is fed, and its change")
        assert fed == [second, second, third, third]
        assert [watched.waits(key) for key in (first, second, third)] == [False, True, True]
        remove(theatre, "first")
        until(lambda: sorted(fed[4:]) == [first, second, third], "the others, since the model is free")
        assert [watched.waits(key) for key in (second, third)].count(True) == 1


def test_the_end_of_an_attempt_feeds_those_that_wait_for_the_model(theatre: Theatre) -> None:
    """The younger one is at it; once it is over, the model is the older one's."""
    fed: list[str] = []
    watched = Watched(theatre.access, theatre.namespace, fed.append)
    for name in ("a", "b"):
        watched.put(theatre.apply(name))
    older = min(("a", "b"), key=lambda name: claim(watched.get(theatre.key(name))))
    younger = "b" if older == "a" else "a"
    stands(theatre, watched, younger, Progress.RUNNING)
    assert (watched.waits(theatre.key(older)), watched.waits(theatre.key(younger))) == (True, False)
    fed.clear()
    stands(theatre, watched, younger, Progress.PROMOTED)
    assert sorted(fed) == [theatre.key("a"), theatre.key("b")]
    assert (watched.waits(theatre.key(older)), watched.waits(theatre.key(younger))) == (False, True)


def stands(theatre: Theatre, watched: Watched, name: str, progress: Progress) -> None:
    found = theatre.object(name)
    status = RolloutStatus(uid=found["metadata"]["uid"], progress=progress, attempt=attempt())
    body = {**found, "status": status.model_dump(mode="json", by_alias=True)}
    watched.put(theatre.access.replace(ROLLOUTS, body, "status"))


def remove(theatre: Theatre, name: str) -> None:
    meta = {"namespace": theatre.namespace, "name": name, "finalizers": []}
    theatre.access.patch(ROLLOUTS, {"metadata": meta})
    theatre.access.delete(ROLLOUTS, theatre.namespace, name)


@pytest.mark.parametrize("levels", [300, 3000])
def test_an_object_that_is_nested_too_deeply_hides_no_other_one(
    theatre: Theatre, control_plane: ControlPlane, levels: int
) -> None:
    """Neither in the list nor in the watch: the one is more than what writes JSON takes, the other than what reads."""
    deep(theatre, control_plane, levels, "listed")
    theatre.apply("first", model={"name": "other"})
    watched = Watched(theatre.access, theatre.namespace)
    with running(watched):
        assert watched.synced.wait(10)
        deep(theatre, control_plane, levels, "heard")
        theatre.apply("second", model={"name": "another"})
        until(lambda: theatre.key("second") in watched.known(), "the one after it is heard of")
        assert sorted(watched.known()) == sorted(map(theatre.key, ("first", "heard", "listed", "second")))
        for name in ("heard", "listed"):
            assert "spec.servers: is nested" in watched.get(theatre.key(name)).fault
        assert watched.get(theatre.key("first")).fault == ""


def test_an_object_that_cannot_be_kept_is_passed_over(theatre: Theatre) -> None:
    """Whatever the reason is: the thread that watches serves all."""
    watched = Picky(theatre.access, theatre.namespace)
    theatre.apply("wrong-one")
    theatre.apply("first")
    with running(watched):
        assert watched.synced.wait(10)
        theatre.apply("wrong-two")
        theatre.apply("second")
        until(lambda: sorted(watched.known()) == [theatre.key("first"), theatre.key("second")], "the others are known")


class Picky(Watched):
    """It has a defect: some names are too much for it."""

    def put(self, found: Node) -> Entry:
        if "wrong" in found["metadata"]["name"]:
            raise RuntimeError("this name is wrong")
        return super().put(found)


class Broken(Access):
    """Watches fail as they are told to, ``faults`` first; lists do what they always do."""

    faults: list[EdgeError | None]

    def watch(
        self, resource: Resource, namespace: str | None, since: str, selector: str = ""
    ) -> Iterator[tuple[str, Node]]:
        if self.faults:
            fault = self.faults.pop(0)
            if fault is not None:
                raise fault
            since = "1"  # as after hours without a word: the server has forgotten where we were
        return super().watch(resource, namespace, since, selector)


def test_after_broken_and_forgotten_watches_the_view_is_true(theatre: Theatre) -> None:
    broken = object.__new__(Broken)
    broken.__dict__.update(theatre.access.__dict__)
    broken.faults = [EdgeError("broke off"), None, EdgeError("broke off"), None]
    watched = Watched(broken, theatre.namespace)
    theatre.apply("first")
    with running(watched):
        until(lambda: watched.lists == 3, "listed again after each time it was forgotten")
        theatre.apply("second")
        theatre.access.delete(ROLLOUTS, theatre.namespace, "first")
        until(lambda: watched.known() == [theatre.key("second")], "the view is true again")


def test_what_went_while_nobody_watched_is_dropped(theatre: Theatre) -> None:
    fed: list[str] = []
    watched = Watched(theatre.access, theatre.namespace, fed.append)
    theatre.apply("gone")
    watched.put(theatre.object("gone"))
    theatre.access.delete(ROLLOUTS, theatre.namespace, "gone")
    with running(watched):
        assert watched.synced.wait(10)
        assert watched.known() == []
        assert fed == [theatre.key("gone")] * 2


def test_an_older_answer_does_not_replace_a_newer_one(theatre: Theatre) -> None:
    watched = Watched(theatre.access, theatre.namespace)
    theatre.apply()
    old = theatre.object()
    theatre.apply(labels={"a": "b"})
    newest = watched.put(theatre.object())
    assert watched.put(old) == newest


def test_an_answer_that_ends_a_deletion_keeps_nothing(theatre: Theatre) -> None:
    """The server answers the patch of the last finalizer with the object that is gone by it."""
    theatre.apply()
    meta = {"namespace": theatre.namespace, "name": "late"}
    theatre.access.patch(ROLLOUTS, {"metadata": {**meta, "finalizers": [FINALIZER]}})
    theatre.access.delete(ROLLOUTS, theatre.namespace, "late")
    fed: list[str] = []
    watched = Watched(theatre.access, theatre.namespace, fed.append)
    watched.put(theatre.object())
    watched.put(theatre.access.patch(ROLLOUTS, {"metadata": {**meta, "finalizers": []}}))
    assert watched.known() == []
    assert watched.of_model("flights") == {}
    assert fed == [theatre.key()] * 2


def test_an_answer_that_comes_after_the_end_was_heard_brings_nothing_back(theatre: Theatre) -> None:
    watched = Watched(theatre.access, theatre.namespace)
    with running(watched):
        assert watched.synced.wait(10)
        theatre.apply()
        late = theatre.object()
        until(lambda: watched.known() == [theatre.key()], "it is known")
        theatre.access.delete(ROLLOUTS, theatre.namespace, "late")
        until(lambda: watched.known() == [], "its end is heard of")
        watched.put(late)
        assert watched.known() == []
        watched.put(theatre.apply())
        assert watched.known() == [theatre.key()]  # declared anew


def test_an_answer_that_comes_after_a_list_without_it_brings_nothing_back(theatre: Theatre) -> None:
    theatre.apply()
    watched = Watched(theatre.access, theatre.namespace)
    late = theatre.object()
    watched.put(late)
    theatre.access.delete(ROLLOUTS, theatre.namespace, "late")
    with running(watched):
        assert watched.synced.wait(10)
        watched.put(late)
        assert watched.known() == []
