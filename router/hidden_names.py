"""Which names of fields are to be hidden, however they are written: ``cardNumber``, ``card_number``, ``CARD-NUMBER``.

Asked of whole bodies ("may there be one in it?") and of single names. Nothing here takes longer than the length of its
text, and what is remembered is bounded: names come from strangers.
"""

import re
import unicodedata
from collections.abc import Iterator
from functools import cache
from itertools import accumulate
from urllib.parse import unquote_plus

from router.harmless import Harmless

# What nobody wants to find in a log file, whatever the model; several words are one name (cardNumber, card_number).
DEFAULT_NAMES = (
    "authorization", "auth", "bearer", "jwt", "cookie", "password", "passwd", "pwd", "passcode", "passphrase", "secret",
    "token", "credential", "api key", "private key", "session id", "ssn", "social security", "tax id", "passport",
    "card number", "credit card", "cc number", "cvv", "cvc", "iban", "account number", "email", "e mail", "phone",
)  # fmt: skip
# Shorter names have to be a word of their own: "ssn" is no part of "lessness".
_SHORT = 5
_MOST_KNOWN = 4_096
# A name of more characters is not taken apart: it is hidden where it seems to hold one of ours.
LONGEST_NAME = 100
# What may stand between the words of a name, and what between names besides: mostly a body is numbers, and without
# them there is little to search.
_JOINTS = b"_-. \t\r\n/()"
_NUMBERS = b"0123456789,+[]"
# What may stand between the letters of a short name, whose words are single ones: S.S.N.
_JOINT = r"[_\-.\s/()]{0,3}"
_LOWER = bytes(range(256)).lower()
# Characters that nobody sees, which could stand in the midst of a name, and two that stand for whole sentences.
_UNSEEN = re.compile("[\ufdfa\ufdfb\u00ad\u034f\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufe00-\ufe0f\ufeff]")
# Marks above one letter; Unicode's text that is safe to be streamed has no more (UAX #15, Stream-Safe Text Format).
_MOST_MARKS = 30
_FIRST_MARK, _LAST_MARK = 0x300, 0x1F000
# An address in one in another one, in a form.
_ADDRESSES_DEEP = 4
_ESCAPED = re.compile("%[0-9A-Fa-f]{2}")
# Nobody who means well writes letters so; full-width and mathematical ones are letters too. In an address that is part
# of another one the sign itself is written as %25.
_ESCAPED_LETTER = "%(?:25)*(?:[46][1-9A-Fa-f]|[57][0-9Aa]|[Ee][Ff]%(?:25)*[Bb][CcDd]|[Ff]0%(?:25)*9[Dd])"
# But those that are not ASCII, everybody.
_ESCAPED_OTHER = "|%(?:25)*[89A-Fa-f][0-9A-Fa-f]"
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
# cvv2 is a cvv.
_BESIDE_NUMBER = re.compile(r"(?<=\d)(?=\D)|(?<=\D)(?=\d)")
_BETWEEN = re.compile(r"[\W_]+")


def plain(text: str) -> str:
    """The text with one form for every letter (full width, ligatures), without what nobody sees."""
    if text.isascii():
        return text
    # CPython sorts the marks of one letter in a time that grows with the square of their number.
    return unicodedata.normalize("NFKC", _many_marks().sub(_some_marks, _UNSEEN.sub("", text)))


def unquoted(text: str) -> str:
    """The text as it is meant in an address, where "[" is %5B; also of one that is part of another address."""
    for _ in range(_ADDRESSES_DEEP):
        if "%" not in text:
            break
        text = unquote_plus(text)
    return text


@cache
def _many_marks() -> re.Pattern[str]:
    """More marks than a letter may have. Made when the first such text is read, in some hundredths of a second."""
    marks = {code for code in range(_FIRST_MARK, _LAST_MARK) if _is_mark(chr(code))}
    first = sorted(code for code in marks if code - 1 not in marks)
    last = sorted(code for code in marks if code + 1 not in marks)
    ranges = "".join(f"{chr(one)}-{chr(two)}" for one, two in zip(first, last, strict=True))
    return re.compile(f"[{ranges}]{{{_MOST_MARKS + 1},}}")


def _is_mark(letter: str) -> bool:
    """Whether it is one, or stands for nothing but marks."""
    if unicodedata.combining(letter):
        return True
    parts = unicodedata.decomposition(letter)
    return bool(parts) and all(map(unicodedata.combining, unicodedata.normalize("NFKD", letter)))


def _some_marks(found: re.Match[str]) -> str:
    return found[0][:_MOST_MARKS]


def words_of(name: str) -> tuple[str, ...]:
    """The words of a name in lower case and singular: ``userEmails`` is (user, email)."""
    parts = _BETWEEN.split(_HUMP.sub(" ", plain(name)).casefold())
    return tuple(part[:-1] if len(part) > 3 and part[-1] == "s" != part[-2] else part for part in parts if part)


class HiddenNames:
    """Names to be hidden, each of a word at least, prepared for being looked for.

    A field has a name if some of its words in a row spell it (``work_email``, ``emailAddress``, ``pass_word``), or if,
    from five letters on, the field written without blanks begins or ends with it (``accesstoken``).
    """

    def __init__(self, names: tuple[str, ...]) -> None:
        split = tuple(dict.fromkeys(map(words_of, names)))
        self._joined = frozenset("".join(words) for words in split)
        self._long = tuple(name for name in self._joined if len(name) >= _SHORT)
        # A text without the longest word of any name has no name in it.
        self._hints = _shortest({max(words, key=len) for words in split})
        self._hinted = re.compile("|".join(map(re.escape, self._hints))).search
        self._long_words = tuple(words for words in split if len("".join(words)) >= _SHORT)
        self._short_words = tuple(words for words in split if len("".join(words)) < _SHORT)
        self._short_apart = _letters_apart([name for name in self._joined if len(name) < _SHORT])
        own = "".join(self._joined).encode()
        self._letter = re.compile(_ESCAPED_LETTER + ("" if own.isascii() else _ESCAPED_OTHER))
        self._joints = bytes(set(_JOINTS).difference(own))
        self.harmless = Harmless(bool(self._hints), bytes(set(_JOINTS + _NUMBERS).difference(own)))
        self._known: dict[str, bool] = {}

    def __bool__(self) -> bool:
        return bool(self._hints)

    def in_text(self, text: str) -> bool:
        """Whether one may stand somewhere in it, escaped or not; often said of texts that hold none."""
        if not self._hints:
            return False
        # An escaped letter could hide a name from a search in the text, and so could an encoding besides UTF-8.
        if "\\u" in text or "\0" in text:
            return True
        data = _bytes(text)
        flat = self.harmless.flat(data)
        if self.harmless.has(flat):
            return False
        if not self._any_hint(flat.decode("utf-8", "replace")):
            self.harmless.add(flat)
            return False
        # Without the numbers between them, two words may look like one.
        joined, apart = data.translate(_LOWER, self._joints).decode(), data.lower().decode()
        return (
            any(all(word in joined for word in words) for words in self._long_words)
            or any(all(word in apart for word in words) for words in self._short_words)
            or self._short_apart.search(apart) is not None
        )

    def bare(self, text: str) -> str | None:
        """A text with signs as they are written in an address, without those; None where letters are written so."""
        return None if self._letter.search(text) else _ESCAPED.sub("", text)

    def _any_hint(self, text: str) -> bool:
        for hint in self._hints:  # noqa: SIM110  # twice as fast as any(), and every request comes by
            if hint in text:
                return True
        return False

    def may_be(self, field: str) -> bool:
        """Whether a field of this name may have to be hidden: a quick look, of which most do not need a second one."""
        flat = self.harmless.flat(_bytes(unquoted(field))).decode("utf-8", "replace")
        return bool(self._hints) and self._hinted(flat) is not None

    def has(self, field: str) -> bool:
        """Whether a field of this name is to be hidden."""
        found = self._known.get(field)
        if found is None:
            if len(field) > LONGEST_NAME:
                return self.may_be(field)
            found = self.may_be(field) and self._spelled(field)
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            self._known[field] = found
        return found

    def _spelled(self, field: str) -> bool:
        words = words_of(unquoted(field))
        joined = "".join(words)
        if joined.startswith(self._long) or joined.endswith(self._long):
            return True
        bounds = {0, *accumulate(map(len, words)), *(found.start() for found in _BESIDE_NUMBER.finditer(joined))}
        return any(at in bounds and at + len(name) in bounds for name in self._joined for at in _places(name, joined))


def _letters_apart(names: list[str]) -> re.Pattern[str]:
    """Any of these names, its letters apart from others and maybe from each other."""
    if not names:
        return re.compile(r"(?!)")
    begin = "".join(sorted({re.escape(name[0]) for name in names}))
    any_of = "|".join(_JOINT.join(map(re.escape, name)) for name in sorted(names))
    return re.compile(rf"(?<![^\W\d_])(?=[{begin}])(?:{any_of})(?![^\W\d_])")


def _places(name: str, text: str) -> Iterator[int]:
    at = text.find(name)
    while at >= 0:
        yield at
        at = text.find(name, at + 1)


def _bytes(text: str) -> bytes:
    return (text if text.isascii() else plain(text).casefold()).encode("utf-8", "replace")


def _shortest(hints: set[str]) -> tuple[str, ...]:
    """Without those that contain another one."""
    return tuple(sorted(hint for hint in hints if not any(other != hint and other in hint for other in hints)))
