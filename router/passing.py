"""An answer that is passed on while it comes: the champion's, an event stream, and what is too large to be held.

A champion's answer of which a challenger's like would be held is received at the server's pace, however slowly its
client reads, and to its end, also where its client has left: so the record of it is what that of a challenger's would
be. What is larger, and a stream, goes at the pace of the slower side and ends with its client.
"""

from time import monotonic
from typing import Final

from router import answers
from router.capture import Attempt
from router.heads import Response
from router.judge import passes_through
from router.pace import NEVER
from router.upload import Upload

CLIENT_GONE: Final = 499


class Passing(Upload):
    """A call whose answer may go to its client in parts."""

    # The attempt that counts, once the champion has stepped in.
    _first: Attempt | None = None
    _gone = False
    _close = False
    _chunks = False
    # The client took its request back before it was complete.
    _withdrawn = False
    # Whether it came too late; None while it may still be an answer that is judged when it is complete.
    _late: bool | None = None
    # When the server was heard of last, and the beginning of what it said.
    _heard_at = 0.0
    _kept: bytearray
    # Since when its server is kept waiting by the client, and for how long it was before.
    _crowded_from = NEVER
    _crowded_s = 0.0

    @property
    def holding(self) -> int:
        """Bytes of the answer that are held; what its client has not taken is the client's."""
        return len(self._kept) if self.started else self.received

    def _own(self) -> bytes:
        """The router's own fields of an answer."""
        raise NotImplementedError

    def _finish(self, attempt: Attempt, answer_status: int, now: float) -> None:
        """The end of it all."""
        raise NotImplementedError

    def _start_stream(self) -> None:
        response = self.response
        assert response is not None
        plane, request = self.plane, self.request
        now = monotonic()
        self.waiting.remove(self)
        plane.totals.add(self, now)
        self.started = True
        self._kept = bytearray()
        if self.backend.arm == "challenger" or passes_through(response, self.judge_bytes):
            self._late = self.late(now)
        self._chunks = response.length < 0 and not request.http10
        self._close = self.client.closing or (response.length < 0 and request.http10)
        if not self._gone:
            self.client.write(answers.begun(response, own=self._own(), chunks=self._chunks))

    def _flush(self) -> None:
        """Pass on what is held; keep the beginning."""
        plane, routes = self.plane, self.routes
        self._heard_at = now = monotonic()
        if self._gone and self._late is not None and self.connection is not None:
            # The client had left before it began.
            self._left()
            return
        plane.stalls.add(self, now)
        data = self.body()
        if not data:
            return
        self.held = b""
        grown = self._late is None and self.received > self.judge_bytes
        if grown:
            self._late = self.late(now)
            del self._kept[routes.capture_bytes :]
        missing = (self.judge_bytes if self._late is None else routes.capture_bytes) - len(self._kept)
        if missing > 0:
            self._kept += data[:missing]
        if not self._gone:
            self.client.write(answers.chunk(data) if self._chunks else data)
            if grown and self.client.crowded:
                self.client_crowded()
        elif grown and self.connection is not None:
            self._left()

    def _end_stream(self, response: Response) -> None:
        now = monotonic()
        if self._chunks and not self._gone:
            self.client.write(answers.LAST_CHUNK)
        late = self.late(now) if self._late is None else self._late
        attempt = self._shown(response, bytes(self._kept), now, late)
        attempt.cut = self.received > len(attempt.answer)
        self._finish(attempt, response.status, now)

    def _shown(self, response: Response, body: bytes, now: float, late: bool) -> Attempt:
        """The attempt whose complete answer was passed on without a look at it."""
        usable, held = response.successful, self.received <= self.judge_bytes
        judged = usable and held and self.backend.arm == "champion"
        judged = judged and not passes_through(response, self.judge_bytes)
        attempt = Attempt(
            response.status,
            now - self.sent_at,
            body,
            usable,
            unjudged=usable and not judged,
            late=late,
            to_judge=response if judged else None,
        )
        attempt.coding = response.coding
        return attempt

    def _cut(self, *, overran: bool = False) -> None:
        """An answer that the client has begun to receive will not be complete; neither is what the client gets.

        Nobody is left to tell whose fault it was, so a challenger's counts for the breaker; but not what would have
        ended the champion's as well: that it ``overran``, or that a client kept its server waiting.
        """
        now = monotonic()
        attempt = self.attempt(bytes(self._kept), usable=False)
        if not self._gone:
            self.client.break_off()
        if self.backend.arm == "challenger" and not overran and not self._kept_waiting(now):
            self.routes.breaker.failed(now)
        self._finish(attempt, attempt.status, now)

    def _kept_waiting(self, now: float) -> bool:
        """Whether the client has kept its server waiting: for longer, in all, than an answer may take, or still by
        what it sends."""
        waited = self._crowded_s
        if self._crowded_from != NEVER:
            waited += now - self._crowded_from
        return waited > self.routes.challenger_s or not self.uploaded

    def _left(self) -> None:
        """The client has left a stream, or is given up. Its server has failed if it had been silent for longer than is
        allowed before an answer, and it was not the client who kept it waiting.
        """
        response = self.response
        assert response is not None
        silent = monotonic() - self._heard_at > self.routes.challenger_s and not self.client.crowded
        usable = response.successful and not silent
        self.drop_connection()
        attempt = self.attempt(bytes(self._kept), usable=usable, unjudged=usable, late=self._late)
        self._finish(attempt, CLIENT_GONE, monotonic())

    def client_crowded(self) -> None:
        """The client does not keep up."""
        if self.connection is not None and self._late is not None:
            if self._crowded_from == NEVER:
                self._crowded_from = monotonic()
            self.connection.pause()

    def client_ready(self) -> None:
        """The client has caught up: what its server says next is waited for from here."""
        if self.connection is not None:
            if self.started and self._late is not None:
                self._heard_at = now = monotonic()
                self.plane.stalls.add(self, now)
                if self._crowded_from != NEVER:
                    self._crowded_s += now - self._crowded_from
                    self._crowded_from = NEVER
            self.connection.resume()

    def client_lost(self) -> None:
        """The client is gone. What a model server is about to answer is still evidence; a stream ends here."""
        self._gone = True
        if self.started and self._late is not None:
            self._left()
        elif not self.uploaded:
            # Also where an answer has begun that a challenger would still be held to.
            # A challenger that the champion is standing in for has failed before, and who was late already has as well.
            attempt = self.attempt(b"", usable=False)
            self._withdrawn = self._first is None and not attempt.late
            self.waiting.remove(self)
            self.drop_connection()
            self._finish(attempt, CLIENT_GONE, monotonic())
