"""Bodies of which only a part is written: nothing of it where a hidden name may stand in the rest."""

import gzip
import json
import random
import zlib

import pytest

from router.redaction import REDACTED, Redactor
from tests.router.redacting import FORM, JSON, SECRET, USUAL

CSV = "text/csv"


def test_the_beginning_of_a_body_that_was_cut_is_withheld_where_it_holds_such_a_name() -> None:
    cut = USUAL.redact('{"age": 1, "email": "some', JSON, False)
    assert (cut.text, cut.withheld) == (REDACTED, True)
    harmless = '{"age": 1, "pay": 12'
    assert USUAL.redact(harmless, JSON, False).text == harmless


def test_no_part_of_a_body_is_written_where_a_name_may_stand_behind_its_values() -> None:
    rows = [[n, f"{SECRET}@example.com"] for n in range(50)]
    for body in (
        {"dataframe_split": {"data": rows, "columns": ["age", "email"]}},
        {"inputs": [{"data": [SECRET] * 50, "datatype": "BYTES", "name": "email", "shape": [50]}]},
    ):
        assert USUAL.withholds_part(json.dumps(body), True)
    harmless = json.dumps({"dataframe_split": {"data": rows, "columns": ["age", "colour"]}})
    assert not USUAL.withholds_part(harmless, True)
    # The names are still to come, or not: who knows.
    assert USUAL.withholds_part(" " + harmless[:100], False)
    assert not USUAL.withholds_part("age,colour\n1,red\n", False)
    assert USUAL.withholds_part("age=1&e%6Dail=" + SECRET, True)
    assert not Redactor(()).withholds_part(harmless[:100], False)


@pytest.mark.parametrize(
    ("text", "content_type"),
    [
        ("b,email\n" + "a:mail,b\n" * 7_000, CSV),
        ("b,email\n" + "a:" * 32_000 + "mail,b\n", CSV),
        ("email\n" + "a\n" * 32_000, CSV),
        ("[" + ",".join('[["email","b"]]' for _ in range(4_000)) + "]", JSON),
        ("email=1&" + "&".join(f"a{n}=mail:=" for n in range(3_500)), FORM),
        ("a=:&" * 4_000 + "auth=1", FORM),
    ],
    ids=["cells", "one cell", "rows", "pairs", "form", "small form"],
)
def test_a_body_of_nothing_but_what_may_be_names_is_withheld(text: str, content_type: str) -> None:
    # To read it would take the interpreter from everybody else's requests.
    assert USUAL.redact(text, content_type, True).withheld


def test_a_usual_table_is_read_whatever_its_size() -> None:
    rows = [
        f"{n},passenger{n}@mail.example,2024-05-{n % 28 + 1:02}T10:00:00,https://a.example/{n}" for n in range(2_000)
    ]
    table = "\n".join(["n,email,at,page", *rows, "1,x,y,password: " + SECRET, ""])
    done = USUAL.redact(table, CSV, True)
    assert (done.withheld, done.fields) == (False, 2_002)
    assert "@mail" not in done.text
    assert SECRET not in done.text
    assert done.text.splitlines()[1] == f"0,{REDACTED},2024-05-01T10:00:00,https://a.example/0"


def test_no_cell_is_overlooked_for_those_beside_it() -> None:
    for at in (0, 1, 254, 255, 256, 257, 600):
        cells = [f"colour: red{n}" for n in range(601)]
        cells[at] = f"password={SECRET}"
        done = USUAL.redact("colour\n" + "\n".join(cells) + "\n", CSV, True)
        # Of one column that is not hidden it is not known whether it is a table.
        assert done.withheld
        done = USUAL.redact("colour,age\n" + "".join(f"{cell},1\n" for cell in cells), CSV, True)
        assert (done.withheld, done.fields, SECRET in done.text) == (False, 1, False)


def test_what_was_packed_is_withheld_whatever_is_said_of_it() -> None:
    chance = random.Random(5)
    for size in range(1, 60):
        plain = json.dumps({"prediction": chance.random(), "who": f"ada@{chance.randrange(9**9)}" * size}).encode()
        stored = b"\x01" + len(plain).to_bytes(2, "little") + (len(plain) ^ 0xFFFF).to_bytes(2, "little") + plain
        for body in (zlib.compress(plain), zlib.compress(plain, wbits=-15), gzip.compress(plain), stored):
            for redactor in (USUAL, Redactor(())):
                assert redactor.redact(body.decode("utf-8", "replace"), "", True).withheld
                assert redactor.withholds_part(body.decode("utf-8", "replace"), False)


def test_a_text_in_another_encoding_or_cut_within_a_letter_is_written() -> None:
    for body in (
        "Größe;Straße\n1;Köln am Rhein\n".encode("latin-1"),
        "Größe, Straße und Ü".encode()[:-1],
        b'["\xff\x01"]',
    ):
        text = body.decode("utf-8", "replace")
        assert "\ufffd" in text
        assert USUAL.redact(text, CSV, True) == (text, 0, False)
