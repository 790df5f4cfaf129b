"""Names of hidden fields in addresses and forms, where letters may be written as numbers, and names in brackets."""

import json
from urllib.parse import parse_qsl, urlencode

import pytest

from router.allowance import Allowance
from router.redacted import UNREAD
from router.redaction import REDACTED
from tests.router.redacting import FORM, JSON, SECRET, USUAL, table_of

TEXTS = [
    f"https://example.org/?user%5Bemail%5D={SECRET}",
    f"https://example.org/?a=1&api%5Fkey={SECRET}&b=%20",
    f"https://example.org/?card%20number={SECRET}",
    f"https://example.org/?email[]={SECRET}",
    f"https://example.org/?a=1&user[email][0]={SECRET}",
    f"https://example.org/?user%5Bemail%5D%5Bvalue%5D={SECRET}",
    f"https://example.org/?next=%2Fa%3Fuser%255Bemail%255D%3D{SECRET}",
    f"https://example.org/?next=https%3A%2F%2Fexample.org%2F%3F%65mail%3D{SECRET}",
    f"https://example.org/?p%61ssword={SECRET}",
    f"https://example.org/?p%2561ssword={SECRET}",
    f"https://example.org/?next=%252F%3Fp%252561ssword={SECRET}",
    f"https://example.org/?%25EF%25BD%2585mail={SECRET}",
    f"https://example.org/?%EF%BD%85mail%2Daddress={SECRET}",
    f"seen: [e-mail: {SECRET}]",
    f"email (at work): {SECRET}",
]


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_is_looked_through_in_whatever_body_it_stands(text: str) -> None:
    for body in ({"payload": text, "age": 1}, {"list": [text], "age": 1}):
        shown = USUAL.redact(json.dumps(body), JSON, True).text
        assert SECRET not in shown
        assert json.loads(shown)["age"] == 1
    assert SECRET not in USUAL.redact(table_of(text), "text/csv", True).text
    assert SECRET not in USUAL.redact(urlencode({"age": 1, "payload": text}), FORM, True).text


def test_a_field_whose_name_is_written_so_is_hidden_and_others_stay_as_they_are() -> None:
    body = {"user%5Bemail%5D": SECRET, "phone[0]": SECRET, "a%20b": 1, "share": "50 % [of] all (or more): yes"}
    left = body | {"user%5Bemail%5D": REDACTED, "phone[0]": REDACTED}
    assert json.loads(USUAL.redact(json.dumps(body), JSON, True).text) == left
    plain = json.dumps({"url": "https://example.org/?q=100%25&tags[]=a", "share": "50 %", "code": 7, "tag": "new"})
    assert USUAL.redact(plain, JSON, True).text == plain


def test_names_of_a_form_are_found_however_they_are_written() -> None:
    for text in (f"%65mail={SECRET}&a=1", f"e+mail={SECRET}&a=1", f"user%5Bemail%5D={SECRET}&a=1"):
        assert dict(parse_qsl(USUAL.redact(text, FORM, True).text))["a"] == "1"
        assert SECRET not in USUAL.redact(text, FORM, True).text


def test_a_harmless_body_is_written_also_where_there_is_no_time_to_take_any_apart() -> None:
    spent = Allowance(0, 1e-9, lambda: 0.0)
    spent.took(1)
    plain = json.dumps({"texts": ["50 % off", "https://example.org/?q=caf%C3%A9&a%5B%5D=1"] * 20})
    assert USUAL.redact(plain, JSON, True, spent).text == plain
    for hidden in (plain[:-2] + f', "https://example.org/?a%5Fe%2Dmail={SECRET}"]}}', plain.replace("q=", "%71=")):
        assert USUAL.redact(hidden, JSON, True, spent) is UNREAD


def test_a_field_that_has_such_a_word_for_a_value_leaves_its_neighbours() -> None:
    for body in (
        {"tag": "phone", "price": 199},
        {"error_code": "invalid_token", "retries": 3},
        {"variable": "phone_minutes", "mean": 3.2},
        {"question": "own a phone", "age": 31},
    ):
        assert json.loads(USUAL.redact(json.dumps(body), JSON, True).text) == body
