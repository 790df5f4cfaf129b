"""Calls to one server through the proxies of the environment, which httpx knows the ways of.

httpx has no deadline for a whole call. So each runs on a daemon thread of its own and is given up when the deadline is
over. How many such threads are left over is bounded.
"""

import functools
import logging
import queue
import ssl
import threading
import time

import httpx

from controller.edges.exchange import Answer, Call, NoHttp, TooLong, failure, late
from controller.errors import EdgeError

# It logs every address it calls, and a webhook's address is its password.
logging.getLogger("httpx").setLevel(logging.WARNING)

HANGING = 4  # calls that were given up and have not ended: then none is begun


@functools.cache
def _usual() -> ssl.SSLContext:
    """Whom the web trusts, or SSL_CERT_FILE and _DIR of the environment say: once for all."""
    return httpx.create_ssl_context(trust_env=True)


class _UnderWay:
    """A call on its thread, which its caller may give up: whoever is first says so under the lock."""

    __slots__ = ("ended", "given_up")

    def __init__(self) -> None:
        self.ended = self.given_up = False


class Proxied:
    """Makes calls to one server, each under a deadline. Errors carry no address: a webhook's address is a secret."""

    def __init__(self, deadline_s: float, *, answer_limit: int = 1 << 20) -> None:
        """``answer_limit`` in bytes."""
        self._deadline_s = deadline_s
        self._late = late(deadline_s)
        self._answer_limit = answer_limit
        self._lock = threading.Lock()
        self._hanging = 0
        self._client = httpx.Client(timeout=deadline_s, trust_env=True, verify=_usual())

    def one(self, call: Call) -> Answer:
        """The answer to ``call``; EdgeError without one."""
        end = time.monotonic() + self._deadline_s
        with self._lock:
            if self._hanging >= HANGING:
                raise EdgeError(self._late)
        done: queue.SimpleQueue[Answer | EdgeError] = queue.SimpleQueue()
        run = _UnderWay()
        try:
            threading.Thread(target=self._run, args=(call, run, end, done), daemon=True).start()
        except RuntimeError as error:  # this process may have no more threads now
            raise EdgeError(f"no call could be made: {error}") from None
        try:
            result = done.get(timeout=max(0.0, end - time.monotonic()))
        except queue.Empty:
            self._given_up(run)
            raise EdgeError(self._late) from None
        if isinstance(result, EdgeError):
            raise result
        return result

    def close(self) -> None:
        self._client.close()

    def _given_up(self, run: _UnderWay) -> None:
        with self._lock:
            if not run.ended:
                run.given_up = True
                self._hanging += 1

    def _run(self, call: Call, run: _UnderWay, end: float, done: "queue.SimpleQueue[Answer | EdgeError]") -> None:
        try:
            result: Answer | EdgeError = self._made(call, end)
        except httpx.TimeoutException:
            result = EdgeError(self._late)
        except httpx.RemoteProtocolError:
            result = failure(NoHttp())
        except Exception as error:  # noqa: BLE001 — whatever it is, the caller waits for a result
            result = failure(error)
            if isinstance(error, httpx.TransportError) and type(result) is EdgeError:
                result = EdgeError(f"not reachable ({error})")
        with self._lock:
            run.ended = True
            self._hanging -= run.given_up
        done.put(result)

    def _made(self, call: Call, end: float) -> Answer:
        # An answer that is encoded all the same is not decoded: a kilobyte may become a gigabyte.
        headers = {"accept-encoding": "identity"}
        if call.body is not None:
            headers["content-type"] = "application/json"
        most = call.most or self._answer_limit
        with self._client.stream(call.method, call.url, content=call.body, headers=headers) as response:
            body = bytearray()
            for chunk in response.iter_raw():
                body += chunk
                if len(body) > most:
                    raise TooLong(f"an answer of more than {most} bytes")
                if time.monotonic() > end:
                    raise EdgeError(self._late)
            return Answer(response.status_code, response.headers, bytes(body))
