"""What is said to be harmless at once is written as it is by whoever takes all the time for it."""

import random

import pytest

from router.harmless import Harmless
from router.redaction import DEFAULT_NAMES, Redactor

PARTS = (
    "email", "e%6dail", "em\\u0061il", "ema\u00adil", "x1", "dep_delay", "%", "\\", "\0", "é", "ﬃ", "İ", "UA", "[", "]",
    ",", "12.5", '"', ":", "=", "card number", "token", "ſsn", "a b", "_", "cvv", " ", "\n", "phone", "EMAIL",
)  # fmt: skip
TYPES = ("application/json", "text/csv", "application/x-www-form-urlencoded", "")


@pytest.mark.parametrize("names", [DEFAULT_NAMES, (), ("fare",), ("x1",), ("12 5",)], ids=str)
def test_a_body_that_is_spared_is_written_as_it_is(names: tuple[str, ...]) -> None:
    chance = random.Random(5)
    redactor = Redactor(names)
    spared, seen = 0, ["x"]
    for _ in range(4_000):
        text = "".join(chance.choice(PARTS) for _ in range(chance.randrange(1, 6)))
        if chance.random() < 0.5:
            redactor.redact(text, chance.choice(TYPES), whole=True)
            redactor.withholds_part(text, whole=chance.random() < 0.5)
            seen.append(text)
        # Mostly like one that was read, but for its numbers and the case of its letters.
        text = chance.choice((text, chance.choice(seen), chance.choice(seen).upper())).replace("2", "31")
        if redactor.harmless.spares(text.encode()):
            spared += 1
            assert text.isascii()
            # By one that has read nothing before.
            afresh = Redactor(names)
            assert [afresh.redact(text, kind, whole=True).text for kind in TYPES] == [text] * len(TYPES)
    assert spared > 100


def test_a_letter_that_is_written_by_its_number_is_not_like_one_with_another_number() -> None:
    """Without their numbers both look the same, and only one of them is a name."""
    redactor = Redactor(DEFAULT_NAMES)
    other, name = b'{"em\\1u0061il": 5}', b'{"em\\u0061il": 5}'
    redactor.redact(other.decode(), "", whole=True)
    assert not redactor.harmless.spares(name)
    assert "5" not in redactor.redact(name.decode(), "", whole=True).text


def test_what_is_known_is_bounded_and_nothing_long_is() -> None:
    known = Harmless(True, b"0123456789")
    for number in range(10_000):
        text = f"{number}".translate(str.maketrans("0123456789", "abcdefghij")).encode()
        known.add(known.flat(text))
        assert known.spares(text + b"7")
    first = b"a"
    assert not known.spares(first)
    long = b"x" * 3_000
    known.add(known.flat(long))
    assert not known.has(long)
    assert not known.spares(long)
