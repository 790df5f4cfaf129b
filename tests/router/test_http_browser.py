"""A browser's fetch: a page that comes through the router asks through it, from its own origin and from another one."""

import asyncio
import json
import os
import queue
from asyncio import StreamWriter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.kubernetes.leashed import Leashed
from tests.router.models import Model, Request, head_of
from tests.router.planes import running, table
from tests.router.programs import browser
from tests.router.raw import ask

# A program may have to be fetched first.
pytestmark = pytest.mark.timeout(900)

PAGE = b"""<!doctype html><title>page</title><body><script>
const other = "http://localhost:" + location.port;
const json = {"content-type": "application/json"};
const small = '{"inputs": [[1], [2]]}';
const post = (url, options) => fetch(url, {method: "POST", headers: json, body: small, ...options});
const read = async (answer) => [answer.status, await answer.json()];
const text = async (stream) => {
  const reader = stream.getReader(), parts = [];
  for (let next; !(next = await reader.read()).done;) parts.push(new TextDecoder().decode(next.value));
  return parts.join("");
};
const steps = {
  own: async () => {
    const found = [];
    for (let i = 0; i < 20; i++) found.push(await read(await post("/invocations")));
    return found;
  },
  at_once: () => Promise.all([...Array(6)].map(async () => (await read(await post("/invocations")))[0])),
  long: async () => read(await post("/invocations", {body: " ".repeat(3000000) + small})),
  head: async () => (await fetch("/invocations", {method: "HEAD"})).status,
  id: async () => {
    const answer = await post("/invocations", {headers: {...json, "x-request-id": "from-js"}});
    return answer.headers.get("x-request-id");
  },
  stream: async () => text((await fetch("/events")).body),
  events: () => new Promise((done) => {
    const source = new EventSource("/events"), found = [];
    source.onmessage = (event) => { found.push(event.data); if (found.length == 3) { source.close(); done(found); } };
  }),
  left: async () => {
    const leaving = new AbortController(), answer = await fetch("/endless", {signal: leaving.signal});
    await answer.body.getReader().read();
    leaving.abort();
    return answer.status;
  },
  cookie: async () => document.cookie,
  other: async () => read(await post(other + "/invocations", {credentials: "include"})),
  unallowed: async () => read(await post(other + "/unallowed")),
};
(async () => {
  const said = {};
  for (const [name, act] of Object.entries(steps)) {
    try { said[name] = await act(); } catch (error) { said[name] = "failed: " + error.name; }
  }
  fetch("/said", {method: "POST", body: JSON.stringify(said)});
})();
</script>"""
ALLOWED = (
    b"Access-Control-Allow-Origin: http://127.0.0.1:%d\r\nAccess-Control-Allow-Credentials: true\r\n"
    b"Access-Control-Allow-Headers: content-type\r\nAccess-Control-Allow-Methods: POST\r\n"
)
EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


class Site(Model):
    """A model server that has a page as well, and lets the page's origin in when it is asked under another one."""

    router_port = 0

    def __init__(self, arm: str, said: "queue.Queue[dict[str, Any]]") -> None:
        super().__init__(arm)
        self._said = said

    async def _do_good(self, request: Request, writer: StreamWriter, status: bytes = b"200 OK") -> bool:
        method, path, _ = request.line.split(b" ")
        if path == b"/page":
            await self._send(writer, head_of(len(PAGE), kind=b"text/html") + PAGE)
        elif path in (b"/events", b"/endless"):
            await self._send(writer, EVENTS + b"".join(b"9\r\ndata: %d\n\n\r\n" % n for n in (1, 2, 3)))
            while path == b"/endless":
                await self._send(writer, b"9\r\ndata: 4\n\n\r\n")
                await asyncio.sleep(0.02)
            await self._send(writer, b"0\r\n\r\n")
        elif path == b"/said":
            self._said.put(json.loads(request.body))
            await self._send(writer, head_of(0))
        elif method == b"OPTIONS":
            allowed = ALLOWED % self.router_port if path != b"/unallowed" else b""
            await self._send(writer, b"HTTP/1.1 204 No Content\r\n%b\r\n" % allowed)
        elif request.values(b"origin") == [b"http://127.0.0.1:%d" % self.router_port] and path == b"/invocations":
            body = self.prediction(request)
            head = head_of(len(body))[:-2] + ALLOWED % self.router_port + b"\r\n"
            await self._send(writer, head + body)
        else:
            return await super()._do_good(request, writer, status)
        return True


@contextmanager
def opened(url: str, folder: Path) -> Iterator[Leashed]:
    """A browser without a window that looks at a page."""
    program, environment = browser()
    # Without somebody who might debug it, it would end at once.
    command = [
        program, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync",
        "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
        f"--user-data-dir={folder / 'profile'}", "--remote-debugging-port=0", url,
    ]  # fmt: skip
    running = Leashed(command, folder / "log", os.environ | environment)
    try:
        yield running
    finally:
        running.stop()


def test_a_browser(tmp_path: Path) -> None:
    told: queue.Queue[dict[str, Any]] = queue.Queue()
    with Site("champion", told) as champion, Site("challenger", told) as challenger:
        half = {"weight_bp": 5_000, "control_from_bp": 5_000, "unit": {"cookie": "understudy"}}
        split = table(1, champion.address, challenger.address, **half)
        with running(tmp_path / "journal", split) as plane:
            champion.router_port = challenger.router_port = plane.port
            with opened(f"{plane.url}/page", tmp_path) as running_browser:
                try:
                    said = told.get(timeout=100)
                except queue.Empty:
                    pytest.fail(f"the page says nothing; the browser: {running_browser.said()}")
            counts = plane.poll()
            served = sum(number for name, number in counts.items() if name.startswith("requests_total"))
            exposures = plane.exposures(int(served))
    own = said["own"]
    arm = own[0][1]["arm"]
    assert own == [[200, {"predictions": [0.5, 0.5], "arm": arm}]] * 20
    assert said["at_once"] == [200] * 6
    assert said["long"] == own[0]
    assert (said["head"], said["id"], said["left"]) == (200, "from-js", 200)
    assert said["stream"] == "data: 1\n\ndata: 2\n\ndata: 3\n\n"
    assert said["events"] == ["1", "2", "3"]
    assert said["cookie"] == ""
    assert said["other"][0] == 200
    assert said["unallowed"] == "failed: TypeError"
    # One person: the cookie that came with the page is with every request of its own origin. Without a unit are the
    # page itself, both preflights, and what went to the other site, whose cookies a browser does not keep.
    (unit,) = {e.unit for e in exposures} - {None}
    assert unit is not None
    of_unit = [e for e in exposures if e.unit == unit]
    assert {(e.arm, e.assigned_by, e.evidence) for e in of_unit} == {(arm, "hash", True)}
    assert len(exposures) - len(of_unit) == 4
    assert {e.served_by for e in exposures if e.unit is None} == {"champion"}
    assert counts["no_unit_total"] == 4
    assert counts["minted_total"] == 2
    # Connections are kept: six to each of the two names, and one spare.
    assert counts["connections_total"] <= 14 < len(exposures)


def test_a_preflight_is_not_given_a_unit(tmp_path: Path) -> None:
    with Model("champion") as champion, running(tmp_path, table(1, champion.address, unit={"cookie": "u"})) as plane:
        lines = "OPTIONS /invocations HTTP/1.1\r\nHost: r\r\nOrigin: http://x\r\nAccess-Control-Request-Method: POST"
        assert b"set-cookie" not in ask(plane.port, f"{lines}\r\n\r\n".encode()).fields
        assert b"set-cookie" in ask(plane.port, b"GET /invocations HTTP/1.1\r\nHost: r\r\n\r\n").fields
