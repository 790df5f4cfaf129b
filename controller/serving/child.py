"""The supervisor's view of one worker process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import sys
from pathlib import Path
from typing import Any

from controller.serving.scratch import Scratch
from controller.serving.settings import ModelSource, ServeSettings, WorkerOrder

# The importable root goes last and the current folder after it: files there must not shadow the standard library,
# but a model pickled from a module beside the user can still be found.
_START = (
    "import os, sys; sys.path += [sys.argv.pop(1), os.getcwd()]; from controller.serving.worker import main; main()"
)
_ROOT = str(Path(__file__).resolve().parents[2])
SILENT_SECONDS = 30


class Child:
    """One worker process: what it reported, and a way to give it orders."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.ready = asyncio.Event()
        self.trouble = asyncio.Event()
        self.healthy = False
        self.reason = ""
        self.source: ModelSource | None = None
        self.refusal: str | None = None
        self.recycle: str | None = None
        self.silent = 0
        self._tasks: list[asyncio.Task[Any]] = []

    @property
    def alive(self) -> bool:
        return self.process.returncode is None

    @classmethod
    async def start(
        cls, settings: ServeSettings, listener: socket.socket, scratch: Scratch, source: ModelSource | None
    ) -> Child:
        read_fd, write_fd = os.pipe()
        order = WorkerOrder(settings, listener.fileno(), write_fd, scratch.path, source)
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",
                "-c",
                _START,
                _ROOT,
                order.to_json(),
                stdin=asyncio.subprocess.PIPE,
                pass_fds=(listener.fileno(), write_fd, scratch.lock_fd),
                env=os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true"},
            )
        except BaseException:
            os.close(read_fd)
            raise
        finally:
            os.close(write_fd)
        child = cls(process)
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        pipe = os.fdopen(read_fd, "rb", buffering=0)
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
        child._tasks = [loop.create_task(child._read(reader)), loop.create_task(child._watch())]
        return child

    async def _read(self, reader: asyncio.StreamReader) -> None:
        while line := await reader.readline():
            self.silent = 0
            report = json.loads(line)
            event = report.pop("event")
            if event == "ready":
                self.healthy, self.reason = report["healthy"], report["reason"]
                self.source = ModelSource(**report["source"])
                self.ready.set()
            elif event == "refused":
                self.refusal = report["message"]
            elif event == "recycle":
                self.recycle = report["why"]
                self.trouble.set()

    async def _watch(self) -> None:
        """Notices the end of the process, and a process whose event loop has stood still."""
        ended = asyncio.get_running_loop().create_task(self.process.wait())
        while not ended.done():
            await asyncio.wait({ended}, timeout=1.0)
            if self.ready.is_set():
                # Counted in the supervisor's own seconds: a machine that slept has not made the worker silent.
                self.silent += 1
                if self.silent > SILENT_SECONDS:
                    self.kill()
        self.trouble.set()
        self.ready.set()

    def order(self, line: str) -> None:
        """Send `open`, `drain` or `stop`; a dead worker is no error."""
        stdin = self.process.stdin
        if stdin is not None and not stdin.is_closing():
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                stdin.write(line.encode() + b"\n")

    def kill(self) -> None:
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()

    async def end(self, within: float) -> None:
        """Wait for the end, and enforce it."""
        try:
            await asyncio.wait_for(self.process.wait(), within)
        except TimeoutError:
            self.kill()
            await self.process.wait()
        await asyncio.wait(self._tasks, timeout=1.0)
        for task in self._tasks:
            task.cancel()
        if self.process.stdin is not None:
            self.process.stdin.close()
