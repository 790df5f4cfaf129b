"""A router worker: one process with one event loop, which serves by the table that its supervisor gives it.

It accepts once its supervisor has said what to serve, and ends when it is told to drain, on SIGTERM, or when the
supervisor is gone: it stops accepting, answers what is under way, and leaves its journal complete.
"""

import argparse
import asyncio
import gc
import importlib.util
import logging
import signal
import socket
import time
from collections.abc import Callable
from typing import Any, cast

from pydantic import ValidationError

from router import downstream, tally
from router.acceptor import Acceptor
from router.channel import Channel
from router.downstream import Client
from router.journal import Writer
from router.listeners import bound, inherited, raise_descriptor_limit
from router.plane import Plane
from router.table import RouteTable
from router.worker_config import WorkerConfig

log = logging.getLogger("understudy.router.worker")

_STATE_EVERY_S = 1.0
# A client may have sent a request just before it could see that an idle connection ends.
_IDLE_GRACE_S = 1.0
_DRAIN_LOOK_S = 0.02
# Of the time to drain; who pauses for longer in the middle of a request is told to go elsewhere.
_LONGEST_PAUSE = 1 / 5
# So many looks, half a second, are for those who are still sending at the very end to hear of it.
_LAST_LOOKS = 25
_SWEEP_AT_MOST_EVERY_S = 0.05


class Worker:
    """The process: listening socket, channel, data plane, and their end."""

    def __init__(self, loop: asyncio.AbstractEventLoop, config: WorkerConfig) -> None:
        writer = Writer(
            config.journal_dir,
            f"{config.router}-{config.worker}",
            capacity=config.journal_capacity,
            flush_ms=config.journal_flush_ms,
            rotate_bytes=config.journal_rotate_bytes,
            rotate_s=config.journal_rotate_s,
            tally=tally.inherited(),
        )
        self.config = config
        self.plane = Plane(loop, config, writer)
        self.port = 0
        self._loop = loop
        self._channel = Channel(self._heard, self._end)
        self._acceptor: Acceptor | None = None
        self._told = asyncio.Event()
        self._ending = asyncio.Event()
        shortest = min(1.0, config.idle_s, config.head_s, config.body_s, config.upstream_idle_s)
        self._sweep_every_s = max(_SWEEP_AT_MOST_EVERY_S, shortest / 4)

    async def run(self, channel_fd: int) -> None:
        """Serve until told to end."""
        channel = socket.socket(fileno=channel_fd)
        channel.setblocking(False)
        await self._loop.create_unix_connection(lambda: self._channel, sock=channel)
        self._loop.add_signal_handler(signal.SIGTERM, self._end)
        self._loop.add_signal_handler(signal.SIGINT, self._end)
        try:
            await self._either(self._told)
            if not self._ending.is_set():
                self._listen()
                await self._serve()
            await self._drain()
        finally:
            self.plane.writer.close()
            self._say()
            self._channel.close()

    async def _either(self, event: asyncio.Event, seconds: float | None = None) -> None:
        """Wait for an event, or for the end."""
        waits = [asyncio.ensure_future(event.wait()), asyncio.ensure_future(self._ending.wait())]
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()

    def _client(self) -> asyncio.Protocol:
        return cast(asyncio.Protocol, Client(self.plane))

    def _listen(self) -> None:
        """On the sockets that a supervisor holds, else on those of our own."""
        config = self.config
        sockets = inherited() or bound(config.host, config.port)
        self._acceptor = Acceptor(self._loop, sockets, config.backlog, self._client)
        self.port = self._acceptor.port
        self._acceptor.start()
        how = "interpreted" if str(downstream.__file__).endswith(".py") else "compiled"
        loop = type(self._loop).__module__.partition(".")[0]
        log.info("worker %s serves %s port %d, %s, on %s", config.worker, config.host, self.port, how, loop)

    def _sweep(self) -> None:
        self.plane.sweep()
        self._loop.call_later(self._sweep_every_s, self._sweep)

    async def _serve(self) -> None:
        self._sweep()
        while not self._ending.is_set():
            self._say()
            await self._either(self._ending, _STATE_EVERY_S)

    async def _drain(self) -> None:
        """Accept nothing more; answer what is under way; close what stays idle."""
        plane = self.plane
        if self._acceptor is not None:
            await self._acceptor.stop()
        began = self._loop.time()
        said = began
        while plane.clients or plane.mirrors:
            now = self._loop.time()
            if now - began > self.config.drain_s:
                log.warning("worker %s ends with %d connections open", self.config.worker, len(plane.clients))
                break
            if now - began > min(_IDLE_GRACE_S, self.config.drain_s / 2):
                for client in [client for client in plane.clients if client.idle]:
                    client.cut()
                longest_s = self.config.drain_s * _LONGEST_PAUSE
                for client in [client for client in plane.clients if client.silent_for(now) > longest_s]:
                    client.turn_away()
            if now - said > _STATE_EVERY_S:
                said = now
                self._say()
            await asyncio.sleep(_DRAIN_LOOK_S)
        sending = plane.cut_off()
        plane.outbox.flush()
        for _ in range(_LAST_LOOKS):
            if not sending & plane.clients:
                break
            await asyncio.sleep(_DRAIN_LOOK_S)
        # What was answered and taken closes with the next turn of the loop, and what is left is recorded with the one
        # after that.
        await asyncio.sleep(0)
        for client in list(plane.clients):
            client.transport.abort()
        await asyncio.sleep(0)

    # The channel.

    def _heard(self, message: dict[str, Any]) -> None:
        match message.get("type"):
            case "table":
                self._use(message.get("table"))
            case "heard":
                t = message.get("t")
                self.plane.heard(t if isinstance(t, int) else time.time_ns() // 1000)
            case "poll":
                self._loop.call_soon(self._say_if_listening)
            case "drain":
                self._end()
            case other:
                log.error("the supervisor said %r, which is unknown", other)
                return
        self._told.set()

    def _use(self, table: object) -> None:
        routes = self.plane.routes
        try:
            parsed = RouteTable.model_validate(table, strict=False)
            if routes is not None and parsed.generation < routes.generation:
                log.error("table of generation %d is older than %d", parsed.generation, routes.generation)
            elif routes is None or parsed != routes.table:
                self.plane.use(parsed)
            else:
                self.plane.heard(time.time_ns() // 1000)
        except (ValidationError, ValueError) as error:
            log.error("a table that cannot be used: %s", error)
            return
        # Confirmed by the next turn of the loop: whatever is read from now on is routed by it.
        self._loop.call_soon(self._say_if_listening)

    def _say_if_listening(self) -> None:
        if self._acceptor is not None:
            self._say()

    def _say(self) -> None:
        state = self.plane.state().model_dump(mode="json")
        self._channel.say({"type": "state", "state": state, "counters": self.plane.numbers(), "port": self.port})

    def _end(self) -> None:
        # From here on answers tell their clients to go, however soon the loop gets to the rest.
        self.plane.draining = True
        self._ending.set()


def main(config: WorkerConfig, channel_fd: int) -> None:
    """Run a worker until it ends; the channel's descriptor is a connected stream socket."""
    descriptors = raise_descriptor_limit()
    fitting = config.within(descriptors)
    if fitting is not config:
        said = "worker %s may have %d descriptors: at most %d clients, not %d; allow the process more"
        log.warning(said, config.worker, descriptors, fitting.max_connections, config.max_connections)
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
    with asyncio.Runner(loop_factory=loop_factory(config.loop)) as runner:
        runner.run(_run(fitting, channel_fd))


def loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop]:
    """The loop that was asked for. Raises ImportError where it is not there."""
    if name == "asyncio" or (name == "auto" and importlib.util.find_spec("uvloop") is None):
        return asyncio.SelectorEventLoop
    import uvloop

    return uvloop.new_event_loop


async def _run(config: WorkerConfig, channel_fd: int) -> None:
    await Worker(asyncio.get_running_loop(), config).run(channel_fd)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m router.worker")
    parser.add_argument("--config", required=True, help="WorkerConfig as JSON")
    parser.add_argument("--channel-fd", type=int, required=True)
    arguments = parser.parse_args()
    told = WorkerConfig.model_validate_json(arguments.config)
    logging.basicConfig(level=told.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s %(message)s")
    main(told, arguments.channel_fd)
