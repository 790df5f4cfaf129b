"""Reaches a model server: looks its name up, and races its addresses where it has several.

Apart from the pool, which has no coroutines and is compiled (CONTRIBUTING.md, "What is compiled").
"""

import asyncio
from collections.abc import Callable
from typing import cast

from router.lookup import Lookup
from router.race import STAGGER_S, dial, first_of
from router.upstream import Connection

# An address that was overtaken by a later one of its name is tried last, until it has taken a connection again; so
# often that is looked at, beside what is asked and at nobody's expense.
RECHECK_S = 5.0

Opened = Callable[[Connection, bool], None]


class Dialer:
    """Opens connections to one host and port, each within ``connect_s`` seconds."""

    def __init__(self, loop: asyncio.AbstractEventLoop, host: str, port: int, connect_s: float) -> None:
        self._loop = loop
        self._port = port
        self._connect_s = connect_s
        self._lookup = Lookup(loop, host, connect_s / 4)
        self._tasks: set[asyncio.Task[None]] = set()
        # Addresses that were overtaken, and when they are looked at again.
        self._overtaken: dict[str, float] = {}
        self._rechecks: set[asyncio.Task[None]] = set()
        self._retired = False

    @property
    def at_work(self) -> int:
        """Connections that are being opened, of which nobody has been told yet."""
        return len(self._tasks)

    def begin(self, connection: Connection, opened: Opened) -> None:
        """Open it, and then tell of it; True where it was refused."""
        self._tasks.add(self._loop.create_task(self._open(connection, opened)))

    def look_ahead(self, now: float) -> None:
        """Look the name up again where it will be needed."""
        self._lookup.ahead(now)

    def retire(self) -> None:
        """Look at nothing any more that nobody asks for."""
        self._retired = True
        for task in self._rechecks:
            task.cancel()

    async def _open(self, connection: Connection, opened: Opened) -> None:
        refused = False
        try:
            async with asyncio.timeout(self._connect_s):
                await self._reach(connection)
        except OSError:
            refused = True
            self._lookup.doubt()
        finally:
            # Before anybody is told: who asks next must not count on a connection that is given away here.
            self._tasks.discard(asyncio.current_task())
        opened(connection, refused)

    async def _reach(self, connection: Connection) -> None:
        """Connect to wherever the host is, also where it has moved since it was looked up. Raises OSError."""
        addresses = await self._lookup.addresses()
        try:
            await self._reach_one_of(addresses, connection)
        except OSError:
            self._lookup.doubt()
            others = await self._lookup.addresses()
            if set(others) <= set(addresses):
                raise
            await self._reach_one_of(others, connection)

    async def _reach_one_of(self, addresses: list[str], connection: Connection) -> None:
        if len(addresses) == 1:
            await self._loop.create_connection(lambda: cast(asyncio.Protocol, connection), addresses[0], self._port)
            return
        self._recheck(addresses)
        overtaken = self._overtaken
        # All of them have begun by half of the time, however many there are.
        stagger_s = min(STAGGER_S, self._connect_s / 2 / len(addresses))
        won = await first_of(self._loop, sorted(addresses, key=overtaken.__contains__), self._port, stagger_s)
        overtaken.pop(won.address, None)
        for address in won.overtaken:
            overtaken.setdefault(address, self._loop.time() + RECHECK_S)
        await self._loop.create_connection(lambda: cast(asyncio.Protocol, connection), sock=won.sock)

    def _recheck(self, addresses: list[str]) -> None:
        """Forget the overtaken that are no addresses any more, and look at the others where it is time."""
        for address, due in list(self._overtaken.items()):
            if address not in addresses:
                del self._overtaken[address]
            elif self._loop.time() >= due and not self._retired:
                self._overtaken[address] = float("inf")
                task = self._loop.create_task(self._recheck_one(address))
                self._rechecks.add(task)
                task.add_done_callback(self._rechecks.discard)

    async def _recheck_one(self, address: str) -> None:
        try:
            async with asyncio.timeout(self._connect_s):
                (await dial(self._loop, address, self._port)).close()
        except OSError:
            if address in self._overtaken:
                self._overtaken[address] = self._loop.time() + RECHECK_S
        else:
            self._overtaken.pop(address, None)
