"""Reads the heads of requests and responses.

Fields that belong to one connection only (RFC 9110, section 7.6.1) and those that the router writes itself are kept
out of ``lines``, which go on as they came; every field is in ``fields`` by its lower-case name.
"""

import re
from typing import Any, Final

import httptools

from router.errors import Refused
from router.framing import LENGTH_DIGITS, MAX_FIELDS, body_length, request_line, status_line
from router.trees import tree_of

# These end at this hop, or are written anew for the next one.
_REQUEST_OWN: Final = frozenset(
    b"host content-length transfer-encoding connection keep-alive proxy-connection proxy-authorization te trailer "
    b"upgrade expect x-request-id x-forwarded-for".split()
)
_RESPONSE_OWN: Final = frozenset(
    b"content-length transfer-encoding connection keep-alive proxy-connection te trailer upgrade x-request-id".split()
)
# These say who asks, and for whom: a gateway's words, which its client may not take back by naming them in Connection
# (RFC 9110, section 7.6.1 forbids naming what is meant for all recipients).
_KEPT: Final = frozenset(
    b"authorization cookie forwarded x-real-ip x-correlation-id traceparent tracestate baggage b3".split()
)
_KEPT_BEGINNINGS: Final = (b"x-forwarded-", b"x-b3-")
_ONCE: Final = frozenset((b"content-length", b"transfer-encoding", b"host"))
# Of the router's own fields those whose values may differ from request to request.
_MAY_DIFFER: Final = frozenset((b"content-length", b"x-request-id", b"x-forwarded-for"))
_PRINTABLE: Final = bytes(range(32, 127))
# RFC 9110, section 7.2, with the characters that RFC 3986 allows there; others are read by each server in its own way.
_HOST: Final = re.compile(rb"(?:\[[0-9A-Za-z:.%_~-]+\]|[0-9A-Za-z._~!$&'()*+,;=%-]*)(?::[0-9]*)?")
# Servers that turn '-' into '_' (WSGI, CGI) would take these for the real ones. What frames the message is refused;
# lookalikes of what the router writes do not go on: a client could say in them who it is.
_FRAMING_LOOKALIKES: Final = frozenset((b"content_length", b"transfer_encoding"))
_WRITTEN: Final = frozenset((b"x-request-id", b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host"))
_NOT_READ: Final = object()
_NONE: Final[frozenset[bytes]] = frozenset()

_MOST_NAMES: Final = 2_048
_LONGEST_NAME: Final = 128
_MOST_RESPONSES: Final = 256
_LONGEST_KEPT: Final = 2_048


def coding(fields: dict[bytes, bytes]) -> bytes:
    """The Content-Encoding of a message of these fields; nothing where its body is as it is."""
    said = fields.get(b"content-encoding", b"").strip(b" \t").lower()
    return b"" if said == b"identity" else said


class Request:
    """A request as it was read. ``length`` is its body's, -1 where it comes in chunks; ``body`` what is held of it.

    ``whole`` says that the body is complete in ``body``. ``named``: fields that are kept out of ``lines`` because its
    Connection names them.
    """

    length = 0
    close = False
    named = _NONE
    whole = True
    body = b""
    _json: Any = _NOT_READ

    def __init__(
        self, method: bytes, target: bytes, http10: bool, lines: list[bytes], fields: dict[bytes, bytes]
    ) -> None:
        self.method = method
        self.target = target
        self.http10 = http10
        self.lines = lines
        self.fields = fields

    def bare(self) -> "Request":
        """The same without anything of a body. What is in both must not be changed."""
        request = Request(self.method, self.target, self.http10, self.lines, self.fields)
        request.length = self.length
        request.close = self.close
        request.named = self.named
        return request

    def json(self) -> Any:
        """The body as JSON, None where it is none, is not held whole, or is of too many small parts; parsed once until
        ``forget``.

        A mirror's and its original's are looked at by the event loop and by the journal's thread at the same time, so
        nothing is kept that is not finished, and what is returned is not looked up again.
        """
        tree = self._json
        if tree is _NOT_READ:
            tree = None
            body = self.body
            if self.whole and body:
                tree = tree_of(body)
            self._json = tree
        return tree

    def forget(self) -> None:
        """Keep the body alone while the request waits: the tree of its JSON takes up to thirty times as much."""
        self._json = _NOT_READ


class Response:
    """A response's head, not to be changed. ``length`` is -1 for chunks, -2 where the connection's end is the body's.

    ``lines`` are the fields that go on, in one piece, each with its CRLF. ``close``: its connection cannot be kept.
    """

    def __init__(self, status: int, lines: bytes, fields: dict[bytes, bytes], length: int, close: bool) -> None:
        self.status = status
        self.lines = lines
        self.fields = fields
        self.length = length
        self.close = close
        # The beginning of the answer that is made of it, up to the request's id; kept by whoever makes it first.
        self.before: bytes | None = None
        self.successful = 200 <= status < 300
        content_type = fields.get(b"content-type", b"").lower()
        media = content_type.partition(b";")[0].strip(b" \t")
        self.json = media in {b"application/json", b"text/json"} or media.endswith(b"+json")
        self.event_stream = media == b"text/event-stream"
        # How the body is packed; nothing where it is not.
        self.coding = coding(fields)


class _Names:
    """Field names as they are written → (in lower case, not to go on). Learns what comes by, up to a limit."""

    def __init__(self, own: frozenset[bytes], written: frozenset[bytes] = frozenset()) -> None:
        self.known: dict[bytes, tuple[bytes, bool]] = {}
        self._own = own
        self._written = written

    def learn(self, name: bytes) -> tuple[bytes, bool]:
        """A name that is not known yet. Raises Refused for one that pretends to be another."""
        lower = name.lower()
        if lower in _FRAMING_LOOKALIKES:
            raise Refused(400, "a field looks like one that frames the message")
        alike = b"_" in lower and lower.replace(b"_", b"-") in self._written
        found = lower, alike or lower in self._own
        if len(self.known) < _MOST_NAMES and len(name) <= _LONGEST_NAME:
            self.known[name] = found
        return found


_REQUEST_NAMES: Final = _Names(_REQUEST_OWN, _WRITTEN)
_RESPONSE_NAMES: Final = _Names(_RESPONSE_OWN)


class _Fields:
    """What llhttp finds; it writes straight into a dict, which costs no call of a function of ours."""

    def __init__(self) -> None:
        self.found: dict[bytes, bytes] = {}
        self.on_header = self.found.__setitem__


def _sorted_out(head: bytes, found: dict[bytes, bytes], names: _Names) -> tuple[list[bytes], dict[bytes, bytes]]:
    """The lines that go on, and all fields by lower-case name. Raises Refused."""
    lines: list[bytes] = []
    fields: dict[bytes, bytes] = {}
    known = names.known
    for name, value in found.items():
        lower, own = known.get(name) or names.learn(name)
        fields[lower] = value
        if not own:
            lines.append(name + b": " + value)
    number = head.count(b"\r\n") - 2
    if number > MAX_FIELDS:
        raise Refused(431, "too many header fields")
    return (lines, fields) if len(fields) == number else _with_repeated(head, names)


def _with_repeated(head: bytes, names: _Names) -> tuple[list[bytes], dict[bytes, bytes]]:
    """The same where a name comes more than once: its values are joined, unless they must be one."""
    lines: list[bytes] = []
    fields: dict[bytes, bytes] = {}
    for line in head.split(b"\r\n")[1:-2]:
        name, _, value = line.partition(b":")
        lower, own = names.known.get(name) or names.learn(name)
        value = value.strip(b" \t")
        if lower not in fields:
            fields[lower] = value
        elif lower in _ONCE:
            raise Refused(400, f"{lower.decode()} was sent twice")
        else:
            fields[lower] += (b"; " if lower == b"cookie" else b", ") + value
        if not own:
            lines.append(name + b": " + value)
    return lines, fields


def read_request(head: bytes) -> Request:
    """A request's head up to and with its empty line. Raises Refused."""
    method, target, http10 = request_line(head)
    found = _Fields()
    try:
        httptools.HttpRequestParser(found).feed_data(head)
    except httptools.HttpParserUpgrade:
        # We stay with HTTP/1.1, as a server may.
        pass
    except httptools.HttpParserInvalidMethodError:
        raise Refused(501, "unknown method") from None
    except httptools.HttpParserError as error:
        raise Refused(400, str(error)) from None
    lines, fields = _sorted_out(head, found.found, _REQUEST_NAMES)
    request = Request(method, target, http10, lines, fields)
    if b"host" in fields:
        if not _HOST.fullmatch(fields[b"host"].strip(b" \t")):
            raise Refused(400, "Host is no host and port")
    elif not http10:
        raise Refused(400, "Host is missing")
    length = fields.get(b"content-length")
    if b"transfer-encoding" in fields:
        coding = fields[b"transfer-encoding"]
        if length is not None or http10:
            raise Refused(400, "Transfer-Encoding beside Content-Length, or in HTTP/1.0")
        if coding.strip(b" \t").lower() != b"chunked":
            raise Refused(501, "the only transfer coding is chunked")
        request.length = -1
    elif length is not None:
        request.length = body_length(length)
    if b"expect" in fields and fields[b"expect"].strip(b" \t").lower() != b"100-continue":
        raise Refused(417, "the only expectation is 100-continue")
    if b"connection" in fields:
        request.close, request.named = _connection(fields[b"connection"], http10)
        request.lines = _without(request.named, lines)
    elif http10:
        request.close = True
    return request


class Reader:
    """Reads the requests' heads of one connection; the fast way where a head is like the one before it.

    Alike are heads that differ only in values of fields that neither frame the message nor belong to the connection,
    and in the digits of Content-Length. All else in such a head has been read by ``read_request`` already, and of
    the values that differ every byte is looked at, so the reading is the same (``tests/router/fuzz.py`` compares).
    """

    __slots__ = ("_like", "_lines", "_slots")

    def __init__(self) -> None:
        self._lines: list[bytes] = []
        # Of the request that was read in full its head alone: a body must not outlive its request.
        self._like: Request | None = None
        # For each line what may differ there: how it has to begin, the field's name, its place in ``Request.lines``.
        self._slots: list[tuple[bytes, bytes, int] | None] = []

    def read(self, head: bytes) -> Request:
        """A head up to and with its empty line. Raises Refused."""
        lines = head.split(b"\r\n")
        known = self._lines
        if len(lines) == len(known) and lines[0] == known[0]:
            request = self._alike(lines)
            if request is not None:
                return request
        request = read_request(head)
        self._like = request.bare()
        self._lines = lines if len(head) <= _LONGEST_KEPT else []
        self._slots = []
        return request

    def _alike(self, lines: list[bytes]) -> Request | None:
        """The request of a head of these lines; None where it has to be read in full."""
        like, slots = self._like, self._slots
        assert like is not None
        if not slots:
            slots = self._slots = _slots(self._lines, like)
        length, going, fields = like.length, like.lines, like.fields
        for line, known, slot in zip(lines, self._lines, slots, strict=True):
            if line != known:
                if slot is None:
                    return None
                beginning, name, place = slot
                value = line[len(beginning) :]
                if not line.startswith(beginning) or value.translate(None, _PRINTABLE) or value.strip() != value:
                    return None
                if name == b"content-length":
                    if not value.isdigit() or len(value) > LENGTH_DIGITS:
                        return None
                    length = int(value)
                if fields is like.fields:
                    fields = fields.copy()
                fields[name] = value
                if place >= 0:
                    if going is like.lines:
                        going = going.copy()
                    going[place] = line
        request = like.bare()
        request.lines = going
        request.fields = fields
        request.length = length
        return request


def _slots(lines: list[bytes], request: Request) -> list[tuple[bytes, bytes, int] | None]:
    """Where a head may differ from these lines and still be read by them."""
    slots: list[tuple[bytes, bytes, int] | None] = [None] * len(lines)
    if len(request.fields) != len(lines) - 3:
        # A field came twice.
        return slots
    for at, line in enumerate(lines[1:-2], 1):
        name = line.partition(b":")[0]
        lower = name.lower()
        if lower in _MAY_DIFFER or lower not in _REQUEST_OWN:
            place = request.lines.index(line) if line in request.lines else -1
            if place >= 0 or lower in _MAY_DIFFER:
                slots[at] = name + b": ", lower, place
    return slots


def _connection(connection: bytes, http10: bool) -> tuple[bool, frozenset[bytes]]:
    """Whether the connection ends with this message; and the names of fields that are said to be about it alone."""
    value = connection.strip(b" \t").lower()
    if value == b"keep-alive":
        return False, _NONE
    if value == b"close":
        return True, _NONE
    names = {name.strip(b" \t") for name in value.split(b",")}
    named = names - _KEPT - _REQUEST_OWN - {b"close", b""}
    close = b"close" in names or (http10 and b"keep-alive" not in names)
    return close, frozenset(name for name in named if not name.startswith(_KEPT_BEGINNINGS))


def _without(named: frozenset[bytes], lines: list[bytes]) -> list[bytes]:
    """The lines of other fields than these."""
    return [line for line in lines if line.partition(b":")[0].lower() not in named] if named else lines


# Within a second, most answers of a server have the same head.
KNOWN_RESPONSES: Final[dict[bytes, Response]] = {}


def read_response(head: bytes, *, to_head: bool) -> Response:
    """A response's head; ``to_head`` where it answers HEAD. Raises Refused for what is no clean response."""
    response = None if to_head else KNOWN_RESPONSES.get(head)
    if response is not None:
        return response
    response = _read_response(head, to_head)
    if not to_head and response.status >= 200 and len(head) <= _LONGEST_KEPT:
        if len(KNOWN_RESPONSES) >= _MOST_RESPONSES:
            KNOWN_RESPONSES.clear()
        KNOWN_RESPONSES[head] = response
    return response


def _read_response(head: bytes, to_head: bool) -> Response:
    line = status_line(head)
    if line is None:
        raise Refused(502, "malformed response head")
    status, http10 = line
    found = _Fields()
    try:
        httptools.HttpResponseParser(found).feed_data(head)
    except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
        raise Refused(502, str(error)) from None
    lines, fields = _sorted_out(head, found.found, _RESPONSE_NAMES)
    close = http10
    if b"connection" in fields:
        close, named = _connection(fields[b"connection"], http10)
        lines = _without(named, lines)
    length = fields.get(b"content-length")
    coding = fields.get(b"transfer-encoding")
    if coding is not None and (length is not None or coding.strip(b" \t").lower() != b"chunked" or http10):
        raise Refused(502, "response with an unknown framing")
    if to_head or status in (204, 304) or status < 200:
        number = 0
    elif coding is not None:
        number = -1
    elif length is not None:
        number = body_length(length)
    else:
        number, close = -2, True
    return Response(status, b"".join(line + b"\r\n" for line in lines), fields, number, close)
