"""The grammar of messages by itself: what is read is read in one way only."""

import sys
import tracemalloc

import pytest

from router.errors import Refused
from router.framing import ChunkedBody, body_length
from router.heads import Reader, read_request, read_response
from tests.router.fuzz import check_alike, check_outgoing, fuzz_parser


def test_random_damage_leaves_nothing_that_another_reader_reads_differently() -> None:
    counts = fuzz_parser(20_000, seed=3)
    assert counts["inputs"] == 20_000
    # Enough of each kind went through for the comparison to mean something.
    assert counts.pop("large") == 20
    assert min(counts.values()) > 1_000


@pytest.mark.parametrize("value", [b"", b"-1", b"+1", b"1.0", b"0x1", b"1_0", b"\xb2", b"9" * 19, b"1,1", b"1 1"])
def test_a_length_is_decimal_digits_only(value: bytes) -> None:
    with pytest.raises(Refused):
        body_length(value)


def test_a_chunked_body_ends_where_it_ends() -> None:
    body = ChunkedBody()
    assert body.feed(b"3\r\nabc\r\n0\r\n\r\nGET / HTTP/1.1\r\n") == b"abc"
    assert (body.done, body.rest) == (True, b"GET / HTTP/1.1\r\n")


def test_a_body_is_read_in_turns_for_its_many_chunks_and_not_for_its_line_ends() -> None:
    lines = b"1.25,3,7\n" * 4_000
    large = b"%x\r\n%b\r\n" % (len(lines), lines)
    small = b"1\r\n\n\r\n" * 500
    assert not ChunkedBody().crumbs(large * 3 + small[: 6 * 200])
    assert ChunkedBody().crumbs(small)
    assert ChunkedBody().crumbs(large + small)
    # Wherever it is cut: in a size, in data, behind them.
    for cut in range(30):
        body = ChunkedBody()
        body.feed((large + small)[: len(large) - 15 + cut])
        assert body.crumbs((large + small)[len(large) - 15 + cut :])
        body = ChunkedBody()
        body.feed((large * 2)[: len(large) - 15 + cut])
        assert not body.crumbs((large * 2)[len(large) - 15 + cut :])


def test_what_goes_on_is_what_was_read() -> None:
    head = (
        b"POST /a?b HTTP/1.1\r\nHost: r\r\nX-Odd:  spaced \t \r\nX-Empty:\r\nX-8: \xff\xfe\r\nContent-Length: 2\r\n\r\n"
    )
    request = read_request(head)
    request.body = b"{}"
    check_outgoing(request)
    assert request.fields[b"x-8"] == b"\xff\xfe"


def test_long_names_of_fields_are_not_kept() -> None:
    """Who makes them up could fill the memory of a worker with them."""
    tracemalloc.start()
    try:
        for number in range(100):
            name = b"X-%d-" % number + b"a" * 30_000
            read_request(b"GET / HTTP/1.1\r\nHost: r\r\n" + name + b": 1\r\n\r\n")
            read_response(b"HTTP/1.1 200 OK\r\n" + name + b": 1\r\nContent-Length: 0\r\n\r\n", to_head=False)
        assert tracemalloc.get_traced_memory()[0] < 500_000
    finally:
        tracemalloc.stop()


SEED = b"POST /invocations HTTP/1.1\r\nHost: r\r\nX-Unit: u\r\nContent-Length: 17\r\n\r\n"


@pytest.mark.parametrize(
    "line",
    [
        b"X-Unit: user-2", b"X-Unit: two words", b"X-Unit: ", b"X-Unit:", b"X-Unit:u", b"X-Unit:  u", b"X-Unit: u ",
        b"X-Unit: \tu", b"X-Unit: u\tv", b"X-Unit: \xc3\xa4", b"X-Unit: a\0b", b"X-Unit: a\nb", b"X-Unit: a\rb",
        b"X-Unit: \x7f", b"x-unit: v", b"X-Unit : v", b"X-Unix: v", b"Content-Length: 9", b"Transfer-Encoding: chunked",
    ],
)  # fmt: skip
def test_a_head_reads_the_same_behind_one_like_it(line: bytes) -> None:
    check_alike(SEED.replace(b"X-Unit: u", line))


@pytest.mark.parametrize(
    "value", [b"0", b"018", b"+1", b"1 ", b" 1", b"1 1", b"0x1", b"", b"9" * 18, b"9" * 19, b"\xb2"]
)
def test_a_length_reads_the_same_behind_another(value: bytes) -> None:
    check_alike(SEED.replace(b"17", value))


def test_a_reader_follows_what_differs() -> None:
    reader = Reader()
    reader.read(SEED)
    request = reader.read(SEED.replace(b"X-Unit: u", b"X-Unit: v").replace(b"17", b"18"))
    assert (request.fields[b"x-unit"], request.lines, request.length) == (b"v", [b"X-Unit: v"], 18)
    request = reader.read(SEED)
    assert (request.fields[b"x-unit"], request.lines, request.length) == (b"u", [b"X-Unit: u"], 17)


def test_a_reader_holds_no_body_of_a_request_that_is_over() -> None:
    reader = Reader()
    for head in (SEED, SEED.replace(b"17", b"18")):
        request = reader.read(head)
        request.body = body = b"%d" % len(head) * 17
        del request
        # Here, and where it is counted.
        assert sys.getrefcount(body) == 2


@pytest.mark.parametrize(
    ("head", "length", "close"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n", 7, False),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n", -1, False),
        (b"HTTP/1.1 200 OK\r\n\r\n", -2, True),
        (b"HTTP/1.1 200\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", 0, True),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 7\r\n\r\n", 7, True),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 7\r\nConnection: keep-alive\r\n\r\n", 7, False),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 0, False),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n", 0, False),
    ],
)
def test_the_framing_of_a_response(head: bytes, length: int, close: bool) -> None:
    # The second time it may come from memory.
    for _ in range(2):
        response = read_response(head, to_head=False)
        assert (response.length, response.close) == (length, close)
    assert read_response(head, to_head=True).length == 0
