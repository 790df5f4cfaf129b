"""Reads the heads of requests and responses: llhttp's callbacks sort the fields while they come in.

Fields that belong to one connection only (RFC 9110, section 7.6.1) and those that the router writes itself are kept
out of ``lines``, which go on as they came; every field is in ``fields`` by its lower-case name.
"""

from typing import Any

import httptools
import orjson

from router.errors import Refused
from router.framing import MAX_FIELDS, body_length, request_line, status_line

# These end at this hop, or are written anew for the next one.
_REQUEST_OWN = frozenset(
    b"host content-length transfer-encoding connection keep-alive proxy-connection proxy-authorization te trailer "
    b"upgrade expect x-request-id x-forwarded-for".split()
)
_RESPONSE_OWN = frozenset(
    b"content-length transfer-encoding connection keep-alive proxy-connection te trailer upgrade x-request-id".split()
)
_ONCE = frozenset((b"content-length", b"transfer-encoding", b"host"))
# Servers that turn '-' into '_' would take these for the real ones.
_LOOKALIKES = frozenset((b"content_length", b"transfer_encoding"))
_LOST_JSON = object()


class Request:
    """A request as it was read. ``length`` is its body's, -1 where it comes in chunks; ``body`` what is held of it.

    ``whole`` says that the body is complete in ``body``.
    """

    __slots__ = (
        "_json",
        "body",
        "close",
        "fields",
        "http10",
        "length",
        "lines",
        "method",
        "target",
        "whole",
    )

    def __init__(self, method: bytes, target: bytes, http10: bool, lines: list[bytes]) -> None:
        self.method = method
        self.target = target
        self.http10 = http10
        self.lines = lines
        self.fields: dict[bytes, bytes] = {}
        self.length = 0
        self.close = False
        self.body = b""
        self.whole = True
        self._json: Any = _LOST_JSON

    def json(self) -> Any:
        """The body as JSON, None where it is none (or is not held whole); parsed once."""
        if self._json is _LOST_JSON:
            self._json = None
            if self.whole and self.body:
                try:
                    self._json = orjson.loads(self.body)
                except ValueError:
                    self._json = None
        return self._json


class Response:
    """A response's head. ``length`` is -1 for chunks and -2 where only the end of the connection ends the body."""

    __slots__ = ("close", "content_type", "encoded", "fields", "length", "lines", "status")

    def __init__(self, status: int, lines: list[bytes], fields: dict[bytes, bytes]) -> None:
        self.status = status
        self.lines = lines
        self.fields = fields
        self.content_type = fields.get(b"content-type", b"").lower()
        self.encoded = fields.get(b"content-encoding", b"identity").lower() != b"identity"
        self.length = 0
        self.close = False


class _Fields:
    """Collects the fields of one head; llhttp calls it."""

    __slots__ = ("_own", "fault", "fields", "lines", "parser")

    parser: Any

    def __init__(self, own: frozenset[bytes]) -> None:
        self._own = own
        self.lines: list[bytes] = []
        self.fields: dict[bytes, bytes] = {}
        self.fault: Refused | None = None

    def on_header(self, name: bytes, value: bytes) -> None:
        lower = name.lower()
        if lower not in self._own:
            self.lines.append(b"%b: %b" % (name, value))
        fields = self.fields
        if lower not in fields:
            fields[lower] = value
            return
        if lower in _ONCE:
            self.fault = Refused(400, f"{lower.decode()} was sent twice")
        joint = b"; " if lower == b"cookie" else b", "
        fields[lower] = fields[lower] + joint + value

    def take(self) -> tuple[list[bytes], dict[bytes, bytes]]:
        lines, fields, fault = self.lines, self.fields, self.fault
        self.lines, self.fields, self.fault = [], {}, None
        if fault is not None:
            raise fault
        if len(fields) > MAX_FIELDS or len(lines) > MAX_FIELDS:
            raise Refused(431, "too many header fields")
        if not _LOOKALIKES.isdisjoint(fields):
            raise Refused(400, "a field looks like one that frames the message")
        return lines, fields


class RequestReader:
    """Reads the requests of one connection, one after the other."""

    __slots__ = ("_fields", "_parser", "_unaware")

    def __init__(self) -> None:
        # The parser has not read the head whose body is to come.
        self._unaware = False
        self._fields = _Fields(_REQUEST_OWN)
        self._parser = httptools.HttpRequestParser(self._fields)

    def read(self, head: bytes) -> Request:
        """A head up to and with its empty line. Raises Refused."""
        method, target, http10 = request_line(head)
        self._unaware = False
        try:
            self._parser.feed_data(head)
        except httptools.HttpParserUpgrade:
            # We stay with HTTP/1.1, as a server may; for the parser there is no body to come.
            self.renew()
            self._unaware = True
        except httptools.HttpParserInvalidMethodError:
            raise Refused(501, "unknown method") from None
        except httptools.HttpParserError as error:
            raise Refused(400, str(error)) from None
        lines, fields = self._fields.take()
        request = Request(method, target, http10, lines)
        request.fields = fields
        _frame_request(request, fields)
        return request

    def skip(self, body: bytes) -> None:
        """Tell the parser that a whole body of known length went by."""
        if self._unaware:
            self._unaware = False
        else:
            self._parser.feed_data(body)

    def renew(self) -> None:
        """A new parser, for where the old one was not told of a body."""
        self._parser = httptools.HttpRequestParser(self._fields)
        self._unaware = False


def _frame_request(request: Request, fields: dict[bytes, bytes]) -> None:
    http10 = request.http10
    if b"host" not in fields and not http10:
        raise Refused(400, "Host is missing")
    if request.method == b"TRACE":
        raise Refused(501, "TRACE is not supported")
    length = fields.get(b"content-length")
    coding = fields.get(b"transfer-encoding")
    if coding is not None:
        if length is not None or http10:
            raise Refused(400, "Transfer-Encoding beside Content-Length, or in HTTP/1.0")
        if coding.strip(b" \t").lower() != b"chunked":
            raise Refused(501, "the only transfer coding is chunked")
        request.length = -1
    elif length is not None:
        request.length = body_length(length.strip(b" \t"))
    if b"expect" in fields and fields[b"expect"].strip(b" \t").lower() != b"100-continue":
        raise Refused(417, "the only expectation is 100-continue")
    connection = fields.get(b"connection")
    if connection is None:
        request.close = http10
    else:
        request.close = _closes(connection, http10, request.lines)


def _closes(connection: bytes, http10: bool, lines: list[bytes]) -> bool:
    """Whether the connection ends with this message; drops the fields that Connection names."""
    value = connection.lower()
    if value == b"keep-alive":
        return False
    if value == b"close":
        return True
    names = {name.strip(b" \t") for name in value.split(b",")}
    named = names - {b"close", b"keep-alive", b"upgrade", b""}
    if named:
        lines[:] = [line for line in lines if line.partition(b":")[0].lower() not in named]
    return b"close" in names or (http10 and b"keep-alive" not in names)


class ResponseReader:
    """Reads the responses of one connection."""

    __slots__ = ("_fields", "_parser")

    def __init__(self) -> None:
        self._fields = _Fields(_RESPONSE_OWN)
        self._parser = httptools.HttpResponseParser(self._fields)

    def read(self, head: bytes, *, to_head: bool) -> Response:
        """A response's head; ``to_head`` where it answers HEAD. Raises Refused for what is no clean response."""
        line = status_line(head)
        if line is None:
            raise Refused(502, "malformed response head")
        status, http10 = line
        try:
            self._parser.feed_data(head)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            raise Refused(502, str(error)) from None
        lines, fields = self._fields.take()
        response = Response(status, lines, fields)
        _frame_response(response, http10, to_head)
        return response

    def skip(self, body: bytes) -> None:
        """Tell the parser that a whole body of known length went by."""
        self._parser.feed_data(body)

    def renew(self) -> None:
        """A new parser, for where the old one was not told of a body."""
        self._parser = httptools.HttpResponseParser(self._fields)


def _frame_response(response: Response, http10: bool, to_head: bool) -> None:
    fields = response.fields
    connection = fields.get(b"connection")
    response.close = http10 if connection is None else _closes(connection, http10, response.lines)
    length = fields.get(b"content-length")
    coding = fields.get(b"transfer-encoding")
    if coding is not None and (length is not None or coding.strip(b" \t").lower() != b"chunked" or http10):
        raise Refused(502, "response with an unknown framing")
    if to_head or response.status in (204, 304) or response.status < 200:
        response.length = 0
    elif coding is not None:
        response.length = -1
    elif length is not None:
        response.length = body_length(length.strip(b" \t"))
    else:
        response.length = -2
        response.close = True
