"""A request as it goes on to a model server: written anew from its parts, with the router's own fields."""

import re

from router.heads import Request

_REQUEST_ID = re.compile(rb"[!-~]{1,128}")
_SENT_BODYLESS = frozenset((b"GET", b"HEAD", b"DELETE", b"OPTIONS"))


def given_request_id(request: Request) -> str | None:
    """The client's own X-Request-Id, if it is one: up to 128 visible ASCII characters."""
    given = request.fields.get(b"x-request-id")
    if given is None or _REQUEST_ID.fullmatch(given) is None:
        return None
    return given.decode()


def tail(request: Request, request_id: str, peer: bytes, override: bytes | None) -> bytes:
    """Everything of the head behind the Host field, its end included. The same for every arm."""
    fields = request.fields
    lines = request.lines
    if override is not None and override in fields:
        lines = [line for line in lines if line.partition(b":")[0].lower() != override]
    forwarded = fields.get(b"x-forwarded-for")
    trail = peer if forwarded is None else b"%b, %b" % (forwarded, peer)
    own = b"X-Request-Id: %b\r\nX-Forwarded-For: %b\r\n" % (request_id.encode(), trail)
    if b"x-forwarded-proto" not in fields:
        own += b"X-Forwarded-Proto: http\r\n"
    if b"x-forwarded-host" not in fields and b"host" in fields:
        own += b"X-Forwarded-Host: %b\r\n" % fields[b"host"]
    if not request.whole and request.length < 0:
        own += b"Transfer-Encoding: chunked\r\n"
    elif not request.whole:
        own += b"Content-Length: %d\r\n" % request.length
    elif request.body or request.method not in _SENT_BODYLESS:
        own += b"Content-Length: %d\r\n" % len(request.body)
    if not lines:
        return own + b"\r\n"
    return b"%b\r\n%b\r\n" % (b"\r\n".join(lines), own)


def message(request: Request, authority: bytes, rest: bytes, body: bytes) -> bytes:
    """The request for one model server."""
    return b"%b %b HTTP/1.1\r\nHost: %b\r\n%b%b" % (request.method, request.target, authority, rest, body)
