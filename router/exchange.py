"""The life of one request: assigned, forwarded, judged, and answered by the champion where the challenger fails.

A challenger's answer is held until it is judged; a champion's, an event stream, and what is too large to be held are
passed on as they come. As long as the client has seen nothing and the request is still held whole, the champion can
step in. Whatever happens, an exchange ends once, with one answer (or a client that is gone) and one exposure.
"""

from typing import TYPE_CHECKING

from router import answers
from router.call import Call
from router.capture import Attempt, exposure
from router.events import FallbackReason
from router.heads import Request, Response
from router.judge import judge, passes_through, successful
from router.mirror import Mirror
from router.outgoing import given_request_id, tail
from router.routing import Routes
from router.upstream import REASONS, Failure

if TYPE_CHECKING:
    from router.downstream import Client
    from router.plane import Plane

CLIENT_GONE = 499
_STALE_RETRIES = 2
_SPOKEN = {
    FallbackReason.TIMEOUT: (504, "the model server did not answer in time"),
    FallbackReason.OVERLOAD: (503, "the model server has no capacity left"),
}
_BAD_GATEWAY = (502, "the model server gave no answer")
_SAFE = frozenset((b"GET", b"HEAD", b"OPTIONS"))
_MINTED = b"Set-Cookie: %b=%b; Max-Age=31536000; Path=/; HttpOnly; SameSite=Lax\r\n"


class Exchange(Call):
    """One request of a client, and at most one attempt at a time to have it answered."""

    __slots__ = (
        "_allotment",
        "_chunks",
        "_client",
        "_close",
        "_first",
        "_gone",
        "_kept",
        "_kept_bytes",
        "_passing",
        "_reason",
        "_retries",
        "_stale",
        "_tries",
        "_uploaded",
        "started",
    )

    def __init__(self, plane: "Plane", client: "Client", request: Request, routes: Routes) -> None:
        request_id = given_request_id(request) or plane.request_id()
        super().__init__(plane, routes, request, request_id, tail(request, request_id, client.peer, routes.override))
        self._client = client
        self._uploaded = request.whole
        self.started = False
        self._passing = False
        # The challenger's attempt and what was wrong with it, once the champion has stepped in.
        self._first: Attempt | None = None
        self._reason: FallbackReason | None = None
        self._tries = 0
        self._retries = 0
        self._gone = False
        # The beginning of an answer that is passed on.
        self._kept: list[bytes] = []
        self._kept_bytes = 0

    def begin(self) -> None:
        """Assign the request and send it on."""
        plane, routes = self.plane, self.routes
        now = plane.loop.time()
        self._stale = now > plane.stale_from
        allotment = self._allotment = routes.allot(self.request, stale=self._stale)
        counters = plane.counters
        counters.requests[allotment.arm] += 1
        if self._stale:
            counters.stale += 1
        if allotment.unit is None:
            counters.no_unit += 1
            counters.minted += allotment.mint
            plane.writer.no_unit += 1
        if self.streamed:
            self._client.stop_upload()
        if allotment.arm == "champion" or routes.challenger is None:
            self._call_champion(now)
        elif plane.breaker.admit(now):
            self._tries += 1
            self.begin_call(routes.challenger, routes.challenger_s, now)
        else:
            nothing = Attempt(0, 0.0, b"", usable=False)
            self._fall_back(FallbackReason.BREAKER_OPEN, nothing, now)

    def _call_champion(self, now: float) -> None:
        self._tries += 1
        self.begin_call(self.routes.champion, self.routes.champion_s, now)

    def _fall_back(self, reason: FallbackReason, first: Attempt, now: float) -> None:
        """Have the champion answer what the challenger did not."""
        self._first = first
        self._reason = reason
        self.plane.counters.fallbacks[reason] += 1
        self._call_champion(now)

    # The request on its way.

    def request_part(self, data: bytes, done: bool) -> None:
        """A further part of a request that is too large to be held; ``done`` with the last one."""
        if self.request.length < 0:
            data = (answers.chunk(data) if data else b"") + (answers.LAST_CHUNK if done else b"")
        self.parts.append(data)
        self._uploaded = done
        if self.connection is not None:
            self._send_parts()

    def sendable(self) -> None:
        """The connection takes more of the request."""
        if self.connection is not None:
            self._send_parts()
            self._client.resume_upload()

    def crowded(self) -> None:
        """The connection takes no more of the request for now."""
        self._client.stop_upload()

    def _send_parts(self) -> None:
        connection = self.connection
        assert connection is not None
        if self.parts:
            self.intact = False
            data = b"".join(self.parts)
            self.parts.clear()
            connection.send(data)
        if self._uploaded:
            connection.sent()
        # The server cannot answer what it has not read: its time runs anew.
        if not self.started:
            self.waiting.add(self, self.plane.loop.time())

    # The answer on its way.

    def answer_head(self, response: Response) -> None:
        """A champion's answer goes on as it comes; a challenger's where it cannot be held."""
        self.response = response
        self._passing = self.backend.arm == "champion" or (
            successful(response) and passes_through(response, self.routes.judge_bytes)
        )

    def answer_body(self, data: bytes) -> None:
        """A challenger's answer that grows too large is passed on, or given up where it is a failure anyway."""
        self.received += len(data)
        self.held.append(data)
        if not self._passing and self.received > self.routes.judge_bytes:
            assert self.response is not None
            if successful(self.response):
                self._passing = True
            else:
                self.drop_connection()
                self._unusable(FallbackReason.STATUS)

    def answer_pause(self) -> None:
        """Pass on what has come."""
        if self._passing:
            if not self.started:
                self._start_stream()
            self._flush()

    def answer_end(self) -> None:
        """Deliver the answer, or the rest of it, or have the champion make another one."""
        self.connection = None
        response = self.response
        assert response is not None
        if self.started:
            self._flush()
            self._end_stream(response)
            return
        body = self.body()
        if not self._passing:
            verdict = judge(response, body, self.request)
            if verdict is False:
                reason = FallbackReason.UNUSABLE if successful(response) else FallbackReason.STATUS
                self._unusable(reason, complete=True)
                return
            self._deliver(response, body, usable=True, unjudged=verdict is None)
            return
        self._deliver(response, body)

    def answer_failed(self, failure: Failure) -> None:
        """There will be no complete answer."""
        self.connection = None
        now = self.plane.loop.time()
        if self.started:
            self._cut()
            return
        stale = failure is Failure.STALE and self._retries < _STALE_RETRIES and self._repeatable()
        refused = failure is Failure.REFUSED and self._retries < len(self.backend.pools) - 1
        if stale or refused:
            # Nothing was read by anybody: the same arm may try again, by another connection or address.
            self._retries += 1
            self.plane.counters.retries += 1
            self.ask(self.pool if stale else self.backend.pick(now), now)
            return
        self._unusable(REASONS[failure])

    def timed_out(self) -> None:
        """The model server did not answer in time."""
        self.drop_connection()
        self._unusable(FallbackReason.TIMEOUT)

    def stalled(self) -> None:
        """An answer that is passed on does not go on, or takes too long in total."""
        self.drop_connection()
        self._cut()

    def _repeatable(self) -> bool:
        return self.intact and (self.routes.replay or self.request.method in _SAFE)

    def _unusable(self, reason: FallbackReason, *, complete: bool = False) -> None:
        """The attempt at hand brought nothing that may be shown."""
        self.waiting.remove(self)
        now = self.plane.loop.time()
        body = self.body()
        attempt = self.attempt(now, body, usable=False)
        if self.backend.arm == "challenger":
            # Of a bad status only the champion's answer tells whose fault it was.
            if reason not in (FallbackReason.STATUS, FallbackReason.OVERLOAD):
                self.plane.breaker.failed(now)
            if self.intact and (self.routes.replay or not self.was_sent):
                self._retries = 0
                self._fall_back(reason, attempt, now)
                return
            if reason is FallbackReason.STATUS:
                self.plane.breaker.failed(now)
        if complete and self.response is not None:
            self._send_whole(self.response, body)
            self._finish(attempt, self.response.status)
            return
        status, why = _SPOKEN.get(reason, _BAD_GATEWAY)
        if not self._gone:
            self._close = self._client.closing
            own = self._own() + (b"Retry-After: %d\r\n" % self.plane.config.retry_after_s if status == 503 else b"")
            self._client.write(answers.spoken(status, why, own=own, to_head=self.to_head))
        self._finish(attempt, status)

    # What the client gets.

    def _own(self) -> bytes:
        """The router's own fields of an answer."""
        own = b"X-Request-Id: %b\r\n" % self.request_id.encode()
        if self._close:
            own += answers.CLOSE
        elif self.request.http10:
            own += answers.KEEP_ALIVE
        if self._allotment.mint and self.routes.cookie is not None:
            own += _MINTED % (self.routes.cookie, self.plane.request_id().encode())
        return own

    def _send_whole(self, response: Response, body: bytes) -> None:
        if not self._gone:
            self._close = self._client.closing
            self._client.write(answers.whole(response, body, own=self._own(), to_head=self.to_head))

    def _deliver(self, response: Response, body: bytes, *, usable: bool | None = None, unjudged: bool = False) -> None:
        """Answer with all of it at once; a champion's answer is judged afterwards, for the record only."""
        self.waiting.remove(self)
        now = self.plane.loop.time()
        self._send_whole(response, body)
        if usable is None:
            usable = successful(response)
            if usable and self._first is None:
                verdict = judge(response, body, self.request) if len(body) <= self.routes.capture_bytes else None
                usable, unjudged = verdict is not False, verdict is None
        self._finish(self.attempt(now, body, usable=usable, unjudged=unjudged), response.status)

    def _start_stream(self) -> None:
        response = self.response
        assert response is not None
        plane, request = self.plane, self.request
        now = plane.loop.time()
        self.waiting.remove(self)
        plane.totals.add(self, now)
        self.started = True
        self._chunks = response.length < 0 and not request.http10
        self._close = self._client.closing or (response.length < 0 and request.http10)
        if not self._gone:
            self._client.write(answers.begun(response, own=self._own(), chunks=self._chunks))

    def _flush(self) -> None:
        """Pass on what is held; keep the beginning."""
        plane = self.plane
        plane.stalls.add(self, plane.loop.time())
        data = self.body()
        self.held = []
        if not data:
            return
        missing = self.routes.capture_bytes - self._kept_bytes
        if missing > 0:
            self._kept.append(data[:missing])
            self._kept_bytes += len(self._kept[-1])
        self._client.write(answers.chunk(data) if self._chunks else data)

    def _end_stream(self, response: Response) -> None:
        if self._chunks:
            self._client.write(answers.LAST_CHUNK)
        body = b"".join(self._kept)
        cut = self.received > len(body)
        now = self.plane.loop.time()
        usable, unjudged = successful(response), True
        if usable and not cut and self.backend.arm == "champion" and self._first is None:
            verdict = judge(response, body, self.request)
            usable, unjudged = verdict is not False, verdict is None
        attempt = self.attempt(now, body, usable=usable, unjudged=unjudged)
        attempt.cut = cut
        self._finish(attempt, response.status)

    def _cut(self) -> None:
        """An answer that the client has begun to receive will not be complete; neither is what the client gets."""
        attempt = self.attempt(self.plane.loop.time(), b"".join(self._kept), usable=False, unjudged=True)
        attempt.cut = True
        assert self.response is not None
        if not self._gone:
            self._client.break_off()
        self._finish(attempt, self.response.status)

    def client_crowded(self) -> None:
        """The client does not keep up."""
        if self.connection is not None:
            self.connection.pause()

    def client_ready(self) -> None:
        """The client has caught up."""
        if self.connection is not None:
            self.connection.resume()

    def client_lost(self) -> None:
        """The client is gone. What a model server is about to answer is still evidence; a stream ends here."""
        self._gone = True
        if self.started:
            self.drop_connection()
            self._cut()
        elif not self._uploaded:
            self.waiting.remove(self)
            self.drop_connection()
            self._finish(self.attempt(self.plane.loop.time(), b"", usable=False), CLIENT_GONE)

    # The end.

    def _finish(self, attempt: Attempt, answer_status: int) -> None:
        """Let the client go on; record what happened; show the request to the challenger if it is to be mirrored."""
        plane = self.plane
        if self.started:
            plane.stalls.remove(self)
            plane.totals.remove(self)
        if self._gone:
            answer_status = CLIENT_GONE
        else:
            self._client.answered(close=self._close)
        now = plane.loop.time()
        challenger_fault = self._reason is FallbackReason.STATUS and attempt.usable
        if self.backend.arm == "challenger" and attempt.usable:
            plane.breaker.succeeded(now)
        elif challenger_fault:
            plane.breaker.failed(now)
        first = self._first or attempt
        event = exposure(self.routes, self.request, self.request_id, self._allotment, first)
        event["stale"] = self._stale
        event["attempts"] = self._tries
        event["answer_status"] = answer_status
        if self._first is not None:
            event["served_by"] = "champion"
            event["version"] = self.routes.champion.version
            event["fallback_reason"] = self._reason
        if self._allotment.mirror:
            event["mirrored"] = self._mirror(answer_status, now)
        counters = plane.counters
        arm = self._allotment.arm
        counters.answers[min(answer_status // 100, 5)] += 1
        counters.latency_s[arm] += first.latency_s
        counters.unusable[arm] += not first.usable
        counters.unjudged += first.unjudged
        plane.writer.offer(event)

    def _mirror(self, answer_status: int, now: float) -> bool:
        plane, challenger = self.plane, self.routes.challenger
        if challenger is None:
            return False
        if not self.request.whole or plane.mirrors >= plane.config.mirrors or not plane.breaker.admit(now):
            plane.counters.mirror_dropped += 1
            return False
        Mirror(self, self._allotment, answer_status).begin(challenger, now)
        return True
