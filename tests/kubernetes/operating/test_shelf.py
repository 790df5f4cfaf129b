"""Of many rollouts' statistics few are open at a time, and each says what it would say if it were always open."""

import random
import threading
from pathlib import Path

import pytest

from controller.edges.cluster.access import Access
from controller.edges.cluster.journals import ClusterJournals
from controller.edges.cluster.owned import Owner
from controller.edges.cluster.router_set import RouterSet
from controller.edges.cluster.routers import ClusterTraffic, Replica
from controller.edges.cluster.tokens import Tokens
from controller.edges.engine import JournalSource
from controller.edges.engine.schema import SharedStates
from controller.edges.engine.shelf import Shelf
from controller.errors import EdgeError
from tests.engine.logs import Routers
from tests.engine.worlds import METRICS, query, world
from tests.ports.speakers import Peer, speaking

ASKED = query(METRICS[:3])._replace(prediction="/predictions/0/late")


class Kept:
    """A state of one megabyte that counts how often it was put away; ``busy`` while it is being read."""

    size_mb = 1.0

    def __init__(self) -> None:
        self.busy, self.away = threading.Event(), 0

    def put_away(self) -> bool:
        self.away += not self.busy.is_set()
        return not self.busy.is_set()


def test_those_that_are_open_stay_and_who_comes_is_put_away_but_for_one_that_is_being_read() -> None:
    shelf, states = Shelf(2), [Kept() for _ in range(4)]
    for state in [*states[:3], *states[:3]]:
        shelf.used(state)
    assert ([state.away for state in states], len(shelf)) == ([0, 0, 2, 0], 2)
    states[3].busy.set()
    shelf.used(states[3])
    assert ([state.away for state in states], len(shelf)) == ([0, 0, 2, 0], 3)
    states[3].busy.clear()
    shelf.used(states[3])
    assert ([state.away for state in states], len(shelf)) == ([0, 0, 2, 1], 2)
    shelf.closed(states[0])
    shelf.used(states[2])
    assert (states[2].away, len(shelf)) == (2, 2)


def test_one_that_was_not_read_for_long_makes_room() -> None:
    clock = [0.0]
    shelf, states = Shelf(2, 10.0, lambda: clock[0]), [Kept() for _ in range(3)]
    shelf.used(states[0])
    clock[0] = 6.0
    shelf.used(states[1])
    clock[0] = 12.0
    shelf.used(states[2])
    assert ([state.away for state in states], len(shelf)) == ([1, 0, 0], 2)


@pytest.fixture
def traffic(access: Access, namespace: str) -> ClusterTraffic:
    """Of a rollout whose routers are gone: their journals were copied before."""
    owner = Owner(namespace, "late", "uid")
    made = ClusterTraffic(access, owner, RouterSet("late", "none", 1, "1Gi"), Tokens(access, namespace, "key"))
    made.token = "secret"
    return made


def test_journals_are_asked_for_with_the_token_as_it_is_known_now(tmp_path: Path, traffic: ClusterTraffic) -> None:
    """A leader that could not read its key at first has another one, or none."""
    shown: list[bytes] = []

    def speak(peer: Peer) -> None:
        while asked := peer.asked():
            shown.extend(line for line in asked.lower().split(b"\r\n") if line.startswith(b"authorization"))
            peer.say(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n[]")

    journals = ClusterJournals(traffic, tmp_path, "me", lambda: False)
    with speaking(speak) as server:
        traffic.replicas = (Replica("late-0", "uid", f"http://{server}", ready=True),)
        traffic.token = ""
        with pytest.raises(EdgeError, match="the token of the routers is not known yet"):
            journals.read(ASKED, 0)
        for traffic.token in ("first", "second"):
            assert journals.read(ASKED, 0).awaited == ()
    journals.close()
    assert shown == [b"authorization: bearer first", b"authorization: bearer second"]


def test_what_was_put_away_goes_on_where_it_was(tmp_path: Path, traffic: ClusterTraffic) -> None:
    """Two rollouts are read in turn while their journals grow, and one state may be open."""
    shared, shelf, rng = SharedStates(tmp_path / "spill"), Shelf(0.4), random.Random(5)
    worlds = [world(seed, requests=150) for seed in (1, 2)]
    folders = [tmp_path / str(n) for n in range(2)]
    routers = [Routers(folder / "journal", made, 2) for folder, made in zip(folders, worlds, strict=True)]
    sources = [ClusterJournals(traffic, folder, "me", lambda: False, shared, shelf) for folder in folders]
    always = [JournalSource(folder / "journal", None) for folder in folders]
    while not all(each.done for each in routers):
        for source, alone, each in zip(sources, always, routers, strict=True):
            if not each.done:
                now = each.go_on(rng.choice([60, 150]))
                expected = alone.read(ASKED, now)  # first: what the other has read it deletes
                assert source.read(ASKED, now) == expected
                assert len(shelf) == 1
    for source, alone in zip(sources, always, strict=True):
        source.close()
        alone.close()
    assert len(shelf) == 0
