"""The steps of a small request by themselves, without sockets: microseconds of the processor, least of many.

``python -m tests.bench_router.steps`` prints them as JSON, of the router that it finds.
"""

import asyncio
import itertools
import json
import tempfile
import timeit
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

from router import answers, outgoing
from router.capture import Attempt, Record
from router.heads import Reader, read_request, read_response
from router.journal import Writer
from router.judge import judge
from router.plane import Plane
from router.table import RouteTable
from router.worker_config import WorkerConfig
from tests.bench_router.load import BODY
from tests.bench_router.peers.nginx import ANSWER

_HEAD = (
    b"POST /invocations HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nContent-Type: application/json\r\n"
    b"x-user-id: user-%d\r\nContent-Length: %d\r\n\r\n"
)
_ANSWER_HEAD = (
    b"HTTP/1.1 200 OK\r\nServer: nginx\r\nContent-Type: application/json\r\nContent-Length: %d\r\n"
    b"Connection: keep-alive\r\n\r\n"
)
_TABLE = {
    "generation": 1, "rollout": "bench", "salt": "s/1", "weight_bp": 500, "unit": {"header": "x-user-id"},
    "champion": {"version": "1", "upstreams": ["127.0.0.1:1"]},
    "challenger": {"version": "2", "upstreams": ["127.0.0.1:1"]},
}  # fmt: skip
_AT_ONCE = 200
_TIMES = 100


def _least(step: Callable[[], object]) -> float:
    return min(timeit.repeat(step, number=_AT_ONCE, repeat=_TIMES)) / _AT_ONCE * 1e6


def _steps(plane: Plane) -> dict[str, Callable[[], object]]:
    routes = plane.routes
    assert routes is not None
    heads = [_HEAD % (user, len(BODY)) for user in (1, 22)]
    in_turn = itertools.cycle(heads)
    body, request_id = ANSWER.encode(), b"0123456789abcdef" * 2
    request = read_request(heads[0])
    request.body = BODY
    forwarded = outgoing.forwarding(request, b"127.0.0.1")
    response = read_response(_ANSWER_HEAD % len(body), to_head=False)
    unit, allotment = routes.allot(request, False)
    reader = Reader()
    text = BODY.decode()

    def judged() -> None:
        request.forget()
        judge(response, body, request)

    def record() -> Record:
        attempt = Attempt(200, 0.001, body, True, to_judge=response)
        return Record(routes, request, request_id, unit, allotment, attempt, 200)

    offered = record()
    event: dict[str, Any] = offered.event()
    request.json()
    return {
        "read a request's head in full": lambda: read_request(heads[0]),
        "read one that is like the one before": lambda: reader.read(next(in_turn)),
        "assign": lambda: routes.allot(request, False),
        "write the request for a server": lambda: outgoing.message(
            request, b"127.0.0.1:1", outgoing.tail(request, request_id, forwarded, None), BODY
        ),
        "wait with a deadline": lambda: (plane.totals.add(request, 0.0), plane.totals.remove(request)),
        "look up an answer's head": lambda: read_response(_ANSWER_HEAD % len(body), to_head=False),
        "judge a challenger's answer": judged,
        "write the answer": lambda: answers.usual(response, body, request_id),
        "record": record,
        "make its line at once": offered.line,
        "journal, otherwise: look for fields to redact": lambda: routes.redactor.redact(text, "application/json", True),
        "journal, otherwise: make the event, that included": offered.event,
        "journal, otherwise: make its line": lambda: orjson.dumps(event, option=orjson.OPT_APPEND_NEWLINE),
    }


def measured(directory: Path) -> dict[str, float]:
    """Microseconds for each step."""
    loop = asyncio.new_event_loop()
    writer = Writer(directory / "steps", "steps-0")
    try:
        plane = Plane(loop, WorkerConfig(router="steps", worker="0", journal_dir=directory / "steps"), writer)
        plane.use(RouteTable.model_validate(_TABLE, strict=False))
        return {name: _least(step) for name, step in _steps(plane).items()}
    finally:
        writer.close()
        loop.close()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measured(Path(folder))))
