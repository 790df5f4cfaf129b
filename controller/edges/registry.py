"""The model registry of MLflow: what an alias names, moving aliases, and the run that shows a rollout.

Polling is the truth: MLflow has no compare-and-swap and no history for aliases, and its webhooks get lost.
"""

import difflib
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Self

from mlflow.entities.model_registry import ModelVersion, RegisteredModel

from controller.core.record import Record
from controller.edges.model_files import ModelFiles
from controller.edges.run_log import RunLog
from controller.edges.silence import Silence
from controller.edges.tracking import Log, Refused, aliases_page, connect, shown, translated
from controller.errors import EdgeError, NotFound
from controller.ports import ResolvedVersion, TickEntry
from controller.spec import ModelRollout
from controller.status import RolloutStatus

_ALIAS_TRIES = 4
_PAGE = 1000  # the most that MLflow gives at once
_SIGNATURES_KEPT = 1024


class MlflowRegistry:
    """``Registry`` by a tracking server at an http(s) address.

    Every method raises EdgeError, within seconds, where MLflow does not answer, and SpecError never: what a person
    has to mend (an unknown model) is a NotFound whose text says so, since the next tick sees it mended.
    """

    def __init__(self, tracking_uri: str, run_log: RunLog | None = None, *, shared: bool = False) -> None:
        """``shared``: teams read what is told, and no team is told the names of others' models, where MLflow is, or
        what it or its store says, for which there is the log. SpecError for an address that is not http(s)."""
        self._uri, self._shared = tracking_uri, shared
        self._client = connect(tracking_uri)
        self._runs = run_log or RunLog(tracking_uri)
        self._signed: OrderedDict[tuple[str, str, int], bool] = OrderedDict()
        self._guard: Callable[[], None] = lambda: None
        self._tell = Log() if shared else None
        self._place = "MLflow" if shared else f"MLflow at {shown(tracking_uri)}"
        # To search all models may take longer than one of them is worth, and is for nobody to wait for.
        self._silence, self._searches = Silence(self._place), Silence(f"the search of {self._place}")
        self._files = ModelFiles(tracking_uri, self._tell)

    def guarded(self, guard: Callable[[], None]) -> Self:
        """The same registry, which asks ``guard`` right before it moves an alias: it raises where we may not."""
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__)
        twin._guard = guard
        return twin

    def resolve(self, model: str, reference: str) -> ResolvedVersion | None:
        """As the port says: None for an alias that does not exist, or a version that does not exist or is not ready.
        Digits are a version number, all else an alias, in which case matters. NotFound for a model that is not
        registered, with a text for people."""
        try:
            with self._asking():
                if reference.isdigit():
                    found = self._client.get_model_version(model, reference)
                else:
                    found = self._client.get_model_version_by_alias(model, reference)
        except (Refused, NotFound):
            # MLflow says 404 as well as 400 to an alias, a version and a model that do not exist.
            if self._model(model) is None:
                raise NotFound(self.explain(model, reference)) from None
            return None
        if found.status != "READY":
            return None
        version = str(found.version)
        return ResolvedVersion(version, f"models:/{model}/{version}", self._has_signature(model, found))

    def explain(self, model: str, reference: str) -> str:
        """What ``reference`` names, or why it names nothing and what there is instead: one sentence for people."""
        registered, place = self._model(model), self._place
        if registered is None:
            return f"model {model!r} is not registered in {place}{'' if self._shared else self._similar(model)}"
        if reference.isdigit():
            with self._asking():
                found = [str(v.version) for v in self._client.search_model_versions(f"name = '{model}'", 5)]
            if reference not in found and self.resolve(model, reference) is None:
                newest = f"newest: {', '.join(found)}" if found else "it has none yet"
                return f"model {model!r} has no ready version {reference} in {place}; {newest}"
            return f"version {reference} of model {model!r} is in {place}"
        aliases: dict[str, str] = registered.aliases
        if reference in aliases:
            return f"alias {reference!r} of model {model!r} names version {aliases[reference]} in {place}"
        there = ", ".join(f"{alias} → {version}" for alias, version in sorted(aliases.items())) or "none"
        same = [alias for alias in aliases if alias.lower() == reference.lower()]
        hint = f" (did you mean {same[0]!r}? case matters)" if same else ""
        return f"model {model!r} has no alias {reference!r} in {place}{hint}; aliases: {there}"

    def aliases(self) -> dict[str, dict[str, str]]:
        """What every alias of every model names now, in as few calls as there are pages."""
        found: dict[str, dict[str, str]] = {}
        token: str | None = None
        while True:
            with self._searches.asked(), translated(self._uri, self._tell):
                page, token = aliases_page(self._uri, _PAGE, token)
            found |= page
            if not token:
                return found

    def set_alias(self, model: str, alias: str, version: str) -> None:
        """As the port says; read back. NotFound where model or version do not exist."""
        if self._alias(model, alias) == version:
            return
        for tries in range(1, _ALIAS_TRIES + 1):
            self._guard()  # not before the read above, which may take as long as a lease
            try:
                with self._asking():
                    self._client.set_registered_model_alias(model, alias, version)
                break
            except Refused:
                # Of several who create an alias at once, MLflow refuses all but one (a UNIQUE constraint).
                if tries == _ALIAS_TRIES:
                    raise
                time.sleep(0.02 * tries)
        self._read_back(model, alias, version)

    def delete_alias(self, model: str, alias: str, version: str) -> None:
        """As the port says; read back. Between reading and removing somebody may move it: MLflow has no condition."""
        if self._alias(model, alias) != version:
            return
        self._guard()
        with self._asking():
            self._client.delete_registered_model_alias(model, alias)
        if self._alias(model, alias) == version:
            raise EdgeError(f"{self._place}: alias {alias!r} of {model!r} still names {version} after its removal")

    def log(self, rollout: ModelRollout, entry: TickEntry) -> str | None:
        """As the port says."""
        return self._runs.log(rollout, entry)

    def catch_up(self, rollout: ModelRollout, status: RolloutStatus, records: Sequence[Record]) -> None:
        """After a start: queue what the process before may not have shown. Repeats change nothing."""
        self._runs.catch_up(rollout, status, records)

    @property
    def counters(self) -> dict[str, int]:
        """What waits for the runs, and what never reached them; see RunLog."""
        return self._runs.counters()

    def flush(self, timeout_s: float) -> bool:
        """Wait until the runs show all that was logged; False where they do not in time."""
        return self._runs.flush(timeout_s)

    def close(self, timeout_s: float = 5.0) -> bool:
        """``flush``, then end the thread."""
        return self._runs.close(timeout_s)

    @contextmanager
    def _asking(self) -> Iterator[None]:
        with self._silence.asked(), translated(self._uri, self._tell):
            yield

    def _model(self, model: str) -> RegisteredModel | None:
        try:
            with self._asking():
                return self._client.get_registered_model(model)
        except NotFound:
            return None

    def _alias(self, model: str, alias: str) -> str | None:
        found = self._model(model)
        if found is None:
            raise NotFound(self.explain(model, alias))
        version = found.aliases.get(alias)
        return None if version is None else str(version)

    def _read_back(self, model: str, alias: str, version: str) -> None:
        now = self._alias(model, alias)
        if now != version:
            raise EdgeError(
                f"{self._place}: alias {alias!r} of {model!r} names {now or 'nothing'} after it was set"
                f" to {version}: somebody else moved it"
            )

    def _similar(self, model: str) -> str:
        with self._asking():
            names = [found.name for found in self._client.search_registered_models(max_results=200)]
        near = difflib.get_close_matches(model, names, 3, 0.5) or sorted(names)[:5]
        return f"; registered: {', '.join(near)}" if near else "; no model is"

    def _has_signature(self, model: str, found: ModelVersion) -> bool:
        """Reads the version's MLmodel, a small file, once. A version that is made anew has another creation time."""
        key = (model, str(found.version), int(found.creation_timestamp))
        signed = self._signed.get(key)
        if signed is None:
            signed = self._signed[key] = self._read_signature(model, str(found.version))
            while len(self._signed) > _SIGNATURES_KEPT:
                self._signed.popitem(last=False)
        return signed

    def _read_signature(self, model: str, version: str) -> bool:
        with self._asking():
            folder = self._client.get_model_version_download_uri(model, version)
        try:
            return self._files.signed(folder)
        except EdgeError as error:
            raise EdgeError(f"the MLmodel file of {model!r} version {version} cannot be read: {error}") from error
