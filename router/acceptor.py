"""Takes in who connects to a worker, and knows them from the moment the kernel hands them over.

asyncio's own server takes a few turns of the loop to make a client of an accepted connection, and drops it without a
word where the server is closed meanwhile: on a rolling restart, that was a request lost.
"""

import asyncio
import errno
import logging
import socket
from collections.abc import Callable, Iterator, Sequence

log = logging.getLogger("understudy.router.acceptor")

# No descriptor or memory left for another connection: those who wait are looked at again after this long.
_RETRY_S = 1.0
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Acceptor:
    """Listens on bound ``sockets``, which it owns from then on, and gives each connection a protocol."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sockets: Sequence[socket.socket],
        backlog: int,
        protocol: Callable[[], asyncio.Protocol],
    ) -> None:
        self._loop = loop
        self._sockets = sockets
        self._backlog = backlog
        self._protocol = protocol
        self._arriving: set[asyncio.Task[None]] = set()
        self._retries: set[asyncio.TimerHandle] = set()

    @property
    def port(self) -> int:
        """The port of the first socket."""
        return int(self._sockets[0].getsockname()[1])

    def start(self) -> None:
        """Listen, and take in whoever connects."""
        for each in self._sockets:
            each.setblocking(False)
            each.listen(self._backlog)
            self._loop.add_reader(each, self._take_in, each)

    async def stop(self) -> None:
        """Take in who has connected already, then close the sockets: where nobody else holds one, the kernel resets
        those whom nobody accepted.
        """
        for each in self._sockets:
            self._take_in(each)
            self._loop.remove_reader(each)
            each.close()
        for retry in self._retries:  # also of what was too much just now
            retry.cancel()
        if self._arriving:
            await asyncio.wait(self._arriving)

    def _take_in(self, listening: socket.socket) -> None:
        for accepted in self._waiting(listening):
            self._begin(accepted)

    def _waiting(self, listening: socket.socket) -> Iterator[socket.socket]:
        """Those who wait at a socket, at most a backlog of them."""
        for _ in range(self._backlog):
            try:
                accepted, _ = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _EXHAUSTED:
                    raise
                log.error("a connection cannot be taken in: %s; trying again in %g s", error.strerror, _RETRY_S)
                self._pause(listening)
                return
            yield accepted

    def _pause(self, listening: socket.socket) -> None:
        """The kernel goes on saying that somebody waits; asking at once again would be all the loop does."""

        def again() -> None:
            self._retries.discard(retry)
            self._loop.add_reader(listening, self._take_in, listening)

        self._loop.remove_reader(listening)
        retry = self._loop.call_later(_RETRY_S, again)
        self._retries.add(retry)

    def _begin(self, accepted: socket.socket) -> None:
        task = self._loop.create_task(self._connect(accepted))
        self._arriving.add(task)
        task.add_done_callback(self._arriving.discard)

    async def _connect(self, accepted: socket.socket) -> None:
        try:
            accepted.setblocking(False)
            await self._loop.connect_accepted_socket(self._protocol, accepted)
        except OSError:  # it went before it was here
            accepted.close()
