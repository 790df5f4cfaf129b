"""How long a client may take, and when it has to make room for others."""

import contextlib
from typing import TYPE_CHECKING, Final

from router.ending import ROUTER_ENDS, Ending
from router.errors import Refused
from router.pace import NEVER, Pace
from router.unread import has_unread

if TYPE_CHECKING:
    from router.exchange import Exchange
    from router.plane import Plane
    from router.pool import Pool

HEAD: Final = 0
BODY: Final = 1
BUSY: Final = 2
LINGER: Final = 3
# For so long a new connection may be silent and is not taken for an idle one: what it asks may be on its way.
_NEW_S: Final = 0.25


class Patience(Ending):
    """A client's connection as far as somebody waits for the client. ``crowded``: it does not keep up with answers."""

    __slots__ = (
        "__weakref__",
        "_ahead",
        "_ahead_budget",
        "_at",
        "_budget",
        "_exchange",
        "_pace",
        "_partial",
        "came",
        "crowded",
    )

    def __init__(self, plane: "Plane") -> None:
        super().__init__(plane)
        self._at = HEAD
        self._pace = Pace(plane.config.body_s, plane.config.min_body_rate)
        # What the client has sent but nobody has looked at; of the head of a request if it is ``_partial``.
        self._ahead = b""
        self._partial = False
        # Bytes of further requests than the one at hand, as far as they count among what is held.
        self._ahead_budget = 0
        # Bytes of a body that is being received, and of nobody's exchange yet.
        self._budget = 0
        self._exchange: Exchange | None = None
        self.came = 0.0
        self.crowded = False

    def _break_body(self, refused: Refused) -> None:
        """Receive no more of a request, and say why."""
        raise NotImplementedError

    def refuse(self, status: int, why: str) -> None:
        """Answer with an error of our own, and end the connection."""
        raise NotImplementedError

    @property
    def idle(self) -> bool:
        """Whether no request has begun; half a line break is none."""
        return self._at == HEAD and self._ahead in (b"", b"\r")

    def new(self, now: float) -> bool:
        """Whether it came a moment ago and nothing that it sent was read yet."""
        return now < self.came + _NEW_S and self.due == self.came + self._plane.idle_s

    def unheard(self) -> bool:
        """Whether it has sent something that nobody has read yet."""
        with contextlib.suppress(OSError, ValueError):
            descriptor = self.transport.get_extra_info("socket").fileno()
            return has_unread(descriptor)
        return False

    @property
    def going(self) -> bool:
        """Whether it has been answered, has taken that, and is to end."""
        return self._at == LINGER and not self.unread_bytes()

    def held_for(self, now: float) -> float:
        """Seconds that the client has held its connection by sending one request or taking one answer, beyond what
        anybody may; 0 or less where it did not.
        """
        config = self._plane.config
        if self._at == BODY or (self._at == HEAD and self._partial):
            return self._pace.taken_s(now) - config.head_s
        if self._at == LINGER:
            return now - self._closing_from - config.head_s if self._unwritten else 0.0
        if not self.crowded:
            return 0.0
        began = self.due - config.idle_s if self._exchange is None else self._exchange.sent_at
        return now - began - config.head_s

    def silent_for(self, now: float) -> float:
        """Seconds since a part came of the request that is being received; 0 or less where none is waited for."""
        waited_for = self._at == BODY or (self._at == HEAD and self._partial)
        return self._pace.silent_s(now) if waited_for else 0.0

    def body_bytes(self) -> int:
        """Bytes that are held of the body that it is sending, or of the one that it is being answered, and of what it
        has sent ahead.
        """
        return self._ahead_budget + (self._budget if self._exchange is None else self._exchange.budget)

    def unread_bytes(self) -> int:
        """Bytes of answers that it has not taken."""
        return self.transport.get_write_buffer_size()

    def answer_bytes(self) -> int:
        """The same, and what is held of the one that it is being answered."""
        return self.unread_bytes() + (0 if self._exchange is None else self._exchange.holding)

    def holds(self, pool: "Pool") -> bool:
        """Whether a connection of ``pool`` is busy with its request."""
        exchange = self._exchange
        return exchange is not None and exchange.connection is not None and exchange.connection.pool is pool

    def overdue(self) -> None:
        """What was waited for did not come."""
        self.due = NEVER
        if self._at == LINGER:
            self._overdue_at_the_end()
        elif self._at == BODY:
            self._break_body(Refused(408, "the body of the request took too long"))
        elif self._partial and self._at == HEAD:
            self.refuse(408, "the head of the request took too long")
        else:
            self.cut()

    def make_room(self) -> None:
        """Go for the sake of others: nobody is owed anything here, or the client takes its time."""
        if self._at == BODY:
            self._break_body(Refused(503, "others need what this request takes so long to let go of"))
        else:
            self.cut()
        if self._unwritten:
            self.transport.abort()

    def turn_away(self) -> bool:
        """Say that the router ends to who has not sent all of a request; False where nobody has to be told, or an
        answer has begun.
        """
        exchange = self._exchange
        if self._at == BODY and exchange is not None:
            if exchange.started:
                return False
            exchange.cut_off()
        elif self._at == BODY or (self._at == HEAD and self._partial):
            self.refuse(503, ROUTER_ENDS)
        else:
            return False
        return True

    def cut(self) -> None:
        """End the connection; nobody is owed anything on it."""
        self._at = LINGER
        self._close_written()
