"""A request as it goes on to a model server: written anew from its parts, with the router's own fields."""

import re
from typing import Final

from router.heads import Request

_REQUEST_ID: Final = re.compile(rb"[!-~]{1,128}")
# Methods for whose bodies nothing is defined (RFC 9110, section 9.3): without a body they are sent without a length,
# and many a server looks for none.
BODYLESS: Final = frozenset((b"GET", b"HEAD", b"DELETE", b"OPTIONS"))


def usable_request_id(given: bytes) -> bool:
    """Whether a client's X-Request-Id may be kept: up to 128 visible ASCII characters."""
    return _REQUEST_ID.fullmatch(given) is not None


def forwarding(request: Request, peer: bytes) -> bytes:
    """The fields that say on whose behalf the request is made, added to those that it came with."""
    fields = request.fields
    trail = fields.get(b"x-forwarded-for")
    own = b"X-Forwarded-For: %b\r\n" % (peer if trail is None else b"%b, %b" % (trail, peer))
    if b"x-forwarded-proto" not in fields:
        own += b"X-Forwarded-Proto: http\r\n"
    if b"x-forwarded-host" not in fields and b"host" in fields:
        own += b"X-Forwarded-Host: %b\r\n" % fields[b"host"]
    return own


class Forwarding:
    """The same for the requests of one connection, which mostly ask for one host."""

    __slots__ = ("_fields", "_host", "_peer")

    def __init__(self, peer: bytes) -> None:
        self._peer = peer
        self._host: bytes | None = None
        self._fields = b""

    def of(self, request: Request) -> bytes:
        fields = request.fields
        if b"x-forwarded-for" in fields or b"x-forwarded-proto" in fields or b"x-forwarded-host" in fields:
            return forwarding(request, self._peer)
        host = fields.get(b"host")
        if self._host is None or self._host != host:
            self._host, self._fields = host, forwarding(request, self._peer)
        return self._fields


def tail(
    request: Request, request_id: bytes, forwarded: bytes, override: bytes | None, read: frozenset[bytes] = frozenset()
) -> bytes:
    """Everything of the head behind the Host field, its end included. The same for every arm.

    Fields that the router itself has ``read`` go on whatever Connection says: a model is asked what was recorded.
    """
    lines = request.lines
    if request.named and not read.isdisjoint(request.named):
        fields = request.fields
        lines = [*lines, *(b"%b: %b" % (name, fields[name]) for name in read & request.named if name in fields)]
    if override is not None and override in request.fields:
        lines = [line for line in lines if line.partition(b":")[0].lower() != override]
    written = b"\r\n".join(lines)
    if written:
        written += b"\r\n"
    if request.whole:
        if request.body or request.method not in BODYLESS:
            return b"%bX-Request-Id: %b\r\n%bContent-Length: %d\r\n\r\n" % (
                written,
                request_id,
                forwarded,
                len(request.body),
            )
        framing = b""
    elif request.length < 0:
        framing = b"Transfer-Encoding: chunked\r\n"
    else:
        framing = b"Content-Length: %d\r\n" % request.length
    return b"%bX-Request-Id: %b\r\n%b%b\r\n" % (written, request_id, forwarded, framing)


def message(request: Request, authority: bytes, rest: bytes, body: bytes) -> bytes:
    """The request for one model server."""
    return b"%b %b HTTP/1.1\r\nHost: %b\r\n%b%b" % (request.method, request.target, authority, rest, body)
