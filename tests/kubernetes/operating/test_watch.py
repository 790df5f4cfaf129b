"""The watch's view of the rollouts becomes true again after whatever went wrong."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from controller.edges.cluster.access import Access, Node
from controller.edges.cluster.resources import ROLLOUTS, Resource
from controller.edges.cluster.watch import Watched
from controller.errors import EdgeError, NotFound
from tests.kubernetes.operating.theatre import Theatre, until


@contextmanager
def running(watched: Watched) -> Iterator[None]:
    end = threading.Event()
    thread = threading.Thread(target=watched.run, args=(end,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        end.set()


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


def test_those_of_one_model_are_fed_together(theatre: Theatre) -> None:
    fed: list[str] = []
    watched = Watched(theatre.access, theatre.namespace, fed.append)
    with running(watched):
        assert watched.synced.wait(10)
        theatre.apply("first")
        until(lambda: fed == [theatre.key("first")], "the first")
        theatre.apply("second")
        until(lambda: sorted(fed[1:]) == [theatre.key("first"), theatre.key("second")], "both")
        theatre.access.delete(ROLLOUTS, theatre.namespace, "first")
        until(lambda: theatre.key("second") in fed[3:], "the second, since the model is free")


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
