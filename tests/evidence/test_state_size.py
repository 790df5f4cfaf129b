"""What the core keeps does not grow with the number of units."""

from typing import Any

from tests.evidence.bench_evidence import EPOCHS, METRICS, folded


def numbers(state: Any) -> int:
    """How many numbers there are in nested tuples."""
    return sum(map(numbers, state)) if isinstance(state, tuple) else 1


def test_a_thousand_times_the_units_take_the_same_place() -> None:
    few, many = ({key: numbers(fold) for key, fold in folded(units, 1)[2].folds.items()} for units in (10**4, 10**7))
    assert few == many
    assert len(few) == METRICS * 2
    # Five epochs of two arms and 200 buckets of two numbers are the most.
    assert max(few.values()) < EPOCHS * 2 * 200 * 2 + 200
