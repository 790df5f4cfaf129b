"""One worker as its supervisor sees it: a process, and a channel of JSON lines to it.

The first messages of a channel are the table (if there is one), when the controller was last heard of (if it
ever was), and a poll; they lie in the channel before the process starts, so that a worker knows what to serve
before it accepts. A channel that closes tells a worker that its supervisor is gone.
"""

import asyncio
import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson
from pydantic import ValidationError

from router import listeners, tally
from router.table import WorkerState

log = logging.getLogger("understudy.router.supervisor")

# A worker that reads nothing while so much waits for it is hung.
_LONGEST_BACKLOG = 4 << 20
_LONGEST_MESSAGE = 4 << 20

Message = Mapping[str, Any]


class WorkerProcess:
    """A started worker. ``state`` is None until it has said something; ``told`` is called whenever it has."""

    def __init__(
        self,
        name: str,
        slot: int,
        process: asyncio.subprocess.Process,
        channel: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        told: Callable[[], None],
    ) -> None:
        self.name = name
        self.slot = slot
        self.started = time.monotonic()
        self.state: WorkerState | None = None
        self.counters: dict[str, float] = {}
        self.draining = False
        # Checks of the supervisor since the worker last said something: unlike a clock this stands still
        # where the supervisor itself was kept from running.
        self.silent_checks = 0
        self._process = process
        self._reader, self._writer = channel
        self._told = told
        self._listening = asyncio.create_task(self._listen())

    @classmethod
    async def start(
        cls,
        name: str,
        slot: int,
        command: Callable[[int], Sequence[str]],
        first: Sequence[Message],
        told: Callable[[], None],
        environment: Mapping[str, str],
        listening: list[int],
        counted: int,
    ) -> "WorkerProcess":
        """Start ``command`` (given its channel's descriptor) with the first messages in its channel, inheriting the
        sockets that it is to listen on and the tally of its journal. Raises OSError.

        The process leads a session of its own: a Ctrl-C at the terminal reaches the supervisor alone, which
        drains.
        """
        ours, theirs = socket.socketpair()
        try:
            ours.setblocking(False)
            channel = await asyncio.open_connection(sock=ours, limit=_LONGEST_MESSAGE)
            for message in first:
                channel[1].write(orjson.dumps(message, option=orjson.OPT_APPEND_NEWLINE))
            process = await asyncio.create_subprocess_exec(
                *command(theirs.fileno()),
                pass_fds=[theirs.fileno(), *listening, counted],
                stdin=asyncio.subprocess.DEVNULL,
                start_new_session=True,
                env={**environment, **listeners.said(listening), **tally.said(counted)},
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        return cls(name, slot, process, channel, told)

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, message: Message) -> None:
        """Send without waiting; a worker that has not read for long is killed instead, to be replaced."""
        if self._writer.is_closing():
            return
        if self._writer.transport.get_write_buffer_size() > _LONGEST_BACKLOG:
            log.error("worker %s does not read its channel and is killed", self.name)
            self.kill()
            return
        self._writer.write(orjson.dumps(message, option=orjson.OPT_APPEND_NEWLINE))

    def drain(self) -> None:
        """Ask it to finish its requests and end."""
        self.draining = True
        self.send({"type": "drain"})

    def kill(self) -> None:
        """End it at once, with everything it started."""
        if self._process.returncode is None:
            try:
                os.killpg(self._process.pid, signal.SIGKILL)
            except ProcessLookupError:
                self._process.kill()

    async def ended(self) -> int:
        """Wait for its end; its exit code, negative for a signal."""
        code = await self._process.wait()
        # What it said last is still in the channel.
        await asyncio.wait({self._listening}, timeout=1)
        self._listening.cancel()
        self._writer.close()
        return code

    async def _listen(self) -> None:
        while True:
            try:
                line = await self._reader.readline()
            except OSError:  # the worker is ending
                return
            except ValueError as error:
                log.error("worker %s is killed for a message longer than any may be: %s", self.name, error)
                self.kill()
                return
            if not line:
                return
            try:
                message = orjson.loads(line)
                if message["type"] != "state":
                    raise ValueError(f"unknown type {message['type']!r}")
                state = WorkerState.model_validate(message["state"])
                counters = {str(name): float(value) for name, value in message.get("counters", {}).items()}
            except (ValidationError, ValueError, TypeError, KeyError, AttributeError) as error:
                log.error("worker %s said what nobody understands: %r", self.name, error)
                continue
            self.state, self.counters, self.silent_checks = state, counters, 0
            self._told()
