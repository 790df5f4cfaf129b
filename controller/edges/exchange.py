"""HTTP calls that end in time, whatever the other side does.

A timeout per read is not a deadline: a server that sends one byte a second never exceeds it. So each call runs on a
daemon thread of its own and is given up when the deadline is over. How many such threads are left over is bounded for
each server, and no other server's calls wait for them.
"""

import functools
import json
import logging
import queue
import ssl
import threading
import time
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

import httpx

from controller.errors import EdgeError

# It logs every address it calls, and a webhook's address is its password.
logging.getLogger("httpx").setLevel(logging.WARNING)


HANGING = 4  # calls to one server that were given up and have not ended: then it is not called
MOST_HANGING = 512


class Call(NamedTuple):
    """A request to make. ``body`` is JSON text. ``most``: bytes of its answer; 0: as usual where it is made."""

    method: str
    url: str
    body: bytes | None = None
    most: int = 0


class Answer(NamedTuple):
    """What came back, whatever the status."""

    status: int
    headers: httpx.Headers
    body: bytes


class TooLong(EdgeError):
    """An answer of more bytes than are wanted in memory."""


class Untrusted(EdgeError):
    """One end does not take the other's certificate, which waiting does not mend."""


@functools.cache
def _usual(environment: bool) -> ssl.SSLContext:
    """Whom the web trusts, once for all: reading these authorities takes milliseconds and half a megabyte, and a
    controller of a cluster makes three of us for each rollout. ``environment``: its SSL_CERT_FILE and _DIR apply."""
    return httpx.create_ssl_context(trust_env=environment)


class _UnderWay:
    """A call on its thread, which its caller may give up: whoever is first says so under the exchange's lock."""

    __slots__ = ("ended", "given_up", "origin")

    def __init__(self, origin: str) -> None:
        self.origin = origin
        self.ended = self.given_up = False


class Exchange:
    """Makes calls in parallel under one deadline. Errors carry no address: a webhook's address is a secret."""

    def __init__(
        self,
        deadline_s: float,
        *,
        headers: dict[str, str] | None = None,
        answer_limit: int = 1 << 20,
        at_once: int = 32,
        proxies: bool = False,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """``answer_limit`` in bytes; ``at_once``: calls that may be under way, others wait for one to end;
        ``proxies``: whether the proxy variables of the environment apply; ``tls``: whom to trust and what to show,
        None as usual on the web."""
        self._deadline_s = deadline_s
        self._late = f"no answer within {deadline_s:g} s"  # whichever clock says so first: people are told of changes
        self._answer_limit = answer_limit
        self._free = threading.BoundedSemaphore(at_once)
        self._lock = threading.Lock()
        self._hanging: Counter[str] = Counter()  # calls that were given up and have not ended, by server
        self._client = httpx.Client(
            timeout=deadline_s,
            headers=headers,
            trust_env=proxies,
            verify=tls or _usual(proxies),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=20),  # they are counted here
        )

    def all(self, calls: Sequence[Call]) -> list[Answer | EdgeError]:
        """One result per call, in their order, not later than the deadline."""
        results: list[Answer | EdgeError] = [EdgeError(self._late) for _ in calls]
        done: queue.SimpleQueue[tuple[int, Answer | EdgeError]] = queue.SimpleQueue()
        end = time.monotonic() + self._deadline_s
        runs: dict[int, _UnderWay] = {}
        for index, call in enumerate(calls):
            run = _UnderWay(urlsplit(call.url).netloc)
            if self._hangs(run.origin) or not self._free.acquire(timeout=max(0.0, end - time.monotonic())):
                continue
            thread = threading.Thread(target=self._run, args=(index, call, run, end, done), daemon=True)
            try:
                thread.start()
            except RuntimeError as error:  # this process may have no more threads now
                self._free.release()
                results[index] = EdgeError(f"no call could be made: {error}")
            else:
                runs[index] = run
        for _ in runs:
            try:
                index, result = done.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                break
            results[index] = result
        for run in runs.values():
            self._given_up(run)
        return results

    def one(self, call: Call) -> Answer:
        """The answer to ``call``; EdgeError without one."""
        (result,) = self.all([call])
        if isinstance(result, EdgeError):
            raise result
        return result

    def close(self) -> None:
        self._client.close()

    def _hangs(self, origin: str) -> bool:
        with self._lock:
            return self._hanging[origin] >= HANGING or self._hanging.total() >= MOST_HANGING

    def _given_up(self, run: _UnderWay) -> None:
        """Nobody waits for it any more; if it has not ended, others may begin all the same."""
        with self._lock:
            if run.ended:
                return
            run.given_up = True
            self._hanging[run.origin] += 1
        self._free.release()

    def _ended(self, run: _UnderWay) -> None:
        with self._lock:
            run.ended = True
            if run.given_up:
                self._hanging[run.origin] -= 1
                self._hanging = +self._hanging
                return
        self._free.release()

    def _run(
        self,
        index: int,
        call: Call,
        run: _UnderWay,
        end: float,
        done: "queue.SimpleQueue[tuple[int, Answer | EdgeError]]",
    ) -> None:
        try:
            result: Answer | EdgeError = self._make(call, end)
        except httpx.TimeoutException:
            result = EdgeError(self._late)
        except Exception as error:  # noqa: BLE001 — whatever it is, the caller waits for a result
            result = _failure(error)
        self._ended(run)
        done.put((index, result))

    def _make(self, call: Call, end: float) -> Answer:
        headers = {"content-type": "application/json"} if call.body is not None else None
        most = call.most or self._answer_limit
        with self._client.stream(call.method, call.url, content=call.body, headers=headers) as response:
            body = bytearray()
            for chunk in response.iter_bytes():
                body += chunk
                if len(body) > most:
                    raise TooLong(f"an answer of more than {most} bytes")
                if time.monotonic() > end:
                    raise EdgeError(self._late)
            return Answer(response.status_code, response.headers, bytes(body))


def finite(body: bytes) -> bool:
    """Whether an answer is JSON, without NaN and infinities."""

    def no_number(name: str) -> None:
        raise ValueError(name)

    try:
        json.loads(body, parse_constant=no_number)
    except ValueError:
        return False
    return True


def named_version(body: bytes) -> str | None:
    """The version that a model server says it serves by its answer to /version, if it says so; MLflow's own says its
    package's."""
    try:
        tree = json.loads(body)
    except ValueError:
        return None
    named = tree.get("model_version") if isinstance(tree, dict) else None
    return str(named) if named is not None else None


def _failure(error: Exception) -> EdgeError:
    if isinstance(error, EdgeError):
        return error
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return Untrusted(f"its certificate is not trusted: {cause.verify_message}")
        if isinstance(cause, ssl.SSLError) and "ALERT" in (cause.reason or ""):
            return Untrusted(f"does not take our certificate ({cause.reason})")
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, httpx.RemoteProtocolError):
        return EdgeError("not reachable (what it answers is no HTTP, or was cut off)")  # the error's own words quote it
    if isinstance(error, httpx.TransportError):
        return EdgeError(f"not reachable ({error})")
    return EdgeError(f"{type(error).__name__}")
