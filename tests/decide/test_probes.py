"""How the routers are told to ask each arm's servers whether they are ready."""

from typing import Any

from controller.core.evolve import evolve
from controller.core.fold import EMPTY
from router.table import Probe, RouteTable
from tests.decide.rollouts import fresh, rollout


def told(servers: dict[str, Any] | None) -> RouteTable:
    declared = {} if servers is None else {"servers": servers}
    status = evolve(rollout(**declared).spec, fresh(), EMPTY, 60_000_000).status
    assert status.table is not None
    return status.table


def test_our_own_servers_are_asked_for_their_health() -> None:
    table = told(None)
    assert table.challenger is not None
    assert table.champion.probe == table.challenger.probe == Probe(path="/health")


def test_adopted_servers_are_asked_what_is_declared_and_otherwise_nothing() -> None:
    example = '{"inputs": [[1]]}'
    adopted = {"champion": {"url": "http://a:1"}, "challenger": {"url": "http://b:1", "probe": {"body": example}}}
    table = told(adopted)
    assert table.challenger is not None
    assert (table.champion.probe, table.challenger.probe) == (None, Probe(path="/invocations", body=example))
