"""The model servers of one machine: one process per version that is wanted, or somebody else's, and their readiness."""

import asyncio
import logging
import re
from pathlib import Path
from typing import NamedTuple, Protocol

import psutil

from controller.edges.servers import LocalServers, ServerRow, upstream_of
from controller.embedded.child import Child, Keeper, environment, python
from controller.embedded.readiness import Asking
from controller.errors import EdgeError

log = logging.getLogger("understudy.servers")

_POLL_S = 0.1
_STARTING_S = 0.2
_STEADY_S = 1.0
_EXAMPLE_S = 60.0
_LISTENING = re.compile(r"^listening on http://(\S+)$", re.MULTILINE)


class Ground(NamedTuple):
    """What all servers of a run share. ``keep``: descriptors that their leashes hold."""

    model: str
    tracking_uri: str
    logs: Path
    keep: tuple[int, ...] = ()

    def environment(self) -> dict[str, str]:
        return environment({"MLFLOW_TRACKING_URI": self.tracking_uri, "MLFLOW_DISABLE_TELEMETRY": "true"})


class Server(Protocol):
    """What the pool does with a server."""

    @property
    def pid(self) -> int | None: ...

    def start(self) -> None: ...

    async def stop(self, within: float) -> None: ...

    def kill(self) -> None: ...


class OwnServer:
    """A version served by our own model server, which is started again when it ends, on the same port."""

    def __init__(self, version: str, table: LocalServers, ground: Ground, asking: Asking) -> None:
        known = table.rows().get(version)
        self._upstream = known.upstream if known is not None and not known.adopted else None
        self._version, self._table, self._ground, self._asking = version, table, ground, asking
        self._keeper = Keeper(
            f"server-{version}",
            self._command,
            ground.logs / f"server-{version}.log",
            ground.environment(),
            keep=ground.keep,
            watch=self._watch,
        )

    @property
    def pid(self) -> int | None:
        return self._keeper.pid

    def start(self) -> None:
        self._keeper.start()

    async def stop(self, within: float) -> None:
        await self._keeper.stop(within)

    def kill(self) -> None:
        if self._keeper.child is not None:
            self._keeper.child.kill()

    def _command(self) -> list[str]:
        if self._keeper.starts:
            if "cannot listen on" in (self._keeper.failure or ""):
                self._upstream = None  # somebody else has taken the port meanwhile
            self._tell(False, f"the server of version {self._version} ended and is started again:"
                       f" {self._keeper.failure}")  # fmt: skip
        port = self._upstream.rpartition(":")[2] if self._upstream else "0"
        return python(
            "controller.serving", f"models:/{self._ground.model}/{self._version}",
            "--port", port, "--model-name", self._ground.model, "--model-version", self._version,
            # Whether the challenger may be without one is decided before it gets here; a champion serves already.
            "--allow-no-signature",
        )  # fmt: skip

    async def _watch(self, child: Child) -> None:
        found = _LISTENING.search(await child.says(_LISTENING))
        assert found is not None
        self._upstream, was = found[1], None
        self._tell_process(child.pid)
        while True:
            now = await self._asking.health(f"http://{self._upstream}")
            if now != was:
                self._tell(now.ready, now.message)
            was = now
            await asyncio.sleep(_STEADY_S if now.ready else _STARTING_S)

    def _tell_process(self, pid: int) -> None:
        try:
            self._table.put_process(self._version, pid, psutil.Process(pid).create_time())
        except (EdgeError, psutil.Error) as error:
            log.warning("the server of version %s cannot be measured: %s", self._version, error)

    def _tell(self, ready: bool, message: str) -> None:
        _put(self._table, ServerRow(self._version, self._upstream, False, ready, message))


class AdoptedServer:
    """Somebody else's server for a version: never started or ended by us, only asked."""

    pid = None

    def __init__(self, version: str, url: str, table: LocalServers, ground: Ground, asking: Asking) -> None:
        self._version, self._url, self._table, self._ground, self._asking = version, url, table, ground, asking
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._watch(), name=f"adopted-{self._version}")

    async def stop(self, within: float) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def kill(self) -> None:
        """Not ours to kill."""

    async def _watch(self) -> None:
        _put(self._table, ServerRow(self._version, upstream_of(self._url), True, False, "not asked yet"))
        example, was = await self._example(), None
        while True:
            now = await self._asking.adopted(self._url, self._version, example)
            if now != was:
                _put(self._table, ServerRow(self._version, upstream_of(self._url), True, now.ready, now.message))
            was = now
            await asyncio.sleep(_STEADY_S)

    async def _example(self) -> bytes | None:
        """The request that MLflow keeps with the version; None where it has none, or does not give it in time.

        By a process of its own: MLflow's client takes seconds and a hundred megabytes, once.
        """
        uri = f"models:/{self._ground.model}/{self._version}"
        command = python("controller.embedded", "example", uri)
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env=self._ground.environment(),
        )
        try:
            example, _ = await asyncio.wait_for(process.communicate(), _EXAMPLE_S)
        except TimeoutError:
            example = b""
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        return example or None


def _put(table: LocalServers, row: ServerRow) -> None:
    try:
        table.put(row)
    except EdgeError as error:
        log.warning("%s", error)


class ModelServers:
    """Starts what the table wants, and ends what nobody has wanted for ``linger_s`` seconds."""

    def __init__(self, table: LocalServers, ground: Ground, asking: Asking, linger_s: float) -> None:
        self._table, self._ground, self._asking, self._linger_s = table, ground, asking, linger_s
        self._servers: dict[str, Server] = {}
        self._unwanted: dict[str, float] = {}
        self._ending: set[asyncio.Task[None]] = set()

    @property
    def pids(self) -> dict[str, int]:
        """Process id of each of our own servers that runs, by version."""
        return {version: pid for version, server in self._servers.items() if (pid := server.pid) is not None}

    async def run(self) -> None:
        """For ever; a table that is busy is read at the next time."""
        while True:
            try:
                self._look()
            except EdgeError as error:
                log.warning("%s", error)
            await asyncio.sleep(_POLL_S)

    def _look(self) -> None:
        wanted, now = self._table.wanted(), asyncio.get_running_loop().time()
        for arm, version in wanted.items():
            self._unwanted.pop(version, None)
            if version not in self._servers:
                server = self._server(arm, version)
                if server is not None:
                    self._servers[version] = server
                    server.start()
        for version in self._servers.keys() - set(wanted.values()):
            if now - self._unwanted.setdefault(version, now) >= self._linger_s:
                self._retire(version)

    def _server(self, arm: str, version: str) -> Server | None:
        """A promoted version stays where it is served, though the address was declared for the other arm."""
        rows, declared = self._table.rows(), self._table.declared()
        adopted = {row.upstream: row for row in rows.values() if row.adopted}
        urls = {upstream_of(url): url for url in declared.values()}
        known = rows.get(version)
        if known is not None and known.adopted and known.upstream in urls:
            return self._adopt(version, urls[known.upstream])
        if arm not in declared:
            return OwnServer(version, self._table, self._ground, self._asking)
        holder = adopted.get(upstream_of(declared[arm]))
        if holder is not None and holder.version in self._servers and holder.version not in self._unwanted:
            text = (
                f"servers.{arm}.url: {declared[arm]} serves version {holder.version}, which is wanted too;"
                f" version {version} needs a server of its own"
            )
            if known is None or known.message != text:
                self._table.put(ServerRow(version, None, False, False, text))
            return None
        if holder is not None:
            self._table.forget(holder.version)
            self._retire(holder.version)
        return self._adopt(version, declared[arm])

    def _adopt(self, version: str, url: str) -> Server:
        return AdoptedServer(version, url, self._table, self._ground, self._asking)

    def _retire(self, version: str) -> None:
        self._unwanted.pop(version, None)
        server = self._servers.pop(version, None)
        if server is not None:
            task = asyncio.get_running_loop().create_task(self._end(version, server))
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)

    async def _end(self, version: str, server: Server) -> None:
        await server.stop(20.0)
        if version not in self._servers:
            try:
                self._table.forget(version)
            except EdgeError as error:
                log.warning("%s", error)

    async def stop(self, within: float) -> None:
        """End all of them."""
        servers = [server.stop(within) for server in self._servers.values()]
        await asyncio.gather(*servers, *self._ending, return_exceptions=True)

    def kill(self) -> None:
        """All of our own, at once."""
        for server in self._servers.values():
            server.kill()
