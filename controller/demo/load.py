"""The passengers of the demo: flights sent as requests at a constant rate, and their labels when they really land.

The clock of the demo is driven by the requests: when the flight with departure time d is sent, it is d. A flight's
label is posted when the clock passes its true arrival. Wall time between the two is what the departures in between
take at the chosen rate, so labels are late, out of order and never early, as in life.
"""

import asyncio
import heapq
import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import orjson

from controller.demo.flights import Flight, request_body

CONNECTIONS = 16
DEADLINE_S = 35.0
OUTCOME_BATCH_S = 0.2
RETRIES = 20


@dataclass
class Tally:
    """What the clients saw. ``errors`` counts answers that a user could not have used, with the first few reasons."""

    sent: int = 0
    answered: int = 0
    errors: int = 0
    labels: int = 0
    behind_s: float = 0.0
    reasons: list[str] = field(default_factory=list)

    def failed(self, reason: str) -> None:
        """One more answer that no user could use."""
        self.errors += 1
        if len(self.reasons) < 5:
            self.reasons.append(reason)


class Client:
    """One keep-alive connection to the router."""

    def __init__(self, host: str, port: int) -> None:
        self._address = (host, port)
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def predict(self, flight: Flight, headers: str = "") -> tuple[int, bytes]:
        """Status and body of the answer to one flight."""
        body = request_body(flight)
        head = (
            f"POST /invocations HTTP/1.1\r\nHost: {self._address[0]}\r\nContent-Type: application/json\r\n"
            f"X-Unit-Id: {flight.request_id}\r\nX-Request-Id: {flight.request_id}\r\n{headers}"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        if self._streams is None:
            self._streams = await asyncio.open_connection(*self._address)
        reader, writer = self._streams
        writer.write(head.encode() + body)
        status, fields = _head(await reader.readuntil(b"\r\n\r\n"))
        answer = await _body(reader, fields)
        if fields.get("connection", "").lower() == "close":
            self.close()
        return status, answer

    def close(self) -> None:
        """Give the connection up; the next request opens another."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


def _head(raw: bytes) -> tuple[int, dict[str, str]]:
    lines = raw.decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines[1:] if line)
    return int(lines[0].split(" ", 2)[1]), {k.strip().lower(): v.strip() for k, _, v in pairs}


async def _body(reader: asyncio.StreamReader, fields: dict[str, str]) -> bytes:
    if fields.get("transfer-encoding", "").lower() != "chunked":
        return await reader.readexactly(int(fields.get("content-length", "0")))
    parts = []
    while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
        parts.append(await reader.readexactly(size))
        await reader.readexactly(2)
    await reader.readuntil(b"\r\n")
    return b"".join(parts)


def unusable(status: int, body: bytes) -> str | None:
    """Why a user could not use this answer; None where it is one finite probability."""
    if not 200 <= status < 300:
        return f"status {status}: {body[:120]!r}"
    try:
        predictions: Any = orjson.loads(body)["predictions"]
        good = len(predictions) == 1 and math.isfinite(predictions[0])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        good = False
    return None if good else f"not one finite prediction: {body[:120]!r}"


class Passengers:
    """Sends flights until they are used up or ``over`` says so, and labels as they land."""

    def __init__(self, traffic: tuple[str, int], control: str, rate: float, over: Callable[[], bool]) -> None:
        self.tally = Tally()
        self.clock = 0
        self._traffic, self._control, self._rate, self._over = traffic, control, rate, over
        self._landing: list[tuple[int, str, bool]] = []
        self._done = False

    async def run(self, flights: Iterable[Flight]) -> Tally:
        """Drive the demo; returns when every answer and every label that was due is in."""
        feed = enumerate(flights)
        started = time.monotonic()
        async with asyncio.TaskGroup() as group:
            labels = group.create_task(self._post_labels())
            senders = [group.create_task(self._send(feed, started)) for _ in range(CONNECTIONS)]
            await asyncio.gather(*senders)
            self._done = True
            await labels
        return self.tally

    async def _send(self, feed: Iterator[tuple[int, Flight]], started: float) -> None:
        client = Client(*self._traffic)
        for number, flight in feed:
            if self._over():
                break
            wait = started + number / self._rate - time.monotonic()
            if wait > 0:
                await asyncio.sleep(wait)
            else:
                self.tally.behind_s = max(self.tally.behind_s, -wait)
            self.clock = max(self.clock, flight.departed)
            await self._one(client, flight)
        client.close()

    async def _one(self, client: Client, flight: Flight) -> None:
        self.tally.sent += 1
        try:
            async with asyncio.timeout(DEADLINE_S):
                status, body = await client.predict(flight)
        except (OSError, ValueError, TimeoutError, asyncio.IncompleteReadError) as error:
            client.close()
            self.tally.failed(f"{type(error).__name__}: {error}")
            return
        self.tally.answered += 1
        reason = unusable(status, body)
        if reason is not None:
            self.tally.failed(reason)
        if flight.arrived is not None and flight.late is not None:
            heapq.heappush(self._landing, (flight.arrived, flight.request_id, flight.late))

    async def _post_labels(self) -> None:
        async with httpx.AsyncClient(base_url=self._control, timeout=10.0) as http:
            while True:
                last = self._done
                batch = [self._label() for _ in itertools.takewhile(self._landed, itertools.repeat(None))]
                if batch:
                    await self._post(http, batch)
                if last:
                    return
                await asyncio.sleep(OUTCOME_BATCH_S)

    def _landed(self, _: object) -> bool:
        return bool(self._landing) and self._landing[0][0] <= self.clock

    def _label(self) -> dict[str, Any]:
        _, request, late = heapq.heappop(self._landing)
        now = time.time_ns() // 1000
        return {"outcome_id": f"late-{request}", "request_id": request, "name": "late", "value": int(late), "t": now}

    async def _post(self, http: httpx.AsyncClient, batch: list[dict[str, Any]]) -> None:
        """Deliver a batch; its ids make a repeat harmless, so anything but a 202 is tried again."""
        for attempt in range(RETRIES):
            try:
                answer = await http.post("/v1/outcomes", json={"outcomes": batch})
            except httpx.HTTPError:
                answer = None
            if answer is not None and answer.status_code == httpx.codes.ACCEPTED:
                self.tally.labels += len(batch)
                return
            if answer is not None and answer.is_client_error:
                raise RuntimeError(f"the outcomes API refused the labels: {answer.status_code} {answer.text[:300]}")
            await asyncio.sleep(min(0.1 * 2**attempt, 2.0))
        raise RuntimeError("the outcomes API did not accept the labels")
