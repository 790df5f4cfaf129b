"""A CSV file is read as RFC 4180 says it, whatever its first rows look like."""

import csv
from pathlib import Path

import pytest

from controller.backtest.tables import Table, connect

EARLY = 21_000  # more rows than a guess is made from
ODD = ['a "quoted" one', "with, a comma", "of two\nlines", "'in apostrophes'", "plain", '"', "'"]


@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("first", ["u", "'u'"])
def test_what_is_quoted_late_is_read_like_what_is_quoted_early(
    tmp_path: Path, quoting: int, delimiter: str, first: str
) -> None:
    path = tmp_path / "e.csv"
    with path.open("w", newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows([("unit", "name"), *((first, "click") for _ in range(EARLY))])
        csv.writer(file, delimiter=delimiter, quoting=quoting).writerows((odd, "click") for odd in ODD)  # type: ignore[arg-type]
    table = Table(connect(), "exposures", path)
    rows = table.con.execute("SELECT unit, name FROM exposures ORDER BY file_row").fetchall()
    assert rows[:EARLY] == [(first, "click")] * EARLY
    assert rows[EARLY:] == [(odd, "click") for odd in ODD]
