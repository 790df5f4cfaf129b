"""A CSV file is read as RFC 4180 says it, whatever its first rows look like."""

import csv
from pathlib import Path

import pytest

from controller.backtest.tables import Table, connect
from controller.errors import SpecError

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


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize(
    ("last", "text"),
    [
        (["u", "champion"], "row 401 has 2 columns, the header 4"),
        (["u", "champion", "1", "5", "more", "and more"], "row 401 has more columns than the header, which has 4"),
    ],
)
def test_a_row_of_another_length_is_named(tmp_path: Path, delimiter: str, last: list[str], text: str) -> None:
    """As the last of a file that is still being written."""
    path = tmp_path / "e.csv"
    with path.open("w", newline="") as file:
        rows = [["unit", "arm", "ts", "weight"], *[["u", "champion", "1", "5"]] * 400, last]
        csv.writer(file, delimiter=delimiter).writerows(rows)
    with pytest.raises(SpecError, match=rf"--exposures: \S+: {text}"):
        Table(connect(), "exposures", path)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b'u,1\n"v,1\nw,1\n', "row 2: Value with unterminated quote found"),
        (b"u,1\n\xff\xfe,1\n", "row 2: Invalid unicode"),
    ],
)
def test_a_row_that_cannot_be_read_is_named_with_its_cause(tmp_path: Path, content: bytes, text: str) -> None:
    path = tmp_path / "e.csv"
    path.write_bytes(b"unit,ts\n" + content)
    with pytest.raises(SpecError, match=rf"--exposures: \S+: {text}"):
        Table(connect(), "exposures", path)


@pytest.mark.parametrize(
    "ts", ["2026-01-15T10:00:00-14:00", "2026-01-15 10:00:00.25+05:45", "2026-01-15", "2026-01-15T10:00:16", "1.5e9"]
)
def test_a_moment_may_have_any_offset_that_there_is(tmp_path: Path, ts: str) -> None:
    path = tmp_path / "e.csv"
    path.write_text(f"unit,ts\nu,{ts}\n")
    Table(connect(), "exposures", path).check_time()


def test_a_column_of_our_own_name_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "e.csv"
    path.write_text("unit,file_row\nu,1\n")
    with pytest.raises(SpecError, match=r"--exposures: \S+ has a column file_row, a name that is taken: rename it"):
        Table(connect(), "exposures", path)


@pytest.mark.parametrize(("header", "name"), [("unit,arm,unit", "'unit'"), ("unit,,arm", "''")])
def test_a_header_that_names_no_column_or_one_twice_is_refused(tmp_path: Path, header: str, name: str) -> None:
    path = tmp_path / "e.csv"
    path.write_text(f"{header}\n1,2,3\n")
    with pytest.raises(SpecError, match=rf"--exposures: \S+: column {name} of the header; each needs its own name"):
        Table(connect(), "exposures", path)
