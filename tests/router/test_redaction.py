"""What nobody may find in a log file is replaced, wherever it stands in a body; the rest stays as it was."""

import json
import random
import string
from typing import Any

import pytest

from router.redaction import DEFAULT_NAMES, REDACTED, Redactor

USUAL = Redactor(DEFAULT_NAMES)
SECRET = "s3cr3t-value-42"
JSON = "application/json"


def shown(body: Any, redactor: Redactor = USUAL) -> str:
    return redactor.redact(json.dumps(body), JSON, True).text


@pytest.mark.parametrize(
    "field",
    [
        "authorization", "Authorization", "cookie", "Set-Cookie", "password", "userPassword", "PASSWORD", "passwords",
        "db_passwd", "secret", "client-secret", "clientSecretKey", "token", "access_token", "accesstoken", "idToken",
        "apiKey", "api_key", "X-API-Key", "ssn", "customer.ssn", "socialSecurityNumber", "card_number", "cardNumber",
        "creditCard", "cvv", "CVC", "iban", "email", "e-mail", "emailAddress", "workEmails", "phone_number", "passport",
        "sessionID",
    ],
)  # fmt: skip
def test_a_usual_name_is_hidden_however_it_is_written(field: str) -> None:
    assert json.loads(shown({"a": 1, field: SECRET})) == {"a": 1, field: REDACTED}


@pytest.mark.parametrize(
    "field", ["age", "discarded", "lessness", "scorecard", "passenger_count", "male", "cardinality", "telephony_off"]
)
def test_a_name_that_only_contains_the_letters_is_shown(field: str) -> None:
    redactor = Redactor((*DEFAULT_NAMES[:-1],)) if field == "telephony_off" else USUAL
    assert json.loads(shown({field: 7}, redactor)) == {field: 7}


@pytest.mark.parametrize("value", [SECRET, 42, 4.2, True, [SECRET, [SECRET]], {"deep": {"deeper": SECRET}}])
def test_the_whole_value_goes_whatever_it_is(value: Any) -> None:
    assert json.loads(shown({"token": value, "x": [1]})) == {"token": REDACTED, "x": [1]}


@pytest.mark.parametrize("levels", [1, 30, 200, 900])
def test_a_field_is_found_at_any_depth(levels: int) -> None:
    body: Any = {"password": SECRET}
    for depth in range(levels):
        body = [body] if depth % 2 else {"k": body, "n": depth}
    text = shown(body)
    assert SECRET not in text
    # What is nested too deep to be written anew is withheld.
    assert (text == REDACTED) == (levels > 200)


@pytest.mark.parametrize(
    ("form", "rows", "left"),
    [
        (
            "dataframe_split",
            {"index": [0, 1], "columns": ["age", "email", "pay"], "data": [[1, SECRET, 2], [3, SECRET, 4]]},
            {"index": [0, 1], "columns": ["age", "email", "pay"], "data": [[1, REDACTED, 2], [3, REDACTED, 4]]},
        ),
        ("dataframe_records", [{"age": 1, "email": SECRET}, {"age": 2}], [{"age": 1, "email": REDACTED}, {"age": 2}]),
        ("instances", [{"email": [SECRET]}, {"email": SECRET}], [{"email": REDACTED}, {"email": REDACTED}]),
        ("inputs", {"email": [SECRET, SECRET], "age": [1, 2]}, {"email": REDACTED, "age": [1, 2]}),
    ],
)
def test_columns_are_found_in_every_format_of_mlflow(form: str, rows: Any, left: Any) -> None:
    assert json.loads(shown({form: rows})) == {form: left}


@pytest.mark.parametrize(
    "text",
    [
        '{"pass\\u0077ord": "' + SECRET + '"}',
        '{"x": {"password": "' + SECRET + '"}, "x": 1}',
        '{"password": "' + SECRET + '"',
        '{"password": "' + SECRET + '", "n": NaN}',
        "password: " + SECRET,
        '"password=' + SECRET + '"',
        ('{"password": "' + SECRET + '"}').encode("utf-16").decode("utf-8", "replace"),
        ('{"password": "' + SECRET + '"}').encode("utf-16-le").decode(),
        "--b\r\nContent-Disposition: form-data; name=password\r\n\r\n" + SECRET + "\r\n--b--",
    ],
)
def test_what_cannot_be_taken_apart_cleanly_is_never_shown(text: str) -> None:
    assert SECRET not in USUAL.redact(text, JSON, True).text.replace("\0", "")


def test_the_beginning_of_a_body_that_was_cut_is_withheld_where_it_holds_such_a_name() -> None:
    cut = USUAL.redact('{"age": 1, "email": "some', JSON, False)
    assert (cut.text, cut.withheld) == (REDACTED, True)
    harmless = '{"age": 1, "pay": 12'
    assert USUAL.redact(harmless, JSON, False).text == harmless


def test_csv_and_forms_lose_the_value_and_nothing_else() -> None:
    table = 'age,"e-mail",pay\n1,' + SECRET + ',2\n3,"' + SECRET + '\nx",4\n5\n'
    csv = USUAL.redact(table, "text/csv; charset=utf-8", True)
    assert csv.text == f"age,e-mail,pay\n1,{REDACTED},2\n3,{REDACTED},4\n5\n"
    assert csv.fields == 2
    form = USUAL.redact(f"age=1&api_key={SECRET}&pay=", "application/x-www-form-urlencoded", True)
    assert form.text == "age=1&api_key=%5Bredacted%5D&pay="
    odd = USUAL.redact(f"age=1&token:{SECRET}", "application/x-www-form-urlencoded", True)
    assert SECRET not in odd.text


def test_a_body_without_such_a_field_stays_byte_for_byte() -> None:
    text = '{ "age" : 1.50,\t"pay":1e3, "pay":2 }'
    assert USUAL.redact(text, JSON, True) == (text, 0, False)


def test_numbers_around_and_between_letters_neither_hide_a_name_nor_make_one() -> None:
    own = Redactor((*DEFAULT_NAMES, "line2", "x-1"))
    assert json.loads(shown({"token 12": 1, "line2": 2, "x1": 3, "x-1": 4}, own)) == {
        "token 12": REDACTED, "line2": REDACTED, "x1": 3, "x-1": REDACTED,
    }  # fmt: skip
    # No JSON, so it is withheld where a name is seen in it.
    assert own.redact("1 2token3 4", JSON, True).withheld
    text = "to 1, ken [2] pass -3.5 word e-4 ma\til"
    assert own.redact(text, JSON, True).text == text


def test_own_names_add_to_the_usual_ones_or_stand_alone() -> None:
    both, own = Redactor((*DEFAULT_NAMES, "tail number")), Redactor(("tail number",))
    body = {"tailNumber": SECRET, "email": SECRET, "legs": [{"tail_number": SECRET}]}
    assert SECRET not in shown(body, both)
    assert json.loads(shown(body, own)) == {
        "tailNumber": REDACTED, "email": SECRET, "legs": [{"tail_number": REDACTED}],
    }  # fmt: skip
    assert json.loads(shown(body, Redactor(()))) == body


def test_in_random_trees_no_hidden_value_survives_and_no_other_is_lost() -> None:
    chance = random.Random(11)
    hidden, open_names = ["password", "userEmail", "api-key", "ssn"], ["age", "pay", "legs", "café", "x y"]

    def tree(depth: int, inside: bool) -> Any:
        """A tree whose texts say whether a hidden name stands above them."""
        kind = chance.randrange(5) if depth else 0
        if kind < 2:
            return f"{'hidden' if inside else 'open'}-{''.join(chance.choices(string.ascii_letters, k=4))}"
        if kind == 2:
            return [tree(depth - 1, inside) for _ in range(chance.randrange(4))]
        names = chance.sample(hidden + open_names, chance.randrange(5))
        return {name: tree(depth - 1, inside or name in hidden) for name in names}

    seen = 0
    for _ in range(2_000):
        body = {"root": tree(5, False)}
        text, before = shown(body), json.dumps(body)
        assert "hidden-" not in text
        assert text.count("open-") == before.count("open-")
        seen += "hidden-" in before
    assert seen > 500
