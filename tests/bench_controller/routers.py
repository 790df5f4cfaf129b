"""All routers and model servers of the benchmark in one process: ``python -m tests.bench_controller.routers``.

This is the only part that is not the real one. It answers the control API as routers do (table, state, journals,
readers) and keeps the order of generations, but sends no request anywhere: whom a table sends where follows from the
same function as in the router, and their lines are written into journals that exist when they are asked for. A model
server answers its health. Besides, at 127.0.0.1: ``POST /harm`` (names of rollouts whose challengers begin to fail)
and ``GET /seen``.
"""

import argparse
import asyncio
import json
import sys
import time
from http import HTTPStatus
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

from tests.bench_controller.places import ACTIVE, Rollout, who
from tests.bench_controller.traffic import Journal, Traffic


class Answer(NamedTuple):
    """To one request."""

    status: int
    body: bytes = b""
    headers: str = ""


class Router:
    """One router: the table it holds, and its journals. ``zero_at``: since when it sends nobody to the challenger."""

    def __init__(self, rollout: Rollout, ordinal: int, rate: float) -> None:
        self.rollout, self.name = rollout, rollout.pod(ordinal)
        self.table: dict[str, Any] | None = None
        self._text = b""
        self.traffic: Traffic | None = None
        if rollout.kind == ACTIVE:
            self.traffic = Traffic(self.name, rate, rollout.number * 64 + ordinal)
        self.harmed_at: float | None = None
        self.zero_at: float | None = None

    @property
    def generation(self) -> int:
        if self.table is None:
            # A rollout that is over had its table in an earlier life of the controller.
            return -1 if self.rollout.kind == ACTIVE else 1
        return int(self.table["generation"])

    def state(self) -> bytes:
        worker = {"worker": "w0", "generation": self.generation}
        return json.dumps({"router": self.name, "generation": self.generation, "workers": [worker]}).encode()

    def put(self, body: bytes) -> Answer:
        if body != self._text:
            table = json.loads(body)
            if table["generation"] <= self.generation and self.table is not None:
                return Answer(409, b'{"error": "an older generation"}')
            if self.traffic is not None:
                self.traffic.catch_up(self.table)
            self.table, self._text = table, body
            if self.harmed_at is not None and self.zero_at is None and table["weight_bp"] == 0:
                self.zero_at = time.time()
        return Answer(200, self.state())

    def journals(self) -> dict[str, Journal]:
        if self.traffic is None:
            return {}
        return {journal.name: journal for journal in (self.traffic.exposures, self.traffic.outcomes)}

    def listed(self) -> bytes:
        if self.traffic is not None:
            self.traffic.catch_up(self.table)
        found = [{"journal": j.name, "files": [{"file": 0, "size": j.size}]} for j in self.journals().values()]
        return json.dumps(found).encode()

    def read(self, name: str, query: dict[str, list[str]]) -> Answer:
        journal = self.journals().get(name)
        if journal is None:
            return Answer(404)
        offset = int(query["offset"][0])
        body = journal.read(offset, int(query["limit"][0]))
        if body is None:
            return Answer(416)
        return Answer(200, body, f"x-journal-file: 0\r\nx-journal-offset: {offset + len(body)}\r\n")

    def acknowledged(self, body: bytes) -> Answer:
        for name, place in json.loads(body or b"{}").items():
            self.journals()[name].forget(place["offset"])
        return Answer(204)

    def harm(self) -> None:
        if self.traffic is not None and self.harmed_at is None:
            self.traffic.catch_up(self.table)
            self.traffic.harmed, self.harmed_at = True, time.time()


class Routers:
    """All of them, by address, each made when it is first asked. ``rate``: requests a second at one router."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._routers: dict[str, Router] = {}
        self.calls: dict[str, int] = {}

    def answer(self, address: str, method: str, target: str, body: bytes) -> Answer:
        url = urlsplit(target)
        path = url.path
        if path in ("/harm", "/seen"):
            return self._told(body) if method == "POST" else self._seen()
        if path == "/health":
            return Answer(200, b'{"status": "ok"}')
        if path == "/version":
            return Answer(200, b"{}")
        router = self._routers.get(address)
        if router is None:
            found = who(address)
            if found is None:
                return Answer(404)
            router = self._routers[address] = Router(*found, self._rate)
        said = "/".join(path.split("/")[:3])
        self.calls[f"{method} {said}"] = self.calls.get(f"{method} {said}", 0) + 1
        match method, said:
            case "GET", "/v1/state":
                return Answer(200, router.state())
            case "PUT", "/v1/table":
                return router.put(body)
            case "GET", "/v1/journals" if path == said:
                return Answer(200, router.listed())
            case "GET", "/v1/journals":
                return router.read(path.rpartition("/")[2], parse_qs(url.query))
            case "PUT", "/v1/readers":
                return router.acknowledged(body)
            case "DELETE", "/v1/readers":
                return Answer(204)
        return Answer(404)

    def _told(self, body: bytes) -> Answer:
        names = set(json.loads(body))
        for router in self._routers.values():
            if router.rollout.name in names:
                router.harm()
        return Answer(200, b"{}")

    def _seen(self) -> Answer:
        harmed = [r for r in self._routers.values() if r.harmed_at is not None]
        times = [{"rollout": r.rollout.name, "harmed_at": r.harmed_at, "zero_at": r.zero_at} for r in harmed]
        busy = [r.traffic for r in self._routers.values() if r.traffic is not None]
        requests, failures = sum(t.requests for t in busy), sum(t.failures for t in busy)
        told = {"times": times, "calls": self.calls, "requests": requests, "failures": failures}
        return Answer(200, json.dumps(told).encode())


class Connection(asyncio.Protocol):
    """HTTP/1.1 with keep-alive, requests one after the other."""

    def __init__(self, routers: Routers) -> None:
        self._routers, self._rest = routers, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        if not transport.get_extra_info("peername")[0].startswith("127."):  # only the wildcard takes all of 127/8
            transport.abort()
        self._address: str = transport.get_extra_info("sockname")[0]

    def data_received(self, data: bytes) -> None:
        self._rest += data
        while True:
            head, found, rest = self._rest.partition(b"\r\n\r\n")
            if not found:
                return
            lines = head.decode("latin-1").split("\r\n")
            length = next((int(x[15:]) for x in lines if x[:15].lower() == "content-length:"), 0)
            if len(rest) < length:
                return
            self._rest = rest[length:]
            method, target, _ = lines[0].split(" ")
            said = self._routers.answer(self._address, method, target, rest[:length])
            sized = "" if said.status == HTTPStatus.NO_CONTENT else f"content-length: {len(said.body)}\r\n"
            first = f"HTTP/1.1 {said.status} {HTTPStatus(said.status).phrase}\r\n{sized}{said.headers}\r\n"
            self._transport.write(first.encode() + said.body)


async def serve(port: int, rate: float) -> None:
    """Until it is ended."""
    routers = Routers(rate)
    server = await asyncio.get_running_loop().create_server(lambda: Connection(routers), "0.0.0.0", port, backlog=4096)
    print("ready", file=sys.stderr, flush=True)
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description="The routers and model servers of the benchmark.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--rate", type=float, required=True, help="requests a second at one router")
    given = parser.parse_args()
    asyncio.run(serve(given.port, given.rate))


if __name__ == "__main__":
    main()
