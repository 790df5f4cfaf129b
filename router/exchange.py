"""The life of one request: assigned, forwarded, judged, and answered by the champion where the challenger fails.

A challenger's answer is held until it is judged; a champion's (unless it will soon be whole), an event stream, and
what is too large to be held are passed on as they come. As long as the client has seen nothing and the request is still
held whole, the champion can step in. Whatever happens, an exchange ends once, with one answer (or a client that is
gone) and one exposure.
"""

from time import monotonic
from typing import TYPE_CHECKING, Final

from router import answers, outgoing
from router.capture import NO_ATTEMPT, Attempt, Record
from router.ending import ROUTER_ENDS
from router.events import FallbackReason
from router.heads import Request, Response
from router.judge import judge, passes_through
from router.mirror import Mirror
from router.passing import CLIENT_GONE, Passing
from router.routing import Routes
from router.upstream import REASONS, Connection, Failure

if TYPE_CHECKING:
    from router.downstream import Client
    from router.plane import Plane

_SPOKEN: Final = {
    FallbackReason.TIMEOUT: (504, "the model server did not answer in time"),
    FallbackReason.OVERLOAD: (503, "the model server has no capacity left"),
}
_BAD_GATEWAY: Final = (502, "the model server gave no answer")
# What may be the request's fault, and then the champion fails of it as well.
_EITHERS: Final = frozenset(
    (FallbackReason.ERROR, FallbackReason.STATUS, FallbackReason.TIMEOUT, FallbackReason.UNUSABLE)
)


class Exchange(Passing):
    """One request of a client, and at most one attempt at a time to have it answered."""

    _passing = False
    # What was wrong with the attempt that counts, once the champion has stepped in.
    _reason: FallbackReason | None = None
    # The challenger's failure counts for the breaker if the champion can do what it could not.
    _open_question = False
    _tries = 1

    def __init__(self, plane: "Plane", client: "Client", request: Request, routes: Routes) -> None:
        self.plane = plane
        self.routes = routes
        self.judge_bytes = self.judge_limit = routes.judge_bytes
        self.request = request
        self.client = client
        fields = request.fields
        given = fields.get(b"x-request-id")
        if given is None or not outgoing.usable_request_id(given):
            self.request_id = self.key = given = plane.request_id()
        else:
            self.request_id = given
            self.key = plane.key_of(given)
        self.to_head = to_head = request.method == b"HEAD"
        self._unusual = to_head or request.http10
        self.tail = outgoing.tail(request, given, client.forwarding.of(request), routes.override, routes.read)
        if not request.whole:
            self.begin_upload()

    def begin(self, now: float) -> None:
        """Assign the request and send it on."""
        plane, routes = self.plane, self.routes
        stale = self._stale = now > plane.stale_from
        self._unit, self._allotment = unit, allotment = routes.allot(self.request, stale)
        plane.outbox.crowd += 1
        plane.count_under_way()
        counters = plane.counters
        counters.requests[allotment.arm] += 1
        if stale:
            counters.stale += 1
        if unit is None:
            counters.no_unit += 1
            counters.minted += allotment.mint
            plane.writer.no_unit += 1
        if self.streamed:
            self.client.stop_upload()
        if allotment.arm == "champion" or routes.challenger is None:
            self.begin_call(routes.champion, routes.champion_s, now)
        elif not routes.challenger.ready:
            self._tries = 0
            self._fall_back(FallbackReason.NOT_READY, NO_ATTEMPT, now)
        elif routes.breaker.admit(now):
            self.begin_call(routes.challenger, routes.challenger_s, now)
        else:
            self._tries = 0
            self._fall_back(FallbackReason.BREAKER_OPEN, NO_ATTEMPT, now)

    def _fall_back(self, reason: FallbackReason, first: Attempt, now: float) -> None:
        """Have the champion answer what the challenger did not."""
        self._first = first
        self._reason = reason
        self._open_question = reason in _EITHERS
        self._tries += 1
        self.retries = 0
        self.unread = False
        self.plane.counters.fallbacks[reason] += 1
        self.forget_answer()
        self.begin_call(self.routes.champion, self.routes.champion_s, now)

    def wait_in_line(self) -> None:
        """There is no connection free, unless a client lets go of one that it takes its time over."""
        self.queued = True
        self.plane.room.server(self.pool)

    # The answer on its way.

    def answer_head(self, response: Response) -> None:
        """A champion's answer goes on as it comes; a challenger's where it cannot be held."""
        self.response = response
        flows = response.successful and passes_through(response, self.judge_bytes)
        self._passing = self.backend.arm == "champion" or flows
        if flows and self._open_question:
            # That it began tells enough; it may go on for long.
            now = monotonic()
            self._champion_did(now, well=not self.late(now))

    def answer_body(self, data: bytes) -> None:
        """A challenger's answer that grows too large is passed on, or given up where it is a failure anyway."""
        super().answer_body(data)
        self.plane.answers_grew(len(data))
        self._outgrown()

    def _outgrown(self) -> None:
        if not self._passing and self.received > self.judge_bytes:
            assert self.response is not None
            if self.response.successful:
                self._passing = True
            else:
                self.drop_connection()
                self._unusable(FallbackReason.STATUS)

    def answer_pause(self) -> None:
        """Pass on what has come. An answer that will be whole in time is waited for, as a challenger's would be:
        between its parts nothing is written, so both arms' are received at the same pace.

        Only here is it known that there is more to come, which there may be no room for: what is in hand is judged.
        """
        if self.plane.answers_full and self._late is None:
            self.hold_no_more()
            self._outgrown()
        if self._passing:
            if not self.started:
                if self._soon_whole():
                    self._wait_for_the_rest()
                    return
                self._start_stream()
            self._flush()

    def _wait_for_the_rest(self) -> None:
        """From its first bytes on, for as long as a challenger may take; beyond, they are passed on. Not while the
        client may still be the one that is waited for.
        """
        waiting = self.plane.deadlines(self.routes.challenger_s)
        if self.received and self.uploaded and self.waiting is not waiting:
            self.waiting.remove(self)
            self.waiting = waiting
            waiting.add(self, monotonic())

    def _soon_whole(self) -> bool:
        response = self.response
        assert response is not None
        limit = self.judge_bytes
        return 0 <= response.length <= limit and not passes_through(response, limit) and not self.late(monotonic())

    def answer_whole(self, response: Response, body: bytes) -> None:
        """The answer in one piece: the usual case, without the steps between."""
        self.connection = None
        self.response = response
        passing = self.backend.arm == "champion" or passes_through(response, self.judge_bytes)
        self._conclude(response, body, passing)

    def answer_end(self) -> None:
        """Deliver the answer, or the rest of it."""
        self.connection = None
        response = self.response
        assert response is not None
        if self.started:
            self._flush()
            self._end_stream(response)
        else:
            self._conclude(response, self.body(), self._passing)

    def _conclude(self, response: Response, body: bytes, passing: bool) -> None:
        """Answer with all of it, or have the champion make another answer."""
        self.waiting.remove(self)
        now = monotonic()
        late = self.late(now)
        if passing and response.successful:
            attempt = self._shown(response, body, now, late)
        else:
            verdict = judge(response, body, self.request)
            if verdict is False and self.backend.arm == "challenger":
                self.held = body
                reason = FallbackReason.UNUSABLE if response.successful else FallbackReason.STATUS
                self._unusable(reason, complete=True)
                return
            latency_s = now - self.sent_at
            attempt = Attempt(response.status, latency_s, body, verdict is not False, verdict is None, late=late)
            attempt.coding = response.coding
        client = self.client
        if not self._gone:
            self._close = close = client.closing
            if close or self._unusual or self._allotment.mint:
                data = answers.whole(response, body, own=self._own(), to_head=self.to_head)
            else:
                data = answers.usual(response, body, self.request_id)
            self.plane.outbox.write(client.transport, data)
        self._finish(attempt, response.status, now)

    def answer_failed(self, failure: Failure) -> None:
        """There will be no complete answer."""
        connection, self.connection = self.connection, None
        if self.started:
            self._cut()
            return
        if not self.asked_again(failure, connection):
            self._unusable(REASONS[failure])

    def forgiven(self, connection: Connection) -> bool:
        """The champion stands in for the challenger that dropped a request, and for itself, as there is nobody else;
        but the record has the failure.
        """
        if super().forgiven(connection):
            return True
        if self.backend.arm == "challenger":
            return False
        if self._first is None:
            self._first = self.attempt(b"", usable=False)
        self._tries += 1
        return True

    def timed_out(self) -> None:
        """The model server did not answer in time, or not with all that is waited for before it is passed on."""
        if self._passing and self.received and self.uploaded and not self._gone:
            self._start_stream()
            self._flush()
            return
        self.drop_connection()
        self._unusable(FallbackReason.TIMEOUT)

    def stalled(self, *, overran: bool = False) -> None:
        """An answer that is passed on does not go on; where that is its client's doing, it ends as one that is left."""
        if self._late is not None and self.client.crowded:
            self.client.break_off()
            self._left()
        else:
            self.drop_connection()
            self._cut(overran=overran)

    def overran(self) -> None:
        """It takes too long in total."""
        self.stalled(overran=True)

    def cut_off(self) -> None:
        """No server's fault, unless the answer was late already: whatever it would have been, it is no evidence."""
        now = monotonic()
        self.drop_connection()
        self.waiting.remove(self)
        attempt = self.attempt(bytes(self._kept) if self.started else self.body(), usable=False, late=self._late)
        self._withdrawn = self._first is None and not attempt.late
        if self._gone:
            self._finish(attempt, CLIENT_GONE, now)
        elif self.started:
            self.client.break_off()
            self._finish(attempt, attempt.status, now)
        else:
            self._spoken(503, ROUTER_ENDS)
            self._finish(attempt, 503, now)

    def _unusable(self, reason: FallbackReason, *, complete: bool = False) -> None:
        """The attempt at hand brought nothing that may be shown."""
        self.waiting.remove(self)
        now = monotonic()
        body = self.body()
        attempt = self.attempt(body, usable=False, complete=complete)
        if self.backend.arm == "challenger":
            if self.intact and (self.routes.replay or not self.was_sent):
                self._fall_back(reason, attempt, now)
                return
            if reason in _EITHERS:
                # Nobody is left to tell whose fault it was.
                self.routes.breaker.failed(now)
        if complete and self.response is not None:
            if not self._gone:
                self._close = self.client.closing
                whole = answers.whole(self.response, body, own=self._own(), to_head=self.to_head)
                self.client.write(whole)
            self._finish(attempt, self.response.status, now)
            return
        status, why = _SPOKEN.get(reason, _BAD_GATEWAY)
        if not self._gone:
            self._spoken(status, why)
        self._finish(attempt, status, now)

    def _spoken(self, status: int, why: str) -> None:
        """Answer with an error of our own."""
        self._close = self.client.closing
        own = self._own()
        if status == 503:
            own += b"Retry-After: %d\r\n" % self.plane.config.retry_after_s
        self.client.write(answers.spoken(status, why, own=own, to_head=self.to_head))

    # What the client gets.

    def _own(self) -> bytes:
        """The router's own fields of an answer."""
        minted = self.plane.request_id() if self._allotment.mint else None
        return answers.own_fields(self.request_id, self._close, self.request.http10, self.routes.cookie, minted)

    # The end.

    def _finish(self, attempt: Attempt, answer_status: int, now: float) -> None:
        """Record what happened; show the request to the challenger if it is to be mirrored; let the client go on."""
        plane, allotment = self.plane, self._allotment
        plane.outbox.crowd -= 1
        if self.started:
            plane.stalls.remove(self)
            plane.totals.remove(self)
        if self._gone:
            answer_status = CLIENT_GONE
        if self._open_question:
            self._champion_did(now, well=attempt.good(self.request))
        elif attempt.usable and self.backend.arm == "challenger":
            self.routes.breaker.succeeded(now)
        first = self._first or attempt
        record = Record(self.routes, self.request, self.key, self._unit, allotment, first, answer_status)
        if self._stale:
            record.stale = True
        if self._first is not None:
            record.attempts = self._tries
            record.served_by = "champion"
            record.fallback_reason = self._reason
        if allotment.mirror:
            record.mirrored = self._mirror(attempt, answer_status, now)
        counters = plane.counters
        counters.answers[answer_status // 100] += 1
        counters.latency_s[allotment.arm] += first.latency_s
        if self._withdrawn:
            record.withdrawn = True
        elif not first.usable or first.late:
            counters.unusable[allotment.arm] += 1
        if first.unjudged:
            counters.unjudged += 1
        plane.writer.offer(record.line() or record)
        plane.count_under_way()
        if self.budget:
            self.give_back()
        # Last: whatever the client's connection does, the request is recorded.
        if not self._gone:
            self.client.answered(self._close, now)

    def _champion_did(self, now: float, *, well: bool) -> None:
        """Only the champion's answer tells whose fault the challenger's failure was: its own, or the request's."""
        self._open_question = False
        if well:
            self.routes.breaker.failed(now)

    def _mirror(self, attempt: Attempt, answer_status: int, now: float) -> bool:
        plane, challenger = self.plane, self.routes.challenger
        if challenger is None:
            return False
        possible = self.request.whole and not plane.ending
        possible = possible and plane.mirrors < plane.config.mirrors and challenger.ready
        possible = possible and self.routes.breaker.admit(now)
        if possible and Mirror(self, self._unit, self._allotment, attempt, answer_status).begin(challenger, now):
            return True
        plane.counters.mirror_dropped += 1
        return False
