"""Connections to model servers: a bounded pool for each arm and address, and the choice between addresses.

Arms never share a pool, also where they share an address: a challenger that hangs holds its own connections only, and
one whose name DNS does not answer for holds nobody else's lookups.
"""

import asyncio
import logging
from dataclasses import dataclass
from time import monotonic
from typing import Final

from router.assignment import Arm
from router.dialing import Dialer
from router.outbox import Outbox
from router.table import Target, split_address
from router.upstream import Caller, Connection, Failure

log: Final = logging.getLogger("understudy.router.pool")

# An address that refused a connection is tried last for this long.
DOWN_S: Final = 1.0
# A server that said more than it was asked has each of its connections used once for this long.
DISTRUST_S: Final = 60.0


@dataclass(frozen=True)
class PoolLimits:
    """Connections to one address, callers that may wait for one, and times in seconds."""

    connections: int
    queue: int
    connect_s: float
    idle_s: float


class Pool:
    """The connections of one arm to one address."""

    def __init__(self, loop: asyncio.AbstractEventLoop, outbox: Outbox, address: str, limits: PoolLimits) -> None:
        self.host, self.port = split_address(address)
        shown = f"[{self.host}]" if ":" in self.host else self.host
        self.authority = f"{shown}:{self.port}".encode()
        self.down_until = 0.0
        self._distrusted_until = 0.0
        # What the server said of itself last, where it is asked.
        self.ready = True
        self.outbox = outbox
        self._loop = loop
        self._limits = limits
        self._dialer = Dialer(loop, self.host, self.port, limits.connect_s)
        # In the order of their release: the one that was used last is used next, the others grow old.
        self._free: list[Connection] = []
        self._waiting: dict[Caller, None] = {}
        self._open = 0
        # Being opened; the dialer is at it until somebody has the connection, a little longer.
        self._opening = 0
        self._retired = False

    @property
    def pending(self) -> int:
        """Requests on their way, and waiting."""
        return self._open - len(self._free) + len(self._waiting)

    @property
    def connections(self) -> int:
        """Open connections, and those being opened."""
        return self._open + self._opening

    def ask(self, caller: Caller) -> None:
        """Send a caller's request as soon as there is a connection; tells it where there will be none."""
        free = self._free
        while free:
            connection = free.pop()
            if (
                connection.since > monotonic() - self._limits.idle_s
                and not connection.transport.is_closing()
                and not connection.spoken()
            ):
                connection.ask(caller)
                return
            connection.transport.abort()
        if self.connections < self._limits.connections:
            self._waiting[caller] = None
            self._connect()
        elif len(self._waiting) - self._dialer.at_work < self._limits.queue:
            self._waiting[caller] = None
            caller.wait_in_line()
        else:
            caller.answer_failed(Failure.FULL)

    def forget(self, caller: Caller) -> None:
        """The caller does not wait any more."""
        self._waiting.pop(caller, None)

    def free(self, connection: Connection) -> None:
        """A connection may take the next request."""
        connection.since = now = monotonic()
        waiting = self._waiting
        spent = connection.used and (now < self._distrusted_until or (bool(waiting) and connection.spoken()))
        if waiting and not spent:
            connection.ask(self._next_waiting())
        elif spent or self._retired:
            connection.transport.abort()
        else:
            self._free.append(connection)

    def distrust(self) -> None:
        """A server said what nobody had asked for. A moment later it would have been taken for the answer to the next
        request of its connection.
        """
        now = monotonic()
        if now >= self._distrusted_until:
            shown = f"{self.authority.decode()} sent more than the answer it was asked for"
            log.warning("%s: its connections are used once each for %d s", shown, DISTRUST_S)
        self._distrusted_until = now + DISTRUST_S
        self.close_older(float("inf"))

    def lost(self, connection: Connection) -> None:
        """A connection is gone."""
        self._open -= 1
        if connection in self._free:
            self._free.remove(connection)
        self._connect_for_waiting()

    def retire(self) -> None:
        """Close what is idle, and each other connection once it is free: no table names this pool any more."""
        self._retired = True
        self.close_older(float("inf"))
        self._dialer.retire()

    def sweep(self, now: float) -> None:
        """Close what has been idle for too long, and look ahead where the next connection will go."""
        self.close_older(now - self._limits.idle_s)
        self._dialer.look_ahead(now)

    def close_older(self, moment: float) -> None:
        """Close the idle connections that were last used before a moment."""
        free = self._free
        old = 0
        while old < len(free) and free[old].since < moment:
            free[old].transport.abort()
            old += 1
        del free[:old]

    def _next_waiting(self) -> Caller:
        caller = next(iter(self._waiting))
        del self._waiting[caller]
        return caller

    def made(self) -> None:
        """A connection is there."""
        self._opening -= 1
        self._open += 1

    def _connect(self) -> None:
        self._opening += 1
        connection = Connection(self)
        self._dialer.begin(connection, self._opened)

    def _connect_for_waiting(self) -> None:
        if self._opening < len(self._waiting):
            self._connect()

    def _opened(self, connection: Connection, refused: bool) -> None:
        """The dialer has done what it could."""
        if refused:
            self._opening -= not connection.made
            self.down_until = self._loop.time() + DOWN_S
            if self._waiting:
                self._next_waiting().answer_failed(Failure.REFUSED)
            self._connect_for_waiting()
            return
        self.down_until = 0.0
        if not connection.transport.is_closing():
            self.free(connection)


class Backend:
    """One arm of a table: its version, and the pools of its addresses."""

    __slots__ = ("_turn", "arm", "pools", "version")

    def __init__(self, arm: Arm, version: str, pools: tuple[Pool, ...]) -> None:
        self.arm = arm
        self.version = version
        self.pools = pools
        self._turn = 0

    @property
    def ready(self) -> bool:
        """Whether any of its servers is."""
        pools = self.pools
        return pools[0].ready if len(pools) == 1 else any(pool.ready for pool in pools)

    def pick(self, now: float) -> Pool:
        """The address with the fewest requests on their way, in turn among equals; one that is ready and up if any
        is.
        """
        pools = self.pools
        if len(pools) == 1:
            return pools[0]
        self._turn = turn = (self._turn + 1) % len(pools)
        around = pools[turn:] + pools[:turn]
        return min(around, key=lambda pool: (not pool.ready, pool.down_until > now, pool.pending))


class PoolShelf:
    """The pools that exist, so that a new table finds the connections of the old one."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        outbox: Outbox,
        champion: PoolLimits,
        challenger: PoolLimits,
    ) -> None:
        self._loop = loop
        self._outbox = outbox
        self._limits: dict[Arm, PoolLimits] = {"champion": champion, "challenger": challenger}
        self._pools: dict[tuple[Arm, tuple[str, int]], Pool] = {}

    def backend(self, arm: Arm, target: Target) -> Backend:
        """The arm as a table describes it, over pools that exist already where they do. Raises ValueError."""
        pools = []
        for address in target.upstreams:
            place = (arm, split_address(address))
            if place not in self._pools:
                self._pools[place] = Pool(self._loop, self._outbox, address, self._limits[arm])
            pools.append(self._pools[place])
        return Backend(arm, target.version, tuple(dict.fromkeys(pools)))

    def keep(self, *backends: Backend | None) -> None:
        """Retire the pools that none of these uses."""
        used = {pool for backend in backends if backend is not None for pool in backend.pools}
        for place, pool in list(self._pools.items()):
            if pool not in used:
                del self._pools[place]
                pool.retire()

    def sweep(self, now: float) -> None:
        """Close connections that have been idle for too long, and look up names that will be needed."""
        for pool in self._pools.values():
            pool.sweep(now)

    @property
    def connections(self) -> int:
        """Connections to model servers, of all pools in use."""
        return sum(pool.connections for pool in self._pools.values())
