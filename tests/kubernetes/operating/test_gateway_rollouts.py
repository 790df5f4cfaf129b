"""Whole rollouts whose traffic an HTTPRoute splits: an operator, a real Traefik, a real Prometheus that scrapes it."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from controller.edges.cluster.access import Access
from controller.edges.cluster.gateway import LIMITS
from controller.edges.cluster.resources import ROLLOUTS, STATEFULSETS
from controller.status import Progress, Reason
from tests.kubernetes.gateways import Traefik
from tests.kubernetes.operating.real import RealTheatre
from tests.kubernetes.operating.scraping import scraping
from tests.kubernetes.operating.split import Split, backends, declared, splitting
from tests.kubernetes.operating.theatre import SPEC, gone, until
from tests.meanwhile import Meanwhile
from tests.ports.tracking_server import Wire

RULE = {"backendRefs": backends()}
STEPS = [{"weight": 10, "hold": "1s"}, {"weight": 50, "hold": "1s"}]
TICK = {"decision": {**SPEC["decision"], "tick": "1s"}}


@pytest.fixture(scope="module")
def prometheus(traefik: Traefik, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with scraping(traefik.metrics, tmp_path_factory.mktemp("prometheus")) as url:
        yield url


@pytest.fixture
def split(access: Access, namespace: str, traefik: Traefik) -> Iterator[Split]:
    with splitting(access, namespace, traefik.url) as made:
        made.route(RULE)
        yield made


@pytest.fixture
def real(
    access: Access, kubeconfig: Path, prometheus: str, split: Split, namespace: str, tmp_path: Path
) -> Iterator[RealTheatre]:
    made = RealTheatre(access, kubeconfig, namespace, tmp_path)
    made.operator(prometheus_url=prometheus)
    yield made
    made.close()


class Users(Meanwhile):
    """Requests without a pause, until the end of the block."""

    def __init__(self, split: Split) -> None:
        super().__init__(self._ask)
        self._split = split

    def _ask(self) -> None:
        while not self._end.wait(0.001):
            try:
                self._split.arm()
            except httpx.TransportError:
                continue


def written(split: Split) -> list[int]:
    return [ref["weight"] for ref in split.found()["spec"]["rules"][0]["backendRefs"]]


@pytest.mark.timeout(240)
def test_a_challenger_that_fails_no_more_requests_is_promoted_by_the_gateways_counters(
    real: RealTheatre, split: Split
) -> None:
    real.apply(**declared(steps=STEPS, afterPromotion={"holdback": 20, "hold": "2s"}, **TICK))
    with Users(split):
        found = real.until("it is at the first step", lambda s: s.step == 0 and s.observed.confirmed > 0)
        assert found.observed.traffic_limits == LIMITS
        real.until("the old champion keeps a fifth", lambda s: s.progress is Progress.HOLDBACK, 150)
        assert written(split) == [2000, 8000]
        found = real.until("it is promoted", lambda s: s.progress is Progress.PROMOTED, 150)
        until(lambda: written(split) == [0, 10_000], "the challenger has it all")
        until(lambda: split.challengers(100) == 100, "all requests are the challenger's")
    assert real.registry.alias("flights", "champion") == "2"
    assert [epoch.pi_ppm for epoch in found.epochs] == [100_000, 500_000, 800_000]
    assert gone(real.access, STATEFULSETS, real.namespace, "late-router")


@pytest.mark.timeout(240)
def test_a_challenger_that_fails_requests_gets_none_any_more(real: RealTheatre, split: Split) -> None:
    real.apply(**declared(steps=[{"weight": 50, "hold": "1h"}], **TICK))
    with Users(split):
        real.until("it meets half of the requests", lambda s: s.step == 0 and s.observed.confirmed > 0)
        until(lambda: split.challengers(20) > 0, "the challenger is asked")
        split.models[1].mode = "500"
        found = real.until("it is rolled back", lambda s: s.progress is Progress.ROLLED_BACK, 100)
        assert found.reason is Reason.SERVICE_HARM
        assert written(split) == [10_000, 0]
        until(lambda: split.challengers(100) == 0, "no request is the challenger's")
        assert split.challengers(500) == 0
    assert real.registry.alias("flights", "challenger") is None
    assert real.registry.alias("flights", "champion") == "1"


def test_a_rollout_that_is_deleted_under_way_gives_all_requests_back(real: RealTheatre, split: Split) -> None:
    real.apply(**declared(steps=[{"weight": 50, "hold": "1h"}], **TICK))
    until(lambda: written(split) == [5000, 5000], "the challenger gets half")
    real.access.delete(ROLLOUTS, real.namespace, "late")
    until(real.gone, "it is gone", 60)
    assert written(split) == [10_000, 0]


@pytest.mark.timeout(240)
def test_while_prometheus_does_not_answer_nothing_is_decided_and_then_it_goes_on(
    access: Access, kubeconfig: Path, prometheus: str, split: Split, namespace: str, tmp_path: Path
) -> None:
    wire = Wire(int(prometheus.rpartition(":")[2]))
    theatre = RealTheatre(access, kubeconfig, namespace, tmp_path)
    theatre.operator(prometheus_url=wire.uri)
    theatre.apply(**declared(steps=[{"weight": 50, "hold": "1h"}], **TICK))
    with Users(split):
        waits = (Reason.HOLD_TIME, Reason.MIN_UNITS, Reason.GATE)
        before = theatre.until("it has evidence", lambda s: s.step == 0 and s.reason in waits, 100)
        wire.cut()
        found = theatre.until("it is stale", lambda s: s.reason is Reason.STALE, 100)
        assert (found.progress, found.attempt, found.step) == (Progress.RUNNING, before.attempt, 0)
        assert {c.type: c.status for c in found.conditions if c.type in ("Valid", "Stalled")} == {
            "Valid": "False",
            "Stalled": "False",
        }
        assert written(split) == [5000, 5000]
        wire.restore()
        found = theatre.until("it goes on", lambda s: s.reason in waits, 100)
        assert (found.progress, found.attempt, found.step) == (Progress.RUNNING, before.attempt, 0)
    theatre.close()
    wire.cut()


def test_without_the_address_of_a_prometheus_it_is_refused_and_the_setting_named(
    access: Access, kubeconfig: Path, split: Split, namespace: str, tmp_path: Path
) -> None:
    theatre = RealTheatre(access, kubeconfig, namespace, tmp_path)
    theatre.operator()
    theatre.apply(**declared(**TICK))
    found = until(
        lambda: [c for c in theatre.object().get("status", {}).get("conditions", []) if c["type"] == "Stalled"],
        "it is told",
    )
    assert found[0]["reason"] == "InvalidSpec"
    assert "spec.traffic.gatewayAPI.requests: is PromQL, which needs the address of a Prometheus" in found[0]["message"]
    theatre.close()
