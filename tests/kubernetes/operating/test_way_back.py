"""All requests come back to the champion of an HTTPRoute, whatever became of the route and of what is declared."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.edges.cluster.access import Access
from controller.edges.cluster.resources import ROLLOUTS, ROUTES
from controller.status import Progress, Reason
from tests.kubernetes.gateways import Traefik
from tests.kubernetes.operating.real import RealTheatre
from tests.kubernetes.operating.split import PORT, ROUTE, Split, backends, declared, served_at, splitting
from tests.kubernetes.operating.theatre import SPEC, until

NOBODY = "http://127.0.0.1:9"  # a Prometheus without which no request is counted, and every one is split
HALF = declared(steps=[{"weight": 50, "hold": "1h"}], decision={**SPEC["decision"], "tick": "1s"})


@pytest.fixture
def split(access: Access, namespace: str, traefik: Traefik) -> Iterator[Split]:
    with splitting(access, namespace, traefik.url) as made:
        made.route({"backendRefs": backends()})
        yield made


@pytest.fixture
def real(access: Access, kubeconfig: Path, split: Split, namespace: str, tmp_path: Path) -> Iterator[RealTheatre]:
    made = RealTheatre(access, kubeconfig, namespace, tmp_path)
    made.operator(prometheus_url=NOBODY)
    yield made
    made.close()


def written(split: Split) -> list[int]:
    return [ref["weight"] for ref in split.found()["spec"]["rules"][0]["backendRefs"]]


@pytest.mark.parametrize("end", ["another attempt", "a deletion"])
def test_another_challengers_service_amid_an_attempt_gives_all_requests_back(
    real: RealTheatre, split: Split, end: str
) -> None:
    real.apply(**HALF)
    until(lambda: written(split) == [5000, 5000], "the challenger gets half")
    servers = {arm: {"service": name, "port": PORT} for arm, name in (("champion", "flights-a"), ("challenger", "c"))}
    served_at(real.access, real.namespace, "c")
    real.apply(**{**HALF, "servers": servers})
    if end == "a deletion":
        real.access.delete(ROLLOUTS, real.namespace, "late")
        until(real.gone, "it is gone", 60)
    else:
        lacks = "has flights-a:8080 and lacks c:8080"
        status = real.until("the next attempt waits", lambda s: lacks in (s.observed.traffic_error or ""))
        assert (status.progress, status.attempts, status.weight) == (Progress.PENDING, 2, 0)
    assert written(split) == [10_000, 0]
    # Traefik knows no host for a moment where a Service comes that it has not seen yet.
    until(lambda: {split.arm() for _ in range(100)} == {"champion"}, "all requests are the champion's")


def test_a_route_that_nobody_may_split_any_more_gives_the_champion_what_it_can_and_is_told(
    real: RealTheatre, split: Split
) -> None:
    """Where the challenger is alone in a rule nobody else could be sent to."""
    real.apply(**HALF)
    until(lambda: written(split) == [5000, 5000], "the challenger gets half")
    alone = {"matches": [{"path": {"type": "PathPrefix", "value": "/v2"}}], "backendRefs": backends(0, 1)[1:]}
    rules = [{"backendRefs": backends(5000, 5000)}, alone]
    meta = {"namespace": real.namespace, "name": ROUTE}
    real.access.patch(ROUTES, {"metadata": meta, "spec": {"rules": rules}})
    real.until("it is told", lambda s: "100 % of the requests of a rule are not" in (s.observed.traffic_error or ""))
    real.ask("abort")
    status = real.until("it is rolled back", lambda s: s.progress is Progress.ROLLED_BACK)
    assert (written(split), status.weight) == ([10_000, 0], 100)
    assert "rules[1].backendRefs: has flights-b:8080 and lacks flights-a:8080" in (status.observed.traffic_error or "")


def test_of_two_rollouts_that_split_one_route_between_the_same_services_one_is_refused(
    real: RealTheatre, split: Split
) -> None:
    """With other Services, in another rule, a route may be shared."""
    for model in ("trains", "ships"):
        real.model(model)
    real.apply(**HALF)
    until(lambda: written(split) == [5000, 5000], "the challenger gets half")
    ten = {**HALF, "steps": [{"weight": 10, "hold": "1h"}]}
    real.apply("second", **{**ten, "model": {"name": "trains"}})
    waits = real.until_of("second", "it is refused", lambda s: s.reason is Reason.ROUTE_TAKEN)
    said = {c.type: c.message for c in waits.conditions}["Stalled"]
    split_by = f"traffic.gatewayAPI.httpRoute: {ROUTE} is split by {real.key()}, with flights-a and flights-b"
    assert (waits.attempt, said) == (None, f"{split_by}; delete one of the two rollouts")
    others = {
        arm: {"service": name, "port": PORT} for arm, name in (("champion", "ships-a"), ("challenger", "ships-b"))
    }
    real.apply("third", **{**ten, "model": {"name": "ships"}, "servers": others})
    real.until_of("third", "it is at work", lambda s: s.attempt is not None)
    assert written(split) == [5000, 5000]
    real.access.delete(ROLLOUTS, real.namespace, "late")
    until(real.gone, "the first is gone", 60)
    until(lambda: written(split) == [9000, 1000], "the second has the route")


def test_services_change_places_after_a_promotion_and_the_route_stays_as_it_is(real: RealTheatre, split: Split) -> None:
    """The next version is tried behind the Service of the one that lost."""
    plan = {**HALF, "afterPromotion": {"holdback": 0}}
    real.apply(**plan)
    until(lambda: written(split) == [5000, 5000], "the challenger gets half")
    real.ask("promote")
    real.until("it is promoted", lambda s: s.progress is Progress.PROMOTED)
    until(lambda: written(split) == [0, 10_000], "the promoted version gets all")
    servers = {arm: {"service": f"flights-{x}", "port": PORT} for arm, x in (("champion", "b"), ("challenger", "a"))}
    generation = real.apply(**{**plan, "servers": servers})["metadata"]["generation"]
    status = real.until("it is read", lambda s: s.generation == generation)
    assert (status.progress, written(split)) == (Progress.PROMOTED, [0, 10_000])
    real.registry.move("flights", "challenger", "3", "owner")
    until(lambda: written(split) == [5000, 5000], "the next one gets half")
    real.ask("abort")
    status = real.until("it is rolled back", lambda s: s.progress is Progress.ROLLED_BACK)
    assert (status.attempts, status.weight, written(split)) == (2, 0, [0, 10_000])
