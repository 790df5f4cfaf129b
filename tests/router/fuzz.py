"""Random damage to HTTP messages, at the parser and over sockets: ``python -m tests.router.fuzz --help``.

What the router takes for one request, the server behind it has to take for the same one: same method and target,
same fields, same body, and no request more or less.
"""

import argparse
import concurrent.futures
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import h11

from router.errors import Refused
from router.framing import ChunkedBody
from router.heads import Reader, Request, read_request, read_response
from router.outgoing import forwarding, message, tail
from tests.router.models import Model
from tests.router.planes import running, table
from tests.router.raw import Raw

WORKER_INPUTS = 2_000
PIECES = [
    b"Content-Length: 5", b"Content-Length: 0", b"Content-Length: 99999999", b"Transfer-Encoding: chunked",
    b"Transfer-Encoding:chunked", b"transfer-encoding: Chunked", b"Connection: close", b"Connection: X-Unit",
    b"Expect: 100-continue", b"Upgrade: h2c", b"Host: other", b"X-Unit: u", b"GET /s HTTP/1.1", b"HTTP/1.0",
    b"0\r\n\r\n", b"5\r\nabcde\r\n", b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b";", b",", b"\x0b", b"\x7f",
    b"\xff", b"\r\n ", b"\r\n\t", b"\r\n\r\n", b"/", b"*", b"#", b"http://x/", b"_", b"-", b"0x", b"+",
]  # fmt: skip
SEEDS = [
    b'POST /invocations HTTP/1.1\r\nHost: r\r\nX-Unit: u\r\nContent-Length: 17\r\n\r\n{"inputs": [[1]]}',
    b"POST /a HTTP/1.1\r\nHost: r\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n3;x=y\r\nfgh\r\n0\r\nT: 1\r\n\r\n",
    b"GET /b?c=d HTTP/1.1\r\nHost: r\r\nAccept: */*\r\nCookie: a=b; c=d\r\n\r\n",
    b"POST /c HTTP/1.0\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\n{}",
    b"HEAD / HTTP/1.1\r\nHost: r\r\nConnection: keep-alive, X-A\r\nX-A: 1\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: r\r\n\r\n",
    b"POST /d HTTP/1.1\r\nHost: r\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\nx",
]


def damaged(chance: random.Random) -> bytes:
    """One or two messages, with a few pieces inserted, removed, doubled or replaced."""
    data = chance.choice(SEEDS)
    if chance.random() < 0.3:
        data += chance.choice(SEEDS)
    for _ in range(chance.choice((0, 1, 1, 1, 2, 3, 6))):
        at = chance.randrange(len(data) + 1)
        end = min(len(data), at + chance.choice((0, 0, 1, 1, 2, 8)))
        lines = [n for n in range(len(data)) if data.startswith(b"\r\n", n)]
        match chance.randrange(4):
            case 0 if lines:
                at = chance.choice(lines)
                data = data[:at] + b"\r\n" + chance.choice(PIECES) + data[at:]
            case 1:
                data = data[:at] + data[end:]
            case 2:
                data = data[:end] + data[at:]
            case _:
                data = data[:at] + chance.choice(PIECES) + data[end:]
        if not data:
            return b"\r\n"
    return data


def check_head(data: bytes) -> bool:
    """Read a head as the router does; what it makes of it is what h11 makes of it. False where it was refused."""
    head = data[: data.find(b"\r\n\r\n") + 4]
    check_alike(head)
    try:
        request = read_request(head)
    except Refused:
        return False
    body = b"x" * min(max(request.length, 0), 100)
    request.body = body
    check_outgoing(request)
    return True


def check_alike(head: bytes) -> None:
    """Behind a head that is like it, a head is read as it is by itself."""
    for seed in SEEDS:
        if seed[:6] != head[:6]:
            continue
        reader = Reader()
        reader.read(seed[: seed.find(b"\r\n\r\n") + 4])
        assert _read_by(reader.read, head) == _read_by(read_request, head), (seed, head)


def _read_by(read: Callable[[bytes], Request], head: bytes) -> object:
    try:
        request = read(head)
    except Refused as refused:
        return refused.status
    return (
        request.method,
        request.target,
        request.http10,
        request.lines,
        request.fields,
        request.length,
        request.close,
    )


def check_outgoing(request: Request) -> None:
    """What goes on has one reading: h11's is ours."""
    sent = message(request, b"up:1", tail(request, b"id", forwarding(request, b"127.0.0.1"), None), request.body)
    server = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    server.receive_data(sent)
    read = server.next_event()
    assert isinstance(read, h11.Request), (sent, read)
    assert (read.method, read.target) == (request.method, request.target), sent
    names = [name for name, _ in read.headers]
    assert names.count(b"host") == 1, sent
    assert names.count(b"content-length") <= 1, sent
    assert b"transfer-encoding" not in names, sent
    # h11 reads HTTP/1.0 and Connection as we do: neither goes on.
    assert b"connection" not in names, sent
    body = b""
    while isinstance(event := server.next_event(), h11.Data):
        body += event.data
    assert isinstance(event, h11.EndOfMessage), (sent, event)
    assert body == request.body, sent
    assert server.trailing_data == (b"", False), sent


def check_chunks(data: bytes, chance: random.Random) -> bool:
    """A chunked body reads the same in any pieces, and as h11 reads it. False where it was refused."""
    body = data[data.find(b"\r\n\r\n") + 4 :]
    whole = ChunkedBody()
    try:
        read = whole.feed(body)
    except Refused:
        return False
    pieces, parts, at = ChunkedBody(), [], 0
    while at < len(body):
        end = at + chance.randrange(1, 6)
        if pieces.done:
            break
        parts.append(pieces.feed(body[at:end]))
        at = end
    assert b"".join(parts) == read, body
    assert pieces.done == whole.done, body
    if whole.done:
        server = h11.Connection(h11.SERVER)
        server.receive_data(b"POST / HTTP/1.1\r\nHost: r\r\nTransfer-Encoding: chunked\r\n\r\n" + body)
        assert isinstance(server.next_event(), h11.Request)
        found = b""
        while isinstance(event := server.next_event(), h11.Data):
            found += event.data
        assert isinstance(event, h11.EndOfMessage), body
        assert found == read, body
    return True


def check_response(data: bytes) -> bool:
    """A response's head is read or refused, never anything else."""
    line, _, rest = data.partition(b"\r\n")
    head = b"HTTP/1.1 200 OK\r\n" + rest[: rest.find(b"\r\n\r\n") + 4]
    try:
        read_response(head if line else data, to_head=False)
    except Refused:
        return False
    return True


def fuzz_parser(number: int, seed: int, seconds: float = 1e9) -> dict[str, int]:
    """So many damaged messages through the readers, or as many as the seconds allow."""
    chance = random.Random(seed)
    counts = {"inputs": 0, "heads": 0, "chunks": 0, "responses": 0}
    deadline = time.monotonic() + seconds
    while counts["inputs"] < number and time.monotonic() < deadline:
        data = damaged(chance)
        counts["inputs"] += 1
        counts["heads"] += check_head(data)
        counts["chunks"] += check_chunks(data, chance)
        counts["responses"] += check_response(data)
    return counts


def fuzz_parser_in_parallel(number: int, seed: int, seconds: float, processes: int) -> dict[str, int]:
    """The same shared by processes, each with seeds of its own; one that fails names its seed."""
    shares = [number // processes + (part < number % processes) for part in range(processes)]
    with concurrent.futures.ProcessPoolExecutor(processes) as pool:
        parts = [pool.submit(fuzz_parser, share, seed * 1_000 + n, seconds) for n, share in enumerate(shares)]
        counts: dict[str, int] = {}
        for n, part in enumerate(parts):
            try:
                found = part.result()
            except BaseException:
                print(f"failed with seed {seed * 1_000 + n}", file=sys.stderr)
                raise
            counts = {name: counts.get(name, 0) + value for name, value in found.items()}
    return counts


def fuzz_sockets(directory: Path, number: int, seed: int) -> dict[str, int]:
    """So many damaged messages to real workers, a fresh one after every few thousand."""
    chance = random.Random(seed)
    counts = {"inputs": 0, "served": 0, "refused": 0, "silent": 0}
    while counts["inputs"] < number:
        _fuzz_worker(directory / str(counts["inputs"]), min(WORKER_INPUTS, number - counts["inputs"]), chance, counts)
    return counts


def _fuzz_worker(directory: Path, number: int, chance: random.Random, counts: dict[str, int]) -> None:
    """The server of a worker has to have read what the worker recorded, one for one."""
    with Model("champion") as champion:
        # What was recorded is compared with what was read, so nothing may be hidden.
        first = table(1, champion.address, capture={"redact_defaults": False})
        with running(directory, first) as plane:
            for begin in range(0, number, 500):
                champion.requests.clear()
                already = len(plane.exposures())
                for _ in range(min(500, number - begin)):
                    counts[send_damaged(plane.port, damaged(chance))] += 1
                    counts["inputs"] += 1
                plane.until(lambda: plane.poll()["client_connections"] == 0, 20)
                told = int(plane.poll()['requests_total{arm="champion"}'])
                found = plane.exposures(told)[already:]
                # A client that left may have left its request without an answer; then nobody sent it on either.
                recorded = sorted((e.request_id, e.inputs) for e in found)
                read = sorted(
                    (r.values(b"x-request-id")[0].decode(), r.body.decode("utf-8", "replace"))
                    for r in champion.requests
                )
                assert recorded == read
                assert all(len(r.values(b"host")) == 1 for r in champion.requests)


def send_damaged(port: int, data: bytes) -> str:
    """Send one damaged message over a connection of its own, wait for all answers, and say what became of it."""
    with Raw(port) as raw:
        raw.send(data)
        raw.socket.shutdown(1)
        said = raw.rest()
    if b"HTTP/1.1 200 " in said:
        return "served"
    return "refused" if said else "silent"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parser", type=int, default=10_000_000, help="inputs at the parser")
    parser.add_argument("--sockets", type=int, default=100_000, help="inputs over sockets")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=1e9, help="end the part at the parser after so long")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="for the part at the parser")
    given = parser.parse_args()
    began = time.monotonic()
    found = fuzz_parser_in_parallel(given.parser, given.seed, given.seconds, given.processes)
    print("parser", found, f"{time.monotonic() - began:.0f} s", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        print("sockets", fuzz_sockets(Path(folder), given.sockets, given.seed))
    sys.exit(0)
