"""The pool of connections to one model server counts each connection once, from its first moment to its last."""

import asyncio
from dataclasses import replace

from router.heads import Response
from router.outbox import Outbox
from router.pool import Pool, PoolLimits
from router.upstream import Connection, Failure
from tests.router.models import Model
from tests.router.raw import post

LIMITS = PoolLimits(connections=4, queue=0, connect_s=5, idle_s=5)


class Asker:
    """Asks once, and remembers what came."""

    to_head = streamed = False

    def __init__(self) -> None:
        self.status = 0
        self.failure: Failure | None = None

    def outgoing(self, connection: Connection) -> bytes:
        return post("u")

    def sendable(self) -> None: ...

    def crowded(self) -> None: ...

    def answer_whole(self, response: Response, body: bytes) -> None:
        self.status = response.status

    def answer_head(self, response: Response) -> None:
        self.status = response.status

    def answer_body(self, data: bytes) -> None: ...

    def answer_pause(self) -> None: ...

    def answer_end(self) -> None: ...

    def answer_failed(self, failure: Failure) -> None:
        self.failure = failure


async def seen_while(pool: Pool, askers: list[Asker]) -> set[int]:
    """How many connections the pool said it had at every turn of the loop until all were answered."""
    seen = set()
    async with asyncio.timeout(10):
        while not all(asker.status or asker.failure for asker in askers):
            seen.add(pool.connections)
            await asyncio.sleep(0)
    return seen


def test_connections_that_open_are_counted_once_so_that_as_many_as_allowed_find_one() -> None:
    async def burst() -> None:
        loop = asyncio.get_running_loop()
        pool = Pool(loop, Outbox(loop), model.address, LIMITS)
        askers = [Asker() for _ in range(5)]
        for asker in askers:
            pool.ask(asker)
        assert await seen_while(pool, askers) == {4}
        assert [asker.status for asker in askers] == [200] * 4 + [0]
        assert askers[-1].failure is Failure.FULL
        pool.retire()

    with Model("champion") as model:
        asyncio.run(burst())


class Follower(Asker):
    """Has another one ask right after its own request was sent."""

    def __init__(self, pool: Pool, other: Asker) -> None:
        super().__init__()
        self.pool = pool
        self.other = other
        self.followed = asyncio.Event()

    def outgoing(self, connection: Connection) -> bytes:
        asyncio.get_running_loop().call_soon(self.follow)
        return super().outgoing(connection)

    def follow(self) -> None:
        self.pool.ask(self.other)
        self.followed.set()


def test_nobody_waits_where_nobody_may_for_a_connection_that_has_just_been_given_away() -> None:
    async def close_behind() -> None:
        loop = asyncio.get_running_loop()
        pool = Pool(loop, Outbox(loop), model.address, replace(LIMITS, connections=1))
        late = Asker()
        first = Follower(pool, late)
        pool.ask(first)
        async with asyncio.timeout(10):
            await first.followed.wait()
        assert late.failure is Failure.FULL
        assert first.failure is None
        model.release()
        await seen_while(pool, [first])
        pool.retire()

    with Model("challenger", "hang") as model:
        asyncio.run(close_behind())


def test_a_connection_that_is_refused_is_not_counted_any_more() -> None:
    with Model("champion") as model:
        address = model.address

    async def refused() -> None:
        loop = asyncio.get_running_loop()
        pool = Pool(loop, Outbox(loop), address, LIMITS)
        for _ in range(6):
            asker = Asker()
            pool.ask(asker)
            assert await seen_while(pool, [asker]) == {1}
            assert asker.failure is Failure.REFUSED
            assert pool.connections == 0

    asyncio.run(refused())
