"""Fields that are never written down: found in captured request bodies by their names, and replaced.

Works on text that was captured whole, in the journal's thread, never while somebody waits for an answer. It fails
closed: a body that seems to hold such a field and cannot be taken apart is withheld altogether.
"""

import csv
import io
import re
from collections.abc import Iterable
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlencode

import orjson

REDACTED = "[redacted]"
# What nobody wants to find in a log file, whatever the model; several words are one name (cardNumber, card_number).
DEFAULT_NAMES = (
    "authorization", "cookie", "password", "passwd", "passphrase", "secret", "token", "credential", "api key",
    "private key", "session id", "ssn", "social security", "tax id", "passport", "card number", "credit card",
    "cvv", "cvc", "iban", "account number", "email", "e mail", "phone",
)  # fmt: skip
# Shorter names have to be a word of their own: "ssn" is no part of "lessness".
_SHORT = 5
_MOST_KEYS = 4_096
# Mostly a body is numbers: without them there is little to search.
_NUMBERS = b"0123456789.,+-[] \t\r\n"
_LOWER = bytes(range(256)).lower()
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_BETWEEN = re.compile(r"[\W_]+")


def words_of(name: str) -> tuple[str, ...]:
    """The words of a name in lower case and singular: ``userEmails`` is (user, email)."""
    parts = _BETWEEN.split(_HUMP.sub(" ", name).lower())
    return tuple(part[:-1] if len(part) > 3 and part.endswith("s") else part for part in parts if part)


def _shortest(hints: Iterable[str]) -> list[str]:
    """Without those that contain another one."""
    return [hint for hint in hints if not any(other != hint and other in hint for other in hints)]


class Redacted(NamedTuple):
    """A body as it may be written, and how many fields of it were replaced; ``withheld``: all of it was."""

    text: str
    fields: int = 0
    withheld: bool = False


class Redactions:
    """What a worker's redactors did, counted by the journal's thread."""

    __slots__ = ("redacted", "withheld")

    def __init__(self) -> None:
        self.redacted = 0
        self.withheld = 0

    def counters(self) -> dict[str, float]:
        """How many fields were replaced and how many bodies withheld, by metric name."""
        return {"redacted_fields_total": self.redacted, "withheld_bodies_total": self.withheld}


class Redactor:
    """Replaces the values of fields that have one of ``names``. Any number of bodies, one thread.

    A field has a name if the name's words follow each other in the field's (``work_email``, ``emailAddress``), or if,
    from five letters on, the field written without blanks begins or ends with it (``accesstoken``).
    """

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = tuple(words for name in dict.fromkeys(names) if (words := words_of(name)))
        self._joined = tuple(joined for words in self._names if len(joined := "".join(words)) >= _SHORT)
        # A body without any of these has no field to replace: it is not even parsed. An escaped letter could hide a
        # name from a search in the text, and so could an encoding besides UTF-8.
        hints = dict.fromkeys(max(words, key=len) for words in self._names)
        self._hints = ("\\u", "\0", *_shortest(hints)) if hints else ()
        self._thrown = bytes(set(_NUMBERS).difference("".join(self._hints).encode()))
        self._known: dict[str, bool] = {}

    def hides(self, field: str) -> bool:
        """Whether a field of this name is to be replaced."""
        found = self._known.get(field)
        if found is None:
            found = self._looked_up(field)
            if len(self._known) < _MOST_KEYS:
                self._known[field] = found
        return found

    def _looked_up(self, field: str) -> bool:
        words = words_of(field)
        for name in self._names:
            size = len(name)
            if any(words[at : at + size] == name for at in range(len(words) - size + 1)):
                return True
        joined = "".join(words)
        return joined.startswith(self._joined) or joined.endswith(self._joined)

    def suspects(self, text: str) -> bool:
        """Whether there may be something to hide in it; where not, it may be written as it is."""
        if not self._hinted(text.encode().translate(_LOWER, self._thrown).decode() if text.isascii() else text.lower()):
            return False
        # Without the numbers between them, two words may look like one.
        return self._hinted(text.lower())

    def _hinted(self, text: str) -> bool:
        for hint in self._hints:  # noqa: SIM110  # twice as fast as any(), and every request comes by
            if hint in text:
                return True
        return False

    def redact(self, text: str, content_type: str, whole: bool) -> Redacted:
        """``text`` of this content type without what is to be hidden; ``whole``: nothing of it was cut away."""
        if not self.suspects(text):
            return Redacted(text)
        if not whole:
            return Redacted(REDACTED, withheld=True)
        if content_type.startswith("text/csv"):
            return self._csv(text)
        if content_type.startswith("application/x-www-form-urlencoded"):
            return self._form(text)
        return self._json(text)

    def _json(self, text: str) -> Redacted:
        try:
            tree = orjson.loads(text)
            if not isinstance(tree, dict | list):
                return Redacted(REDACTED, withheld=True)
            number = self._tree(tree)
            # Written anew in any case: of a name that comes twice only the last one was looked at.
            return Redacted(orjson.dumps(tree).decode(), number)
        except (ValueError, TypeError):  # no JSON; nested too deep to be written
            return Redacted(REDACTED, withheld=True)

    def _tree(self, tree: Any) -> int:
        """Replace what is to be hidden anywhere in a tree of JSON; how many fields that were."""
        number, left = 0, [tree]
        while left:
            node = left.pop()
            if isinstance(node, list):
                left.extend(item for item in node if isinstance(item, dict | list))
                continue
            number += self._columns(node)
            for key, value in node.items():
                if self.hides(key):
                    node[key] = REDACTED
                    number += 1
                elif isinstance(value, dict | list):
                    left.append(value)
        return number

    def _columns(self, node: dict[str, Any]) -> int:
        """Values that stand below the name of their column: ``{"columns": [...], "data": [[...], ...]}``."""
        columns, rows = node.get("columns"), node.get("data")
        if not isinstance(columns, list) or not isinstance(rows, list):
            return 0
        hidden = [at for at, name in enumerate(columns) if isinstance(name, str) and self.hides(name)]
        number = 0
        for row in rows if hidden else ():
            if not isinstance(row, list):
                continue
            for at in hidden:
                if at < len(row):
                    row[at] = REDACTED
                    number += 1
        return number

    def _csv(self, text: str) -> Redacted:
        try:
            rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
        except csv.Error:
            return Redacted(REDACTED, withheld=True)
        hidden = [at for at, name in enumerate(rows[0]) if self.hides(name)] if rows else []
        if not hidden:
            return Redacted(text)
        number = 0
        for row in rows[1:]:
            for at in hidden:
                if at < len(row):
                    row[at] = REDACTED
                    number += 1
        out = io.StringIO(newline="")
        csv.writer(out, lineterminator="\n").writerows(rows)
        return Redacted(out.getvalue(), number)

    def _form(self, text: str) -> Redacted:
        try:
            pairs = parse_qsl(text, keep_blank_values=True, strict_parsing=True)
        except ValueError:
            return Redacted(REDACTED, withheld=True)
        number = sum(self.hides(name) for name, _ in pairs)
        return Redacted(urlencode([(name, REDACTED if self.hides(name) else value) for name, value in pairs]), number)
