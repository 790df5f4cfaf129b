"""Who wrote when, and who led then: by the audit log of the API server, whose one clock both are told by."""

import json
from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

from controller.edges.cluster.access import Node

WRITES = ("create", "update", "patch", "delete", "deletecollection")
CREDENTIAL = "authentication.kubernetes.io/credential-id"
UNGUARDED = ("leases", "selfsubjectreviews")  # how one comes to lead, and asks who one is


class Call(NamedTuple):
    """A request of one process. ``at``: seconds since 1970 when it came in."""

    at: float
    credential: str
    verb: str
    what: str
    done: bool


class Term(NamedTuple):
    """A renewal of the Lease that was granted."""

    at: float
    credential: str


def calls(lines: Iterable[bytes]) -> list[Call]:
    """The writes in an audit log, in the order in which they came in; a line that is torn is left out."""
    found = []
    for line in lines:
        try:
            event = json.loads(line)
        except ValueError:
            continue
        credential = event["user"].get("extra", {}).get(CREDENTIAL, [""])[0]
        if credential and event["verb"] in WRITES:
            found.append(_call(event, credential))
    return sorted(found)


def terms(made: Iterable[Call]) -> list[Term]:
    return [Term(call.at, call.credential) for call in made if call.what == "leases" and call.done]


def fenced(made: list[Call], lease_s: float) -> list[str]:
    """Writes of somebody who did not hold the Lease when they came in, or whose lease was over by then."""
    said = []
    holder: Term | None = None
    for call in made:
        if call.what == "leases":
            holder = Term(call.at, call.credential) if call.done else holder
        elif call.what not in UNGUARDED:
            where = f"{call.verb} {call.what} at {call.at:.3f} by {call.credential}"
            if holder is None or holder.credential != call.credential:
                said.append(f"{where}: the Lease is of {holder and holder.credential}")
            elif call.at > holder.at + lease_s:
                said.append(f"{where}: its lease was over {call.at - holder.at - lease_s:.3f} s ago")
    return said


def led(kept: list[Term], at: float) -> str | None:
    """Who held the Lease at a time; None: nobody had taken it yet."""
    return next((term.credential for term in reversed(kept) if term.at <= at), None)


def interregnum(kept: list[Term], at: float, credential: str) -> float | None:
    """Seconds from ``at``, when ``credential`` ended, until another led; None: nobody did."""
    return next((term.at - at for term in kept if term.at > at and term.credential != credential), None)


def _call(event: Node, credential: str) -> Call:
    what = event.get("objectRef") or {}
    named = "/".join(filter(None, (what.get("resource", event["requestURI"]), what.get("subresource"))))
    at = datetime.fromisoformat(event["requestReceivedTimestamp"]).timestamp()
    code = int((event.get("responseStatus") or {}).get("code", 0))
    return Call(at, credential, event["verb"], named, 200 <= code < 300)
