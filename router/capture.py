"""What of a request goes into the journal: exposures, in the shape of ``router.events.Exposure``.

While somebody waits for an answer only a ``Record`` is made; the journal's thread makes the event of it: attributes,
sampling, redaction, text.
"""

from time import time_ns
from typing import Any

import xxhash

from router.assignment import POINTS
from router.events import FallbackReason
from router.heads import Request
from router.routing import Allotment, Routes

# Draws other requests than the assignment draws units.
_SEED = 1


class Attempt:
    """What became of one attempt to have a request answered by an arm.

    ``status`` is 0 without an answer, ``latency_s`` from the first byte sent to the last received, ``answer`` its
    beginning at least, ``cut`` where it is no more. ``unjudged``: nobody looked whether it was fit to be shown.
    """

    __slots__ = ("answer", "cut", "latency_s", "status", "unjudged", "usable")

    def __init__(
        self, status: int, latency_s: float, answer: bytes, usable: bool, unjudged: bool = False, cut: bool = False
    ) -> None:
        self.status = status
        self.latency_s = latency_s
        self.answer = answer
        self.usable = usable
        self.unjudged = unjudged
        self.cut = cut


NO_ATTEMPT = Attempt(0, 0.0, b"", False)


class Record:
    """An exposure to be: everything that the journal's thread needs to make it. Not changed once it is offered."""

    attempts = 1
    fallback_reason: FallbackReason | None = None
    mirror = False
    mirrored = False
    stale = False

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
        self.served_by = allotment.arm
        # About how many bytes it holds.
        self.weight = 1_024 + len(request.body) + len(first.answer)

    def event(self) -> dict[str, Any]:
        """The exposure, in the journal's shape; called once, in the journal's thread.

        An answer that could not be used counts as one that had not come by the challenger's deadline, for either arm.
        """
        routes, request, served_by = self.routes, self.request, self.served_by
        first, allotment = self.first, self.allotment
        latency, answered, usable, cut = first.latency_s, first.answer, first.usable, first.cut
        if not usable and latency < routes.challenger_s:
            latency = routes.challenger_s
        inputs: str | None = None
        answer: str | None = None
        rules, limit = routes.capture, routes.capture_bytes
        kept = rules.failed and not usable
        if kept or _drawn(self.request_id, rules.inputs_bp):
            inputs, complete = self._inputs(limit)
            cut = cut or not complete
        if kept or _drawn(self.request_id, rules.answers_bp):
            cut = cut or len(answered) > limit
            try:
                answer = answered[:limit].decode()
            except UnicodeDecodeError:
                answer, cut = answered[:limit].decode("utf-8", "replace"), True
        else:
            cut = True
        return {
            "type": "exposure",
            "seq": 0,
            "t": self.t,
            "request_id": self.request_id.decode(),
            "attempt": routes.attempt,
            "epoch": routes.epoch,
            "generation": routes.generation,
            "unit": self.unit,
            "arm": allotment.arm,
            "evidence": allotment.evidence,
            "assigned_by": allotment.assigned_by,
            "served_by": served_by,
            "version": routes.versions[served_by],
            "attempts": self.attempts,
            "fallback_reason": self.fallback_reason,
            "mirror": self.mirror,
            "mirrored": self.mirrored,
            "stale": self.stale,
            "unjudged": first.unjudged,
            "usable": usable,
            "status": first.status,
            "answer_status": self.answer_status,
            "latency_us": int(latency * 1e6),
            "attributes": routes.attributes(request) if routes.has_attributes else {},
            "inputs": inputs,
            "answer": answer,
            "cut": cut,
        }

    def _inputs(self, limit: int) -> tuple[str, bool]:
        """The request's body as it may be written, and whether all of it could be read as text."""
        request, redactor = self.request, self.routes.redactor
        body, whole = request.body, request.whole
        if len(body) > limit:
            body, whole = body[:limit], False
        readable = True
        try:
            text = body.decode()
        except UnicodeDecodeError:
            text, readable = body.decode("utf-8", "replace"), False
        if redactor.suspects(text):
            content_type = request.fields.get(b"content-type", b"").decode("latin-1").strip().lower()
            text, fields, withheld = redactor.redact(text, content_type, whole)
            redactions = self.routes.redactions
            redactions.redacted += fields
            redactions.withheld += withheld
        return text, whole and readable


def _drawn(request_id: bytes, share_bp: int) -> bool:
    return share_bp >= POINTS or xxhash.xxh64_intdigest(request_id, seed=_SEED) % POINTS < share_bp
