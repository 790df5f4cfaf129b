"""A request that the challenger answers unseen, after the champion's answer is on its way to the client.

An answer that would be passed on unjudged (a stream of events, one that is too large to be held) is read to its end by
the rules of one that is shown: whether it came in time is settled by its beginning, it may pause for ``stall_s``, takes
``total_s`` at most, and its beginning is what is kept of it. Where the original's client left, it ends when it has
taken as long as that: what nobody would have waited for has no verdict.
"""

from asyncio import TimerHandle
from time import monotonic

from router.call import Call
from router.capture import Attempt, Record
from router.events import FallbackReason
from router.judge import judge, passes_through
from router.passing import CLIENT_GONE
from router.pool import Backend
from router.routing import Allotment
from router.upstream import REASONS, Failure


class Mirror(Call):
    """Sends a copy of a request to the challenger and records its answer; nobody waits for it."""

    _full = False
    _withdrawn = False
    # Whether an answer that is not held began too late, and its beginning; None while it may still be judged.
    _late: bool | None = None
    _kept: bytearray
    # When it was heard of last, once it flows, and what ends it where the original's client has left.
    _heard_at = 0.0
    _leaving: TimerHandle | None = None

    def __init__(
        self, original: Call, unit: str | None, allotment: Allotment, champions: Attempt, answer_status: int
    ) -> None:
        self.plane = original.plane
        self.routes = original.routes
        self.judge_bytes = self.judge_limit = self.routes.judge_bytes
        self.request = original.request
        self.request_id = original.request_id
        self.key = original.key
        self.tail = original.tail
        self.to_head = original.to_head
        self._unit = unit
        self._allotment = allotment._replace(arm="challenger", evidence=True)
        self._champions = champions
        self._answer_status = answer_status
        # It holds the body from now on.
        self.budget, original.budget = original.budget, 0

    def begin(self, challenger: Backend, now: float) -> bool:
        """Send it; False where there is no connection for it, which says nothing about the challenger."""
        self.plane.mirrors += 1
        self.begin_call(challenger, self.routes.challenger_s, now)
        if self._full:
            return False
        self.plane.counters.mirrored += 1
        return True

    @property
    def holding(self) -> int:
        """Bytes of the answer that are held."""
        return self.received if self._late is None else len(self._kept)

    def _flows(self) -> bool:
        """Whether what has come would be passed on, were it shown."""
        response, limit = self.response, self.judge_bytes
        assert response is not None
        return response.successful and (self.received > limit or passes_through(response, limit))

    def answer_pause(self) -> None:
        """Of an answer that would be passed on the beginning is enough; a failure that grows too large is given up."""
        if self._late is None:
            if self.plane.answers_full:
                self.hold_no_more()
            if not self._flows():
                if self.received > self.judge_bytes:
                    self.drop_connection()
                    self._end(usable=False, reason=FallbackReason.STATUS)
                return
            now = monotonic()
            self.waiting.remove(self)
            self.plane.totals.add(self, now)
            self._late = self.late(now)
            self._kept = bytearray()
            if self._answer_status == CLIENT_GONE:
                left_s = self._champions.latency_s - (now - self.sent_at)
                self._leaving = self.plane.loop.call_later(max(0.0, left_s), self._left)
        self._heard_at = now = monotonic()
        self.plane.stalls.add(self, now)
        self._keep()

    def _keep(self) -> None:
        data = self.body()
        self.held = b""
        missing = self.routes.capture_bytes - len(self._kept)
        if missing > 0:
            self._kept += data[:missing]

    def answer_end(self) -> None:
        """Record it, judged if it can be."""
        self.connection = None
        if self._late is not None:
            self._keep()
            self._end(usable=True, unjudged=True, complete=self.received <= len(self._kept))
            return
        response = self.response
        assert response is not None
        verdict = None if self._flows() else judge(response, self.body(), self.request)
        reason = None
        if verdict is False:
            reason = FallbackReason.UNUSABLE if response.successful else FallbackReason.STATUS
        self._end(usable=verdict is not False, unjudged=verdict is None, complete=True, reason=reason)

    def answer_failed(self, failure: Failure) -> None:
        """A failure of the challenger, except where it is a limit of ours."""
        connection, self.connection = self.connection, None
        if self.asked_again(failure, connection):
            return
        if failure is Failure.FULL and not self.retries:
            self._full = True
            self._over()
            return
        # It is on record as sent, where another address had refused it before.
        self._withdrawn = failure is Failure.FULL
        self._end(usable=False, reason=REASONS[failure])

    def timed_out(self) -> None:
        """It did not answer in time."""
        self.drop_connection()
        self._end(usable=False, reason=FallbackReason.TIMEOUT)

    def stalled(self) -> None:
        """An answer that is not held does not go on."""
        self.timed_out()

    def overran(self) -> None:
        """An answer that is not held takes too long in total, which the original's did not up to where its client left:
        this one began sooner.
        """
        if self._leaving is None:
            self.timed_out()
        else:
            self._left()

    def _left(self) -> None:
        """So far the original's client has waited; as where it leaves a stream that it is shown."""
        usable = monotonic() - self._heard_at <= self.routes.challenger_s
        self.drop_connection()
        self._end(usable=usable, unjudged=usable, reason=None if usable else FallbackReason.TIMEOUT)

    def cut_off(self) -> None:
        """No fault of the challenger's, unless it was late already."""
        self.drop_connection()
        self._withdrawn = not (self.late(monotonic()) if self._late is None else self._late)
        self._end(usable=False, reason=FallbackReason.TIMEOUT)

    def _over(self) -> None:
        self.waiting.remove(self)
        if self._late is not None:
            self.plane.stalls.remove(self)
            self.plane.totals.remove(self)
        if self._leaving is not None:
            self._leaving.cancel()
        self.plane.mirrors -= 1
        if self.budget:
            self.give_back()

    def _end(
        self,
        *,
        usable: bool,
        unjudged: bool = False,
        complete: bool = False,
        reason: FallbackReason | None = None,
    ) -> None:
        plane = self.plane
        now = monotonic()
        self._over()
        if usable:
            self.routes.breaker.succeeded(now)
        elif not self._withdrawn and self._champions.good(self.request):
            # What the champion fails of as well is the request's fault.
            self.routes.breaker.failed(now)
        body, late = self.body(), None
        if self._late is not None:
            body = bytes(self._kept)
            # One that was cut has failed, and counts as late from the deadline on.
            late = self._late if usable else None
        attempt = self.attempt(body, usable=usable, unjudged=unjudged, complete=complete, late=late)
        record = Record(self.routes, self.request, self.key, self._unit, self._allotment, attempt, self._answer_status)
        record.mirror = True
        record.withdrawn = self._withdrawn
        record.fallback_reason = reason
        plane.writer.offer(record.line() or record)
        plane.count_under_way()
