"""Bodies of which only a part is written: nothing of it where a hidden name may stand in the rest."""

import json

from router.redaction import DEFAULT_NAMES, REDACTED, Redactor

USUAL = Redactor(DEFAULT_NAMES)
SECRET = "s3cr3t-value-42"
JSON = "application/json"
FORM = "application/x-www-form-urlencoded"


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
        assert USUAL.withholds_part(json.dumps(body), JSON, True)
    harmless = json.dumps({"dataframe_split": {"data": rows, "columns": ["age", "colour"]}})
    assert not USUAL.withholds_part(harmless, JSON, True)
    # The names are still to come, or not: who knows.
    assert USUAL.withholds_part(" " + harmless[:100], "text/plain", False)
    assert not USUAL.withholds_part("age,colour\n1,red\n", "text/csv", False)
    assert USUAL.withholds_part("age=1&e%6Dail=" + SECRET, FORM, True)
    assert not Redactor(()).withholds_part(harmless[:100], JSON, False)
