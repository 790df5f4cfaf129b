"""The bytes of answers: heads written anew for the client, and the router's own short answers."""

from http import HTTPStatus
from typing import Final

import orjson

from router.heads import Response

_STATUS_LINES: Final = {s.value: f"HTTP/1.1 {s.value} {s.phrase}\r\n".encode() for s in HTTPStatus}
_NO_BODY: Final = frozenset((204, 304))
LAST_CHUNK: Final = b"0\r\n\r\n"
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
CLOSE: Final = b"Connection: close\r\n"
KEEP_ALIVE: Final = b"Connection: keep-alive\r\n"
_MINTED: Final = b"Set-Cookie: %b=%b; Max-Age=31536000; Path=/; HttpOnly; SameSite=Lax\r\n"


def status_line(status: int) -> bytes:
    """First line of an answer; the router names the status itself."""
    return _STATUS_LINES.get(status) or b"HTTP/1.1 %d Unknown\r\n" % status


def own_fields(request_id: bytes, close: bool, http10: bool, cookie: bytes | None, minted: bytes | None) -> bytes:
    """The router's own fields of an answer; with ``minted``, the client's unit from now on."""
    own = b"X-Request-Id: %b\r\n" % request_id
    if close:
        own += CLOSE
    elif http10:
        own += KEEP_ALIVE
    if minted is not None and cookie is not None:
        own += _MINTED % (cookie, minted)
    return own


def whole(response: Response, body: bytes, *, own: bytes, to_head: bool) -> bytes:
    """A complete answer. ``own`` are the router's field lines, each with its CRLF."""
    status = response.status
    line = _STATUS_LINES.get(status) or status_line(status)
    if to_head or status in _NO_BODY:
        length = response.fields.get(b"content-length")
        said = b"" if length is None or status == 204 else b"Content-Length: %b\r\n" % length
        return b"%b%b%b%b\r\n" % (line, response.lines, own, said)
    return b"%b%b%bContent-Length: %d\r\n\r\n%b" % (line, response.lines, own, len(body), body)


def usual(response: Response, body: bytes, request_id: bytes) -> bytes:
    """The same for a client that speaks HTTP/1.1, did not ask by HEAD, and stays connected."""
    before = response.before
    if before is None:
        bodyless = response.status in _NO_BODY
        before = b"" if bodyless else b"%b%bX-Request-Id: " % (status_line(response.status), response.lines)
        response.before = before
    if not before:
        return whole(response, body, own=own_fields(request_id, False, False, None, None), to_head=False)
    return b"%b%b\r\nContent-Length: %d\r\n\r\n%b" % (before, request_id, len(body), body)


def begun(response: Response, *, own: bytes, chunks: bool) -> bytes:
    """The head of an answer that is passed on while it comes."""
    framing = b""
    if response.length >= 0:
        framing = b"Content-Length: %d\r\n" % response.length
    elif chunks:
        framing = b"Transfer-Encoding: chunked\r\n"
    return b"%b%b%b%b\r\n" % (status_line(response.status), response.lines, own, framing)


def chunk(data: bytes) -> bytes:
    """One chunk of a body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def spoken(status: int, why: str, *, own: bytes = b"", to_head: bool = False) -> bytes:
    """An answer of the router itself: a short JSON object that says why."""
    body = orjson.dumps({"error": why})
    return b"%b%bContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
        status_line(status),
        own,
        len(body),
        b"" if to_head else body,
    )
