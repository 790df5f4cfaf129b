"""Where a model server named by a host is: asked of the system in a thread of the pool's own, one question at a time.

The system's resolver blocks its thread for as long as DNS is silent, and cannot be told to stop. In the threads that
the event loop has for such things, the questions for one arm's host would soon keep all others waiting.
"""

import asyncio
import contextlib
import ipaddress
import socket
import threading

# So long an answer is used without asking again, unless a connection fails meanwhile; when it is that old, it is asked
# for ahead of its end, so that no request has to wait for DNS.
FRESH_S = 5.0
AHEAD_S = 3.0


class Lookup:
    """The addresses of one host, the last ones for as long as the system does not answer.

    Where there are such, ``patience_s`` is the longest that others are waited for, from when they were asked for.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, host: str, patience_s: float) -> None:
        self.host = host
        self._loop = loop
        self._patience_s = patience_s
        self._found: list[str] = [host] if _is_address(host) else []
        self._fresh_until = self._ahead_from = float("inf") if self._found else 0.0
        self._asked_at = 0.0
        self._asked: asyncio.Future[list[str]] | None = None

    async def addresses(self) -> list[str]:
        """In the order in which they are to be tried. Raises OSError where there are none; may take as long as DNS."""
        now = self._loop.time()
        if now >= self._fresh_until:
            asked = self._asked or self._ask()
            left_s = max(0.0, self._asked_at + self._patience_s - now)
            # Who gives up waiting takes nothing from those who still do.
            await asyncio.wait((asked,), timeout=left_s if self._found else None)
            if asked.done():
                asked.result()
            else:
                self._fresh_until = self._loop.time() + FRESH_S
        found = self._found
        if len(found) > 1 and (":" in found[0]) == (":" in found[1]):
            # Connections are spread over the servers behind one name, as new answers of DNS would do.
            alike = [address for address in found if (":" in address) == (":" in found[0])]
            self._found = [*alike[1:], alike[0], *found[len(alike) :]]
        return found

    def ahead(self, now: float) -> None:
        """Ask for whoever comes next, where it is time and nobody has done so."""
        if now >= self._ahead_from and self._asked is None:
            self._ahead_from = now + AHEAD_S
            with contextlib.suppress(OSError):
                self._ask()

    def doubt(self) -> None:
        """A connection failed: the server may have moved."""
        if not _is_address(self.host):
            self._fresh_until = self._ahead_from = 0.0

    def _ask(self) -> asyncio.Future[list[str]]:
        asked = self._loop.create_future()
        # Not one of the loop's threads, and none that the end of the process would wait for.
        thread = threading.Thread(target=self._resolve, args=(asked,), name=f"lookup-{self.host}", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            raise OSError(f"{self.host} cannot be looked up: {error}") from None
        self._asked = asked
        self._asked_at = self._loop.time()
        return asked

    def _resolve(self, asked: "asyncio.Future[list[str]]") -> None:
        """In the thread."""
        found: list[str] | OSError
        try:
            infos = socket.getaddrinfo(self.host, None, type=socket.SOCK_STREAM)
            found = list(dict.fromkeys(str(info[4][0]) for info in infos))
        except OSError as error:
            found = error
        except UnicodeError as error:
            found = OSError(f"{self.host}: {error}")
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._answered, asked, found)

    def _answered(self, asked: "asyncio.Future[list[str]]", found: list[str] | OSError) -> None:
        self._asked = None
        now = self._loop.time()
        self._ahead_from = now + AHEAD_S
        silent = isinstance(found, socket.gaierror) and found.errno == socket.EAI_AGAIN
        if silent and self._found:
            # It says nothing about the server.
            found = self._found
        if isinstance(found, list):
            if set(found) != set(self._found):  # or their turns begin anew
                # Those of one family beside each other.
                self._found = sorted(found, key=lambda address: (":" in address) != (":" in found[0]))
            self._fresh_until = now + FRESH_S
            asked.set_result(found)
        else:
            self._found = []
            self._fresh_until = 0.0
            asked.set_exception(found)
            asked.exception()  # perhaps nobody waits any more


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
