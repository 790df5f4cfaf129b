"""What every Registry promises. A subclass gives ``world``: a registry and what people do to it from outside."""

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from controller.core.record import Record
from controller.errors import EdgeError, NotFound
from controller.ports import Registry, TickEntry
from controller.status import Progress, RolloutStatus
from tests.ports.contracts.rollouts import STARTED, advanced, attempt, rollout


class RegistryWorld(NamedTuple):
    """``add_version(model, signed)`` registers the model where it is not yet, and returns the new version's number;
    ``point(model, alias, version)`` is a person at work; ``aliases(model)`` is what people see."""

    registry: Registry
    model: str
    add_version: Callable[[str, bool], str]
    point: Callable[[str, str, str], None]
    aliases: Callable[[str], dict[str, str]]


def entry(
    uid: str,
    tick: int,
    metrics: dict[str, float] | None = None,
    record: Record | None = None,
    **status: Any,
) -> TickEntry:
    """Tick number ``tick`` of a rollout that has begun."""
    fields = {"progress": Progress.RUNNING, "attempt": attempt(), "step": 0, "message": "12 of 2,000 units"} | status
    now = advanced(RolloutStatus(uid=uid), tick, **fields)
    return TickEntry(now, {"weight": 5.0} if metrics is None else metrics, tick, record)


class RegistryContract:
    def test_an_alias_and_a_number_resolve_to_the_version(self, world: RegistryWorld) -> None:
        first, second = world.add_version(world.model, True), world.add_version(world.model, True)
        world.point(world.model, "champion", first)
        world.point(world.model, "challenger", second)
        found = [world.registry.resolve(world.model, r) for r in ("champion", "challenger", first, second)]
        assert [f and f.version for f in found] == [first, second, first, second]
        assert [f and f.uri for f in found[:2]] == [f"models:/{world.model}/{v}" for v in (first, second)]

    def test_a_moved_alias_is_seen_at_the_next_look(self, world: RegistryWorld) -> None:
        first, second = world.add_version(world.model, True), world.add_version(world.model, True)
        for version in (first, second, first):
            world.point(world.model, "champion", version)
            resolved = world.registry.resolve(world.model, "champion")
            assert resolved is not None
            assert resolved.version == version

    def test_what_names_nothing_resolves_to_none(self, world: RegistryWorld) -> None:
        world.point(world.model, "champion", world.add_version(world.model, True))
        for reference in ("challenger", "99", "Champion"):
            assert world.registry.resolve(world.model, reference) is None

    def test_a_model_that_is_not_registered_is_told_apart_from_a_missing_alias(self, world: RegistryWorld) -> None:
        with pytest.raises(NotFound, match=r"model 'no-such-model' is not registered"):
            world.registry.resolve("no-such-model", "champion")

    @pytest.mark.parametrize("signed", [True, False])
    def test_a_version_says_whether_it_has_a_signature(self, world: RegistryWorld, signed: bool) -> None:
        version = world.add_version(world.model, signed)
        for _ in range(2):
            resolved = world.registry.resolve(world.model, version)
            assert resolved is not None
            assert resolved.signed is signed

    def test_an_alias_is_made_moved_and_set_again(self, world: RegistryWorld) -> None:
        first, second = world.add_version(world.model, True), world.add_version(world.model, True)
        for version in (first, second, second, first):
            world.registry.set_alias(world.model, "champion", version)
            assert world.aliases(world.model) == {"champion": version}

    def test_an_alias_cannot_name_a_version_that_does_not_exist(self, world: RegistryWorld) -> None:
        first = world.add_version(world.model, True)
        world.point(world.model, "champion", first)
        with pytest.raises(EdgeError):
            world.registry.set_alias(world.model, "champion", "99")
        assert world.aliases(world.model) == {"champion": first}

    def test_an_alias_is_removed_only_where_it_still_names_the_version(self, world: RegistryWorld) -> None:
        first, second = world.add_version(world.model, True), world.add_version(world.model, True)
        world.point(world.model, "champion", first)
        world.point(world.model, "challenger", second)
        world.registry.delete_alias(world.model, "challenger", first)
        assert world.aliases(world.model) == {"champion": first, "challenger": second}
        for _ in range(2):
            world.registry.delete_alias(world.model, "challenger", second)
            assert world.aliases(world.model) == {"champion": first}

    def test_a_tick_of_a_rollout_without_an_attempt_has_no_run(self, world: RegistryWorld) -> None:
        nothing = TickEntry(RolloutStatus(uid="u", clock=STARTED), {"weight": 0.0}, 0, None)
        assert world.registry.log(rollout(world.model), nothing) is None
