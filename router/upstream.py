"""One connection to a model server: one request at a time, and the answer as it comes.

Whoever asks is a ``Caller``. It is told of the head, of each part of the body, of the end of each read
(``answer_pause``, for passing on what came), and of the end; or, exactly once, that there will be none.
"""

import asyncio
import contextlib
import fcntl
import os
import resource
import socket
import termios
from asyncio.trsock import TransportSocket
from enum import Enum
from typing import TYPE_CHECKING, Protocol, cast

from router.errors import Refused
from router.events import FallbackReason
from router.framing import TURN_BYTES, ChunkedBody
from router.heads import KNOWN_RESPONSES, Response, read_response

if TYPE_CHECKING:
    from router.pool import Pool

MAX_RESPONSE_HEAD = 64 << 10
_READS_AFTER_THE_END = 64
_MOST_INFORMATIONAL = 16
_NOTHING = bytes(4)
_SPARE_SHARE = 0.75  # of a process's descriptors: beyond, none is kept twice


class Failure(Enum):
    """Why there is no (complete) answer."""

    REFUSED = "refused"  # no connection; nothing was sent
    FULL = "full"  # no connection was free; nothing was sent
    STALE = "stale"  # a kept connection turned out to be closed; no byte of an answer came
    BROKEN = "broken"  # reset, cut, or not HTTP


REASONS = {
    Failure.REFUSED: FallbackReason.ERROR,
    Failure.FULL: FallbackReason.OVERLOAD,
    Failure.STALE: FallbackReason.ERROR,
    Failure.BROKEN: FallbackReason.ERROR,
}


class Caller(Protocol):
    """Who asks a model server. ``to_head``: by HEAD. ``streamed``: not all of the request is there yet."""

    @property
    def to_head(self) -> bool: ...

    @property
    def streamed(self) -> bool: ...

    def wait_in_line(self) -> None:
        """There is no connection free; one will be given to who has waited for the longest."""

    def outgoing(self, connection: "Connection") -> bytes:
        """The request, now that there is a connection for it."""

    def sendable(self) -> None:
        """More of a streamed request may be sent."""

    def crowded(self) -> None:
        """Stop sending a streamed request for now."""

    def answer_whole(self, response: Response, body: bytes) -> None:
        """All of an answer, instead of what follows."""

    def answer_head(self, response: Response) -> None: ...

    def answer_body(self, data: bytes) -> None: ...

    def answer_pause(self) -> None: ...

    def answer_end(self) -> None: ...

    def answer_failed(self, failure: Failure) -> None: ...


class Connection:
    """A connection of a pool; to the event loop, a protocol. ``caller`` is who is being answered; None while it is kept
    idle. ``since`` is when the last answer was complete."""

    __slots__ = (
        "_buffer",
        "_chunked",
        "_close",
        "_fd",
        "_informed",
        "_later",
        "_left",
        "_paused",
        "_received",
        "_response",
        "_spare",
        "caller",
        "crowded",
        "made",
        "once",
        "pool",
        "sending",
        "since",
        "transport",
        "used",
    )

    transport: asyncio.Transport

    def __init__(self, pool: "Pool") -> None:
        self.pool = pool
        self.caller: Caller | None = None
        self.made = False
        self.since = 0.0
        # A streamed request is not complete.
        self.sending = False
        # The server takes no more for now.
        self.crowded = False
        self._buffer = b""
        self._response: Response | None = None
        self._chunked: ChunkedBody | None = None
        # Bytes of the body still to come; -1 in chunks, -2 until the end of the connection.
        self._left = 0
        self._close = False
        self.used = False
        # Nobody may be answered by it after who is now.
        self.once = False
        self._received = False
        # Informational heads before the one that counts.
        self._informed = 0
        # What was read and waits for its turn, and whether who it is for takes no more.
        self._later = b""
        self._paused = False
        self._fd = -1
        # The socket once more, where the loop may close its own before what came has been read; else -1.
        self._spare = -1

    def spoken(self) -> bool:
        """Whether the server has said something that nobody asked for and nobody has read yet."""
        try:
            if fcntl.ioctl(self._fd, termios.FIONREAD, _NOTHING) == _NOTHING:
                return False
        except OSError:
            return True
        self.pool.distrust()
        return True

    def ask(self, caller: Caller) -> None:
        """Send a caller's request; of a streamed one the rest follows by ``send`` until ``sent``."""
        self.caller = caller
        self.sending = streamed = caller.streamed
        if streamed:
            self._spare_socket()
        self._received = False
        self.pool.outbox.write(self.transport, caller.outgoing(self))

    def send(self, data: bytes) -> None:
        """The next part of a streamed request."""
        self.pool.outbox.write(self.transport, data)

    def sent(self) -> None:
        """A streamed request is complete."""
        self.sending = False

    def abandon(self) -> None:
        """The caller wants no answer any more; the connection cannot be used again."""
        self.caller = None
        self.transport.abort()

    def pause(self) -> None:
        """Read no more of the answer for now: who it is for does not keep up."""
        self._paused = True
        if not self.transport.is_closing():
            self.transport.pause_reading()

    def resume(self) -> None:
        """Go on reading."""
        self._paused = False
        if self._later:
            asyncio.get_running_loop().call_soon(self._go_on)
        elif not self.transport.is_closing():
            self.transport.resume_reading()

    def _go_on(self) -> None:
        """Take what waited for its turn."""
        if self._paused or not self._later:
            return
        data, self._later = self._later, b""
        if self.caller is not None and not self.transport.is_closing():
            self.transport.resume_reading()
            self.data_received(data)

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.made = True
        self._fd = transport.get_extra_info("socket").fileno()
        self.pool.made()
        if hasattr(transport, "max_size"):  # as much as a read of another loop takes
            transport.max_size = 65536

    def connection_lost(self, exc: Exception | None) -> None:
        self.pool.lost(self)
        if exc is not None and self.caller is not None:
            self._read_on()
        self._give_spare_back()
        caller = self.caller
        if caller is None:
            return
        self.caller = None
        if exc is None and self._response is not None and self._left == -2:
            caller.answer_end()
        else:
            caller.answer_failed(Failure.STALE if self.used and not self._received else Failure.BROKEN)

    def _read_on(self) -> None:
        """Read what came before sending failed: a server may answer a large request early, and close. Also where all of
        the request was written, as far as we know: some of it may not have gone.
        """
        self.once = True
        descriptor = self._spare
        if descriptor < 0:
            known = self.transport.get_extra_info("socket")
            # Another loop than asyncio's has closed the socket by now, and its number may be another connection's.
            if not isinstance(known, TransportSocket) or known.fileno() < 0:
                return
            descriptor = known.fileno()
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as pending:
            for _ in range(_READS_AFTER_THE_END):
                data = pending.recv(65_536)
                if not data or self.caller is None:
                    return
                self.data_received(data)

    def _spare_socket(self) -> None:
        """Keep the socket open for ``_read_on``, where the loop is one that would close it before, and descriptors are
        not so few that others need it: those are counted once for each connection.
        """
        if self._spare < 0 and not isinstance(self.transport.get_extra_info("socket"), TransportSocket):
            with contextlib.suppress(OSError):
                self._spare = os.dup(self._fd)
                if self._spare > _SPARE_SHARE * resource.getrlimit(resource.RLIMIT_NOFILE)[0]:
                    self._give_spare_back()

    def _give_spare_back(self) -> None:
        if self._spare >= 0:
            os.close(self._spare)
            self._spare = -1

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        self.crowded = True
        if self.caller is not None:
            self.caller.crowded()

    def resume_writing(self) -> None:
        self.crowded = False
        if self.caller is not None:
            self.caller.sendable()

    def data_received(self, data: bytes) -> None:
        caller = self.caller
        if caller is None:
            # Nobody asked: whatever this is, it must not become the answer to the next request.
            self.transport.abort()
            self.pool.distrust()
            return
        self._received = True
        if self._response is None and not self._buffer and not self.sending and not caller.to_head:
            # Mostly an answer comes in one piece, with a head that was seen before.
            end = data.find(b"\r\n\r\n") + 4
            known = KNOWN_RESPONSES.get(data[:end])
            if known is not None and known.length == len(data) - end and not known.close and not self.once:
                self.used = True
                self.caller = None
                self._informed = 0
                if self._spare >= 0:
                    self._give_spare_back()
                self.pool.free(self)
                caller.answer_whole(known, data[end:])
                return
        try:
            if self._response is None:
                rest = self._take_head(caller, data)
                if rest is None:
                    return
                data = rest
            if self._chunked is not None and self._chunked.crumbs(data):
                data = self._take_turn(data)
            ended = self._take_body(caller, data)
        except Refused:
            if self.used:
                # It may have been meant for nobody, and the next one could look like an answer.
                self.pool.distrust()
            self._break()
            return
        if self.caller is not caller:
            return
        if ended:
            self._finish(caller)
        else:
            caller.answer_pause()

    def _take_turn(self, data: bytes) -> bytes:
        """What of ``data`` may be taken now."""
        self.transport.pause_reading()
        self._later = data[TURN_BYTES:]
        if not self._paused:
            asyncio.get_running_loop().call_soon(self._go_on)
        return data[:TURN_BYTES]

    def _take_head(self, caller: Caller, data: bytes) -> bytes | None:
        """Read the head, skipping informational ones; what follows it, None where more of it is to come."""
        if self._buffer:
            data, self._buffer = self._buffer + data, b""
        while True:
            end = data.find(b"\r\n\r\n") + 4
            if (end if end > 3 else len(data)) > MAX_RESPONSE_HEAD:
                raise Refused(502, "the head of the response is too long")
            if end == 3:
                self._buffer = data
                return None
            response = read_response(data[:end], to_head=caller.to_head)
            data = data[end:]
            if response.status >= 200:
                break
            if response.status == 101:
                raise Refused(502, "nobody asked for another protocol")
            self._informed += 1
            if self._informed > _MOST_INFORMATIONAL:
                raise Refused(502, "too many informational responses")
        self._response = response
        self._close = response.close
        self._left = response.length
        if response.length == -1:
            self._chunked = ChunkedBody()
        caller.answer_head(response)
        return data

    def _take_body(self, caller: Caller, data: bytes) -> bool:
        """Hand on what is body in ``data``; whether that was all of it."""
        if self.caller is not caller:
            return False
        left = self._left
        if left >= 0:
            size = len(data)
            if size > left:
                # More than the answer: the connection is not to be trusted with another one.
                self._close = True
                self.pool.distrust()
                data, size = data[:left], left
            self._left = left = left - size
            if size:
                caller.answer_body(data)
            return left == 0
        if left == -2:
            if data:
                caller.answer_body(data)
            return False
        chunked = self._chunked
        assert chunked is not None
        data = chunked.feed(data)
        if data:
            caller.answer_body(data)
        if chunked.rest:
            self._close = True
            self.pool.distrust()
        return chunked.done

    def _finish(self, caller: Caller) -> None:
        self._response = None
        self._chunked = None
        self.caller = None
        self._informed = 0
        if self._close or self._later or self.sending or self.once or self.transport.is_closing():
            self.transport.abort()
        else:
            self.used = True
            self._give_spare_back()
            self.pool.free(self)
        caller.answer_end()

    def _break(self) -> None:
        caller, self.caller = self.caller, None
        self.transport.abort()
        if caller is not None:
            caller.answer_failed(Failure.BROKEN)
