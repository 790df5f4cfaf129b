"""The servers that routers send to, as endpoints behind an adopted Service come and go, on a real API server."""

import time
from collections.abc import Callable, Iterator

import pytest

from controller.edges.cluster.access import Access, Expired, Node
from controller.edges.cluster.resources import ROLLOUTS, SERVICE_NAME, SLICES, Resource
from controller.edges.cluster.slice_watch import SliceWatch
from controller.edges.cluster.watch import Watched
from controller.errors import NotFound
from controller.operator.operator import Operator
from controller.status import Progress
from tests.kubernetes.operating.behind import Behind, adopting, change, endpoint, piece, served
from tests.kubernetes.operating.machines import FREE
from tests.kubernetes.operating.templated import of_store
from tests.kubernetes.operating.theatre import SPEC, Theatre, running, until

SLOW: Node = {  # nothing is due by itself for longer than anybody here waits
    "steps": [{"weight": 5, "hold": "1h"}],
    "decision": {**SPEC["decision"], "tick": "2m"},
}


Make = Callable[[str, str], Behind]


@pytest.fixture
def behind(theatre: Theatre) -> Iterator[Make]:
    """What makes a Service with servers of a version, for rollouts that look at theirs as on a cluster."""
    made: list[Behind] = []

    def make(service: str, version: str) -> Behind:
        made.append(Behind(theatre.access, theatre.namespace, service, version))
        return made[-1]

    theatre.workloads = of_store(time.time)
    yield make
    theatre.close()
    for each in made:
        each.close()


def at_work(theatre: Theatre, operator: Operator, name: str = "late", **spec: object) -> None:
    """Let it run. It is woken until then, and by nobody afterwards."""
    theatre.apply(name, **{**SLOW, **spec})

    def runs() -> bool:
        operator.queue.add(theatre.key(name))
        return theatre.status(name).progress is Progress.RUNNING

    until(runs, f"{name} runs")
    until(lambda: served(theatre, "challenger", name), f"{name} is served by both")


def rests(theatre: Theatre, name: str, seconds: float = 1.0) -> None:
    """Wait until no pass has been made over it for so long."""
    clock, since = 0, time.monotonic()

    def unchanged() -> bool:
        nonlocal clock, since
        found = theatre.status(name).clock
        if found != clock:
            clock, since = found, time.monotonic()
        return time.monotonic() - since >= seconds

    until(unchanged, f"{name} rests")


def followed(theatre: Theatre, arm: str, servers: Behind, first: str) -> None:
    """Routers send to what is ready behind the Service, whatever becomes of it."""

    def are(upstreams: set[str], what: str) -> None:
        until(lambda: served(theatre, arm) == upstreams, f"the {arm}'s routers have {what}")

    are({first}, "the first")
    second = servers.more()
    are({first, second}, "the second too")
    servers.ready(first, False)
    are({second}, "the one that is ready")
    servers.ready(first, True)
    are({first, second}, "both again")
    servers.less(second)
    are({first}, "none that is gone")
    third = servers.more()
    servers.less(first)
    are({third}, "the one that came in its place")


def test_routers_follow_what_is_behind_a_service_while_a_rollout_is_at_work(theatre: Theatre, behind: Make) -> None:
    """The operator has listed the slices before there is a rollout that names their Services."""
    champions, challengers = behind("a", "1"), behind("b", "2")
    first, other = champions.more(), challengers.more()
    operator = theatre.operator(idle_s=600.0)
    until(lambda: operator.calls["watch", "EndpointSlice"], "slices are watched")
    at_work(theatre, operator, servers=adopting("a", "b"))
    followed(theatre, "champion", champions, first)
    followed(theatre, "challenger", challengers, other)


@pytest.mark.parametrize("ended", [Progress.PROMOTED, Progress.ROLLED_BACK])
def test_routers_follow_what_is_behind_a_service_after_the_end_of_a_rollout(
    theatre: Theatre, behind: Make, ended: Progress
) -> None:
    """A controller that takes over hears of it as the one before."""
    champions, challengers = behind("a", "1"), behind("b", "2")
    first, other = champions.more(), challengers.more()
    operator = theatre.operator(idle_s=600.0)
    at_work(theatre, operator, servers=adopting("a", "b"))
    theatre.ask("promote" if ended is Progress.PROMOTED else "abort")
    theatre.reaches(ended)
    theatre.rests(operator)
    serving, last = (challengers, other) if ended is Progress.PROMOTED else (champions, first)
    followed(theatre, "champion", serving, last)
    operator.stop()
    (last,) = serving.upstreams
    operator = theatre.operator(idle_s=600.0)
    theatre.rests(operator)
    followed(theatre, "champion", serving, last)


def test_all_rollouts_that_wait_for_an_endpoint_of_a_service_see_it_come(theatre: Theatre, behind: Make) -> None:
    champions, _ = behind("a", "1"), behind("b", "2")
    names = {"one": "flights", "two": "other", "three": "third"}
    for model in names.values():
        theatre.model(model)
    operator = theatre.operator(idle_s=600.0)
    for name, model in names.items():
        theatre.apply(name, **SLOW, servers=adopting("a", "b"), model={"name": model})

    def waits(name: str) -> bool:
        operator.queue.add(theatre.key(name))
        return "Service a has no endpoint" in theatre.status(name).observed.servers_message

    for name in names:
        until(lambda n=name: waits(n), f"{name} waits")
        rests(theatre, name)
    upstream = champions.more()
    for name in names:
        until(lambda n=name: theatre.status(n).observed.champion_upstreams == (upstream,), f"{name} sees it")


def test_a_slice_of_another_service_wakes_nobody(theatre: Theatre, behind: Make) -> None:
    """Nor does one that changed in nothing that counts."""
    services = {name: behind(name, version) for name, version in (("a", "1"), ("b", "2"), ("c", "1"), ("d", "2"))}
    for each in services.values():
        each.more()
    nobodys = behind("nobodys", "1")
    theatre.model("other")
    operator = theatre.operator(idle_s=600.0)
    at_work(theatre, operator, "one", servers=adopting("a", "b"))
    at_work(theatre, operator, "two", servers=adopting("c", "d"), model={"name": "other"})
    rests(theatre, "one")
    before = theatre.status("one").clock
    upstream = nobodys.more()
    nobodys.ready(upstream, False)
    nobodys.less(upstream)
    change(theatre.access, theatre.namespace, "a-1", {"annotations": {"a": "b"}})
    services["d"].more()
    until(lambda: served(theatre, "challenger", "two") == services["d"].upstreams, "what came last was heard")
    assert operator.stop()  # whatever was begun has ended
    assert theatre.status("one").clock == before


def test_a_service_tells_of_what_counts_in_its_slices_and_of_nothing_else(access: Access, namespace: str) -> None:
    told: list[tuple[str, str]] = []
    access.create(SLICES, piece(namespace, "a-1", "a", 1))
    with running(SliceWatch(access, namespace, lambda *place: told.append(place))):
        until(lambda: told == [(namespace, "a")], "what was there")
        for number, fields in enumerate(
            (
                {"endpoints": [endpoint(), endpoint(FREE)]},
                {"endpoints": [endpoint(), endpoint(FREE, ready=False)]},
                {"endpoints": [endpoint(), endpoint(FREE, ready=False, terminating=True)]},
                {"endpoints": [endpoint(), {**endpoint(FREE), "targetRef": {"kind": "Pod", "uid": "0123"}}]},
                {"endpoints": [endpoint(), {**endpoint(FREE), "targetRef": {"kind": "Pod", "uid": "4567"}}]},
                {"endpoints": [endpoint(FREE), endpoint()]},
                {"ports": [{"name": "http", "port": 2}]},
                {"ports": [{"name": "other", "port": 2}]},
                {"ports": [{"name": "other", "port": 2, "protocol": "UDP"}]},
                {"endpoints": None},
            ),
            start=2,
        ):
            change(access, namespace, "a-1", **fields)
            until(lambda n=number: len(told) == n, f"{fields}")
        seen = len(told)
        change(access, namespace, "a-1", {"annotations": {"a": "b"}}, endpoints=[])
        access.create(SLICES, piece(namespace, "b-1", "b", 1))
        two = [endpoint(), {**endpoint(FREE), "zone": "north", "nodeName": "n"}]
        until(lambda: told[seen:] == [(namespace, "b")], "the other, and nothing of what does not count")
        change(access, namespace, "b-1", endpoints=two)
        until(lambda: len(told) == seen + 2, "one more")
        change(access, namespace, "b-1", endpoints=[{**two[1], "zone": "south"}, two[0]])
        change(access, namespace, "b-1", {"labels": {SERVICE_NAME: "c"}})
        until(lambda: told[seen + 2 :] == [(namespace, "b"), (namespace, "c")], "it is another Service's")
        change(access, namespace, "b-1", {"labels": {SERVICE_NAME: None}})
        access.delete(SLICES, namespace, "a-1")
        until(lambda: told[seen + 4 :] == [(namespace, "c"), (namespace, "a")], "they went")


class Forgetful(Access):
    """The server has forgotten where the first watch is to go on from, for much has happened ``meanwhile``."""

    meanwhile: list[Callable[[], object]]

    def watch(
        self, resource: Resource, namespace: str | None, since: str, selector: str = ""
    ) -> Iterator[tuple[str, Node]]:
        if self.meanwhile:
            while self.meanwhile:
                self.meanwhile.pop(0)()
            raise Expired("410: too old resource version")
        return super().watch(resource, namespace, since, selector)


def test_what_changed_while_nobody_watched_is_told_once(access: Access, namespace: str) -> None:
    told: list[str] = []
    forgetful = object.__new__(Forgetful)
    forgetful.__dict__.update(access.__dict__)
    for name in ("changes", "goes", "moves", "stays"):
        access.create(SLICES, piece(namespace, name, name, 1))
    forgetful.meanwhile = [
        lambda: until(lambda: sorted(told) == ["changes", "goes", "moves", "stays"], "all are told of"),
        told.clear,
        lambda: change(access, namespace, "changes", endpoints=[endpoint(ready=False)]),
        lambda: access.delete(SLICES, namespace, "goes"),
        lambda: change(access, namespace, "moves", {"labels": {SERVICE_NAME: "elsewhere"}}),
        lambda: change(access, namespace, "stays", {"annotations": {"a": "b"}}),
        lambda: access.create(SLICES, piece(namespace, "comes", "comes", 1)),
    ]
    with running(SliceWatch(forgetful, namespace, lambda _, service: told.append(service))):
        until(lambda: "goes" in told, "it has listed again")  # of what is not there any more is told last
        access.create(SLICES, piece(namespace, "last", "last", 1))
        until(lambda: told[-1] == "last", "it hears again")
    assert sorted(told) == ["changes", "comes", "elsewhere", "goes", "last", "moves"]


def test_services_of_an_attempt_are_a_rollouts_as_long_as_they_serve(theatre: Theatre) -> None:
    watched = Watched(theatre.access, theatre.namespace)
    found = theatre.apply("one", servers=adopting("a", "b"))
    for at, name in enumerate(("attempt", "former")):
        found["status"] = {name: {"places": {"champion": {"service": f"c{at}"}, "challenger": {"service": f"d{at}"}}}}
        watched.put(found)
        assert [s for s in ("a", "b", "c0", "d0", "c1", "d1") if watched.naming(theatre.namespace, s)] == [
            "a", "b", f"c{at}", f"d{at}",
        ]  # fmt: skip


def test_it_is_known_which_rollouts_name_a_service(theatre: Theatre) -> None:
    watched = Watched(theatre.access, theatre.namespace)

    def named(service: str) -> list[str]:
        return watched.naming(theatre.namespace, service)

    one, two = theatre.key("one"), theatre.key("two")
    watched.put(theatre.apply("one", servers=adopting("a", "b")))
    watched.put(theatre.apply("two", servers=adopting("a", "c")))
    assert (named("a"), named("b"), named("c"), named("one")) == ([one, two], [one], [two], [])
    assert watched.naming("elsewhere", "a") == []
    watched.put(theatre.apply("one", servers=adopting("c", "b")))
    assert (named("a"), named("b"), named("c")) == ([two], [one], [one, two])
    watched.put(theatre.apply("two"))
    assert (named("a"), named("c")) == ([], [one])
    theatre.access.delete(ROLLOUTS, theatre.namespace, "one")
    assert (named("b"), named("c")) == ([one], [one])  # nobody has told it yet
    with pytest.raises(NotFound):
        watched.refresh(one)
    assert (named("b"), named("c")) == ([], [])
