"""Fields that are never written down: found in captured bodies by their names, and replaced.

Works on text that was captured whole, in the journal's thread, never while somebody waits for an answer. It fails
closed: a body that seems to hold such a field and cannot be taken apart is withheld altogether, and so is the beginning
of one that does so further on, or of JSON of which the rest is not known: values may come before their names. What a
body is, is seen from the body; the content type is only believed of tables and forms, which look like nothing else.
"""

import csv
import re
from typing import Any
from urllib.parse import parse_qsl, urlencode

import orjson

from router import csv_rows
from router.allowance import Allowance
from router.hidden_names import DEFAULT_NAMES, LONGEST_NAME, HiddenNames, unquoted
from router.naming import ABOUT, LISTS, NAMING, NAMING_ONE, OF_COLUMNS, VALUE, has_rows, only_numbers
from router.packed import is_packed
from router.redacted import REDACTED, SLIGHT, UNREAD, WITHHELD, Redacted, Redactions

# Different names in one body, and what a second look at some of them may cost; with more it is withheld. Whoever sends
# bodies of nothing but names keeps the journal's thread busy, and with it the interpreter that answers everybody else.
MOST_NAMES = 4_096
MOST_DOUBTS = 16_384
_LOOK = 64
# What a text costs that seems to hold a name and is searched for it, or a row that does.
_GLANCE = 8
# What a row of CSV costs, and a pair of a form, however little is in it.
_ROW, _PAIR = 2, 8
# Cells of a table that are looked at together: mostly none of them holds a name.
_CELLS = 256
_CELLS_APART = "|"
_BLANK = " \t\r\n\ufeff"
# Ends a name within a text: ``name: value``, ``name=value``, ``<name>value``.
_NAME_END = re.compile("[:=>]")
_HOLDS_NAME = re.compile(r"[:=>%\[]")
_NAME_BEGIN = re.compile(r"[,;&?!|<\r\n]")
# ``user[email][]=``, ``email (work):``
_NAME_PARTS = re.compile(r"[\[({]")
_NAME_WORDS = 3
# What an encoded form never holds.
_RAW = re.compile(r"[\x00-\x20\x7f]")
_QUOTES = "\"'\\]) \t\r\n"
# So many lists of names of one body may be looked for in all of its rows.
_FEW_LISTS = 8


# The nodes above one in a tree of JSON, the nearest first.
_Way = tuple[Any, "_Way"] | None


class Redactor:
    """Replaces the values of fields that have one of ``names``. Any number of bodies, one thread."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = HiddenNames(names)
        self.harmless = self._names.harmless

    def redact(self, text: str, content_type: str, whole: bool, allowance: Allowance | None = None) -> Redacted:
        """``text`` of this content type without what is to be hidden; ``whole``: nothing of it was cut away.

        What it takes to take it apart counts against the ``allowance``; without one it is counted elsewhere.
        """
        form = content_type.startswith("application/x-www-form-urlencoded")
        if is_packed(text):
            return WITHHELD
        # Most bodies are done here.
        seems = self._names.in_text(text)
        if not form and not seems:
            signs_gone = self._names.bare(text) if "%" in text else ""
            if signs_gone is not None and not self._names.in_text(signs_gone):
                return Redacted(text)
        if allowance is None or len(text) < SLIGHT:
            return self._apart(text, content_type, form, whole, seems)
        done = allowance.spend(lambda: self._apart(text, content_type, form, whole, seems))
        return UNREAD if done is None else done

    def _apart(self, text: str, content_type: str, form: bool, whole: bool, seems: bool) -> Redacted:
        """``seems``: a name was seen in it already."""
        if not seems and not self._escaped(text):
            return Redacted(text)
        if not whole:
            return WITHHELD
        try:
            return _Body(self._names).redacted(text, content_type, form)
        except (ValueError, TypeError, RecursionError, csv.Error):
            # Not what it seemed; nested too deep to be written; more names than anybody has columns.
            return WITHHELD

    def withholds_part(self, text: str, whole: bool) -> bool:
        """Whether a part of a body may not be written: a name may stand anywhere in it, also far behind its values.

        ``text`` is what is held of it, ``whole`` whether that is all. In JSON that is not, names may be still to come.
        """
        if not whole and self._names and text.lstrip(_BLANK)[:1] in ("{", "["):
            return True
        if is_packed(text):
            return True
        return self._names.in_text(text) or self._escaped(text)

    def _escaped(self, text: str) -> bool:
        """Whether one may stand in an address, or a form, where "[" is %5B."""
        return "%" in text and self._names.in_text(unquoted(text))


class _Body:
    """One body on its way to being written."""

    def __init__(self, names: HiddenNames) -> None:
        self._names = names
        self._seen: dict[str, bool] = {}
        self._doubts = 0
        self._replaced = 0
        self._lists = 0

    def redacted(self, text: str, content_type: str, form: bool) -> Redacted:
        """Raises ValueError, TypeError or csv.Error where it cannot be taken apart."""
        bare = text.lstrip(_BLANK)
        if bare[:1] in ("{", "["):
            tree = orjson.loads(bare)
            self._tree(tree)
            # Written anew in any case: of a name that comes twice only the last one was looked at.
            return Redacted(orjson.dumps(tree).decode(), self._replaced)
        if content_type.startswith("text/csv"):
            return self._csv(text.removeprefix("\ufeff"))
        if form:
            return self._form(text)
        return WITHHELD

    def _hides(self, name: str) -> bool:
        found = self._seen.get(name)
        if found is None:
            found = self._names.may_be(name)
            if found:
                self._doubt(_LOOK)
                found = self._names.has(name)
            self._seen[name] = found
            if len(self._seen) > MOST_NAMES:
                raise ValueError("too many names")
        return found

    def _field(self, name: str) -> bool:
        """Whether a field of this name is hidden. Raises ValueError where a hidden value stands within the name."""
        found = self._hides(name)
        if found and self._text(name) != name:
            raise ValueError("no name")
        return found

    def _is_name(self, value: Any) -> bool:
        """Whether a value is one of the names: of thousands of different texts few may be."""
        return isinstance(value, str) and self._names.may_be(value) and self._hides(value)

    def _doubt(self, cost: int) -> None:
        self._doubts += cost
        if self._doubts > MOST_DOUBTS:
            raise ValueError("too much to look at")

    def _replace(self, node: dict[str, Any], key: str) -> None:
        if node[key] is not REDACTED:
            node[key] = REDACTED
            self._replaced += 1

    def _tree(self, tree: dict[str, Any] | list[Any]) -> None:
        """Replace what is to be hidden anywhere in a tree of JSON."""
        # Each node with the way to it, and whether it is a table beside the names of its columns.
        left: list[tuple[Any, _Way, bool]] = [(tree, None, False)]
        while left:
            node, way, understood = left.pop()
            here = node, way
            if isinstance(node, list):
                if not understood and node and isinstance(node[0], list):
                    self._rows(node)
                for at, item in enumerate(node):
                    if isinstance(item, str):
                        node[at] = self._text(item)
                    elif isinstance(item, dict | list):
                        left.append((item, here, False))
                continue
            tables = self._beside(node, way)
            for key, value in node.items():
                if self._field(key):
                    self._replace(node, key)
                elif isinstance(value, str):
                    node[key] = self._text(value)
                elif isinstance(value, dict | list):
                    left.append((value, here, key in tables))

    def _rows(self, rows: list[Any]) -> None:
        """Pairs of a name and a value, and rows below a row of names. What may be either is read as both."""
        if not all(isinstance(row, list) for row in rows):
            return
        hidden = [at for at, name in enumerate(rows[0]) if self._is_name(name)]
        if hidden:
            self._doubt(_GLANCE)
        names = hidden and len(rows) > 1 and all(isinstance(name, str) for name in rows[0])
        if all(len(row) == 2 for row in rows):
            for row in rows:
                if self._is_name(row[0]):
                    self._cells(row, [1])
        if names:
            self._table(rows, range(1, len(rows)), hidden, len(rows[0]))

    def _beside(self, node: dict[str, Any], way: "_Way") -> set[str]:
        """Values that stand beside their names: of one field, or of a list of columns.

        Returns under which keys there are tables with the names of their columns, those names included.
        """
        named, narrow = set(), True
        tables: set[str] = set()
        widths: dict[str, int] | None = None
        for key, value in node.items():
            low = key.lower()
            if isinstance(value, str):
                if (low.endswith(NAMING_ONE) or low == "k") and self._is_name(value):
                    named.add(key)
                    # A sentence with such a word in it names nothing that is not called a value.
                    narrow = narrow and len(value.split()) > _NAME_WORDS
            elif isinstance(value, dict):
                if low.endswith("schema"):
                    for inner in value.values():
                        self._columns(node, value, inner, way)
            elif isinstance(value, list) and low.endswith(LISTS):
                if widths is None:
                    widths = {k: len(v[0]) for k, v in node.items() if has_rows(v)}
                self._doubt(len(widths))
                found = {k for k, width in widths.items() if width == len(value) and k != key}
                if self._columns(node, value, value, way) and found and low.endswith(OF_COLUMNS):
                    tables |= {key, *found}
        if named:
            for key in node:
                low = key.lower()
                if key not in named and low not in ABOUT and (not narrow or VALUE.search(low)):
                    self._replace(node, key)
        return tables

    def _columns(self, node: dict[str, Any], holder: Any, columns: Any, way: "_Way") -> bool:
        """Replace the values of the hidden ones of a list of columns; False for what is no such list.

        They stand beside ``holder``, or below what does, or, if there are no rows, as far above as there are some.
        """
        if not isinstance(columns, list) or not all(isinstance(column, str | list | dict) for column in columns):
            return False
        hidden = [at for at, column in enumerate(columns) if self._hides_column(column)]
        if not hidden:
            return True
        self._lists += 1
        width, names = len(columns), frozenset(column for column in columns if isinstance(column, str))
        found, child = self._below(node, holder, hidden, width, names), node
        while not found and way is not None:
            above, way = way
            if isinstance(above, list):
                break  # of many: what is in one of them is about that one
            found, child = self._below(above, child, hidden, width, names), above
        return True

    def _hides_column(self, column: Any) -> bool:
        """Whether an entry of a list of columns has one of the names: itself, one of its levels, or what it says."""
        if isinstance(column, str):
            return self._hides(column)
        if isinstance(column, dict):
            column = [column.get(key) for key in NAMING]
        return isinstance(column, list) and any(isinstance(level, str) and self._hides(level) for level in column)

    def _below(self, node: dict[str, Any], holder: Any, hidden: list[int], width: int, names: frozenset[str]) -> bool:
        """Replace the values of the hidden columns in all of a node but ``holder``; whether there are rows in it.

        What cannot be understood there is replaced as a whole.
        """
        rows = False
        left = [node]
        while left:
            inner = left.pop()
            self._doubt(len(inner))
            for key, value in inner.items():
                low = key.lower()
                if value is holder:
                    continue
                if low in ABOUT:
                    if low == "index" and not only_numbers(value):
                        self._replace(inner, key)
                elif isinstance(value, dict):
                    left.append(value)
                elif isinstance(value, str):
                    if VALUE.search(low):
                        self._replace(inner, key)
                elif isinstance(value, list) and value:
                    # In a tensor, all values are in one list.
                    if low == "values" and inner is not node:
                        self._replace(inner, key)
                    elif self._is_table(value, hidden, width, names):
                        rows = True
                    elif len(value) == width and not any(isinstance(item, dict | list) for item in value):
                        self._cells(value, hidden)
                    else:
                        self._replace(inner, key)
        return rows

    def _is_table(self, value: list[Any], hidden: list[int], width: int, names: frozenset[str]) -> bool:
        """Replace the values of the hidden columns in the rows of a table; False for what is none."""
        if self._lists > _FEW_LISTS:
            self._doubt(len(value))
        if all(isinstance(row, list) for row in value):
            self._table(value, range(len(value)), hidden, width)
            return True
        # Records have names of their own.
        return all(isinstance(row, dict) for row in value) and any(names & row.keys() for row in value)

    def _table(self, rows: list[Any], places: range, hidden: list[int], width: int) -> None:
        """Replace the hidden columns of rows, and rows that do not fit as a whole."""
        for at in places:
            row = rows[at]
            # A row of nothing but lists is rather rows of its own.
            if (
                isinstance(row, list)
                and len(row) == width
                and not (isinstance(row[0], list) and all(isinstance(cell, list) for cell in row))
            ):
                self._cells(row, hidden)
            elif row is not REDACTED:
                rows[at] = REDACTED
                self._replaced += 1

    def _cells(self, row: list[Any], hidden: list[int]) -> None:
        for at in hidden:
            if at < len(row) and row[at] is not REDACTED:
                row[at] = REDACTED
                self._replaced += 1

    def _text(self, text: str) -> str:
        """A text that is a value: it may hold JSON, or names with values of their own."""
        said = unquoted(text)
        inner = text.lstrip(_BLANK)
        json = inner[:1] in ("{", "[")
        if not json and ":" not in said and "=" not in said and ">" not in said:
            return text
        # In JSON letters may be written as numbers once more.
        if not self._names.may_be(said) and not (json and "\\" in inner):
            return text
        self._doubt(_GLANCE)
        if json:
            try:
                tree = orjson.loads(inner)
            except ValueError:
                tree = None
            if tree is not None:
                before = self._replaced
                self._tree(tree)
                return text if self._replaced == before else orjson.dumps(tree).decode()
        begin = 0
        for end in _NAME_END.finditer(said):
            self._doubt(1)
            raw = _NAME_BEGIN.split(said[max(begin, end.start() - LONGEST_NAME) : end.start()])[-1]
            begin = end.end()
            names = _NAME_PARTS.split(raw)
            self._doubt(len(names) - 1)
            for name in names:
                if self._hides(" ".join(name.strip(_QUOTES).split()[-_NAME_WORDS:])):
                    self._replaced += 1
                    return REDACTED
        return text

    def _csv(self, text: str) -> Redacted:
        self._doubt(_ROW * text.count("\n"))
        rows, delimiter = csv_rows.read(text)
        names = rows[0]
        hidden = [at for at, name in enumerate(names) if self._hides(name)]
        if (len(names) == 1 and not hidden) or any(self._text(name) != name for name in names):
            return WITHHELD
        for row in rows[1:]:
            self._cells(row, hidden)
        if _HOLDS_NAME.search(text):
            self._cells_with_names(rows[1:])
        return Redacted(csv_rows.written(rows, delimiter) if self._replaced else text, self._replaced)

    def _cells_with_names(self, rows: list[list[str]]) -> None:
        """Replace cells that hold a name with a value of its own."""
        places = [(row, at) for row in rows for at, cell in enumerate(row) if _HOLDS_NAME.search(cell)]
        for begin in range(0, len(places), _CELLS):
            some = places[begin : begin + _CELLS]
            together = _CELLS_APART.join(row[at] for row, at in some)
            if "\\" in together or self._names.may_be(together):
                for row, at in some:
                    row[at] = self._text(row[at])

    def _form(self, text: str) -> Redacted:
        self._doubt(_PAIR * text.count("&"))
        pairs = []
        if _RAW.search(text := text.rstrip(_BLANK)):
            return WITHHELD
        for name, value in parse_qsl(text, keep_blank_values=True, strict_parsing=True):
            hidden = self._field(name)
            self._replaced += hidden
            pairs.append((name, REDACTED if hidden else self._text(value)))
        return Redacted(urlencode(pairs), self._replaced)


__all__ = ["DEFAULT_NAMES", "MOST_NAMES", "REDACTED", "WITHHELD", "Redacted", "Redactions", "Redactor"]
