"""The process that holds the model. Started by the supervisor only; told what to do through its standard input.

Reports to the supervisor are JSON lines on `report_fd`: ready, opened, refused, recycle, alive. Orders arrive as
lines on stdin: open, drain (a successor has taken over), stop. The end of stdin means that the supervisor is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import shutil
import signal
import socket
import sys
import threading
from typing import Any

from controller.serving.application import Answer, Application
from controller.serving.faults import ModelRefused
from controller.serving.model import LoadedModel, find_model, load_model
from controller.serving.protocol import Connections, connection_factory
from controller.serving.settings import WorkerOrder

_logger = logging.getLogger("understudy.serve")
ORPHAN_SECONDS = 2.0
DRAIN_SECONDS = 60.0


class Worker:
    """One loaded model behind the shared socket."""

    def __init__(self, order: WorkerOrder) -> None:
        self._order = order
        self._loop = asyncio.new_event_loop()
        self._server: asyncio.Server | None = None
        self._connections: Connections | None = None
        self._finished = asyncio.Event()
        self._ending = False
        self._orphaned = False

    def report(self, event: str, **details: object) -> None:
        """Tell the supervisor; never wait for it."""
        # The pipe is full or closed: it will find out from the missing heartbeat, or is gone.
        with contextlib.suppress(BlockingIOError, BrokenPipeError):
            os.write(self._order.report_fd, json.dumps({"event": event, **details}).encode() + b"\n")

    def run(self) -> int:
        threading.Thread(target=self._listen_for_orders, name="orders", daemon=True).start()
        try:
            source = self._order.source or find_model(self._order.settings, self._order.folder)
            model = load_model(self._order.settings, source)
        except ModelRefused as refusal:
            self.report("refused", message=str(refusal))
            return 2
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve(model))
        return 0

    async def _serve(self, model: LoadedModel) -> None:
        settings = self._order.settings
        application = Application(
            model,
            settings,
            self._loop,
            on_due=lambda: self.report("recycle", why=f"{settings.max_requests} requests served"),
            on_stuck=lambda: self.report("recycle", why="every thread is held by an overdue prediction"),
        )
        headers = {"x-model-name": model.source.name, "x-model-version": model.source.version}
        named = {name: _header_text(value) for name, value in headers.items() if value is not None}
        self._connections = Connections(application, settings, named)
        self._loop.add_signal_handler(signal.SIGTERM, self._end, True, settings.drain_timeout)
        health: asyncio.Future[Answer] = self._loop.create_future()
        application.health(health.set_result)
        answer = await health
        self.report(
            "ready",
            healthy=answer.status == 200,
            reason="" if answer.status == 200 else json.loads(answer.body)["reason"],
            source={"path": model.source.path, "name": model.source.name, "version": model.source.version},
        )
        while not self._finished.is_set():
            try:
                await asyncio.wait_for(self._finished.wait(), 1.0)
            except TimeoutError:
                self.report("alive")
                self._connections.sweep(self._loop.time())

    async def _open(self) -> None:
        """Start to accept from the shared socket."""
        if self._server is not None or self._connections is None:
            return
        listener = socket.socket(fileno=os.dup(self._order.listen_fd))
        factory = connection_factory(self._connections, self._loop)
        self._server = await self._loop.create_server(factory, sock=listener, backlog=1024)
        self.report("opened")

    def _end(self, idle_now: bool, deadline: float) -> None:
        """Accept no more, answer what is here, and finish; a second call may only shorten it."""
        if self._connections is None:
            os._exit(0)  # nothing has been served yet
        if self._server is not None:
            self._server.close()  # this process's copy only: the socket itself goes on listening
        self._connections.drain(idle_now=idle_now)
        self._loop.call_later(deadline, self._finished.set)
        if not self._ending:
            self._ending = True
            self._wait_for_clients()

    def _wait_for_clients(self) -> None:
        connections = self._connections
        if connections is None or not connections.open:
            self._finished.set()
        else:
            self._loop.call_later(0.02, self._wait_for_clients)

    def _listen_for_orders(self) -> None:
        """In a thread from the start, since loading a model keeps the main thread busy for seconds."""
        for line in sys.stdin:
            order = line.strip()
            try:
                if order == "open":
                    asyncio.run_coroutine_threadsafe(self._open(), self._loop)
                elif order == "drain":
                    self._loop.call_soon_threadsafe(self._end, False, DRAIN_SECONDS)
                elif order == "stop":
                    self._loop.call_soon_threadsafe(self._end, True, self._order.settings.drain_timeout)
            except RuntimeError:
                return  # the loop is closed: the process is ending
        self._orphaned = True
        _logger.error("the supervisor is gone: ending")
        timer = threading.Timer(ORPHAN_SECONDS, self._abandon)
        timer.daemon = True
        timer.start()
        if self._loop.is_running():
            self._loop.call_soon_threadsafe(self._end, True, ORPHAN_SECONDS)
        else:
            self._abandon()

    def _abandon(self) -> None:
        self.remove_folder()
        os._exit(1)

    def remove_folder(self) -> None:
        """The supervisor removes its folder; when it was killed, its last worker does."""
        if self._orphaned:
            shutil.rmtree(self._order.folder, ignore_errors=True)


def _header_text(value: str) -> str:
    """A name as a header value: printable ASCII, percent-encoded where it is not."""
    from urllib.parse import quote

    return quote(value, safe=" !#$&'()*+,/:;=?@[]~^`|{}<>\"")


def main(arguments: list[str] | None = None) -> Any:
    """Entry of a worker process; never returns, so that no thread of a model can hold it back."""
    order = WorkerOrder.from_json((arguments or sys.argv[1:])[0])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the supervisor decides
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
        force=True,
    )
    os.set_blocking(order.report_fd, False)
    worker = Worker(order)
    code = 1
    try:
        code = worker.run()
    except Exception:
        _logger.exception("the model could not be loaded or served")
    finally:
        worker.remove_folder()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
