"""What every TrafficProvider promises. A subclass gives ``provider`` and ``confirmed_within``: a callable that waits
until a generation is confirmed, which for routers in other processes takes a moment."""

import re
from collections.abc import Callable
from typing import Any

import pytest

from controller.errors import EdgeError
from controller.ports import TrafficProvider
from router.table import RouteTable


def table(generation: int, **changes: Any) -> RouteTable:
    fields = {
        "generation": generation,
        "rollout": "flight-delay",
        "epoch": generation,
        "salt": "u/1",
        "champion": {"version": "1", "upstreams": ["127.0.0.1:9"]},
        "challenger": {"version": "2", "upstreams": ["127.0.0.1:9"]},
        "weight_bp": 500,
        "control_from_bp": 5000,
        "unit": {"header": "x-unit-id"},
    }
    return RouteTable.model_validate(fields | changes)


class TrafficContract:
    def test_an_applied_table_is_confirmed_by_every_worker(
        self, provider: TrafficProvider, confirmed_within: Callable[[int, float], object]
    ) -> None:
        provider.apply(table(3))
        confirmed_within(3, 20.0)
        seen = provider.observe()
        assert seen.complete
        assert seen.confirmed == 3
        assert all(w.generation == 3 and w.breaker == "closed" for r in seen.routers for w in r.workers)

    def test_the_same_table_again_changes_nothing(
        self, provider: TrafficProvider, confirmed_within: Callable[[int, float], object]
    ) -> None:
        for _ in range(3):
            provider.apply(table(3))
        confirmed_within(3, 20.0)
        provider.apply(table(3))
        assert provider.observe().confirmed == 3

    def test_an_older_table_is_refused_and_both_generations_are_named(
        self, provider: TrafficProvider, confirmed_within: Callable[[int, float], object]
    ) -> None:
        provider.apply(table(8))
        confirmed_within(8, 20.0)
        with pytest.raises(EdgeError) as raised:
            provider.apply(table(7))
        assert {"7", "8"} <= set(re.findall(r"\b\d+\b", str(raised.value)))
        assert provider.observe().confirmed == 8

    def test_another_table_of_the_same_generation_is_refused(
        self, provider: TrafficProvider, confirmed_within: Callable[[int, float], object]
    ) -> None:
        provider.apply(table(8))
        confirmed_within(8, 20.0)
        with pytest.raises(EdgeError):
            provider.apply(table(8, weight_bp=100))
        provider.apply(table(9, weight_bp=100))
        confirmed_within(9, 20.0)
