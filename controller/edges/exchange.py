"""HTTP calls that end in time, whatever the other side does.

A timeout per read is not a deadline: a server that sends one byte a second never exceeds it. So no call waits for
anything by itself. The calls of one who asks are made on the thread that asks, in turns, each as far as its server
lets it; those that have not ended by the deadline are closed.
"""

import json
import re
import select
import ssl
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from itertools import count
from typing import NamedTuple
from urllib.parse import quote, urlsplit

import h11

from controller.edges.connections import Connection, Connections, Origin, Steps, Wait, origin
from controller.errors import EdgeError

HEAD = 32 << 10  # bytes, at most, of the head of an answer
TURN = 64  # events of one call before others have their turn: a server may send each byte as a chunk of its own
BEFORE = 16  # answers that may come before the answer (1xx), as at the router
# An answer in more pieces than these is given up where they are small, for each piece takes as long as a large one.
PIECES, SMALL = 4096, 64
LOOK_S = 0.05  # how often one looks whether a call may begin, while as many as may be are under way
REPEATED = frozenset({"GET", "HEAD", "PUT", "DELETE"})  # twice they do what they do once
# What the other end says (an alert) where it wants another certificate of ours, or one at all.
_REFUSAL = re.compile("ALERT_(.*CERTIFICATE|UNKNOWN_CA|HANDSHAKE_FAILURE|ACCESS_DENIED)")
# The end of a line, and a line that goes on, as not everybody reads them. h11 does.
_LOOSE = re.compile(rb"[^\r]\n|\n[ \t]")


class Call(NamedTuple):
    """A request to make. ``body`` is JSON text. ``most``: bytes of its answer; 0: as usual where it is made."""

    method: str
    url: str
    body: bytes | None = None
    most: int = 0


class Answer(NamedTuple):
    """What came back, whatever the status. ``headers`` by their names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class TooLong(EdgeError):
    """An answer of more bytes than are wanted in memory."""


class Untrusted(EdgeError):
    """One end does not take the other's certificate, which waiting does not mend."""


class NoHttp(Exception):
    """What a server answers is no HTTP, or was cut off."""


class _Dropped(NoHttp):
    """The connection ended before the first byte of an answer; as its cause says, where it says more."""


class _Run(NamedTuple):
    """A call under way, the result of which has its ``place``."""

    place: int
    steps: Steps[Answer]


class Exchange:
    """Makes calls in parallel under one deadline. Errors carry no address: it may hold a password."""

    def __init__(
        self,
        deadline_s: float,
        *,
        headers: Mapping[str, str] | None = None,
        answer_limit: int = 1 << 20,
        at_once: int = 32,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """``answer_limit`` in bytes; ``at_once``: calls that may be under way, others wait for one to end; ``tls``:
        whom to trust and what to show, None as usual on the web."""
        self._deadline_s = deadline_s
        self._late = late(deadline_s)
        self._answer_limit = answer_limit
        self._free = threading.BoundedSemaphore(at_once)
        # An answer that is encoded all the same is not decoded.
        usual = {"accept": "*/*", "accept-encoding": "identity", "user-agent": "understudy"}
        self._headers = {**usual, **{name.lower(): value for name, value in (headers or {}).items()}}
        self._connections = Connections(tls)

    def all(self, calls: Sequence[Call]) -> list[Answer | EdgeError]:
        """One result per call, in their order, not later than the deadline."""
        end = time.monotonic() + self._deadline_s
        results: list[Answer | EdgeError] = [EdgeError(self._late) for _ in calls]
        to_begin = deque(_Run(place, self._made(call)) for place, call in enumerate(calls))
        ready: deque[_Run] = deque()
        waiting: dict[int, _Run] = {}  # by the descriptor that each waits for
        poll = select.poll()
        try:
            while (to_begin or ready or waiting) and (left := end - time.monotonic()) > 0:
                # Others may hold all places: then there is nothing to do but to wait for one.
                while to_begin and self._free.acquire(timeout=0 if ready or waiting else left):
                    ready.append(to_begin.popleft())
                for _ in range(len(ready)):
                    goes_on, wait = self._step(ready[0], results)
                    run = ready.popleft()
                    if not goes_on:
                        self._free.release()
                    elif wait is None:
                        ready.append(run)
                    else:
                        poll.register(*wait)
                        waiting[wait[0].fileno()] = run
                patience = 0.0 if ready else min(left, LOOK_S) if to_begin else left
                for descriptor, _ in poll.poll(1000 * patience) if waiting else ():
                    poll.unregister(descriptor)
                    ready.append(waiting.pop(descriptor))
        finally:
            for run in (*ready, *waiting.values()):
                run.steps.close()
                self._free.release()
        return results

    def one(self, call: Call) -> Answer:
        """The answer to ``call``; EdgeError without one."""
        (result,) = self.all([call])
        if isinstance(result, EdgeError):
            raise result
        return result

    def close(self) -> None:
        self._connections.close()

    def _step(self, run: _Run, results: list[Answer | EdgeError]) -> tuple[bool, Wait]:
        """Whether it goes on, and what it waits for then."""
        try:
            return True, next(run.steps)
        except StopIteration as ended:
            results[run.place] = ended.value
        except TimeoutError:
            results[run.place] = EdgeError(self._late)
        except Exception as error:  # noqa: BLE001 — whatever it is, the others go on
            results[run.place] = failure(error)
        return False, None

    def _made(self, call: Call) -> Steps[Answer]:
        to, request = self._request(call)
        kept = self._connections.kept(to)
        if kept is not None:
            try:
                return (yield from self._asked(kept, call, request))
            except _Dropped:  # its server may have closed it before it saw the request
                if call.method not in REPEATED:
                    raise
        opened = yield from self._connections.open(to)
        return (yield from self._asked(opened, call, request))

    def _request(self, call: Call) -> tuple[Origin, h11.Request]:
        parts = urlsplit(call.url)
        to = origin(parts.scheme, parts.netloc)
        headers = {"host": to.named, **self._headers}
        if to.shown:
            headers["authorization"] = to.shown
        if call.body is not None:
            headers["content-type"] = "application/json"
        if call.body is not None or call.method not in ("GET", "HEAD", "DELETE"):
            headers["content-length"] = str(len(call.body or b""))
        target = quote(f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}", safe="%/?:@!$&'()*+,;=~[]")
        return to, h11.Request(method=call.method, target=target, headers=list(headers.items()))

    def _asked(self, connection: Connection, call: Call, request: h11.Request) -> Steps[Answer]:
        """The answer on ``connection``, which is kept if nothing can follow it there."""
        http = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD)
        clean = False
        try:
            events = (request, h11.Data(call.body or b""), h11.EndOfMessage())
            text = b"".join(http.send(event) or b"" for event in events)
            sent = yield from connection.send(text)
            answer = yield from _answer(http, connection, call.most or self._answer_limit)
            clean = sent and http.our_state is h11.DONE is http.their_state and not http.trailing_data[0]
            return answer
        finally:
            if clean:
                self._connections.keep(connection)
            else:
                connection.close()


def _answer(http: h11.Connection, connection: Connection, most: int) -> Steps[Answer]:
    rest, before = b"", 0
    while True:
        head, rest = yield from _head(connection, rest)
        http.receive_data(head)
        response = http.next_event()
        if isinstance(response, h11.Response):
            break
        before += 1
        if before > BEFORE:
            raise NoHttp
        yield None  # others come before it, of which nobody needs any
    if rest:
        http.receive_data(rest)
    body = bytearray()
    for turn in count(1):
        event = http.next_event()
        if event is h11.NEED_DATA:
            http.receive_data((yield from connection.receive()))
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > most:
                raise TooLong(f"an answer of more than {most} bytes")
        elif isinstance(event, h11.EndOfMessage):
            break
        else:
            raise NoHttp
        if turn > PIECES and len(body) < SMALL * turn:
            raise NoHttp
        if turn % TURN == 0:
            yield None
    headers: dict[str, str] = {}
    for raw, value in response.headers:
        name, text = raw.decode("ascii"), value.decode("latin-1")
        headers[name] = f"{headers[name]}, {text}" if name in headers else text
    return Answer(response.status_code, headers, bytes(body))


def _head(connection: Connection, begun: bytes) -> Steps[tuple[bytes, bytes]]:
    """The head of an answer that has ``begun``, and what came after it."""
    head, looked = bytearray(begun), 0
    while True:
        end = head.find(b"\r\n\r\n", max(0, looked - 3))
        size = len(head) if end < 0 else end + 2
        loose = _LOOSE.search(head, max(0, looked - 1), size)
        if loose or size > HEAD or not b"HTTP/1.".startswith(head[:7]):
            raise NoHttp
        if end >= 0:
            return bytes(head[: end + 4]), bytes(head[end + 4 :])
        looked = len(head)
        try:
            more = yield from connection.receive()
        except ConnectionError as error:
            if head:
                raise
            raise _Dropped from error
        if not more:
            raise NoHttp if head else _Dropped
        head += more


def late(deadline_s: float) -> str:
    """What is said of a call that was not answered, whichever clock says so first: people are told of changes."""
    return f"no answer within {deadline_s:g} s"


def failure(error: Exception) -> EdgeError:
    """What is told of ``error``."""
    if isinstance(error, EdgeError):
        return error
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return Untrusted(f"its certificate is not trusted: {cause.verify_message}")
        if isinstance(cause, ssl.SSLError) and _REFUSAL.search(cause.reason or ""):
            return Untrusted(f"does not take our certificate ({cause.reason})")
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, _Dropped) and error.__cause__ is not None:
        return EdgeError(f"not reachable ({error.__cause__})")
    if isinstance(error, (NoHttp, h11.RemoteProtocolError)):
        return EdgeError("not reachable (what it answers is no HTTP, or was cut off)")  # the error's own words quote it
    if isinstance(error, OSError):
        return EdgeError(f"not reachable ({error})")
    return EdgeError(f"{type(error).__name__}")


def finite(body: bytes) -> bool:
    """Whether an answer is JSON, without NaN and infinities."""

    def no_number(name: str) -> None:
        raise ValueError(name)

    try:
        json.loads(body, parse_constant=no_number)
    except (ValueError, RecursionError):
        return False
    return True


def named_version(body: bytes) -> str | None:
    """The version that a model server says it serves by its answer to /version, if it says so; MLflow's own says its
    package's."""
    try:
        tree = json.loads(body)
    except (ValueError, RecursionError):
        return None
    named = tree.get("model_version") if isinstance(tree, dict) else None
    return str(named) if named is not None else None
