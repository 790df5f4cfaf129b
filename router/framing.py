"""Where one HTTP/1.1 message ends and the next begins: a grammar with no room for a second reading.

A head has to match one expression as a whole before anything looks into it, and llhttp reads it a second time; what
either refuses is refused. Lenient forms that other servers read in different ways (bare CR or LF, folded lines,
blanks before a colon, repeated lengths, transfer codings besides ``chunked``, targets with a scheme) have no
meaning here. Heads that go on are written anew from the parts that were read (RFC 9112, sections 2 to 7).
"""

import re
from typing import Final

from router.errors import Refused

MAX_FIELDS: Final = 128
_TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
_FIELD: Final = _TOKEN + rb":[\t -~\x80-\xff]*+\r\n"
_FIELDS: Final = rb"(?:" + _FIELD + rb")*+\r\n"
# A fragment is no part of a target, so '#' is left out.
_REQUEST: Final = re.compile(rb"([A-Z][A-Z-]{0,31}+) (/[!\"$-~]*+|\*) HTTP/1\.([01])\r\n" + _FIELDS)
_RESPONSE: Final = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: [\t -~\x80-\xff]*+)?\r\n" + _FIELDS)
_NOT_SPOKEN: Final = frozenset((b"TRACE", b"CONNECT"))
LENGTH_DIGITS: Final = 18
_CHUNK: Final = re.compile(rb"([0-9A-Fa-f]{1,8})(?:[\t ]*|;[\t -~]*)\r\n")
_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,8})[^\n]*\n")
_TRAILER: Final = re.compile(_FIELD)
# What frames a message has no place behind it.
_NO_TRAILER: Final = re.compile(rb"(?:content[-_]length|transfer[-_]encoding|host):", re.IGNORECASE)
_CHUNK_LINE_BYTES: Final = 256
_TRAILER_BYTES: Final = 8_192


def request_line(head: bytes) -> tuple[bytes, bytes, bool]:
    """Method, target, and whether the client speaks HTTP/1.0. Raises Refused (400, 501 or 505)."""
    match = _REQUEST.fullmatch(head)
    if match is None:
        raise _why_refused(head)
    method, target, minor = match.groups()
    if target == b"*" and method != b"OPTIONS":
        raise Refused(400, "only OPTIONS may ask for *")
    if method in _NOT_SPOKEN:
        raise Refused(501, f"{method.decode()} is not supported")
    return method, target, minor == b"0"


def _why_refused(head: bytes) -> Refused:
    """The status that tells an honest client most; the connection ends in any case."""
    line = head.partition(b"\r\n")[0]
    words = line.split(b" ")
    if len(words) == 3 and re.fullmatch(rb"HTTP/[0-9]\.[0-9]", words[2]) and words[2][5:7] != b"1.":
        return Refused(505, "only HTTP/1.0 and HTTP/1.1 are spoken here")
    if words[0] == b"CONNECT":
        return Refused(501, "CONNECT is not supported")
    if len(words) == 3 and not words[1].startswith(b"/"):
        return Refused(400, "the target has to be a path")
    return Refused(400, "malformed request head")


def status_line(head: bytes) -> tuple[int, bool] | None:
    """Status of a response and whether the server speaks HTTP/1.0; None for what is no response."""
    match = _RESPONSE.fullmatch(head)
    return None if match is None else (int(match[2]), match[1] == b"0")


def body_length(value: bytes) -> int:
    """The number in a Content-Length, blanks around it allowed. Raises Refused."""
    if not value.isdigit():
        value = value.strip(b" \t")
    if not value.isdigit() or len(value) > LENGTH_DIGITS:
        raise Refused(400, "Content-Length has to be one decimal number")
    return int(value)


class CountedBody:
    """Reads a body of known length; used like a ChunkedBody."""

    __slots__ = ("_left", "done", "rest")

    def __init__(self, length: int) -> None:
        self._left = length
        self.done = length == 0
        self.rest = b""

    def feed(self, data: bytes) -> bytes:
        """The next bytes as they came from the connection; the body's bytes in them."""
        if len(data) > self._left:
            self.rest = data[self._left :]
            data = data[: self._left]
        self._left -= len(data)
        self.done = self._left == 0
        return data


# A body in many small chunks is read by so many bytes at a time, and others have their turn between.
TURN_BYTES: Final = 1_024
_TURN_LINES: Final = 256


class ChunkedBody:
    """Reads a body in chunks; ``done`` once its last chunk and its trailers (dropped) have been read.

    ``feed`` returns the data that became known; what follows the body is left in ``rest``. Raises Refused for
    anything that is not exactly the grammar of RFC 9112 section 7.1, for sizes of more than eight digits, for
    blanks before an extension (the grammar has them, other servers do not), and for endless extensions or trailers.
    """

    __slots__ = ("_crumbs", "_left", "_line", "_trailer_bytes", "done", "rest")

    def __init__(self) -> None:
        self.done = False
        self.rest = b""
        self._line = b""
        # Bytes of the chunk still to come, the CRLF behind its data included; 0 before a size, -1 in trailers.
        self._left = 0
        self._trailer_bytes = 0
        # So many bytes from the last look on are of small chunks.
        self._crumbs = 0

    def crumbs(self, data: bytes) -> bool:
        """Whether the next bytes take so long to read that it is to be done in turns: they are of very many chunks.
        Where they do, the next ``TURN_BYTES`` have to be read.
        """
        if len(data) <= TURN_BYTES:
            return False
        self._crumbs -= TURN_BYTES
        if self._crumbs >= TURN_BYTES:
            return True
        if data.count(b"\n") <= _TURN_LINES:
            return False
        # Mostly line ends are the body's own.
        data = self._line + data
        at = max(0, self._left)
        for _ in range(_TURN_LINES):
            size = _SIZE.match(data, at)
            if size is None:
                return False
            at = size.end() + int(size[1], 16) + 2
        self._crumbs = min(at, len(data))
        return True

    def feed(self, data: bytes) -> bytes:
        """The next bytes as they came from the connection; the body's bytes in them."""
        if self._line:
            data, self._line = self._line + data, b""
        pieces: list[bytes] = []
        at = 0
        while not self.done and at < len(data):
            if self._left > 0:
                at = self._take_data(data, at, pieces)
                continue
            end = data.find(b"\n", at) + 1
            if end == 0:
                if len(data) - at > _CHUNK_LINE_BYTES + _TRAILER_BYTES:
                    raise Refused(400, "endless line in a chunked body")
                self._line = data[at:]
                break
            self._take_line(data[at:end])
            at = end
        if self.done:
            self.rest = data[at:]
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _take_data(self, data: bytes, at: int, pieces: list[bytes]) -> int:
        """Data of the current chunk, then its CRLF; the position behind what was taken."""
        if self._left > 2:
            end = min(len(data), at + self._left - 2)
            pieces.append(data[at:end])
            self._left -= end - at
            return end
        wanted = b"\r\n"[2 - self._left :]
        found = data[at : at + len(wanted)]
        if found != wanted[: len(found)]:
            raise Refused(400, "a chunk is longer than it says")
        self._left -= len(found)
        return at + len(found)

    def _take_line(self, line: bytes) -> None:
        if self._left == 0:
            match = _CHUNK.fullmatch(line) if len(line) <= _CHUNK_LINE_BYTES else None
            if match is None:
                raise Refused(400, "malformed size of a chunk")
            size = int(match[1], 16)
            self._left = size + 2 if size else -1
            return
        self._trailer_bytes += len(line)
        if self._trailer_bytes > _TRAILER_BYTES:
            raise Refused(431, "the trailers are too long")
        if line == b"\r\n":
            self.done = True
        elif _TRAILER.fullmatch(line) is None or _NO_TRAILER.match(line):
            raise Refused(400, "malformed trailer")
