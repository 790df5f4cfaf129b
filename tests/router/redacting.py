"""What the tests of redaction share: a secret, bodies that may hold it, and what is written of them."""

import csv
import io
import json
from typing import Any

from router.redaction import DEFAULT_NAMES, Redactor

USUAL = Redactor(DEFAULT_NAMES)
SECRET = "s3cr3t-value-42"
JSON = "application/json"
FORM = "application/x-www-form-urlencoded"


def shown(body: Any, redactor: Redactor = USUAL) -> str:
    """What is written of a body of JSON."""
    return redactor.redact(json.dumps(body), JSON, True).text


def table_of(payload: str) -> str:
    """A table in CSV with such a cell."""
    table = io.StringIO()
    csv.writer(table).writerows([["age", "payload"], [1, payload]])
    return table.getvalue()
