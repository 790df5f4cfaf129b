"""How much of the interpreter's time goes into large bodies."""

import unicodedata

from router.allowance import Allowance
from router.hidden_names import HiddenNames, plain
from router.redacted import is_large


def test_a_share_of_the_time_that_passes_may_be_worked() -> None:
    now = 100.0
    allowance = Allowance(0.25, 0.5, lambda: now)
    assert allowance.left()
    allowance.took(1.5)  # what has begun is finished
    assert not allowance.left()
    now += 3.9
    assert not allowance.left()
    now += 0.2
    assert allowance.left()
    now += 1_000  # no more than half a second is saved up
    assert allowance.left()
    allowance.took(0.5)
    assert not allowance.left()


def test_a_body_is_large_sooner_where_it_is_not_ascii() -> None:
    assert [is_large(b"a" * size) for size in (16_383, 16_384)] == [False, True]
    assert [is_large(b"\xc3\xa9" * size) for size in (511, 512)] == [False, True]


def test_a_letter_has_no_more_marks_than_can_be_sorted_at_once() -> None:
    # CPython takes minutes for as many as a body may hold: U+0F73 is no mark, and is two when it is taken apart.
    for marks in ("\u0301\u0316", "\u0344", "\u0f73"):
        text = plain("a" + marks * 20_000 + "b" + marks * 10)
        longest = run = 0
        for letter in unicodedata.normalize("NFD", text):
            run = run + 1 if unicodedata.combining(letter) else 0
            longest = max(longest, run)
        assert 20 <= longest <= 60
        assert text.endswith(plain("b" + marks * 10))


def test_names_with_marks_are_found_as_before() -> None:
    names = HiddenNames(("pr\u00e9nom",))
    for written in ("pr\u00e9nom", "pre\u0301nom", "PRE\u0301NOM"):
        assert names.has(written)
        assert names.in_text(f'{{"{written}": 1}}')
