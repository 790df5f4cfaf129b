"""Logged CSV or Parquet → two checked tables of one DuckDB in memory, in the order of time.

Every fault names the file, the row (counted from 1, without the header) and the column, and what is allowed.
"""

import csv
import re
from collections.abc import Sequence
from pathlib import Path

import duckdb

from controller.core.covariates import LARGEST
from controller.errors import SpecError

LATEST_S = 4_102_444_800  # the year 2100: later numbers are milliseconds or finer
FARTHEST_S = 366 * 86_400  # of a row from the median one: a wild time would make a look as long as a month
HEADER_BYTES = 1 << 16
ARMS = ("champion", "challenger")
_TIME = rf"""
    CASE
        WHEN TRY_CAST(ts AS DOUBLE) BETWEEN 0 AND {LATEST_S} THEN COALESCE(
            CAST(TRY_CAST(ts AS DECIMAL(28, 6)) * 1000000 AS BIGINT),
            CAST(round(TRY_CAST(ts AS DOUBLE) * 1e6) AS BIGINT))
        WHEN TRY_CAST(ts AS DOUBLE) IS NULL AND regexp_matches(ts, '^\s*\d')
            AND NOT regexp_matches(ts, ':\d\d(\.\d+)?\s*[+-](1[5-9]|[2-9]\d|\d\d:?[6-9])')
            THEN epoch_us(TRY_CAST(ts AS TIMESTAMPTZ))
    END
"""


class Table:
    """A file as it was read: ``columns`` all text, in a table called ``name``."""

    def __init__(self, con: duckdb.DuckDBPyConnection, name: str, path: Path) -> None:
        self.con, self.name, self.path = con, name, path
        self.columns = self._read()

    def _read(self) -> list[str]:
        try:
            with self.path.open("rb") as file:
                start = file.read(4)
        except OSError as error:
            raise SpecError(f"--{self.name}: {self.path}: {error.strerror}") from error
        if not start:
            raise SpecError(f"--{self.name}: {self.path} is empty; a header and rows are needed")
        form = "Parquet" if start == b"PAR1" else "CSV"
        call = "read_parquet(?)" if form == "Parquet" else self._csv()
        try:
            self.con.execute(
                f"CREATE TABLE {self.name} AS SELECT CAST(columns(*) AS VARCHAR) FROM {call}", [_literal(self.path)]
            )
        except duckdb.Error as error:
            raise SpecError(f"--{self.name}: {self.path}{_said(form, str(error))}") from error
        names = [row[0] for row in self.con.execute(f"DESCRIBE {self.name}").fetchall()]
        if "file_row" in names:
            raise SpecError(f"--{self.name}: {self.path} has a column file_row, a name that is taken: rename it")
        self.con.execute(f"ALTER TABLE {self.name} ADD COLUMN file_row BIGINT")
        self.con.execute(f"UPDATE {self.name} SET file_row = rowid + 1")
        if self.con.execute(f"SELECT count(*) FROM {self.name}").fetchone() == (0,):
            raise SpecError(f"--{self.name}: {self.path} has no rows")
        return names

    def _csv(self) -> str:
        """SQL that reads it as RFC 4180 says. Nothing is guessed from its first rows, by which a quote that comes late
        would be read otherwise, and a row that is torn would make the header another."""
        with self.path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
            text = file.readline(HEADER_BYTES)
            delimiter = max(",;\t", key=text.count)
            file.seek(0)
            names = [name.strip() for name in next(csv.reader(file, delimiter=delimiter), [])]
        twice = [name for name in names if names.count(name) > 1 or not name]
        if twice:
            raise SpecError(f"--{self.name}: {self.path}: column {twice[0]!r} of the header; each needs its own name")
        columns = ", ".join(f"""{_name(name, "'")}: 'VARCHAR'""" for name in names)
        return f"""read_csv(?, auto_detect = false, header = true, columns = {{{columns}}}, quote = '"', escape = '"',
            delim = '{delimiter}')"""

    def need(self, columns: tuple[str, ...], why: str = "") -> None:
        """SpecError unless all ``columns`` are there."""
        missing = [c for c in columns if c not in self.columns]
        if missing:
            said = ", ".join(missing) + (f" ({why})" if why else "")
            raise SpecError(f"--{self.name}: {self.path} has no column {said}; it has {', '.join(self.columns)}")

    def text(self, column: str) -> str:
        """SQL: a column as text, NULL where it is blank or absent."""
        return f"NULLIF(trim({_name(column)}), '')" if column in self.columns else "CAST(NULL AS VARCHAR)"

    def refuse(self, column: str, condition: str, allowed: str) -> None:
        """SpecError for the first row where ``condition`` (SQL) is true."""
        found = self.con.execute(
            f"SELECT file_row, {_name(column)} FROM {self.name} WHERE {condition} ORDER BY file_row LIMIT 1"
        ).fetchone()
        if found is not None:
            value = "is blank" if found[1] is None else f"{found[1]!r}"
            raise SpecError(f"--{self.name}: {self.path} row {found[0]}, column {column}: {value}; {allowed}")

    def check_ids(self) -> None:
        """No ``unit`` and no ``request_id`` has control characters, as the router takes none."""
        for column in ("unit", "request_id"):
            if column in self.columns:
                self.refuse(column, rf"regexp_matches({column}, '[\x00-\x1f\x7f]')", "an id has no control characters")

    def check_time(self) -> None:
        """Every ``ts`` is a moment."""
        allowed = "an ISO time or seconds since 1970 (not milliseconds) is needed"
        self.refuse("ts", f"({_TIME}) IS NULL OR ({_TIME}) NOT BETWEEN 0 AND {LATEST_S * 1_000_000}", allowed)

    def check_span(self) -> None:
        """No ``ts`` is far from all others."""
        middle = f"(SELECT median({_TIME}) FROM {self.name})"
        far = f"abs(({_TIME}) - {middle}) > {FARTHEST_S * 1_000_000}"
        self.refuse("ts", far, "a time within a year of the others is needed")

    def check_once(self, column: str) -> None:
        """No value of ``column`` stands in two rows."""
        found = self.con.execute(
            f"""SELECT min(file_row), {self.text(column)} AS value, min(file_row, 2)[2] AS again FROM {self.name}
            WHERE value IS NOT NULL GROUP BY value HAVING count(*) > 1 ORDER BY again LIMIT 1"""
        ).fetchone()
        if found is not None:
            first, value, again = found
            raise SpecError(
                f"--{self.name}: {self.path} row {again}, column {column}: {value!r}; each request once is needed, and "
                f"row {first} has this one"
            )

    def check_number(self, column: str, bounds: str, allowed: str, blank: bool = True) -> None:
        """Every value of ``column``, where there is one, is a number within ``bounds`` (SQL on ``x``)."""
        x = f"TRY_CAST({self.text(column)} AS DOUBLE)"
        within = bounds.replace("x", x)
        empty = f"{self.text(column)} IS NULL"
        wrong = f"({x} IS NULL OR NOT isfinite({x}) OR NOT ({within}))"
        self.refuse(column, f"{wrong} AND NOT ({empty})" if blank else f"{empty} OR {wrong}", allowed)


def _said(form: str, text: str) -> str:
    """What is wrong with the file, of DuckDB's error: the row where one is named."""
    odd = re.search(r"CSV Error on Line: (\d+)", text)
    counts = re.search(r"Expected Number of Columns: (\d+) Found: (\d+)", text)
    if odd is None or counts is None:
        # Before its advice, and after the line itself, which may be as long as the file.
        cause = text.split("\nPossible", maxsplit=1)[0].rstrip().splitlines()[-1]
        return f" is no {form}: {cause}" if odd is None else f": row {int(odd[1]) - 1}: {cause}"
    columns, found = counts.groups()
    few, many = f"{found} columns, the header {columns}", f"more columns than the header, which has {columns}"
    return f": row {int(odd[1]) - 1} has {few if int(found) < int(columns) else many}"


def _name(column: str, mark: str = '"') -> str:
    """``column`` as SQL names it, or with ``'`` as a text of SQL."""
    return mark + column.replace(mark, mark + mark) + mark


def _literal(path: Path) -> str:
    """``path`` as DuckDB names this very file: unescaped, ``a[1].csv`` is a pattern, and another file."""
    return re.sub(r"([*?\[])", r"[\1]", str(path))


def connect() -> duckdb.DuckDBPyConnection:
    """A database in memory; times without a zone are UTC."""
    con = duckdb.connect(config={"autoinstall_known_extensions": "false"})
    con.execute("SET TimeZone = 'UTC'")
    con.execute("SET preserve_insertion_order = true")
    return con


def exposures(table: Table, covariates: Sequence[str] = ()) -> None:
    """Make ``shown``: t, request_id, unit, challenger, control, weight_bp, score, latency_us, status, segment, numbers
    (a list of what the columns ``covariates`` hold)."""
    table.need(("unit", "arm", "ts", "weight"))
    table.check_time()
    table.check_span()
    table.check_ids()
    table.refuse("arm", f"arm IS NULL OR arm NOT IN {ARMS}", f"allowed are {' and '.join(ARMS)}")
    table.check_number(
        "weight",
        "x BETWEEN 0 AND 100 AND abs(x * 100 - round(x * 100)) < 1e-6",
        "a percentage from 0 to 100 in steps of 0.01 is needed",
        blank=False,
    )
    for column, bounds, allowed in (
        ("prediction", "true", "a finite number is needed, or nothing where there was no answer"),
        ("latency_ms", "x BETWEEN 0 AND 1e9", "milliseconds from 0 are needed"),
        ("status", "x BETWEEN 0 AND 999", "an HTTP status is needed, 0 where there was no answer"),
        *((c, f"abs(x) <= {LARGEST:.0f}", "a number within 1e9 is needed, or nothing") for c in covariates),
    ):
        if column in table.columns:
            table.check_number(column, bounds, allowed)
    if "control" in table.columns:
        known = f"{table.text('control')} IS NOT NULL AND TRY_CAST({table.text('control')} AS BOOLEAN) IS NULL"
        table.refuse("control", known, "true or false is needed")
    columns = f"""
        {_TIME} AS t, {table.text("unit")} AS unit, arm = 'challenger' AS challenger,
        COALESCE(TRY_CAST({table.text("control")} AS BOOLEAN), FALSE) AS control,
        CAST(round(CAST(weight AS DOUBLE) * 100) AS INTEGER) AS weight_bp,
        TRY_CAST({table.text("prediction")} AS DOUBLE) AS score,
        CAST(round(TRY_CAST({table.text("latency_ms")} AS DOUBLE) * 1000) AS BIGINT) AS latency_us,
        CAST(TRY_CAST({table.text("status")} AS DOUBLE) AS INTEGER) AS status, {table.text("segment")} AS segment,
        [{", ".join(f"TRY_CAST({table.text(c)} AS DOUBLE)" for c in covariates)}] AS numbers,
        {table.text("request_id")} AS request_id, file_row
    """
    table.check_once("request_id")
    # Rows without an id are numbered by what they say, so that the order in the file does not matter.
    table.con.execute(
        f"""
        CREATE TABLE shown AS SELECT * REPLACE (COALESCE(request_id, 'row-' || lpad(CAST(row_number() OVER (
            ORDER BY t, weight_bp, unit, challenger, control, score, latency_us, status, segment) AS VARCHAR), 12, '0'))
            AS request_id)
        FROM (SELECT {columns} FROM {table.name}) ORDER BY t, weight_bp, request_id
        """
    )


def need_latency(table: Table) -> None:
    """Every usable answer has its latency; that of a failed request may be blank and is then its deadline."""
    answered = f"COALESCE(TRY_CAST({table.text('status')} AS DOUBLE), 200) BETWEEN 200 AND 299"
    table.refuse("latency_ms", f"{table.text('latency_ms')} IS NULL AND {answered}", "milliseconds are needed")


def outcomes(table: Table) -> None:
    """Make ``seen``: outcome_id, t, name, value, unit, request_id."""
    table.need(("name", "ts"))
    if not {"unit", "request_id"} & set(table.columns):
        table.need(("unit or request_id",))
    table.check_time()
    table.check_ids()
    table.refuse("name", f"{table.text('name')} IS NULL", "the name of the outcome is needed")
    subject = f"COALESCE({table.text('unit')}, {table.text('request_id')}) IS NULL"
    table.refuse("unit" if "unit" in table.columns else "request_id", subject, "a unit or a request_id is needed")
    if "value" in table.columns:
        table.check_number("value", "abs(x) <= 1e9", "a number within 1e9 is needed", blank=False)
    value = f"CAST({table.text('value')} AS DOUBLE)" if "value" in table.columns else "1.0"
    table.con.execute(
        f"""
        CREATE TABLE seen AS SELECT 'row-' || lpad(CAST(row_number() OVER (
            ORDER BY t, name, value, unit, request_id) AS VARCHAR), 12, '0') AS outcome_id, *
        FROM (
            SELECT {_TIME} AS t, {table.text("name")} AS name, {value} AS value, {table.text("unit")} AS unit,
                {table.text("request_id")} AS request_id FROM {table.name}
        ) ORDER BY t, outcome_id
        """
    )
