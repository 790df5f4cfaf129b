"""A client that sends exactly the bytes it is given, and reads answers as plainly as can be."""

import socket
import struct
import time
from typing import NamedTuple


class Answer(NamedTuple):
    """An answer taken apart; ``after`` is what followed it."""

    status: int
    fields: dict[bytes, bytes]
    body: bytes
    after: bytes

    @property
    def closes(self) -> bool:
        return b"close" in self.fields.get(b"connection", b"")


class Raw:
    """One connection."""

    def __init__(self, port: int, host: str = "127.0.0.1", timeout: float = 10, receive_buffer: int = 0) -> None:
        if receive_buffer:
            self.socket = socket.socket()
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            self.socket.settimeout(timeout)
            self.socket.connect((host, port))
        else:
            self.socket = socket.create_connection((host, port), timeout)
        self.buffer = b""

    def __enter__(self) -> "Raw":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def more(self) -> bool:
        """Receive something; False at the end of the connection, also where it was reset."""
        try:
            data = self.socket.recv(1 << 16)
        except ConnectionError:
            return False
        self.buffer += data
        return bool(data)

    def until(self, wanted: bytes) -> bytes:
        """What comes up to and with ``wanted``."""
        while wanted not in self.buffer:
            assert self.more(), f"the connection ended after {self.buffer!r}"
        end = self.buffer.index(wanted) + len(wanted)
        taken, self.buffer = self.buffer[:end], self.buffer[end:]
        return taken

    def take(self, size: int) -> bytes:
        """The next ``size`` bytes."""
        pieces, missing = [self.buffer], size - len(self.buffer)
        while missing > 0:
            data = self.socket.recv(1 << 20)
            assert data, f"the connection ended {missing} bytes too early"
            pieces.append(data)
            missing -= len(data)
        data = b"".join(pieces)
        self.buffer = data[size:]
        return data[:size]

    def rest(self) -> bytes:
        """All that comes until the connection ends."""
        while self.more():
            pass
        taken, self.buffer = self.buffer, b""
        return taken

    def ended(self) -> bool:
        """Whether the other side ends the connection, with nothing more to say."""
        return self.rest() == b""

    def reset(self) -> None:
        """Leave without a word of goodbye."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def answer(self, *, to_head: bool = False) -> Answer:
        """The next answer."""
        line, *lines = self.until(b"\r\n\r\n")[:-4].split(b"\r\n")
        fields: dict[bytes, bytes] = {}
        for each in lines:
            name, _, value = each.partition(b":")
            assert name.lower() not in fields, f"{name!r} twice"
            fields[name.lower()] = value.strip()
        status = int(line.split(b" ")[1])
        assert line.startswith(b"HTTP/1.1 "), line
        if to_head or status in (204, 304) or status < 200:
            body = b""
        elif fields.get(b"transfer-encoding") == b"chunked":
            body = self._chunks()
        elif b"content-length" in fields:
            body = self.take(int(fields[b"content-length"]))
        else:
            body = self.rest()
        return Answer(status, fields, body, self.buffer)

    def _chunks(self) -> bytes:
        body = b""
        while True:
            size = int(self.until(b"\r\n"), 16)
            body += self.take(size)
            assert self.take(2) == b"\r\n"
            if size == 0:
                return body


def post(unit: str | None = None, body: bytes = b'{"inputs": [[1]]}', *lines: str, path: str = "/invocations") -> bytes:
    """A request for a prediction."""
    own = [f"POST {path} HTTP/1.1", "Host: router", "Content-Type: application/json", f"Content-Length: {len(body)}"]
    if unit is not None:
        own.append(f"X-Unit: {unit}")
    return "\r\n".join([*own, *lines, "", ""]).encode() + body


def ask(port: int, data: bytes, timeout: float = 10) -> Answer:
    """One request over a connection of its own."""
    with Raw(port, timeout=timeout) as raw:
        raw.send(data)
        return raw.answer(to_head=data.startswith(b"HEAD "))


def await_until(condition: object, seconds: float = 20, what: str = "it") -> None:
    """Wait until a callable says yes."""
    deadline = time.monotonic() + seconds
    assert callable(condition)
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen within {seconds} s"
        time.sleep(0.01)
