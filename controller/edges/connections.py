"""Connections to servers that nobody has to wait in: each act on one is a generator of what it waits for.

Whoever runs the generators decides how long, and ends one wherever it is by closing it. Only the look-up of a name
cannot be ended: it has a thread, of which there is a bounded number for each name.
"""

import contextlib
import errno
import functools
import os
import select
import socket
import ssl
import threading
import time
from base64 import b64encode
from collections.abc import Generator
from typing import Any, NamedTuple, TypeVar
from urllib.parse import unquote, urlsplit

import httpx

from controller.errors import EdgeError

HANGING = 4  # look-ups of one name that have not ended: then no further one is begun
MOST_HANGING = 512
SHARED_S = 1.0  # who needs the name of a look-up that began less than this ago waits for that one
MOST_IDLE = 20
IDLE_S = 5.0  # after this a connection is not used again: the other end may be about to close it
RECEIVED = 1 << 16
TURN = 16  # receipts of one connection before others have their turn

T = TypeVar("T")
# A socket and the events of poll(2) that it waits for. None: for nothing, but others have their turn.
Wait = tuple[socket.socket, int] | None
Addresses = list[tuple[int, tuple[Any, ...]]]  # each with its family
Steps = Generator[Wait, None, T]
_WAITS = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


@functools.cache
def _usual() -> ssl.SSLContext:
    """Once for all: reading these authorities takes milliseconds and half a megabyte, and a controller of a cluster
    makes three of us for each rollout."""
    return httpx.create_ssl_context(trust_env=False)


class Origin(NamedTuple):
    """Where a request goes. ``family``: of an address that needs no look-up; 0: it does. ``named``: as it is called in
    requests; ``shown``: what the address has us show there (``Authorization``)."""

    secure: bool
    host: str
    port: int
    family: int
    named: str
    shown: str


@functools.lru_cache(maxsize=1024)
def origin(scheme: str, netloc: str) -> Origin:
    """ValueError for what is no address of the web."""
    parts = urlsplit(f"//{netloc}")
    host, usual = parts.hostname, {"http": 80, "https": 443}.get(scheme)
    if not host or usual is None:
        raise ValueError("no address of the web")
    if not host.isascii():
        host = host.encode("idna").decode()
    port = usual if parts.port is None else parts.port
    bracketed = f"[{host}]" if ":" in host else host
    shown = ""
    if parts.username or parts.password:
        pair = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
        shown = f"Basic {b64encode(pair.encode()).decode()}"
    named = bracketed if port == usual else f"{bracketed}:{port}"
    return Origin(scheme == "https", host, port, _family(host), named, shown)


def _family(host: str) -> int:
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host)
        except (OSError, ValueError):
            continue
        return family
    return 0


class Connection:
    """One to ``origin``. ``until``: when it is no longer used again."""

    __slots__ = ("_received", "_socket", "origin", "until")

    def __init__(self, to: Origin, opened: socket.socket) -> None:
        self._socket = opened
        self.origin = to
        self.until = 0.0
        self._received = 0

    def send(self, data: bytes) -> Steps[bool]:
        """Whether all of it was taken. What was not may have an answer all the same, which says why."""
        left = memoryview(data)
        while left:
            try:
                left = left[self._socket.send(left) :]
            except _WAITS as error:
                yield self._socket, select.POLLIN if isinstance(error, ssl.SSLWantReadError) else select.POLLOUT
            except OSError:
                return False
        return True

    def receive(self) -> Steps[bytes]:
        """What comes next; nothing at the end. OSError."""
        self._received += 1
        if self._received % TURN == 0:
            yield None
        while True:
            try:
                return self._socket.recv(RECEIVED)
            except _WAITS as error:
                yield self._socket, select.POLLOUT if isinstance(error, ssl.SSLWantWriteError) else select.POLLIN

    def usable(self, now: float) -> bool:
        """Whether it may carry another request. Nothing has been asked on it, so what can be read is its end, or
        something that would be taken for the next answer."""
        if now > self.until:
            return False
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return not poll.poll(0)

    def close(self) -> None:
        self._socket.close()


class Connections:
    """Opens connections, and keeps some for the next request."""

    def __init__(self, tls: ssl.SSLContext | None) -> None:
        """``tls``: whom to trust and what to show, None as usual on the web."""
        self._tls = tls
        self._names = _Names()
        self._lock = threading.Lock()
        self._idle: list[Connection] = []
        self._closed = False

    def kept(self, to: Origin) -> Connection | None:
        """One that is open already."""
        while True:
            with self._lock:
                found = next((each for each in reversed(self._idle) if each.origin == to), None)
                if found is None:
                    return None
                self._idle.remove(found)
            if found.usable(time.monotonic()):
                return found
            found.close()

    def keep(self, connection: Connection) -> None:
        """Take one back on which nothing more will come. The oldest goes where there are too many."""
        now = time.monotonic()
        connection.until = now + IDLE_S
        with self._lock:
            before = [*self._idle, connection]
            self._idle = [] if self._closed else [each for each in before if each.until >= now][-MOST_IDLE:]
            gone = [each for each in before if each not in self._idle]
        for each in gone:
            each.close()

    def open(self, to: Origin) -> Steps[Connection]:
        """OSError where that fails; TimeoutError where too many look-ups of its name hang. EdgeError where none can be
        begun."""
        if to.family:
            addresses: Addresses = [(to.family, (to.host, to.port))]
        else:
            addresses = yield from self._names.look_up(to.host, to.port)
        error: OSError = OSError("its name has no address")
        for family, address in addresses:
            try:
                connected = yield from _connected(family, address)
            except OSError as failed:
                error = failed
                continue
            return Connection(to, (yield from self._secured(connected, to.host)) if to.secure else connected)
        raise error

    def _secured(self, connected: socket.socket, host: str) -> Steps[socket.socket]:
        try:
            tls = self._tls or _usual()
            tls.set_alpn_protocols(["http/1.1"])
            secured = tls.wrap_socket(connected, server_hostname=host, do_handshake_on_connect=False)
        except BaseException:
            connected.close()
            raise
        try:
            while True:
                try:
                    secured.do_handshake()
                    return secured
                except _WAITS as error:
                    yield secured, select.POLLOUT if isinstance(error, ssl.SSLWantWriteError) else select.POLLIN
        except BaseException:
            secured.close()
            raise

    def close(self) -> None:
        """Connections in use are closed when they are no longer."""
        with self._lock:
            self._closed, gone, self._idle = True, self._idle, []
        for each in gone:
            each.close()


def _connected(family: int, address: tuple[Any, ...]) -> Steps[socket.socket]:
    opened = socket.socket(family, socket.SOCK_STREAM)
    try:
        opened.setblocking(False)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        failed = opened.connect_ex(address)
        if failed == errno.EINPROGRESS:
            yield opened, select.POLLOUT
            failed = opened.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if failed:
            raise OSError(failed, os.strerror(failed))
    except BaseException:  # GeneratorExit too: nobody waits for it any more
        opened.close()
        raise
    return opened


class _LookUp:
    """One on its thread. ``waiting``: closed when it has ended, which whoever holds the other end can wait for."""

    __slots__ = ("began", "found", "waiting")

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.waiting: list[socket.socket] = []
        self.found: Addresses | OSError = []


class _Names:
    """Looks up names. A look-up cannot be ended, and may hang for as long as the resolver likes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._under_way: dict[str, list[_LookUp]] = {}

    def look_up(self, host: str, port: int) -> Steps[Addresses]:
        """The family and address of each that it has."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            look_up = self._joined(host, theirs)
            try:
                yield ours, select.POLLIN
            finally:
                with self._lock, contextlib.suppress(ValueError):
                    look_up.waiting.remove(theirs)
        if isinstance(look_up.found, OSError):
            raise OSError(*look_up.found.args)  # several may wait for this one
        return [(family, (host, port, *scope)) for family, (host, _, *scope) in look_up.found]

    def _joined(self, host: str, waiting: socket.socket) -> _LookUp:
        """A look-up that is under way, or a new one where none began just now."""
        with self._lock:
            others = self._under_way.get(host, [])
            if others and (len(others) >= HANGING or time.monotonic() - others[-1].began < SHARED_S):
                others[-1].waiting.append(waiting)
                return others[-1]
            if sum(map(len, self._under_way.values())) >= MOST_HANGING:
                raise TimeoutError
            new = _LookUp()
            new.waiting.append(waiting)
            self._under_way[host] = [*others, new]
        try:
            threading.Thread(target=self._run, args=(host, new), daemon=True).start()
        except RuntimeError as error:  # this process may have no more threads now
            new.found = OSError(str(error))
            self._ended(host, new)
            raise EdgeError(f"no call could be made: {error}") from None
        return new

    def _run(self, host: str, look_up: _LookUp) -> None:
        try:
            found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
            look_up.found = [(family, tuple(address)) for family, _, _, _, address in found]
        except OSError as error:
            look_up.found = error
        except ValueError:
            look_up.found = OSError("its name cannot be looked up")
        finally:
            self._ended(host, look_up)

    def _ended(self, host: str, look_up: _LookUp) -> None:
        with self._lock:
            left = [each for each in self._under_way[host] if each is not look_up]
            if left:
                self._under_way[host] = left
            else:
                del self._under_way[host]
            for each in look_up.waiting:
                each.shutdown(socket.SHUT_RDWR)
            look_up.waiting.clear()
