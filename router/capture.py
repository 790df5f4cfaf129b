"""What of a request goes into the journal: exposures, in the shape of ``router.events.Exposure``.

While others wait for their answers only a ``Record`` is made, of which the journal's thread makes the event:
attributes, sampling, redaction, text. Of a record whose bodies are short and known to hold nothing to hide, and whose
answer was good, the line is made at once: that takes some microseconds, and twice as many later on, when what it is
made of has left the processor's cache and the thread has to take the interpreter from the event loop.
"""

from functools import partial
from time import time_ns
from typing import Any, Final

import orjson
import xxhash

from router.allowance import Allowance
from router.assignment import POINTS
from router.events import FallbackReason
from router.heads import Request, Response, coding
from router.judge import judge
from router.line import Line
from router.redacted import UNREAD, WITHHELD, Redacted, is_large
from router.routing import Allotment, Routes

# Draws other requests than the assignment draws units.
_SEED: Final = 1
# A body may be so many times as long as what is kept of it. More is not searched for hidden names, and not written.
_SEARCHED: Final = 4
# Bodies that are read at once, both together: so many bytes, a hundred features of a few rows, take some microseconds.
_SHORT: Final = 4 << 10
_SHORT_COOKIE: Final = 1 << 10
_CODING_BYTES: Final = 64
# How many ways there may be for exposures of one table to be alike; a few dozen are usual.
_MOST_ENDINGS: Final = 512


class Attempt:
    """What became of one attempt to have a request answered by an arm.

    ``status`` is 0 without an answer, ``latency_s`` from the first byte sent to the last received, ``answer`` its
    beginning at least, ``cut`` where it is no more. ``unjudged``: nobody looked whether it was fit to be shown.
    ``late``: it took longer than the challenger may, whichever arm's it is. ``to_judge``: the head of a complete answer
    that was passed on before anybody looked at it; the journal's thread does. ``coding``: how the answer is packed.
    """

    __slots__ = ("answer", "coding", "cut", "late", "latency_s", "status", "to_judge", "unjudged", "usable")

    def __init__(
        self,
        status: int,
        latency_s: float,
        answer: bytes,
        usable: bool,
        unjudged: bool = False,
        cut: bool = False,
        late: bool = False,
        to_judge: Response | None = None,
    ) -> None:
        self.status = status
        self.latency_s = latency_s
        self.answer = answer
        self.usable = usable
        self.unjudged = unjudged
        self.cut = cut
        self.late = late
        self.to_judge = to_judge
        self.coding = b""

    def good(self, request: Request) -> bool:
        """Whether its answer came in time and was, as far as can be told, fit to be shown."""
        if not self.usable or self.late:
            return False
        return self.to_judge is None or judge(self.to_judge, self.answer, request) is not False


NO_ATTEMPT: Final = Attempt(0, 0.0, b"", False)


class Record:
    """An exposure to be: everything that the journal's thread needs to make it. Not changed once it is offered."""

    __slots__ = (
        "allotment", "answer_status", "attempts", "fallback_reason", "first", "mirror", "mirrored", "request",
        "request_id", "routes", "served_by", "stale", "t", "unit", "weight", "withdrawn",
    )  # fmt: skip

    def __init__(
        self,
        routes: Routes,
        request: Request,
        request_id: bytes,
        unit: str | None,
        allotment: Allotment,
        first: Attempt,
        answer_status: int,
    ) -> None:
        self.routes = routes
        self.request = request
        self.request_id = request_id
        self.unit = unit
        self.allotment = allotment
        self.first = first
        self.answer_status = answer_status
        self.t = time_ns() // 1000
        self.attempts = 1
        self.fallback_reason: FallbackReason | None = None
        self.mirror = False
        self.mirrored = False
        self.stale = False
        # The client took back what it asked, so that neither arm could answer.
        self.withdrawn = False
        self.served_by = allotment.arm
        # About how many bytes it holds.
        self.weight = 1_024 + len(request.body) + len(first.answer)

    def line(self) -> Line | None:
        """Its line, where that is quickly made; None where it is not, and ``event`` has to be called elsewhere."""
        first, request = self.first, self.request
        body, answer = request.body, first.answer
        if not first.usable or first.late or first.cut or first.coding or not request.whole:
            return None
        if len(body) + len(answer) > _SHORT or b"content-encoding" in request.fields:
            return None
        routes = self.routes
        if routes.has_attributes and len(request.fields.get(b"cookie", b"")) > _SHORT_COOKIE:
            return None
        rules, limit, harmless = routes.capture, routes.capture_bytes, routes.harmless
        inputs_drawn = _drawn(self.request_id, rules.inputs_bp)
        answer_drawn = _drawn(self.request_id, rules.answers_bp)
        if inputs_drawn and not (len(body) <= limit and harmless.spares(body)):
            return None
        if answer_drawn and not (len(answer) <= limit and harmless.spares(answer)):
            return None
        if first.to_judge is not None and judge(first.to_judge, answer, request) is not True:
            return None
        inputs = body.decode() if inputs_drawn else None
        shown = answer.decode() if answer_drawn else None
        try:
            own = orjson.dumps(self._own(first.latency_s, inputs, shown))
            return Line(self.t, own[1:-1] + self._alike_ending(first.unjudged, not answer_drawn))
        except (TypeError, ValueError, LookupError, AttributeError):
            # The thread finds the same, and counts it; here somebody still has to be told that the answer is over.
            return None

    def _alike_ending(self, unjudged: bool, answer_cut: bool) -> bytes:
        """The end of the line of a usable answer: what it has in common with many others is made once."""
        allotment = self.allotment
        key = (
            allotment.arm, allotment.evidence, allotment.assigned_by, self.served_by, self.attempts,
            self.fallback_reason, self.mirror, self.mirrored, self.stale, self.withdrawn, unjudged, answer_cut,
            self.first.status, self.answer_status,
        )  # fmt: skip
        endings = self.routes.endings
        found = endings.get(key)
        if found is None:
            alike = self._alike(True, unjudged, False, answer_cut)
            found = b"," + orjson.dumps(alike, option=orjson.OPT_APPEND_NEWLINE)[1:]
            if len(endings) >= _MOST_ENDINGS:
                endings.clear()
            endings[key] = found
        return found

    def event(self) -> dict[str, Any]:
        """The exposure, in the journal's shape; called once, in the journal's thread.

        What it says of the assigned arm is said by one rule for both: an answer that the challenger would not have
        been allowed to give, or not as late, has failed, also where the champion's was shown. It counts as one that
        had not come by the challenger's deadline.
        """
        routes, first = self.routes, self.first
        latency = first.latency_s
        inputs_cut, answer_cut = False, True
        usable, unjudged = self._verdict()
        if not usable and (first.late or latency < routes.challenger_s):
            latency = routes.challenger_s
        inputs: str | None = None
        answer: str | None = None
        rules, limit = routes.capture, routes.capture_bytes
        kept = rules.failed and not usable
        if kept or _drawn(self.request_id, rules.inputs_bp):
            inputs, complete = self._inputs(limit)
            inputs_cut = not complete
        if kept or _drawn(self.request_id, rules.answers_bp):
            answer, complete = self._answer(limit)
            answer_cut = not complete
        said = self._own(latency, inputs, answer) | self._alike(usable, unjudged, inputs_cut, answer_cut)
        return {"type": "exposure", "seq": 0, "t": self.t, **said, **self._codings()}

    def _own(self, latency: float, inputs: str | None, answer: str | None) -> dict[str, Any]:
        """What of the exposure is different for each request."""
        routes = self.routes
        return {
            "request_id": self.request_id.decode(),
            "unit": self.unit,
            "latency_us": int(latency * 1e6),
            "attributes": routes.attributes(self.request) if routes.has_attributes else {},
            "inputs": inputs,
            "answer": answer,
        }

    def _alike(self, usable: bool, unjudged: bool, inputs_cut: bool, answer_cut: bool) -> dict[str, Any]:
        """What it has in common with many: all but its place, what is its own, and how bodies are packed."""
        routes, allotment, served_by = self.routes, self.allotment, self.served_by
        return {
            "attempt": routes.attempt,
            "epoch": routes.epoch,
            "generation": routes.generation,
            "arm": allotment.arm,
            "evidence": allotment.evidence and not self.withdrawn,
            "assigned_by": allotment.assigned_by,
            "served_by": served_by,
            "version": routes.versions[served_by],
            "attempts": self.attempts,
            "fallback_reason": self.fallback_reason,
            "mirror": self.mirror,
            "mirrored": self.mirrored,
            "stale": self.stale,
            "unjudged": unjudged,
            "usable": usable,
            "status": self.first.status,
            "answer_status": self.answer_status,
            "cut": inputs_cut or answer_cut,
            "answer_cut": answer_cut,
        }

    def _verdict(self) -> tuple[bool, bool]:
        """Whether the assigned arm answered usably and in time, and whether that is not known."""
        first = self.first
        usable, unjudged = first.usable, first.unjudged
        if first.to_judge is not None:
            verdict = judge(first.to_judge, first.answer, self.request)
            usable, unjudged = verdict is not False, verdict is None
            # One that came late is counted already.
            self.routes.findings.unusable += not usable and not first.late
            self.routes.findings.unjudged += unjudged
        if usable and first.late:
            return False, False
        return usable, unjudged

    def _inputs(self, limit: int) -> tuple[str, bool]:
        """The request's body as it may be written, and whether all of it could be read as text."""
        request = self.request
        if coding(request.fields):
            self.routes.redactions.note(WITHHELD)
            return WITHHELD.text, False
        content_type = request.fields.get(b"content-type", b"").decode("latin-1").strip().lower()
        text, complete, _ = self._text(request.body, content_type, request.whole, limit)
        return text, complete

    def _answer(self, limit: int) -> tuple[str, bool]:
        """The answer as it may be written, and whether scores can be read from it."""
        first = self.first
        if first.coding:
            self.routes.redactions.note(WITHHELD)
            return WITHHELD.text, False
        answer, whole = first.answer, not first.cut
        if first.unjudged and len(answer) > limit:
            # It was passed on: of one that came in several reads there would be no more.
            answer, whole = answer[:limit], False
        text, complete, withheld = self._text(answer, "", whole, limit)
        return text, complete and not withheld

    def _codings(self) -> dict[str, str]:
        """How the bodies are packed, of those that are."""
        found = {"inputs_coding": coding(self.request.fields), "answer_coding": self.first.coding}
        return {name: value[:_CODING_BYTES].decode("latin-1") for name, value in found.items() if value}

    def _text(self, body: bytes, content_type: str, whole: bool, limit: int) -> tuple[str, bool, bool]:
        """A body as it may be written, whether all of it could be read as text, and whether it was withheld."""
        noted = self.routes.redactions
        if not is_large(body):
            return self._read(body, content_type, whole, limit, noted.reading)
        read = None
        if len(body) <= _SEARCHED * limit:
            read = noted.reading.spend(lambda: self._read(body, content_type, whole, limit, None))
        return self._left_out(UNREAD) if read is None else read

    def _left_out(self, done: Redacted) -> tuple[str, bool, bool]:
        self.routes.redactions.note(done)
        return done.text, False, True

    def _read(
        self, body: bytes, content_type: str, whole: bool, limit: int, allowance: Allowance | None
    ) -> tuple[str, bool, bool]:
        redactor, noted = self.routes.redactor, self.routes.redactions
        complete = whole and len(body) <= limit
        withheld: bool | None = False
        if not complete:
            withholds = partial(redactor.withholds_part, body.decode("utf-8", "replace"), whole)
            withheld = withholds() if allowance is None else allowance.spend(withholds)
        if withheld is None:
            return self._left_out(UNREAD)
        if withheld:
            return self._left_out(WITHHELD)
        readable = True
        try:
            text = body[:limit].decode()
        except UnicodeDecodeError:
            text, readable = body[:limit].decode("utf-8", "replace"), False
        done = redactor.redact(text, content_type, complete, allowance)
        noted.note(done)
        return done.text, complete and readable and done is not UNREAD, done.withheld


def _drawn(request_id: bytes, share_bp: int) -> bool:
    return share_bp >= POINTS or xxhash.xxh64_intdigest(request_id, seed=_SEED) % POINTS < share_bp
