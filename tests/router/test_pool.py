"""The pool of connections to one model server counts each connection once, from its first moment to its last."""

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median
from time import monotonic
from typing import Any

import pytest

from router import lookup
from router.heads import Response
from router.journal import Writer
from router.lookup import Lookup
from router.outbox import Outbox
from router.plane import Plane
from router.pool import Pool, PoolLimits
from router.table import RouteTable
from router.upstream import Connection, Failure
from router.worker_config import WorkerConfig
from tests.router.models import Model
from tests.router.raw import await_until, post

LIMITS = PoolLimits(connections=4, queue=0, connect_s=5, idle_s=5)


class Asker:
    """Asks once, and remembers what came."""

    to_head = streamed = False

    def __init__(self) -> None:
        self.status = 0
        self.failure: Failure | None = None

    def wait_in_line(self) -> None: ...

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


def test_those_who_wait_for_a_connection_are_told_when_the_server_goes() -> None:
    async def left_alone(model: Model) -> None:
        loop = asyncio.get_running_loop()
        pool = Pool(loop, Outbox(loop), model.address, replace(LIMITS, connections=2, queue=10))
        askers = [Asker() for _ in range(10)]
        for asker in askers:
            pool.ask(asker)
        await asyncio.to_thread(await_until, lambda: model.count == 2)
        await asyncio.to_thread(model.__exit__, None, None, None)
        await seen_while(pool, askers)
        assert {asker.failure for asker in askers[2:]} == {Failure.REFUSED}
        assert pool.connections == 0

    asyncio.run(left_alone(Model("champion", "hang").__enter__()))


class Dns:
    """The system's resolver with a name server of ours for ``*.test``, which answers or does not."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answered: list[str] = []
        # How long it takes.
        self.seconds = 0.0
        self.silent: set[str] = set()
        self.found = ["127.0.0.1"]
        self.over = threading.Event()
        self._real = socket.getaddrinfo

    def answer(self, host: Any, port: Any, *args: Any, **named: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        if not str(name).endswith(".test"):
            return self._real(host, port, *args, **named)
        self.asked.append(name)
        if name in self.silent:
            self.over.wait(60)
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        self.over.wait(self.seconds)
        self.answered.append(name)
        if not self.found:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [info for address in self.found for info in self._real(address, port, *args, **named)]


@pytest.fixture
def dns(monkeypatch: pytest.MonkeyPatch) -> Iterator[Dns]:
    dns = Dns()
    monkeypatch.setattr(socket, "getaddrinfo", dns.answer)
    yield dns
    dns.over.set()


@contextmanager
def named(model: Model, dns: Dns, host: str) -> Iterator[Pool]:
    """A pool in the running loop, for a server by its name."""
    loop = asyncio.get_running_loop()
    pool = Pool(loop, Outbox(loop), f"{host}:{model.address.rpartition(':')[2]}", replace(LIMITS, connections=100))
    try:
        yield pool
    finally:
        pool.retire()
        # The loop waits for its own threads, if a lookup is in them.
        dns.over.set()


def test_a_name_that_dns_does_not_answer_for_keeps_nobody_from_another_server(dns: Dns) -> None:
    async def both() -> None:
        with named(model, dns, "challenger.test") as challenger, named(model, dns, "champion.test") as champion:
            lost = [Asker() for _ in range(60)]
            for asker in lost:
                challenger.ask(asker)
            asker = Asker()
            champion.ask(asker)
            await seen_while(champion, [asker])
            assert asker.status == 200
            dns.over.set()
            await seen_while(challenger, lost)
            assert dns.asked.count("challenger.test") == 1
            assert {asker.failure for asker in lost} == {Failure.REFUSED}

    dns.silent.add("challenger.test")
    with Model("champion") as model:
        asyncio.run(both())


def test_a_server_stays_where_it_was_while_dns_is_silent(dns: Dns) -> None:
    async def again() -> None:
        known = Lookup(asyncio.get_running_loop(), "champion.test", 0.1)
        for _ in range(3):
            assert await known.addresses() == ["127.0.0.1"]
        assert len(dns.asked) == 1
        dns.silent.add("champion.test")
        known.doubt()
        for _ in range(3):
            assert await known.addresses() == ["127.0.0.1"]
        assert len(dns.asked) == 2

    asyncio.run(again())


def test_no_request_waits_for_a_name_that_was_looked_up_before(dns: Dns, monkeypatch: pytest.MonkeyPatch) -> None:
    """DNS takes longer than a deadline may be, and hardly anybody asks: each time the last answer is too old."""

    async def seldom() -> None:
        with named(model, dns, "champion.test") as pool:
            loop = asyncio.get_running_loop()
            pool.sweep(loop.time())
            await _swept_until(pool, lambda: len(dns.answered) == 1)
            took = []
            for _ in range(4):
                # Until its answer is as old as that, it would not have been asked for again.
                due = loop.time() + 1.1 * lookup.FRESH_S
                await _swept_until(pool, lambda due=due: loop.time() > due)
                began, asker = loop.time(), Asker()
                pool.close_older(float("inf"))
                pool.ask(asker)
                await seen_while(pool, [asker])
                assert asker.status == 200
                took.append(loop.time() - began)
            # One may have found a machine that stood still; all of them would have waited for the name.
            assert median(took) < dns.seconds / 2
            assert 5 <= len(dns.asked) <= 12

    monkeypatch.setattr(lookup, "FRESH_S", 1.0)
    monkeypatch.setattr(lookup, "AHEAD_S", 0.5)
    dns.seconds = 0.4
    with Model("champion") as model:
        asyncio.run(seldom())


async def _swept_until(pool: Pool, condition: Callable[[], bool]) -> None:
    """As a worker does it, until a condition holds."""
    async with asyncio.timeout(10):
        while not condition():
            pool.sweep(asyncio.get_running_loop().time())
            await asyncio.sleep(0.02)


def test_the_names_of_a_table_are_looked_up_before_anybody_asks(tmp_path: Path, dns: Dns) -> None:
    async def used() -> None:
        config = WorkerConfig(worker="w0", router="router", journal_dir=tmp_path)
        writer = Writer(tmp_path, "router-w0")
        try:
            arms = {arm: {"version": "1", "upstreams": [f"{arm}.test:80"]} for arm in ("champion", "challenger")}
            said = json.dumps({"generation": 1, "rollout": "r", "salt": "s", "unit": {"header": "X-Unit"}} | arms)
            Plane(asyncio.get_running_loop(), config, writer).use(RouteTable.model_validate_json(said))
            await asyncio.to_thread(await_until, lambda: sorted(dns.answered) == ["challenger.test", "champion.test"])
        finally:
            writer.close()

    asyncio.run(used())


def test_who_waits_for_dns_waits_from_when_it_was_asked(dns: Dns, monkeypatch: pytest.MonkeyPatch) -> None:
    async def silent() -> None:
        loop = asyncio.get_running_loop()
        patient = Lookup(loop, "champion.test", 5)
        assert await patient.addresses() == ["127.0.0.1"]
        patient.doubt()
        dns.silent.add("champion.test")
        patient.ahead(began := loop.time())
        monkeypatch.setattr(loop, "time", lambda: monotonic() + 6)
        assert await patient.addresses() == ["127.0.0.1"]
        assert monotonic() - began < 2

    asyncio.run(silent())


def test_a_new_answer_with_the_same_addresses_leaves_them_in_their_turns(dns: Dns) -> None:
    async def thrice() -> list[str]:
        turns = Lookup(asyncio.get_running_loop(), "champion.test", 0.1)
        found = []
        for _ in range(3):
            found.append((await turns.addresses())[0])
            turns.doubt()
        return found

    dns.found = ["10.0.0.1", "10.0.0.2"]
    assert asyncio.run(thrice()) == ["10.0.0.1", "10.0.0.2", "10.0.0.1"]


def test_a_server_that_moved_since_it_was_looked_up_is_found_by_the_same_request(dns: Dns) -> None:
    async def moved() -> None:
        with named(model, dns, "champion.test") as pool:
            dns.found = ["127.0.0.2"]
            with socket.create_server(("127.0.0.2", pool.port)) as old:
                before = Asker()
                pool.ask(before)
                old.setblocking(False)
                async with asyncio.timeout(10):
                    await asyncio.get_running_loop().sock_accept(old)
            dns.found = ["127.0.0.1"]
            asker = Asker()
            pool.ask(asker)
            await seen_while(pool, [asker])
            assert asker.status == 200
            assert len(dns.asked) == 2

    with Model("champion") as model:
        asyncio.run(moved())


def test_connections_are_spread_over_the_addresses_of_a_name(dns: Dns) -> None:
    async def thrice() -> list[list[str]]:
        known = Lookup(asyncio.get_running_loop(), "champion.test", 0.1)
        return [await known.addresses() for _ in range(3)]

    dns.found = ["10.0.0.1", "fd00::1", "10.0.0.2"]
    first, second = ["10.0.0.1", "10.0.0.2", "fd00::1"], ["10.0.0.2", "10.0.0.1", "fd00::1"]
    assert asyncio.run(thrice()) == [first, second, first]


def test_a_name_that_is_gone_is_refused_and_an_address_is_not_asked_for(dns: Dns) -> None:
    async def gone() -> None:
        loop = asyncio.get_running_loop()
        known = Lookup(loop, "champion.test", 0.1)
        assert await known.addresses() == ["127.0.0.1"]
        dns.found = []
        known.doubt()
        for _ in range(2):
            with pytest.raises(OSError, match="not known"):
                await known.addresses()
        assert len(dns.asked) == 3
        for address in ("127.0.0.9", "::1"):
            assert await Lookup(loop, address, 0.1).addresses() == [address]
        assert len(dns.asked) == 3

    asyncio.run(gone())
