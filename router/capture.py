"""What of a request goes into the journal: exposures, in the shape of ``router.events.Exposure``."""

from time import time_ns
from typing import Any, NamedTuple

from router.heads import Request
from router.routing import Allotment, Routes


class Attempt(NamedTuple):
    """What became of one attempt to have a request answered by an arm.

    ``status`` is 0 without an answer, ``latency_s`` from the first byte sent to the last received, ``answer`` its
    beginning at least, ``cut`` where it is no more. ``unjudged``: nobody looked whether it was fit to be shown.
    """

    status: int
    latency_s: float
    answer: bytes
    usable: bool
    unjudged: bool = False
    cut: bool = False


NO_ATTEMPT = Attempt(0, 0.0, b"", False)


def exposure(routes: Routes, request: Request, request_id: str, allotment: Allotment, first: Attempt) -> dict[str, Any]:
    """The exposure of a request whose assigned arm answered it itself; the caller changes what was otherwise.

    An answer that could not be used counts as one that had not come by the challenger's deadline, for either arm.
    """
    status, latency, answer, usable, unjudged, cut = first
    unit, arm, evidence, assigned_by, _, _ = allotment
    if not usable and latency < routes.challenger_s:
        latency = routes.challenger_s
    limit = routes.capture_bytes
    body = request.body
    if len(body) > limit or len(answer) > limit or not request.whole:
        cut, body, answer = True, body[:limit], answer[:limit]
    try:
        inputs, answered = body.decode(), answer.decode()
    except UnicodeDecodeError:
        cut = True
        inputs, answered = body.decode("utf-8", "replace"), answer.decode("utf-8", "replace")
    return {
        "type": "exposure",
        "seq": 0,
        "t": time_ns() // 1000,
        "request_id": request_id,
        "attempt": routes.attempt,
        "epoch": routes.epoch,
        "generation": routes.generation,
        "unit": unit,
        "arm": arm,
        "evidence": evidence,
        "assigned_by": assigned_by,
        "served_by": arm,
        "version": routes.versions[arm],
        "attempts": 1,
        "fallback_reason": None,
        "mirror": False,
        "mirrored": False,
        "stale": False,
        "unjudged": unjudged,
        "usable": usable,
        "status": status,
        "answer_status": status,
        "latency_us": int(latency * 1e6),
        "attributes": routes.attributes(request) if routes.has_attributes else {},
        "inputs": inputs,
        "answer": answered,
        "cut": cut,
    }
