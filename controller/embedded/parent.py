"""The parent of everything on one machine: starts, restarts and ends the processes in order."""

import asyncio
import json
import os
import re
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from controller.edges.servers import LocalServers
from controller.embedded import refusal
from controller.embedded.child import Child, Keeper, environment, python
from controller.embedded.folder import Folder, Refused
from controller.embedded.model_servers import Ground, ModelServers
from controller.embedded.readiness import Asking
from controller.embedded.tracking import tracking_command, tracking_environment
from controller.settings import Settings, environment_name
from controller.spec import ModelRollout
from router.certificates import Files

_POLL_S = 0.1
_TICKING = re.compile(r"understudy\.controller ticking;")
_REACHABLE_S = 6.0
_END_S = 8.0
_CHALLENGER_S = 15.0

Say = Callable[[str], None]


def _flags(files: Files) -> list[str]:
    """Certificates as a program's flags."""
    return [f"--{setting.replace('_', '-')}={path}" for setting, path in files.named().items()]


class Addresses:
    """Where people and applications find things, once it is known."""

    def __init__(self) -> None:
        self.traffic = self.control = self.tracking = ""
        self.tracking_is_ours = False


class Parent:
    """The processes of one run. ``start`` returns when traffic can be served and the controller ticks."""

    def __init__(self, settings: Settings, rollout: ModelRollout, folder: Folder, say: Say) -> None:
        self._settings, self._rollout, self._folder, self._say = settings, rollout, folder, say
        self.addresses = Addresses()
        self._keep = (folder.processes_lock,)
        self._logs = folder.path / "logs"
        self._asking = Asking()
        self._table = LocalServers(settings.servers_file)
        self._mlflow: Keeper | None = None
        self._router: Keeper | None = None
        self._controller: Keeper | None = None
        self._servers: ModelServers | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._router_ready = folder.path / "router.json"

    async def start(self, checked: bool) -> None:
        """``checked``: the rollout has begun before, so the registry is not asked whether it can. Refused where
        something cannot be had."""
        self._table.declare(self._rollout.spec.servers)
        await asyncio.gather(self._start_servers(), self._start_router())
        await self._start_controller(checked)
        self._tasks.append(asyncio.get_running_loop().create_task(self._note_processes(), name="processes"))

    async def _start_servers(self) -> None:
        await self._start_tracking()
        ground = Ground(self._rollout.spec.model.name, self.addresses.tracking, self._logs, self._keep)
        self._servers = ModelServers(self._table, ground, self._asking, self._settings.linger_s)
        self._tasks.append(asyncio.get_running_loop().create_task(self._servers.run(), name="model servers"))

    async def _servers_there(self) -> None:
        """After a restart in the middle of a rollout: wait for the servers that the kept route table names.

        Until the champion is there, a router could only say 502; and what the challenger misses while it is being
        started by us would count against it. It is waited for a little longer than the champion, not for ever.
        """
        loop = asyncio.get_running_loop()
        end, champion_since = loop.time() + self._settings.ready_s, None
        while loop.time() < end:
            wanted, rows = self._table.wanted(), self._table.rows()
            missing = [arm for arm, version in wanted.items() if version not in rows or not rows[version].ready]
            if not missing:
                return
            if "champion" not in missing:
                champion_since = champion_since or loop.time()
                if loop.time() - champion_since > _CHALLENGER_S:
                    return
            await asyncio.sleep(_POLL_S)

    async def _start_tracking(self) -> None:
        given = self._settings.tracking_uri
        if given is not None:
            self.addresses.tracking = given.rstrip("/")
            await self._reach(given)
            return
        host, folder = "127.0.0.1", self._folder.path / "mlflow"
        port = self._folder.port("mlflow", host, self._settings.mlflow_port)
        url = self.addresses.tracking = f"http://{host}:{port}"
        self.addresses.tracking_is_ours = True
        self._say(f"starting MLflow (the first time takes half a minute) on {url}")
        command = tracking_command(host, port, folder)
        settings = environment(tracking_environment(command))
        self._mlflow = Keeper("mlflow", lambda: command, self._logs / "mlflow.log", settings, keep=self._keep)
        self._mlflow.start()

        async def answers() -> bool:
            return (await self._asking.answers(url)).ready

        await self._until(self._mlflow, answers, "MLflow")

    async def _reach(self, address: str) -> None:
        loop = asyncio.get_running_loop()
        end, said = loop.time() + _REACHABLE_S, ""
        while loop.time() < end:
            found = await self._asking.answers(address)
            if found.ready:
                return
            said = found.message
            await asyncio.sleep(0.3)
        shown = urlsplit(address)
        place = f"{shown.scheme}://{shown.hostname}" + (f":{shown.port}" if shown.port else "")
        raise Refused(f"--tracking-uri: MLflow at {place} cannot be reached: {said}")

    async def _start_router(self) -> None:
        settings = self._settings
        port = self._folder.port("traffic", settings.host, settings.port)
        control = self._folder.port("control", "127.0.0.1", settings.control_port)
        command = python(
            "router", "--host", settings.host, "--port", str(port),
            "--control-host", "127.0.0.1", "--control-port", str(control),
            "--workers", str(settings.workers), "--journal-dir", str(settings.journal_dir),
            "--table-file", str(settings.table_file), "--ready-file", str(self._router_ready),
            "--drain-s", str(settings.drain_s), "--log-level", settings.log_level,
            *_flags(settings.certificates._replace(authority="client_ca")),
        )  # fmt: skip
        self._router_ready.unlink(missing_ok=True)
        await self._servers_there()
        env = environment({"UNDERSTUDY_ROUTER_TOKEN": settings.token.get_secret_value()} if settings.token else {})
        self._router = Keeper(
            "router", lambda: command, self._logs / "router.log", env, keep=self._keep, fatal=frozenset({1, 2})
        )
        self._router.start()
        found: dict[str, str] = {}

        async def ready() -> bool:
            try:
                said = json.loads(self._router_ready.read_text())
            except (OSError, ValueError):
                return False
            found.update(said)
            return self._router is not None and said["pid"] == self._router.pid

        await self._until(self._router, ready, "the router")
        self.addresses.traffic, self.addresses.control = found["traffic"], found["control"]

    async def _start_controller(self, checked: bool) -> None:
        settings = self._settings
        settings.refusal_file.unlink(missing_ok=True)
        metrics = self._folder.port("metrics", "127.0.0.1", settings.metrics_port)

        def command() -> list[str]:
            assert self._controller is not None
            first = not checked and not self._controller.settled
            asked = ["--prometheus-url", settings.prometheus_url] if settings.prometheus_url else []
            return python(
                "controller.embedded", "controller", "--state-dir", str(self._folder.path),
                "--tracking-uri", self.addresses.tracking, "--control-url", self.addresses.control,
                "--metrics-port", str(metrics), "--log-level", settings.log_level, *_flags(settings.certificates),
                *asked, *(["--check"] if first else []),
            )  # fmt: skip

        token = {environment_name("token"): settings.token.get_secret_value()} if settings.token else {}
        env = environment({**token, "MLFLOW_DISABLE_TELEMETRY": "true"})
        self._controller = Keeper(
            "controller", command, self._logs / "controller.log", env,
            keep=self._keep, watch=self._wait_for_ticks, fatal=frozenset({2, refusal.CODE}),
        )  # fmt: skip
        self._controller.start()
        self._say("starting the controller")

        async def ticks() -> bool:
            return self._controller is not None and self._controller.settled

        await self._until(self._controller, ticks, "the controller")

    async def _wait_for_ticks(self, child: Child) -> None:
        await child.says(_TICKING)
        assert self._controller is not None
        self._controller.settled = True

    async def _until(self, keeper: Keeper, ready: Callable[[], Awaitable[bool]], who: str) -> None:
        """Wait until ``ready``; Refused where the program says that it cannot be, or takes longer than it may."""
        loop = asyncio.get_running_loop()
        end = loop.time() + self._settings.ready_s
        while not await ready():
            if keeper.ended.is_set():
                said = refusal.read(self._settings.refusal_file) if keeper is self._controller else []
                raise Refused("\n".join(said) or f"{who} does not start: {keeper.failure}")
            if loop.time() > end:
                why = f": {keeper.failure}" if keeper.failure else ""
                raise Refused(f"{who} was not ready within {self._settings.ready_s:g} s{why}; see {self._logs}")
            await asyncio.sleep(_POLL_S)
        keeper.settled = True

    def raise_faults(self) -> None:
        """Raise what ended one of our own tasks: a fault of ours, which must not go on unseen."""
        for task in self._tasks:
            if task.done() and not task.cancelled():
                task.result()

    def processes(self) -> dict[str, int]:
        """Process id of each program that runs now, by name."""
        kept = [k for k in (self._mlflow, self._router, self._controller) if k is not None]
        found = {keeper.name: keeper.pid for keeper in kept if keeper.pid is not None}
        servers = self._servers.pids if self._servers else {}
        return {"run": os.getpid()} | found | {f"server-{version}": pid for version, pid in servers.items()}

    async def _note_processes(self) -> None:
        was: dict[str, int] = {}
        while True:
            now = self.processes()
            if now != was and self._folder.note("processes.json", json.dumps(now)):
                was = now
            await asyncio.sleep(_POLL_S)

    async def stop(self) -> None:
        """Traffic first, then what decides, then what serves, then what remembers."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._router is not None:
            await self._router.stop(self._settings.drain_s + 2.0)
        if self._controller is not None:
            await self._controller.stop(_END_S)
        if self._servers is not None:
            await self._servers.stop(_END_S)
        if self._mlflow is not None:
            await self._mlflow.stop(_END_S)
        await self._asking.close()
        self._table.close()
        for leftover in (self._router_ready, self._folder.path / "processes.json"):
            leftover.unlink(missing_ok=True)

    def kill(self) -> None:
        """At once, all of them: what is asked for twice."""
        for keeper in (self._router, self._controller, self._mlflow):
            if keeper is not None and keeper.child is not None:
                keeper.child.kill()
        if self._servers is not None:
            self._servers.kill()
