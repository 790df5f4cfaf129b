"""The parent of the workers: owns the socket, replaces workers, ends everything.

A worker is replaced when it has served its number of requests, when it died, and when it is stuck. The socket
listens all the time: while no worker accepts, connections wait in the kernel's line and are not refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys

from controller.serving.child import Child
from controller.serving.scratch import Scratch
from controller.serving.settings import ModelSource, ServeSettings

FIRST_BACKOFF_SECONDS = 0.2
LAST_BACKOFF_SECONDS = 10.0
DRAIN_SECONDS = 60.0  # how long a replaced worker may still answer on old connections
STEADY_SECONDS = 30.0  # a worker that lived this long is no part of a crash loop
MAX_FAILED_STARTS = 8


def say(message: str) -> None:
    sys.stderr.write(message + "\n")
    sys.stderr.flush()


class Supervisor:
    """`run()` is the life of the server; its result is the exit code: 0 ended as asked, 1 failed, 2 refused."""

    def __init__(self, settings: ServeSettings, listener: socket.socket) -> None:
        self._settings = settings
        self._listener = listener
        self._scratch = Scratch()
        self._source: ModelSource | None = None
        self._children: set[Child] = set()
        self._retiring: set[asyncio.Task[None]] = set()
        self._stop = asyncio.Event()

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._asked_to_end)
        work = loop.create_task(self._work())
        stop = loop.create_task(self._stop.wait())
        try:
            await asyncio.wait({work, stop}, return_when=asyncio.FIRST_COMPLETED)
            code = work.result() if work.done() else 0
        finally:
            for task in (work, stop, *self._retiring):
                task.cancel()
            await asyncio.gather(work, stop, *self._retiring, return_exceptions=True)
            await self._end_all()
            self._scratch.remove()
        return code

    def _asked_to_end(self) -> None:
        if self._stop.is_set():  # asked twice: at once
            for child in self._children:
                child.kill()
        self._stop.set()

    async def _end_all(self) -> None:
        self._listener.close()
        for child in self._children:
            child.order("stop") if child.ready.is_set() else child.kill()
        await asyncio.gather(*(child.end(self._settings.drain_timeout + 1.0) for child in self._children))

    async def _work(self) -> int:
        current = await self._start()
        if current is None:
            return self._explain_first_failure()
        say_unhealthy(current)
        current.order("open")
        host, port = self._listener.getsockname()[:2]
        say(f"listening on http://{f'[{host}]' if ':' in host else host}:{port}")
        loop = asyncio.get_running_loop()
        backoff = FIRST_BACKOFF_SECONDS
        while True:
            started = loop.time()
            await current.trouble.wait()
            if loop.time() - started > STEADY_SECONDS:
                backoff = FIRST_BACKOFF_SECONDS
            if current.alive:
                say(f"replacing the worker: {current.recycle}")
            else:
                say(f"the worker ended with code {current.process.returncode}: starting another in {backoff:.1f} s")
                await asyncio.sleep(backoff)
                backoff = min(backoff * 2, LAST_BACKOFF_SECONDS)
            successor = await self._successor(current)
            if successor is None:
                say(f"no worker could be started in {MAX_FAILED_STARTS} attempts: giving up")
                return 1
            successor.order("open")
            self._retire(current)
            current = successor

    def _explain_first_failure(self) -> int:
        refusals = [child.refusal for child in self._children if child.refusal]
        say(f"understudy serve: {refusals[0] if refusals else 'the model could not be loaded; see the log above'}")
        return 2 if refusals else 1

    async def _start(self) -> Child | None:
        """A worker that has loaded its model, or None. The first one also settles which files are served."""
        child = await Child.start(self._settings, self._listener, self._scratch, self._source)
        self._children.add(child)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(child.ready.wait(), self._settings.load_timeout)
        if not child.alive or child.source is None:
            child.kill()
            await child.end(1.0)
            if self._source is not None:
                self._children.discard(child)
            return None
        self._source = child.source
        return child

    async def _successor(self, current: Child) -> Child | None:
        """A loaded worker, no less healthy than `current` when that one still works; None after too many attempts."""
        backoff = FIRST_BACKOFF_SECONDS
        failures = 0
        while True:
            child = await self._start()
            if child is not None and (child.healthy or not current.healthy or not current.alive):
                say_unhealthy(child)
                return child
            if child is not None:
                say(f"the new worker is not healthy, the old one stays: {child.reason}")
                child.kill()
                await child.end(1.0)
                self._children.discard(child)
            elif not current.alive:
                failures += 1
                if failures >= MAX_FAILED_STARTS:
                    return None
            await asyncio.sleep(backoff)
            backoff = min(backoff * 2, LAST_BACKOFF_SECONDS)

    def _retire(self, child: Child) -> None:
        async def retire() -> None:
            child.order("drain")
            await child.end(DRAIN_SECONDS + 1.0)
            self._children.discard(child)

        task = asyncio.get_running_loop().create_task(retire())
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)


def say_unhealthy(child: Child) -> None:
    if not child.healthy:
        say(f"warning: the model does not answer its own example, and /health says so: {child.reason}")


def bind(host: str, port: int) -> socket.socket:
    """The listening socket. Raises OSError when the address is in use or not this machine's."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(1024)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


def supervise(settings: ServeSettings) -> int:
    """Serve until told to stop. Raises OSError when the address cannot be bound."""
    listener = bind(settings.host, settings.port)
    with contextlib.closing(listener):
        return asyncio.run(_run(settings, listener))


async def _run(settings: ServeSettings, listener: socket.socket) -> int:
    return await Supervisor(settings, listener).run()
