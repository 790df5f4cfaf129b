"""What nobody may find in a log file is replaced, wherever it stands in a body; the rest stays as it was."""

import json
import random
import string
from typing import Any
from urllib.parse import urlencode

import pytest

from router.redaction import DEFAULT_NAMES, MOST_NAMES, REDACTED, Redactor
from tests.router.redacting import FORM, JSON, SECRET, USUAL, shown, table_of


@pytest.mark.parametrize(
    "field",
    [
        "authorization", "Authorization", "cookie", "Set-Cookie", "password", "userPassword", "PASSWORD", "passwords",
        "db_passwd", "secret", "client-secret", "clientSecretKey", "token", "access_token", "accesstoken", "idToken",
        "apiKey", "api_key", "X-API-Key", "ssn", "customer.ssn", "socialSecurityNumber", "card_number", "cardNumber",
        "creditCard", "cvv", "CVC", "iban", "email", "e-mail", "emailAddress", "workEmails", "phone_number", "passport",
        "sessionID", "pass_word", "passWord", "Pass-Word", "user_pass_word_hash", "e_mail", "eMail", "E MAIL",
        "work_e_mail", "to.ken", "iban_code", "pwd", "auth", "jwt", "access token", "pa\u017f\u017fword",
        "e\u00admail", "\uff45\uff4d\uff41\uff49\uff4c", "to\u212aen", "user[email]", "S.S.N.", "s_s_n", "p w d",
        "c-v.v", "customer.S-S-N.2", "cvv2", "2nd_ssn1", "auth0",
    ],
)  # fmt: skip
def test_a_usual_name_is_hidden_however_it_is_written(field: str) -> None:
    assert json.loads(shown({"a": 1, field: SECRET})) == {"a": 1, field: REDACTED}


@pytest.mark.parametrize(
    "field",
    [
        "age",
        "discarded",
        "lessness",
        "scorecard",
        "passenger_count",
        "male",
        "cardinality",
        "telephony_off",
        "author",
        "pass_count",
        "rapid_keys",
        "account",
        "the_mailing_number",
    ],
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


@pytest.mark.parametrize(
    ("body", "left"),
    [
        (
            {"inputs": [
                {"name": "email", "shape": [1], "datatype": "BYTES", "data": [SECRET]}, {"name": "age", "data": [7]}
            ]},
            {"inputs": [
                {"name": "email", "shape": [1], "datatype": "BYTES", "data": REDACTED}, {"name": "age", "data": [7]}
            ]},
        ),
        ({"inputs": [{"name": "email", "contents": {"bytes_contents": [SECRET]}}]},
         {"inputs": [{"name": "email", "contents": REDACTED}]}),
        ([{"key": "api_key", "value": {"stringValue": SECRET}}], [{"key": "api_key", "value": REDACTED}]),
        ({"featureName": "passWord", "featureValue": SECRET}, {"featureName": "passWord", "featureValue": REDACTED}),
        (
            {"data": {"names": ["age", "email"], "ndarray": [[1, SECRET], [2, SECRET]]}},
            {"data": {"names": ["age", "email"], "ndarray": [[1, REDACTED], [2, REDACTED]]}},
        ),
        (
            {"data": {"names": ["age", "email"], "tensor": {"shape": [1, 2], "values": [1, SECRET]}}},
            {"data": {"names": ["age", "email"], "tensor": {"shape": [1, 2], "values": REDACTED}}},
        ),
        ({"columns": [["a", "x"], ["email", "y"]], "data": [[1, SECRET]]},
         {"columns": [["a", "x"], ["email", "y"]], "data": [[1, REDACTED]]}),
        ({"features": ["age", "email"], "row": [1, SECRET]}, {"features": ["age", "email"], "row": [1, REDACTED]}),
        ({"columns": ["email"], "index": [0, 1], "data": [SECRET, SECRET]},
         {"columns": ["email"], "index": [0, 1], "data": REDACTED}),
        (
            {"schema": {"fields": [{"name": "age"}, {"name": "email"}]}, "rows": [[1, SECRET]]},
            {"schema": {"fields": [{"name": "age"}, {"name": "email"}]}, "rows": [[1, REDACTED]]},
        ),
    ],
)  # fmt: skip
def test_values_that_stand_beside_their_names_go_and_what_is_about_them_stays(body: Any, left: Any) -> None:
    assert json.loads(shown(body)) == left


@pytest.mark.parametrize(
    ("body", "left"),
    [
        *(
            ({"f": [{naming: "email", "value": SECRET, "use": SECRET}]},
             {"f": [{naming: "email", "value": REDACTED, "use": REDACTED}]})
            for naming in ("type", "kind", "system", "k", "title", "name", "fieldKind", "param", "parameter")
        ),
        ({"f": [{"k": "email", "v": SECRET}, {"k": "age", "v": 3}]},
         {"f": [{"k": "email", "v": REDACTED}, {"k": "age", "v": 3}]}),
        ({"name": "email", "datatype": "BYTES", "shape": [1], "parameters": {"v": SECRET}},
         {"name": "email", "datatype": "BYTES", "shape": [1], "parameters": REDACTED}),
        ({"inputs": [["email", SECRET], ["age", 3]]}, {"inputs": [["email", REDACTED], [REDACTED, 3]]}),
        ({"inputs": [["age", 3], ["email", SECRET]]}, {"inputs": [["age", 3], ["email", REDACTED]]}),
        ([["email", {"deep": SECRET}]], [["email", REDACTED]]),
        ({"ids": ["a", "b"], "data": [["age", 3], ["email", SECRET]]},
         {"ids": ["a", "b"], "data": [["age", 3], ["email", REDACTED]]}),
        ({"rows": [["age", "email", "pay"], [3, SECRET, 1], [4, SECRET, 2]]},
         {"rows": [["age", "email", "pay"], [3, REDACTED, 1], [4, REDACTED, 2]]}),
        ({"rows": [["age", "email", "pay"], [3, SECRET]]}, {"rows": [["age", "email", "pay"], REDACTED]}),
        ({"meta": {"columns": ["email"]}, "data": [[SECRET]]}, {"meta": {"columns": ["email"]}, "data": [[REDACTED]]}),
        ({"a": {"meta": {"about": {"fields": ["age", "email"]}}, "rows": [[3, SECRET]]}, "n": [[1, 2]]},
         {"a": {"meta": {"about": {"fields": ["age", "email"]}}, "rows": [[3, REDACTED]]}, "n": [[1, 2]]}),
        ({"columns": ["email"], "inputs": {"data": [[SECRET]]}},
         {"columns": ["email"], "inputs": {"data": [[REDACTED]]}}),
        ({"columns": ["age", "email"], "frame": {"x": {"rows": [[3, SECRET]], "text": SECRET}}},
         {"columns": ["age", "email"], "frame": {"x": {"rows": [[3, REDACTED]], "text": REDACTED}}}),
        *(
            ({names: ["age", "email"], "rows": [[3, SECRET]]}, {names: ["age", "email"], "rows": [[3, REDACTED]]})
            for names in ("cols", "vars", "variables", "fields", "header", "headers")
        ),
        ({"columns": ["age", "email"], "index": [SECRET], "data": [[3, "x"]]},
         {"columns": ["age", "email"], "index": REDACTED, "data": [[3, REDACTED]]}),
        ({"columns": ["age", "email"], "index": [[SECRET, 1]], "data": [[3, "x"]]},
         {"columns": ["age", "email"], "index": REDACTED, "data": [[3, REDACTED]]}),
        # Not to be understood: rows by columns, of another width, in batches, under names of their own, as a text.
        ({"columns": ["age", "email"], "data": [[3, 4, 5], [SECRET] * 3]},
         {"columns": ["age", "email"], "data": [REDACTED, REDACTED]}),
        ({"columns": ["age", "email"], "data": [[[3, "x"], [4, SECRET]]]},
         {"columns": ["age", "email"], "data": [REDACTED]}),
        ({"columns": ["age", "email"], "data": [{"0": 3, "1": SECRET}]},
         {"columns": ["age", "email"], "data": REDACTED}),
        ({"columns": ["age", "email"], "data": [[3, SECRET], f"4,{SECRET}"]},
         {"columns": ["age", "email"], "data": REDACTED}),
        ({"columns": ["age", "email"], "data": f"3,{SECRET}"}, {"columns": ["age", "email"], "data": REDACTED}),
    ],
)  # fmt: skip
def test_what_stands_near_names_and_is_not_understood_goes_as_a_whole(body: Any, left: Any) -> None:
    assert json.loads(shown(body)) == left


@pytest.mark.parametrize("levels", [1, 10, 90])
def test_rows_are_found_any_number_of_levels_away_from_their_names(levels: int) -> None:
    names: Any = ["age", "email"]
    rows: Any = [[3, SECRET]]
    for _ in range(levels):
        names, rows = {"columns": names}, {"of": rows}
    assert SECRET not in shown({"a": names, "b": rows})
    assert SECRET not in shown({"columns": ["age", "email"], "b": rows})


def test_thousands_of_different_texts_where_a_name_could_stand_are_no_names() -> None:
    body = {
        "records": [{"title": f"t{n}", "id": f"u{n}", "email": SECRET} for n in range(5_000)],
        "pairs": [[f"p{n}", n] for n in range(5_000)],
    }
    assert json.loads(shown(body)) == body | {"records": [row | {"email": REDACTED} for row in body["records"]]}


@pytest.mark.parametrize("count", [2, 500, 5_000])
def test_many_lists_of_names_cost_no_more_than_one_body_may(count: int) -> None:
    rows = [[n, SECRET] for n in range(1_000)]
    assert SECRET not in shown({"meta": {f"m{n}": {"columns": ["age", "email"]} for n in range(count)}, "data": rows})
    assert shown({"columns": ["age", "email"], "data": rows * 20}).count(REDACTED) == 20_000


@pytest.mark.parametrize(
    "body",
    [
        {"dataframe_split": {"columns": ["channel", "age"], "index": ["email"], "data": [["email", 1], ["phone", 2]]}},
        {"instances": [["email", 1, 2], ["phone", 3, 4]]},
        {"inputs": [{"name": "channel", "shape": [2], "datatype": "BYTES", "data": ["email", "phone"]}]},
        {"dataframe_records": [{"title": "Shall I send you another e-mail today?", "views": 3}]},
        {"dataframe_split": {"columns": ["labels", "age"], "data": [[["email"], 1], [["phone"], 2]]}},
        {
            "dataframe_records": [
                {"user": 1, "labels": ["email"], "spent": 3},
                {"user": 2, "labels": [], "seen": [1, 2]},
            ]
        },
        {"params": {"by": "email"}, "instances": [[1, 2], [3, 4]]},
        # Looked through, since "authority" may seem to hold a name.
        {"dataframe_split": {"columns": ["authority", "age"], "index": ["a"], "data": [["x", [[1], [2]]]]}},
        {"dataframe_records": [{"authority": "x", "type": "y", "title": "z"}]},
        {"inputs": [{"name": "authority", "shape": [1], "datatype": "BYTES", "data": [["x"]]}]},
        {"instances": [["authority", "x"], ["age", 3]]},
    ],
)
def test_a_value_that_is_such_a_word_leaves_what_can_be_understood(body: Any) -> None:
    assert json.loads(shown(body)) == body


@pytest.mark.parametrize(
    "body",
    [
        {"instances": [{"channel": "email", "spent": 3, "data": [1]}, {"channel": "phone", "spent": 4}]},
        {"dataframe_split": {"columns": ["channel", "age"], "data": [["email", 1], ["phone", 2]]}},
        {"inputs": {"channel": ["email", "phone"], "age": [1, 2]}},
        {"messages": [{"role": "user", "content": "Shall I ask by phone or by e-mail? At 12:30, say."}]},
    ],
)
def test_a_value_that_is_such_a_word_hides_nothing(body: Any) -> None:
    assert json.loads(shown(body)) == body


@pytest.mark.parametrize(
    "value",
    [
        json.dumps({"email": SECRET}),
        json.dumps([{"a": json.dumps({"deep": [{"pass_word": SECRET}]})}]),
        f"https://example.org/?a=1&token={SECRET}",
        f"Authorization: Bearer {SECRET}",
        f"<user><password>{SECRET}</password></user>",
        f'was {{"e-mail": "{SECRET}"}} before',
        f"card number: {SECRET}",
        json.dumps([["email", SECRET], ["age", 3]]),
        json.dumps([["email", "age"], [SECRET, 3]]),
        f'{{"em\\u0061il": "{SECRET}"}}',
        f' {{"a": {{"\\u0074oken": "{SECRET}"}}}}',
    ],
)
def test_a_text_that_holds_names_and_values_of_its_own_is_looked_through(value: str) -> None:
    for body in ({"payload": value, "age": 1}, {"list": [value], "age": 1}):
        text = shown(body)
        assert SECRET not in text
        assert json.loads(text)["age"] == 1
    assert SECRET not in USUAL.redact(table_of(value), "text/csv", True).text
    form = urlencode({"age": 1, "payload": value})
    assert SECRET not in USUAL.redact(form, FORM, True).text


@pytest.mark.parametrize("content_type", [JSON, "", "text/plain", FORM, "text/csv", "multipart/form-data; boundary=b"])
def test_a_body_is_taken_for_what_it_is_whatever_it_is_called(content_type: str) -> None:
    body = {"q": "a=b", "email": SECRET, "next": "/a?b=c"}
    for text in (json.dumps(body), " \r\n" + json.dumps(body), "\ufeff" + json.dumps(body)):
        assert json.loads(USUAL.redact(text, content_type, True).text) == body | {"email": REDACTED}
    part = f'--b\r\nContent-Disposition: form-data; name="email"\r\n\r\n{SECRET}\r\n--b--\r\n'
    lines = json.dumps(body) + "\n" + json.dumps(body)
    for text in (part, lines, f"email={SECRET};a", f"<email>{SECRET}</email>", f"\x08\x01email\x12{SECRET}"):
        assert SECRET not in USUAL.redact(text, content_type, True).text


@pytest.mark.parametrize(
    "table",
    [
        "\ufeffemail,age\n{},1\n", "age;email\n1;{}\n", "age\te_mail\n1\t{}\n", "a title\nage,email\n1,{}\n",
        "Name, first;email\nDoe;{}\n", "height, cm\temail\n180\t{}\n", "age,b;email\n1;{}\n", "a,b\temail\n\n1,8\t{}\n",
        "age,D.O.B.,email\n1,2,{}\n",
    ],
)  # fmt: skip
def test_a_table_is_read_by_its_own_delimiter_or_withheld(table: str) -> None:
    assert SECRET not in USUAL.redact(table.format(SECRET), "text/csv; header=present", True).text


@pytest.mark.parametrize("seed", range(3))
def test_a_body_of_nothing_but_names_is_withheld_and_nothing_of_it_is_remembered(seed: int) -> None:
    wide = {"token": SECRET} | {f"k{seed}_{n}": 1 for n in range(4_000)}
    assert json.loads(shown(wide)) == wide | {"token": REDACTED}
    for body in (
        {"token": SECRET} | {f"k{seed}_{n}": 1 for n in range(MOST_NAMES + 1)},
        {f"a{seed}_{n}_token": SECRET for n in range(1_000)},
        {"token": SECRET} | {f"{n}names": [["a"], ["b"]] for n in range(1_000)},
        {"token": SECRET, "a": [{"names": ["token"], "n": {"x": 1, "y": 2}} for _ in range(5_000)]},
    ):
        assert USUAL.redact(json.dumps(body), JSON, True) == (REDACTED, 0, True)
    many = {f"{n}names": [{"name": "token", "data": SECRET}] for n in range(1_000)}
    assert SECRET not in shown(many | {"data": [[SECRET]]})
    # A name that nobody would give is not taken apart, nor kept.
    assert json.loads(shown({"aB" * 1_000: 1, "xToken" * 100: SECRET})) == {"aB" * 1_000: 1, "xToken" * 100: REDACTED}


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
        "token 12": REDACTED, "line2": REDACTED, "x1": REDACTED, "x-1": REDACTED,
    }  # fmt: skip
    # No JSON, so it is withheld where a name is seen in it.
    assert own.redact("1 2token3 4", JSON, True).withheld
    text = "to 1, ken [2] pass -3.5 word e-4 ma\t9 il"
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
