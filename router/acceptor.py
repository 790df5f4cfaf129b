"""Takes in who connects to a worker, and knows them from the moment the kernel hands them over.

asyncio's own server takes a few turns of the loop to make a client of an accepted connection, and drops it without a
word where the server is closed meanwhile: on a rolling restart, that was a request lost.
"""

import asyncio
import contextlib
import errno
import gc
import logging
import socket
import ssl
import sys
from collections.abc import Callable, Iterator, Sequence

log = logging.getLogger("understudy.router.acceptor")

# No descriptor or memory left for another connection: those who wait are looked at again after this long.
_RETRY_S = 1.0
# What TLS may take to begin, and to end.
HANDSHAKE_S = 5.0
# After so many handshakes that failed, their memory is taken back: a quarter of a megabyte each, in cycles.
_FAILED = 64
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Acceptor:
    """Listens on bound ``sockets``, which it owns from then on, and gives each connection a protocol.

    With a ``context`` it speaks TLS: a protocol hears of its connection after the handshake, which may take
    ``HANDSHAKE_S`` seconds; beyond ``most_arriving``, the one that has been in it for the longest has to go. One turn
    of the loop takes in ``at_once``: about so many more than that are open for a moment.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sockets: Sequence[socket.socket],
        backlog: int,
        protocol: Callable[[], asyncio.Protocol],
        *,
        context: ssl.SSLContext | None = None,
        most_arriving: int = sys.maxsize,
        at_once: int | None = None,
    ) -> None:
        self._loop = loop
        self._sockets = sockets
        self._backlog = backlog
        self._protocol = protocol
        self._context = context
        self._most_arriving = most_arriving
        self._at_once = at_once or backlog
        # By the tasks that make clients of them, who came first first.
        self._arriving: dict[asyncio.Task[None], socket.socket] = {}
        self._failed = 0
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
        if self._context is not None:
            while self._arriving:
                self._turn_away()
        for retry in self._retries:  # also of what was too much just now
            retry.cancel()
        if self._arriving:
            await asyncio.wait(self._arriving)

    def _take_in(self, listening: socket.socket) -> None:
        for accepted in self._waiting(listening):
            self._begin(accepted)

    def _waiting(self, listening: socket.socket) -> Iterator[socket.socket]:
        """Those who wait at a socket, at most as many as are taken at once."""
        for _ in range(self._at_once):
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
        if len(self._arriving) >= self._most_arriving:
            self._turn_away()
        task = self._loop.create_task(self._connect(accepted))
        self._arriving[task] = accepted
        task.add_done_callback(lambda done: self._arriving.pop(done, None))

    def _turn_away(self) -> None:
        """End the one whose handshake began first: it fails as if the client had gone."""
        first = next(iter(self._arriving))
        with contextlib.suppress(OSError):  # the client has gone
            self._arriving.pop(first).shutdown(socket.SHUT_RDWR)

    async def _connect(self, accepted: socket.socket) -> None:
        try:
            accepted.setblocking(False)
            if self._context is None:
                await self._loop.connect_accepted_socket(self._protocol, accepted)
            else:
                await self._loop.connect_accepted_socket(
                    self._protocol,
                    accepted,
                    ssl=self._context,
                    ssl_handshake_timeout=HANDSHAKE_S,
                    ssl_shutdown_timeout=HANDSHAKE_S,
                )
        except OSError:  # it went before it was here
            accepted.close()
            self._failed += 1
            if self._context is not None and self._failed % _FAILED == 0:
                self._loop.call_soon(gc.collect)
