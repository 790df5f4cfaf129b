"""A model registry in memory, which remembers every move of an alias and who made it."""

from collections.abc import Iterable
from typing import NamedTuple

from controller.errors import NotFound
from controller.ports import ResolvedVersion, TickEntry
from controller.spec import ModelRollout

CONTROLLER = "controller"
ENTRIES = 10_000


class Move(NamedTuple):
    """An alias that names something else now; None: nothing."""

    model: str
    alias: str
    was: str | None
    version: str | None
    who: str


class MemoryRegistry:
    """``Registry`` without a server. ``moves``: every real change, in order. ``entries``: the newest ticks by run."""

    def __init__(self) -> None:
        self._versions: dict[str, dict[str, ResolvedVersion]] = {}
        self._aliases: dict[tuple[str, str], str] = {}
        self.moves: list[Move] = []
        self.entries: dict[str, list[TickEntry]] = {}

    def register(self, model: str, versions: Iterable[str], signed: bool = True) -> None:
        """Add ``versions`` of ``model``."""
        held = self._versions.setdefault(model, {})
        for version in versions:
            held[version] = ResolvedVersion(version, f"models:/{model}/{version}", signed)

    def resolve(self, model: str, reference: str) -> ResolvedVersion | None:
        """The version that an alias or version number names now. NotFound without the model."""
        if model not in self._versions:
            raise NotFound(f"model {model!r} is not registered")
        held = self._versions[model]
        if reference.isdigit():
            return held.get(reference)
        return held.get(self._aliases.get((model, reference), ""))

    def set_alias(self, model: str, alias: str, version: str) -> None:
        """Point ``alias`` at ``version``. NotFound where there is no such version."""
        self.move(model, alias, version, CONTROLLER)

    def delete_alias(self, model: str, alias: str, version: str) -> None:
        """Remove ``alias`` if it still names ``version``."""
        if self._aliases.get((model, alias)) == version:
            self.move(model, alias, None, CONTROLLER)

    def move(self, model: str, alias: str, version: str | None, who: str) -> None:
        """``who`` points ``alias`` at ``version``, or removes it; no move where it names that already."""
        was = self._aliases.get((model, alias))
        if version == was:
            return
        if version is None:
            del self._aliases[(model, alias)]
        elif version not in self._versions.get(model, {}):
            raise NotFound(f"model {model!r} has no version {version}")
        else:
            self._aliases[(model, alias)] = version
        self.moves.append(Move(model, alias, was, version, who))

    def alias(self, model: str, alias: str) -> str | None:
        """The version that ``alias`` names."""
        return self._aliases.get((model, alias))

    def log(self, rollout: ModelRollout, entry: TickEntry) -> str | None:
        """Keep ``entry``; the run is named after the rollout's uid and its attempt. None before there is one."""
        if entry.status.attempt is None:
            return None
        run = f"{entry.status.uid}/{entry.status.attempt.number}"
        entries = self.entries.setdefault(run, [])
        entries.append(entry)
        del entries[:-ENTRIES]
        return run
