"""Servers of the tests that say, byte by byte, what a test has them say."""

import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Peer:
    """A server's end of a connection, which is its ``number``-th. ``over``: the test is."""

    def __init__(self, its: socket.socket, number: int, over: threading.Event) -> None:
        self._socket = its
        self._read = b""
        self.number = number
        self.over = over

    def asked(self) -> bytes:
        """The next request, with its body; nothing when there is none."""
        while b"\r\n\r\n" not in self._read:
            if not self._more():
                return b""
        head, _, rest = self._read.partition(b"\r\n\r\n")
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        length = int(fields.get(b"content-length", 0))
        while len(rest) < length:
            assert self._more()
            rest = self._read.partition(b"\r\n\r\n")[2]
        self._read = rest[length:]
        return head + b"\r\n\r\n" + rest[:length]

    def say(self, data: bytes) -> None:
        self._socket.sendall(data)

    def close(self, *, reset: bool = False) -> None:
        """``reset``: as a process ends that has not read everything."""
        if reset:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()

    def _more(self) -> bool:
        data = self._socket.recv(65536)
        self._read += data
        return bool(data)


@contextmanager
def speaking(
    speak: Callable[[Peer], None], host: str = "127.0.0.1", tls: ssl.SSLContext | None = None
) -> Iterator[str]:
    """``host:port`` of a server that has each connection ``speak``, on a thread, and closes it then."""
    over = threading.Event()

    def one(client: socket.socket, number: int) -> None:
        with contextlib.suppress(OSError), client:
            if tls is None:
                return speak(Peer(client, number, over))
            with tls.wrap_socket(client, server_side=True) as secured:
                speak(Peer(secured, number, over))
        return None

    def serve(listening: socket.socket) -> None:
        number = 0
        while True:
            try:
                client, _ = listening.accept()
            except OSError:
                return
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            number += 1
            threading.Thread(target=one, args=(client, number), daemon=True).start()

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as listening:
        threading.Thread(target=serve, args=(listening,), daemon=True).start()
        port = listening.getsockname()[1]
        yield f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        over.set()
        listening.shutdown(socket.SHUT_RDWR)
