"""Hidden names of few letters, of other letters than ASCII, and with their value within them; tables of uneven rows."""

import csv
import io
import json
from urllib.parse import urlencode

import pytest

from router.redaction import REDACTED, Redactor
from tests.router.redacting import FORM, JSON, SECRET, USUAL, shown, table_of


def test_a_table_may_have_empty_lines() -> None:
    got = USUAL.redact("email,age\n\na@b.c,1\n\n", "text/csv", True)
    assert list(csv.reader(io.StringIO(got.text))) == [["email", "age"], [], [REDACTED, "1"], []]


def test_letters_of_several_words_are_no_short_name() -> None:
    text = "the class name, address number and pass notes of Miss N."
    assert USUAL.redact(text, "text/plain", True).text == text


@pytest.mark.parametrize("name", ["пароль", "Größe", "生年月日"])
def test_a_name_of_other_letters_is_found_however_they_are_written(name: str) -> None:
    own = Redactor((name,))
    inner = {name: SECRET}
    for value in (json.dumps(inner), json.dumps(inner, ensure_ascii=False), "https://x/?" + urlencode(inner)):
        assert SECRET not in shown({"payload": value, "age": 1}, own)
        assert SECRET not in own.redact(urlencode({"payload": value}), FORM, True).text
        assert SECRET not in own.redact(f"a link: {value}", "text/plain", True).text
        assert SECRET not in own.redact(table_of(value), "text/csv", True).text


@pytest.mark.parametrize("name", [f'{{"email":"{SECRET}"}}', f"email={SECRET}", f"a=1&token={SECRET}"])
def test_what_has_its_value_within_its_name_is_withheld(name: str) -> None:
    assert USUAL.redact(json.dumps({"age": 1, name: ""}), JSON, True).withheld
    assert USUAL.redact(urlencode({"age": 1, name: ""}), FORM, True).withheld
    # Before a colon there may stand whose name it is.
    assert json.loads(shown({"schema:email": SECRET})) == {"schema:email": REDACTED}
