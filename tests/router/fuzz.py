"""Random damage to HTTP messages, at the parser and over sockets: ``python -m tests.router.fuzz --help``.

What the router takes for one request, the server behind it has to take for the same one: same method and target,
same fields, same body, and no request more or less. Of an answer's head a second reader makes the same.
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
from router.heads import Reader, Request, Response, read_request, read_response
from router.outgoing import forwarding, message, tail
from router.packed import is_packed
from router.redacted import REDACTED
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


STATUS_LINES = [
    b"HTTP/1.1 200 OK", b"HTTP/1.1 200 OK", b"HTTP/1.1 200 OK", b"HTTP/1.0 200 OK", b"HTTP/1.1 404", b"HTTP/1.1 500 ",
    b"HTTP/1.1 204 No Content", b"HTTP/1.1 304 Not Modified", b"HTTP/1.1 100 Continue", b"HTTP/1.1 103 Early \xff",
]  # fmt: skip
# What answers have and requests mostly do not.
RESPONSE_LINES = [
    b"", b"", b"Content-Length: 5", b"Content-Length: 0", b"Transfer-Encoding: chunked", b"Connection: close",
    b"Connection: keep-alive", b"Connection: Set-Cookie, x-a", b"Set-Cookie: a=b\r\nSet-Cookie: c=d", b"Trailer: T",
    b"X-Request-Id: theirs", b"x-a:1\r\nX-A: \t2 ", b"Proxy-Connection: close", b"X_Request_Id: u",
]  # fmt: skip
# One input in so many is a body with chunks that do not fit into sixteen bits.
LARGE_CHUNKS_ONE_IN = 1_000
# The beginning of a second answer behind the first one.
BEHIND = b"HTTP/1.1 200 "
# Fields of an answer that do not go on to the client.
OF_ONE_HOP = frozenset((
    b"connection", b"content-length", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding",
    b"upgrade", b"x-request-id",
))  # fmt: skip


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
        assert _read_by_h11(body) == read, body
    return True


def _read_by_h11(body: bytes) -> bytes:
    """What h11 reads in a chunked body, which has to be complete."""
    server = h11.Connection(h11.SERVER)
    server.receive_data(b"POST / HTTP/1.1\r\nHost: r\r\nTransfer-Encoding: chunked\r\n\r\n" + body)
    assert isinstance(server.next_event(), h11.Request)
    found = []
    while isinstance(event := server.next_event(), h11.Data):
        found.append(event.data)
    assert isinstance(event, h11.EndOfMessage), body[-100:]
    return b"".join(found)


def check_large_chunks(chance: random.Random) -> bool:
    """A body with chunks that do not fit into sixteen bits is read as it was meant, in any pieces, and by h11 too."""
    sizes = [chance.choice((0xFFFF, 0x1_0000, 0x1_0001, chance.randrange(0x1_0000, 0x4_0000))) for _ in range(2)]
    parts = [chance.randbytes(size) for size in (*sizes, chance.randrange(1, 100))]
    chance.shuffle(parts)
    body = b"".join(chance.choice((b"%x", b"%X", b"%08x")) % len(part) + b"\r\n" + part + b"\r\n" for part in parts)
    body += b"0\r\n\r\n"
    reader, read, at = ChunkedBody(), [], 0
    while at < len(body):
        end = at + chance.choice((1, 5_000, 0x1_0000, len(body)))
        read.append(reader.feed(body[at:end]))
        at = end
    assert reader.done, sizes
    assert reader.rest == b"", sizes
    assert b"".join(read) == b"".join(parts), sizes
    assert _read_by_h11(body) == b"".join(parts), sizes
    return True


def check_response(data: bytes, chance: random.Random) -> bool:
    """A response's head is read as h11 reads it as a client, or refused. False where it was refused."""
    line, _, rest = data.partition(b"\r\n")
    more = chance.choice(RESPONSE_LINES)
    head = chance.choice(STATUS_LINES) + b"\r\n" + more + b"\r\n" * bool(more) + rest[: rest.find(b"\r\n\r\n") + 4]
    if not line:
        head = data
    to_head = chance.random() < 0.1
    try:
        response = read_response(head, to_head=to_head)
    except Refused:
        return False
    client = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
    client.send(h11.Request(method="HEAD" if to_head else "GET", target="/", headers=[("Host", "r")]))
    client.send(h11.EndOfMessage())
    client.receive_data(head)
    read = client.next_event()
    assert isinstance(read, h11.Response | h11.InformationalResponse), (head, read)
    assert read.status_code == response.status, head
    joined: dict[bytes, bytes] = {}
    for name, value in read.headers:
        joined[name] = joined[name] + (b"; " if name == b"cookie" else b", ") + value if name in joined else value
    # h11 drops blanks behind a value, and writes the coding in small letters.
    ours = {name: value.rstrip(b" \t") for name, value in response.fields.items()}
    if b"transfer-encoding" in ours:
        ours[b"transfer-encoding"] = ours[b"transfer-encoding"].lower()
    assert {name: value.rstrip(b" \t") for name, value in joined.items()} == ours, head
    check_going_on(head, response, list(read.headers))
    if response.status >= 200:
        check_end(head, response, client)
    return True


def check_going_on(head: bytes, response: Response, read: list[tuple[bytes, bytes]]) -> None:
    """The fields that go on to the client are h11's without those of this hop."""
    options = b",".join(value for name, value in read if name == b"connection").lower().split(b",")
    left_out = OF_ONE_HOP.union(option.strip(b" \t") for option in options)
    lines = (line.partition(b":") for line in response.lines.split(b"\r\n")[:-1])
    going = [(name.lower(), value.strip(b" \t")) for name, _, value in lines]
    assert going == [(name, value) for name, value in read if name not in left_out], head


def check_end(head: bytes, response: Response, client: h11.Connection) -> None:
    """The body ends where h11 sees its end, and so does the connection."""
    said = b"x" * min(response.length, 100) if response.length >= 0 else b"abc"
    sent = b"3\r\nabc\r\n0\r\n\r\n" if response.length == -1 else said
    ends = response.length in (-2, -1) or response.length <= 100
    client.receive_data(sent + BEHIND if ends and response.length != -2 else sent)
    if response.length == -2:
        client.receive_data(b"")
    found = b""
    while isinstance(event := client.next_event(), h11.Data):
        found += event.data
    assert found == said, (head, event)
    if not ends:
        assert event is h11.NEED_DATA, (head, event)
        return
    assert isinstance(event, h11.EndOfMessage), (head, event)
    if response.length == -2:
        assert response.close, head
        return
    assert client.trailing_data == (BEHIND, False), head
    options = {option.strip(b" \t") for option in response.fields.get(b"connection", b"").lower().split(b",")}
    # h11 keeps no connection to a server of HTTP/1.0, also where that offers it.
    offered = head.startswith(b"HTTP/1.0") and b"keep-alive" in options and b"close" not in options
    assert response.close == (client.their_state is not h11.DONE and not offered), head


def fuzz_parser(number: int, seed: int, seconds: float = 1e9) -> dict[str, int]:
    """So many damaged messages through the readers, or as many as the seconds allow."""
    chance = random.Random(seed)
    counts = {"inputs": 0, "heads": 0, "chunks": 0, "large": 0, "responses": 0}
    deadline = time.monotonic() + seconds
    while counts["inputs"] < number and time.monotonic() < deadline:
        data = damaged(chance)
        counts["inputs"] += 1
        try:
            counts["heads"] += check_head(data)
            counts["chunks"] += check_chunks(data, chance)
            counts["responses"] += check_response(data, chance)
            if counts["inputs"] % LARGE_CHUNKS_ONE_IN == 0:
                counts["large"] += check_large_chunks(chance)
        except (Refused, h11.ProtocolError) as error:
            # Neither finds its way from one process to another.
            raise AssertionError(f"one reader alone refuses: {error!r}", data) from error
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
                read = sorted((r.values(b"x-request-id")[0].decode(), written(r.body)) for r in champion.requests)
                assert recorded == read
                assert all(len(r.values(b"host")) == 1 for r in champion.requests)


def written(body: bytes) -> str:
    """A body as it is recorded: what is no text is withheld, whatever is declared."""
    text = body.decode("utf-8", "replace")
    return REDACTED if is_packed(text) else text


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
