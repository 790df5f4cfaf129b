"""What of a request goes into the journal: exposures, in the shape of ``router.events.Exposure``."""

import time
from typing import Any

from router.heads import Request
from router.routing import Allotment, Routes


def text(body: bytes, limit: int) -> tuple[str, bool]:
    """A body as text, at most ``limit`` bytes of it; and whether that is less than the whole, or no text."""
    cut = len(body) > limit
    if cut:
        body = body[:limit]
    try:
        return body.decode(), cut
    except UnicodeDecodeError:
        return body.decode("utf-8", "replace"), True


class Attempt:
    """What became of one attempt to have a request answered by an arm.

    ``status`` is 0 without an answer, ``latency_s`` from the first byte sent to the last received.
    """

    __slots__ = ("answer", "cut", "latency_s", "status", "unjudged", "usable")

    def __init__(
        self, status: int, latency_s: float, answer: bytes, *, usable: bool, cut: bool = False, unjudged: bool = False
    ) -> None:
        self.status = status
        self.latency_s = latency_s
        self.answer = answer
        self.usable = usable
        self.cut = cut
        self.unjudged = unjudged


def exposure(
    routes: Routes,
    request: Request,
    request_id: str,
    allotment: Allotment,
    first: Attempt,
) -> dict[str, Any]:
    """The exposure of a request whose assigned arm answered it itself; the caller changes what was otherwise.

    An answer that could not be used counts as one that had not come by the challenger's deadline, for either arm.
    """
    inputs, inputs_cut = text(request.body, routes.capture_bytes)
    answer, answer_cut = text(first.answer, routes.capture_bytes)
    latency = first.latency_s if first.usable else max(first.latency_s, routes.challenger_s)
    arm = allotment.arm
    backend = routes.champion if arm == "champion" or routes.challenger is None else routes.challenger
    return {
        "type": "exposure",
        "seq": 0,
        "t": time.time_ns() // 1000,
        "request_id": request_id,
        "attempt": routes.attempt,
        "epoch": routes.epoch,
        "generation": routes.generation,
        "unit": allotment.unit,
        "arm": arm,
        "evidence": allotment.evidence,
        "assigned_by": allotment.assigned_by,
        "served_by": arm,
        "version": backend.version,
        "attempts": 1,
        "fallback_reason": None,
        "mirror": False,
        "mirrored": False,
        "stale": False,
        "unjudged": first.unjudged,
        "usable": first.usable,
        "status": first.status,
        "answer_status": first.status,
        "latency_us": int(latency * 1e6),
        "attributes": routes.attributes(request),
        "inputs": inputs,
        "answer": answer,
        "cut": inputs_cut or answer_cut or first.cut or not request.whole,
    }
