"""Where unit and attributes are found in a request."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.breaker import Breaker
from router.counters import Findings
from router.heads import Request
from router.pool import Backend
from router.redaction import Redactions
from router.routing import Routes
from router.subject import extractor
from router.table import RouteTable, Source
from tests.router.planes import table


def request(body: Any = b"", **fields: str) -> Request:
    made = Request(b"POST", b"/", False, [], {})
    made.body = body if isinstance(body, bytes) else json.dumps(body).encode()
    made.fields = {name.replace("_", "-").encode(): value.encode() for name, value in fields.items()}
    return made


@pytest.mark.parametrize(
    ("unit", "attribute", "kept"),
    [
        ("X-Unit", {"header": "X-Place"}, True),
        ("X-Unit", {"json_pointer": "/a"}, False),
        ("/id", {"header": "X"}, False),
    ],
)
def test_after_a_look_at_a_body_its_tree_is_not_kept(unit: str, attribute: dict[str, str], kept: bool) -> None:
    """Up to thirty times as large as the body, for as long as the request waits, or its mirror."""
    source = {"json_pointer": unit} if unit.startswith("/") else {"header": unit}
    routed = table(1, "127.0.0.1:1", unit=source, attributes=[{"name": "a", "source": attribute}])
    routes = Routes(
        RouteTable.model_validate(routed), Backend("champion", "1", ()), None, Redactions(), Findings(), Breaker()
    )
    made = request({"id": "u7", "a": "b"})
    tree = made.json()
    assert routes.allot(made, stale=False)[0] == ("u7" if unit == "/id" else None)
    assert routes.attributes(made) == ({"a": "b"} if "json_pointer" in attribute else {})
    assert (made.json() is tree) == kept


def find(source: dict[str, str], of: Request) -> str | None:
    return extractor(Source.model_validate(source))(of)


@pytest.mark.parametrize(("nodes", "unit"), [(65_536, "u7"), (65_537, None)])
@pytest.mark.parametrize("node", ["{}", "[]"])
def test_json_of_very_many_small_parts_is_not_read_while_others_wait(node: str, nodes: int, unit: str | None) -> None:
    body = b'{"id": "u7", "all": [%b]}' % b",".join([node.encode()] * (nodes - 2))
    assert find({"json_pointer": "/id"}, request(body)) == unit


def test_a_long_text_in_a_body_makes_it_no_tree() -> None:
    assert find({"json_pointer": "/id"}, request({"id": "u7", "text": "x" * 1_000_000})) == "u7"


@pytest.mark.parametrize(("columns", "unit"), [(1_000, "u7"), (70_000, None)])
def test_a_csv_is_read_as_far_as_rows_are_of_a_usual_length(columns: int, unit: str | None) -> None:
    """Rows that follow may be as many as they like."""
    body = b"id" + b",a" * columns + b"\nu7" + b",1" * columns + b"\nu8,1" * 100_000
    assert find({"feature": "id"}, request(body, content_type="text/csv")) == unit


@pytest.mark.parametrize(
    ("value", "unit"), [("7", "7"), (" 7\t", "7"), ("ü✓", "ü✓"), ("", None), ("  ", None), ("a, b", "a, b")]
)
def test_a_header_is_taken_without_blanks_around_it(value: str, unit: str | None) -> None:
    assert find({"header": "X-User"}, request(x_user=value)) == unit


def test_different_bytes_in_a_header_are_different_units() -> None:
    made = request()
    units = set()
    values = (
        *(b"\xff", b"\xfe", b"\xc3\xbf", b"\xc3"),
        # Written out as others are that are text, or nearly.
        *(rb"\xff", rb"\\xff", b"\xff" + rb"\xfe", rb"\xff" + b"\xfe", b"\\\xff", rb"\xff\xfe"),
    )
    for value in values:
        made.fields = {b"x-user": value}
        units.add(find({"header": "x-user"}, made))
    assert len(units) == len(values)


@given(st.lists(st.sampled_from([b"\xff", b"\xfe", b"\\", b"x", b"ff", b"fe", b" ", b"\xc3\xbf"])), st.data())
def test_bytes_that_are_no_text_are_told_from_every_text(pieces: list[bytes], data: st.DataObject) -> None:
    value = b"".join(pieces).strip()
    other = b"".join(data.draw(st.permutations(pieces))).strip()
    made = request()
    made.fields = {b"x-user": value, b"cookie": b"uid=" + value, b"x-other": other}
    unit = find({"header": "x-user"}, made)
    assert unit == find({"cookie": "uid"}, made)
    assert (unit == find({"header": "x-other"}, made)) == (value == other)
    written = (unit or "").strip().encode()
    made.fields = {b"x-user": written}
    assert (unit == find({"header": "x-user"}, made)) == (value == written)


@pytest.mark.parametrize(
    ("cookies", "unit"),
    [
        ("uid=7", "7"),
        ("a=b; uid=7; c=d", "7"),
        ("a=b;uid=7", "7"),
        ('uid="7"', "7"),
        ("uid=a=b", "a=b"),
        ("myuid=7", None),
        ("uid", None),
        ("uid=", None),
        ("", None),
    ],
)
def test_a_cookie_is_found_among_others(cookies: str, unit: str | None) -> None:
    assert find({"cookie": "uid"}, request(cookie=cookies)) == unit


@pytest.mark.parametrize(
    ("pointer", "text"),
    [
        ("/user/id", "u7"),
        ("/rows/1", "20"),
        ("/a~1b/c~0d", "x"),
        ("/flag", "true"),
        ("/whole", "3"),
        ("/part", "3.5"),
        ("/user", None),
        ("/nothing", None),
        ("/rows/2", None),
        ("/rows/01", None),
        ("/rows/-1", None),
        ("/rows/-", None),
        ("/user/id/x", None),
        ("/missing", None),
        ("", None),
        ("/empty", None),
    ],
)
def test_a_pointer_leads_to_a_scalar_or_to_nothing(pointer: str, text: str | None) -> None:
    body = {
        "user": {"id": "u7"}, "rows": [10, 20], "a/b": {"c~d": "x"}, "flag": True, "whole": 3.0, "part": 3.5,
        "nothing": None, "empty": "",
    }  # fmt: skip
    assert find({"json_pointer": pointer}, request(body)) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [
        ("18446744073709551615", "18446744073709551615"),
        ("-9223372036854775808", "-9223372036854775808"),
        ("9007199254740991.0", "9007199254740991"),
        ("-9007199254740991.0", "-9007199254740991"),
        ("1e15", "1000000000000000"),
        ("-0.0", "0"),
        # Not read exactly: 12345678901234567890123 and …124 are one number to a reader of JSON.
        ("18446744073709551616", None),
        ("12345678901234567890123", None),
        ("-9223372036854775809", None),
        ("9007199254740992.0", None),
        ("9007199254740993.0", None),
        ("-1e16", None),
        ("1e300", None),
    ],
)
def test_a_number_that_is_not_read_exactly_is_nobodys_id(number: str, text: str | None) -> None:
    body = b'{"user": %b, "inputs": {"user": [%b]}}' % (number.encode(), number.encode())
    assert find({"json_pointer": "/user"}, request(body)) == text
    assert find({"feature": "user"}, request(body)) == text


@pytest.mark.parametrize(
    "body",
    [
        {"dataframe_split": {"columns": ["x", "carrier"], "data": [[1, "UA"], [2, "AA"]]}},
        {"dataframe_split": {"index": [0], "columns": ["carrier"], "data": [["UA"]]}},
        {"dataframe_records": [{"x": 1, "carrier": "UA"}, {"x": 2, "carrier": "AA"}]},
        {"instances": [{"carrier": "UA"}, {"carrier": "AA"}]},
        {"instances": {"carrier": ["UA", "AA"]}},
        {"inputs": {"carrier": ["UA", "AA"]}},
        {"inputs": {"carrier": [["UA"], ["AA"]]}},
        {"inputs": {"carrier": "UA"}},
        {"inputs": [{"carrier": "UA"}]},
    ],
)
def test_a_feature_is_that_of_the_first_row_in_any_format_of_mlflow(body: Any) -> None:
    assert find({"feature": "carrier"}, request(body, content_type="application/json")) == "UA"


@pytest.mark.parametrize(
    ("body", "unit"),
    [
        (b'{"id": "u", "inputs": [[NaN, -Infinity], [Infinity, 1]]}', "u"),
        (b'{"id": 7, "inputs": [NaN]}', "7"),
        (b'{"id": "NaN, and so on", "inputs": [NaN]}', "NaN, and so on"),
        (b'{"id": NaN}', None),
        (b'{"id": Infinity}', None),
        (b'{"id": 1e999, "x": NaN}', None),
        (b'{"id": 18446744073709551615, "x": NaN}', "18446744073709551615"),
        (b'{"id": 18446744073709551616, "x": NaN}', None),
        (b'{"id": "\\ud800", "x": NaN}', None),
        (b'{"id": "\\uD800", "x": NaN}', None),
        (b'{"id": "\xff", "x": NaN}', None),
        (b'{"id": "u", "x": NaN', None),
        (b'{"id": "u", "x": Nan}', None),
        (b'\xef\xbb\xbf{"id": "u", "x": NaN}', None),
        (b'{"id": "u", "x": [NaN' + b", 1" * 20_000 + b"]}", "u"),
        (b'{"id": "u", "x": [NaN' + b", 1" * 40_000 + b"]}", None),
        (b'{"id": "u", "x": NaN, "y": ' + b"[" * 5_000 + b"]" * 5_000 + b"}", None),
    ],
)
def test_python_writes_missing_features_as_nan_and_the_unit_beside_them_is_read(body: bytes, unit: str | None) -> None:
    assert extractor(Source(json_pointer="/id"))(request(body)) == unit


def test_a_feature_is_found_in_csv() -> None:
    body = b'x,carrier,note\n1,UA,"a\nb"\n2,AA,c\n'
    assert find({"feature": "carrier"}, request(body, content_type="text/csv; charset=utf-8")) == "UA"
    assert find({"feature": "note"}, request(body, content_type="text/csv")) == "a\nb"


@pytest.mark.parametrize("cell", ["a\u2028b", "a\u2029b", "a\u0085b", "a\vb", "a\fb", "a\x1cb", '"a\r\nb"', '"a\rb"'])
def test_a_row_of_csv_ends_at_a_line_break_and_at_no_other_character(cell: str) -> None:
    for end in ("\n", "\r\n", "\r"):
        body = f"note,user{end}{cell},ada{end}".encode()
        assert find({"feature": "user"}, request(body, content_type="text/csv")) == "ada"
        assert find({"feature": "note"}, request(body, content_type="text/csv")) == cell.strip('"')


def test_the_mark_that_spreadsheets_write_before_the_first_column_is_no_part_of_its_name() -> None:
    body = "\ufeffuser,note\nada,\ufeffx\n".encode()
    assert find({"feature": "user"}, request(body, content_type="text/csv")) == "ada"
    assert find({"feature": "note"}, request(body, content_type="text/csv")) == "\ufeffx"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no json",
        b"[]",
        b'{"inputs": []}',
        b'{"inputs": [[1]]}',
        b'{"inputs": {"carrier": []}}',
        b'{"inputs": {"carrier": {}}}',
        b'{"dataframe_split": 3}',
        b'{"dataframe_split": {"columns": ["carrier"]}}',
        b'{"dataframe_split": {"columns": ["carrier"], "data": []}}',
        b'{"dataframe_split": {"columns": ["carrier"], "data": [[]]}}',
        b'{"dataframe_records": [3]}',
        b'{"carrier": "UA"}',
    ],
)
def test_a_body_without_the_feature_has_none(body: bytes) -> None:
    assert find({"feature": "carrier"}, request(body)) is None


def test_a_body_that_is_not_held_whole_is_not_looked_into() -> None:
    cut = request({"inputs": {"carrier": ["UA"]}})
    cut.whole = False
    assert find({"feature": "carrier"}, cut) is None


SOURCES = st.sampled_from(
    [{"header": "a"}, {"cookie": "a"}, {"json_pointer": "/inputs/0/a"}, {"feature": "a"}, {"json_pointer": ""}]
)
SHAPES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(
        st.sampled_from(["inputs", "instances", "dataframe_split", "dataframe_records", "columns", "data", "a"]), inner
    ),
    max_leaves=12,
)  # fmt: skip


@given(SOURCES, SHAPES, st.sampled_from(["text/csv", "application/json"]))
def test_no_body_makes_it_fail(source: dict[str, str], shape: Any, kind: str) -> None:
    found = find(source, request(shape, content_type=kind))
    assert found is None or isinstance(found, str)
