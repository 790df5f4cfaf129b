"""What aliases name, for the rollouts that are over or on their way: one query for all of them, and none by each.

Of those on their way a query counts for some ticks, and not while an alias is being moved, by us or by hand: the query
itself tells of moves, and wakes whom they concern.
"""

import time
from collections.abc import Mapping
from typing import NamedTuple

from controller.edges.cluster.watch import Entry
from controller.edges.showing import ShowingRegistry
from controller.ports import Registry, ResolvedVersion, TickEntry
from controller.spec import ModelRollout
from controller.status import Progress

Aliases = Mapping[str, Mapping[str, str]]  # by model: versions by alias
# That a query counts for those on their way. A registry of ten thousand models is asked about once a minute.
LOOKS, LONGEST_S = 4, 120.0


class Known(NamedTuple):
    """What every alias named when it was asked ``at`` (s, monotonic)."""

    named: Aliases
    at: float

    def recent(self, tick: int) -> bool:
        """Whether one that is looked at every ``tick`` µs may go by it."""
        return time.monotonic() - self.at < min(LONGEST_S, LOOKS * tick / 1e6)


class Unmoved:
    """The registry as a rollout saw it last: nothing that it asks for was moved since.

    What else is asked for, by an edit since, is looked up.
    """

    def __init__(self, registry: Registry, name: str, seen: Mapping[str, str | None], signed: bool) -> None:
        """``seen``: versions of the model ``name`` by reference; ``signed``: whether they have a signature."""
        self._registry, self._name, self._seen, self._signed = registry, name, seen, signed

    def resolve(self, model: str, reference: str) -> ResolvedVersion | None:
        if model != self._name or reference not in self._seen:
            return self._registry.resolve(model, reference)
        version = self._seen[reference]
        return None if version is None else ResolvedVersion(version, f"models:/{model}/{version}", self._signed)

    def set_alias(self, model: str, alias: str, version: str) -> None:
        self._registry.set_alias(model, alias, version)

    def delete_alias(self, model: str, alias: str, version: str) -> None:
        self._registry.delete_alias(model, alias, version)

    def log(self, rollout: ModelRollout, entry: TickEntry) -> str | None:
        return self._registry.log(rollout, entry)


def registry_for(entry: Entry, registry: ShowingRegistry, known: Known | None, tick: int) -> Registry:
    """``registry``, or what stands for it where the aliases of ``entry`` name what they did by what is ``known``.
    Versions by number, and whatever was moved, are looked up. ``tick``: µs between two looks at one on its way."""
    if known is None or entry.model not in known.named or not (entry.ended or (entry.live and known.recent(tick))):
        return registry
    tree = entry.object
    status = tree["status"]
    # What was strange once is looked at again before it counts.
    if not entry.ended and (status.get("progress") != Progress.RUNNING or status.get("aliasStrange")):
        return registry
    model, observed = tree["spec"]["model"], status.get("observed") or {}
    references = [str(model.get(role, role)) for role in ("champion", "challenger")]  # YAML has numbers, too
    seen = dict(zip(references, (observed.get("championAlias"), observed.get("challengerAlias")), strict=True))
    named = known.named[entry.model]
    moved = any(each.isdigit() or named.get(each) != version for each, version in seen.items())
    if moved or observed.get("registryError") or len(seen) < len(references):
        return registry
    return Unmoved(registry, entry.model, seen, bool(observed.get("challengerSigned", True)))
