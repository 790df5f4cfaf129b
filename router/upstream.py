"""One connection to a model server: one request at a time, and the answer as it comes.

Whoever asks is a ``Caller``. It is told of the head, of each part of the body, of the end of each read
(``answer_pause``, for passing on what came), and of the end; or, exactly once, that there will be none.
"""

import asyncio
import os
from enum import Enum
from typing import TYPE_CHECKING, Final, Protocol, cast

from router.errors import Refused
from router.events import FallbackReason
from router.framing import TURN_BYTES, ChunkedBody
from router.heads import KNOWN_RESPONSES, Response, read_response
from router.unread import has_unread, spare, unread

if TYPE_CHECKING:
    from router.pool import Pool

MAX_RESPONSE_HEAD: Final = 64 << 10
_MOST_INFORMATIONAL: Final = 16


class Failure(Enum):
    """Why there is no (complete) answer."""

    REFUSED = "refused"  # no connection; nothing was sent
    FULL = "full"  # no connection was free; nothing was sent
    STALE = "stale"  # a kept connection turned out to be closed; no byte of an answer came
    BROKEN = "broken"  # reset, cut, or not HTTP


REASONS: Final = {
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
        "_cut",
        "_fd",
        "_informed",
        "_later",
        "_left",
        "_lost",
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
        # The connection is gone, and was not ended in good order.
        self._lost = self._cut = False
        self._fd = -1
        # The socket once more, where the loop may close its own before what came has been read; else -1.
        self._spare = -1

    def spoken(self) -> bool:
        """Whether the server has said something that nobody asked for and nobody has read yet."""
        try:
            if not has_unread(self._fd):
                return False
        except OSError:
            return True
        self.pool.distrust()
        return True

    def ask(self, caller: Caller) -> None:
        """Send a caller's request; of a streamed one the rest follows by ``send`` until ``sent``."""
        self.caller = caller
        self.sending = streamed = caller.streamed
        if streamed and self._spare < 0:
            self._spare = spare(self.transport, self._fd)
        self._received = False
        self.pool.outbox.write(self.transport, caller.outgoing(self))

    def send(self, data: bytes) -> None:
        """The next part of a streamed request; of no use any more where the connection is gone."""
        if not self._lost:
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
        """Take what waited for its turn. Where the connection is gone it is handed on also to who does not keep up, so
        that it counts among what is held.
        """
        if self._later:
            if self._paused and not self._lost:
                return
            data, self._later = self._later, b""
            if self.caller is not None:
                if not self.transport.is_closing():
                    self.transport.resume_reading()
                self.data_received(data)
        if self._lost and not self._later:
            self._over()

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
            # A server may answer a large request early, and close. Also where all of the request was written, as far as
            # we know: some of it may not have gone.
            self.once = True
            self._later += unread(self.transport, self._spare)
        self._give_spare_back()
        self._lost, self._cut = True, exc is not None
        self._go_on()

    def _over(self) -> None:
        """The connection is gone, and all that came on it is read."""
        caller, self.caller = self.caller, None
        if caller is None:
            return
        if not self._cut and self._response is not None and self._left == -2:
            caller.answer_end()
        else:
            caller.answer_failed(Failure.STALE if self.used and not self._received else Failure.BROKEN)

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
        if not self.transport.is_closing():
            self.transport.pause_reading()
        self._later = data[TURN_BYTES:]
        if not self._paused or self._lost:
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
