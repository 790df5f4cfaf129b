"""`understudy run FILE` from the checks to the end."""

import asyncio
import json
import os
import signal
import sys
from typing import Any

from controller import specfile
from controller.core.serving import model_of
from controller.edges.engine.states import small_file
from controller.edges.store import SqliteStore
from controller.embedded import latest
from controller.embedded.folder import Folder, Refused
from controller.embedded.parent import Parent
from controller.embedded.view import View
from controller.errors import EdgeError, SpecError
from controller.ports import Stored
from controller.settings import Settings, slack_address
from controller.spec import ModelRollout, Servers

_LOOK_S = 0.2
_DELIVERY_S = 10.0


def refuse_leftovers(settings: Settings) -> None:
    """Refused where there is traffic or evidence of rollouts that the store does not know any more: numbers of attempts
    and tables would begin anew, and routers and statistics keep the old ones."""
    if settings.rollouts_file.exists():
        return
    parts = (settings.engine_file, small_file(settings.engine_file), settings.table_file, settings.journal_dir)
    left = [path.name for path in parts if (any(path.iterdir()) if path.is_dir() else path.exists())]
    if left:
        raise Refused(
            f"--state-dir {settings.state_dir}: {' and '.join(left)} of an earlier rollout is there, and"
            f" {settings.rollouts_file.name} is not; restore that, or name another folder",
            2,
        )


def refuse_what_cannot_run_here(rollout: ModelRollout, settings: Settings) -> None:
    """SpecError with a line for everything in the file that has no engine yet, or needs a cluster or a Prometheus."""
    said = specfile.unsupported(rollout.spec)
    if settings.prometheus_url is None:
        said += specfile.of_prometheus(rollout.spec)
    servers = rollout.spec.servers or Servers()
    if rollout.spec.traffic.gateway_api is not None:
        said.append("spec.traffic.gatewayAPI: needs a cluster; leave it and unit.request out to use the router")
    if servers.template is not None:
        said.append("spec.servers.template: needs a cluster; leave servers out, and they are started for you")
    for arm, server in (("champion", servers.champion), ("challenger", servers.challenger)):
        if server is None:
            continue
        if server.service is not None:
            said.append(
                f"spec.servers.{arm}.service: is a Kubernetes Service; on one machine give url: http://host:port,"
                " or leave servers out and they are started for you"
            )
        elif server.url is not None and server.url.removeprefix("http://").rstrip("/").count("/"):
            said.append(f"spec.servers.{arm}.url: {server.url} has a path; allowed: http://host:port")
        if server.external:
            said.append(f"spec.servers.{arm}.external: is not supported on one machine yet")
    if rollout.spec.metrics and said:
        raise SpecError(*said)
    slack_address(rollout.spec.notify, os.environ)


def declare(store: SqliteStore, rollout: ModelRollout) -> bool:
    """Put the rollout into the store; whether it has begun before. A rollout of another name may be replaced as long
    as it never began; else Refused: routers, journals and statistics of a folder are about one rollout, and
    a rollout that began is about one model: versions are small numbers, and one's server would pass for another's."""
    name, model = rollout.metadata.name, rollout.spec.model.name
    others: list[str] = store.keys()
    for other in others:
        stored = store.load(other)
        status = stored.status
        if other == name:
            held = model_of(status.attempt) or model_of(status.former) or stored.rollout.spec.model.name
            if status.attempts and held != model:
                raise Refused(f"--state-dir holds {name!r} of model {held!r}; name another folder for {model!r}", 2)
            continue
        if status.attempts:
            raise Refused(f"--state-dir holds rollout {other!r}; name another folder for {name!r}", 2)
        store.delete(other)
    store.put(rollout)
    return store.load(name).status.attempt is not None


class Run:
    """One life of the command."""

    def __init__(self, settings: Settings, rollout: ModelRollout, view: View, until_end: bool) -> None:
        self._settings, self._rollout, self._view, self._until_end = settings, rollout, view, until_end
        self._name = rollout.metadata.name
        self._end, self._now = asyncio.Event(), asyncio.Event()

    async def run(self) -> tuple[Stored | None, bool]:
        """The rollout as it was last, and whether a person ended the run. Refused, SpecError and EdgeError: it did
        not start; nothing is left running."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._asked)
        folder = await asyncio.to_thread(Folder, self._settings.state_dir)
        try:
            refuse_leftovers(self._settings)
            store = SqliteStore(self._settings.rollouts_file)
            begun = declare(store, self._rollout)
            since = store.load(self._name).version
            parent = Parent(self._settings, self._rollout, folder, self._view.say)
            try:
                await self._unless_asked(parent.start(begun))
                if not self._end.is_set():
                    self._welcome(parent)
                    await self._unless_asked(self._watch(store, parent, since))
            finally:
                await self._stop(parent)
            stored = store.load(self._name)
            store.close()
            return stored, self._end.is_set()
        finally:
            folder.close()

    def _asked(self) -> None:
        (self._now if self._end.is_set() else self._end).set()

    async def _unless_asked(self, work: Any) -> None:
        """Do ``work`` until it is done or a person has had enough; what it raises is raised here."""
        doing, asked = asyncio.ensure_future(work), asyncio.ensure_future(self._end.wait())
        try:
            await asyncio.wait({doing, asked}, return_when=asyncio.FIRST_COMPLETED)
            if doing.done():
                doing.result()
        finally:
            for task in (doing, asked):
                task.cancel()
            await asyncio.gather(doing, asked, return_exceptions=True)

    async def _stop(self, parent: Parent) -> None:
        if self._end.is_set():
            self._view.say("ending: requests in flight first (once more to end at once)")
        stopping, hurry = asyncio.ensure_future(parent.stop()), asyncio.ensure_future(self._now.wait())
        await asyncio.wait({stopping, hurry}, return_when=asyncio.FIRST_COMPLETED)
        if not stopping.done():
            parent.kill()
        await stopping
        hurry.cancel()

    def _welcome(self, parent: Parent) -> None:
        places, spec = parent.addresses, self._rollout.spec
        self._view.say(f"traffic   {places.traffic}/invocations")
        self._view.say(f"outcomes  {places.control}/v1/outcomes")
        self._view.say(f"MLflow    {places.tracking} (experiment rollouts/{spec.model.name})")
        self._view.say(f"logs      {self._settings.state_dir / 'logs'}")

    async def _watch(self, store: SqliteStore, parent: Parent, since: str) -> None:
        """Show what happens; returns at the end of the rollout, if that is waited for."""
        while True:
            parent.raise_faults()
            try:
                stored = await asyncio.to_thread(store.load, self._name)
            except EdgeError as error:
                self._view.say(f"the rollout cannot be read now: {error}")
                await asyncio.sleep(1.0)
                continue
            status = stored.status
            if stored.version != since:  # a tick of this run: a wall clock may have been set back meanwhile
                said = latest.read(self._settings.latest_file)
                mine = said is not None and said.rollout == self._name
                self._view.shows(self._rollout, status, said.metrics if said and mine else {})
                if self._until_end and status.progress.terminal and status.end is not None:
                    await self._delivered(store)
                    return
            await asyncio.sleep(_LOOK_S)

    async def _delivered(self, store: SqliteStore) -> None:
        """The last news to people is worth a short wait."""
        loop = asyncio.get_running_loop()
        end = loop.time() + _DELIVERY_S
        while loop.time() < end:
            stored = await asyncio.to_thread(store.load, self._name)
            if not stored.status.notices:
                return
            await asyncio.sleep(_LOOK_S)


def summary(settings: Settings, stored: Stored) -> dict[str, Any]:
    """How the rollout stands, as a JSON object. ``result`` is null while it goes on; ``estimate`` to ``units`` are the
    evidence of ``metric``, the one that was decided by."""
    status, said = stored.status, latest.read(settings.latest_file)
    name = stored.rollout.metadata.name
    metrics = said.metrics if said is not None and said.rollout == name else {}
    evidence = {part: metrics.get(f"{status.metric}/{part}") for part in ("estimate", "lower", "upper")}
    attempt = status.attempt
    return {
        "name": name,
        "result": status.end,
        "progress": status.progress.value,
        "decision": status.decision.value,
        "reason": status.reason.value,
        "message": status.message,
        "metric": status.metric,
        "segment": status.segment,
        **evidence,
        "attempt": attempt.number if attempt else 0,
        "champion": attempt.champion if attempt else None,
        "challenger": attempt.challenger if attempt else None,
        "units": {arm: int(metrics.get(f"{status.metric}/units.{arm}", 0)) for arm in ("champion", "challenger")},
        "mlflow_run": status.run_id or (said.run_id if said is not None and said.rollout == name else None),
    }


def run(settings: Settings, rollout: ModelRollout, until_end: bool, as_json: bool) -> int:
    """The whole command; the exit code. Errors are lines on standard error, never a trace."""
    view = View(to_stderr=as_json)
    try:
        refuse_what_cannot_run_here(rollout, settings)
        stored, asked = asyncio.run(Run(settings, rollout, view, until_end).run())
    except SpecError as error:
        return failed(error.problems, 2)
    except Refused as error:
        return failed(str(error).splitlines(), error.code)
    except EdgeError as error:
        return failed(str(error).splitlines(), 1)
    if stored is not None and as_json:
        sys.stdout.write(json.dumps({"rollouts": [summary(settings, stored)]}) + "\n")
    if stored is None or not until_end or asked:
        return 0 if not until_end else 1
    return 0 if stored.status.end == "Promoted" else 1


def failed(lines: Any, code: int) -> int:
    """Say why on standard error."""
    for said in lines:
        sys.stderr.write(f"error: {said}\n")
    return code
