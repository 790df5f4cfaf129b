"""Steady traffic with outcomes, as an application would make it: every answer is judged, every outcome is retried."""

import http.client
import json
import random
import ssl
import threading
import time
from functools import partial
from typing import NamedTuple
from urllib.parse import urlsplit

from tests.meanwhile import Meanwhile


class Trouble(NamedTuple):
    """A request that a user saw fail, from when to when (seconds since the epoch). ``status`` 0: no answer at all."""

    began: float
    at: float
    status: int
    body: str


class Traffic(Meanwhile):
    """``threads`` clients, together ``rate`` requests a second, from ``units`` users; outcomes follow at once.

    Each answered request gets a ``label``, 1 with the probability that the champion predicts, and every second one
    a ``click`` of its unit. ``tls``: for a control API with https.
    """

    def __init__(
        self, traffic: str, control: str, seed: int, rate: float = 150.0, threads: int = 4, units: int = 4000,
        tls: ssl.SSLContext | None = None,
    ):  # fmt: skip
        self._traffic, self._control, self._tls = urlsplit(traffic), urlsplit(control), tls
        self._rate, self._units = rate / threads, units
        super().__init__(*(partial(self._drive, index) for index in range(threads)))
        self._lock = threading.Lock()
        self._seed = seed
        self.sent = 0
        self.answered = 0
        self.troubles: list[Trouble] = []
        self.acknowledged: set[str] = set()
        self.by_version: dict[str, int] = {}

    def _drive(self, index: int) -> None:
        chance = random.Random(f"{self._seed}/{index}")
        requests, outcomes = _Client(self._traffic.netloc), _Client(self._control.netloc, self._tls)
        waiting: list[dict[str, object]] = []
        turn, began, flushed = 0, time.monotonic(), 0.0
        while not self._end.is_set():
            turn += 1
            unit, x = f"u{chance.randrange(self._units)}", chance.random()
            identity = f"{self._seed}-{index}-{turn}"
            label = int(chance.random() < (0.2 if x < 0.5 else 0.8))
            if self._request(requests, unit, x, identity):
                moment = time.time_ns() // 1000
                of_request = {"request_id": identity, "name": "label", "value": label}
                waiting.append({"outcome_id": identity, "t": moment, **of_request})
                if chance.random() < 0.5:
                    waiting.append({"outcome_id": f"{identity}-c", "t": moment, "unit": unit, "name": "click"})
            if waiting and time.monotonic() - flushed > 0.2:
                flushed = time.monotonic()
                waiting = self._deliver(outcomes, waiting)
            self._end.wait(max(0.0, began + turn / self._rate - time.monotonic()))
        end = time.monotonic() + 10
        while waiting and time.monotonic() < end:
            waiting = self._deliver(outcomes, waiting)

    def _request(self, client: "_Client", unit: str, x: float, identity: str) -> bool:
        body = json.dumps({"dataframe_split": {"columns": ["x"], "data": [[x]]}}).encode()
        began = time.time()
        status, answer = client.post("/invocations", body, {"x-unit-id": unit, "x-request-id": identity})
        usable = False
        if status == 200:
            try:
                usable = 0.0 <= json.loads(answer)["predictions"][0] <= 1.0
            except (ValueError, KeyError, IndexError, TypeError):
                usable = False
        with self._lock:
            self.sent += 1
            self.answered += usable
            if not usable:
                self.troubles.append(Trouble(began, time.time(), status, answer[:200].decode(errors="replace")))
        return usable

    def _deliver(self, client: "_Client", waiting: list[dict[str, object]]) -> list[dict[str, object]]:
        batch, rest = waiting[:500], waiting[500:]
        status, _ = client.post("/v1/outcomes", json.dumps({"outcomes": batch}).encode(), {})
        if status != 202:
            return waiting
        with self._lock:
            self.acknowledged.update(str(outcome["outcome_id"]) for outcome in batch)
        return rest


class _Client:
    """One kept connection; a request that meets a closed one is sent again once, as every HTTP client does."""

    def __init__(self, place: str, tls: ssl.SSLContext | None = None) -> None:
        self._place, self._tls = place, tls
        self._connection: http.client.HTTPConnection | None = None

    def _new(self) -> http.client.HTTPConnection:
        if self._tls is None:
            return http.client.HTTPConnection(self._place, timeout=10)
        return http.client.HTTPSConnection(self._place, timeout=10, context=self._tls)

    def post(self, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
        kept = self._connection is not None
        for attempt in (1, 2):
            if self._connection is None:
                self._connection = self._new()
            try:
                self._connection.request("POST", path, body, {"content-type": "application/json", **headers})
                answer = self._connection.getresponse()
                return answer.status, answer.read()
            except (OSError, http.client.HTTPException) as error:
                self._connection.close()
                self._connection = None
                if not kept or attempt == 2:
                    return 0, str(error).encode()
        return 0, b""
