"""What a registry was given last, and how it took it."""

from collections.abc import Callable
from typing import NamedTuple

from controller.errors import EdgeError
from controller.ports import Registry, ResolvedVersion, TickEntry
from controller.spec import ModelRollout


class Shown(NamedTuple):
    """What the last tick of a rollout logged."""

    entry: TickEntry
    run_id: str | None


class ShowingRegistry:
    """A registry that also remembers the newest tick it was given, for those who watch.

    ``refusals``: how often in a row it moved no alias, ``refusal``: why it did not the last time; empty: it did.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self.shown: dict[str, Shown] = {}
        self.refusals, self.refusal = 0, ""

    def resolve(self, model: str, reference: str) -> ResolvedVersion | None:
        return self._registry.resolve(model, reference)

    def set_alias(self, model: str, alias: str, version: str) -> None:
        self._moved(lambda: self._registry.set_alias(model, alias, version))

    def delete_alias(self, model: str, alias: str, version: str) -> None:
        self._moved(lambda: self._registry.delete_alias(model, alias, version))

    def log(self, rollout: ModelRollout, entry: TickEntry) -> str | None:
        run_id = self._registry.log(rollout, entry)
        self.shown[entry.status.rollout] = Shown(entry, run_id)
        return run_id

    def _moved(self, move: Callable[[], None]) -> None:
        try:
            move()
        except EdgeError as error:
            self.refusals, self.refusal = self.refusals + 1, str(error)
            raise
        self.refusals, self.refusal = 0, ""
