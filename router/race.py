"""Which of a name's addresses a connection is made to: the first that takes one, without waiting long for those before.

As RFC 8305 (section 5) has it. An address may swallow what it is sent, of a node without power or a family without a
route; tried one after the other, it would use up all the time there is to connect.
"""

import asyncio
import socket
from collections import deque
from typing import NamedTuple

# So long an address has for itself before the next one is tried beside it.
STAGGER_S = 0.25
# Of one race. An address that refuses makes room for the next.
_MOST_AT_ONCE = 8


class Won(NamedTuple):
    """A connected socket, where to, and the addresses that had begun earlier and have said nothing yet."""

    sock: socket.socket
    address: str
    overtaken: tuple[str, ...]


async def dial(loop: asyncio.AbstractEventLoop, address: str, port: int) -> socket.socket:
    """A connected socket, which is the caller's to close. Raises OSError."""
    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await loop.sock_connect(sock, (address, port))
    except BaseException:
        sock.close()
        raise
    return sock


async def first_of(loop: asyncio.AbstractEventLoop, addresses: list[str], port: int, stagger_s: float) -> Won:
    """Try addresses in their order, the next one as soon as one refuses or ``stagger_s`` after the last began.

    Raises the OSError of the last one that refused. Nothing is left of those that lost.
    """
    left = deque(addresses)
    trying: dict[asyncio.Task[socket.socket], str] = {}
    refused = OSError("no address")
    try:
        while left or trying:
            if left and len(trying) < _MOST_AT_ONCE:
                address = left.popleft()
                trying[loop.create_task(dial(loop, address, port))] = address
            more = bool(left) and len(trying) < _MOST_AT_ONCE
            done, _ = await asyncio.wait(
                trying, timeout=stagger_s if more else None, return_when=asyncio.FIRST_COMPLETED
            )
            for task in [task for task in trying if task in done]:
                error = task.exception()
                if error is None:
                    before = list(trying)[: list(trying).index(task)]
                    overtaken = tuple(trying[other] for other in before if not other.done())
                    return Won(task.result(), trying.pop(task), overtaken)
                if not isinstance(error, OSError):
                    raise error
                refused = error
                del trying[task]
        raise refused
    finally:
        for task in trying:
            if not task.cancel() and not task.cancelled() and task.exception() is None:
                task.result().close()
