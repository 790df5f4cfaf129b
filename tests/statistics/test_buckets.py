"""A value falls into the same latency bucket in Python and in SQL, edges included, and quantiles are exact."""

import math
from collections import Counter
from collections.abc import Mapping
from fractions import Fraction

import duckdb
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.core.statistics import bucket_lower, bucket_of, bucket_upper, quantile_from_buckets

# As the docstring of bucket_of gives it.
SQL = "CAST(ceil(ln(greatest(x, 1e-9)) / ln(CAST(1.02 AS DOUBLE)) - 1e-9) AS INTEGER)"


def in_sql(values: list[float]) -> list[int]:
    with duckdb.connect() as connection:
        rows = connection.execute(
            f"SELECT {SQL} FROM (SELECT unnest(?::DOUBLE[]) AS x, unnest(range(?)) AS i) ORDER BY i",
            [values, len(values)],
        ).fetchall()
    return [row[0] for row in rows]


def test_the_expression_is_the_documented_one() -> None:
    assert SQL in (bucket_of.__doc__ or "")


def test_sql_agrees_on_edges_on_their_neighbours_and_on_measured_values() -> None:
    edges = [bucket_upper(i) for i in range(-1040, 3000)]
    beside = [math.nextafter(edge, to) for edge in edges for to in (0.0, math.inf)]
    measured = [milliseconds / 1000 for milliseconds in range(1, 60_001)]
    drawn = np.exp(np.random.default_rng(5).uniform(-20, 30, 50_000)).tolist()
    values = [*edges, *beside, *measured, *drawn, 0.0, -1.0, 1.0]
    assert in_sql(values) == [bucket_of(value) for value in values]


@pytest.mark.parametrize("index", [-1045, -1, 0, 1, 2, 349, 35_000])
def test_a_bucket_contains_its_upper_edge_and_not_its_lower_one(index: int) -> None:
    assert bucket_of(bucket_upper(index)) == index
    assert bucket_of(bucket_lower(index)) == index - 1
    assert bucket_of(bucket_lower(index) * (1 + 1e-9)) == index


def test_every_edge_belongs_to_the_bucket_below_it() -> None:
    assert [bucket_of(bucket_upper(i)) for i in range(-1045, 20_000)] == list(range(-1045, 20_000))


@given(st.floats(2e-9, 1e300))
def test_a_value_lies_within_its_bucket(value: float) -> None:
    index = bucket_of(value)
    assert bucket_lower(index) < value <= bucket_upper(index) * (1 + 1e-10)
    assert bucket_upper(index) == pytest.approx(bucket_lower(index) * 1.02, rel=1e-12)


@given(st.floats(0, 1e300), st.floats(0, 1e300))
def test_buckets_are_in_the_order_of_their_values(one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert bucket_of(low) <= bucket_of(high)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_no_number_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="value must be finite"):
        bucket_of(value)


def quantile(counts: Mapping[int, int], q: float) -> int:
    return quantile_from_buckets(sorted(counts.items()), q)


@given(
    st.lists(st.floats(0.1, 1e5), min_size=1, max_size=200),
    st.sampled_from([0.01, 0.07, 0.5, 0.9, 0.95, 0.99, 0.999, 1.0]),
)
def test_the_quantile_is_the_bucket_of_the_value_at_its_rank(values: list[float], q: float) -> None:
    rank = math.ceil(Fraction(str(q)) * len(values))
    expected = bucket_of(sorted(values)[rank - 1])
    assert quantile(Counter(map(bucket_of, values)), q) == expected


def test_a_quantile_is_read_as_the_decimal_it_is_written_as() -> None:
    # In doubles 0.07 * 100 is above 7, and 0.99 is below ninety-nine hundredths.
    counts = {0: 7, 1: 92, 2: 1}
    assert [quantile(counts, q) for q in (0.07, 0.0700001, 0.99, 0.990001, 1.0)] == [0, 1, 1, 2, 2]


def test_the_quantile_of_a_quadrillion_values_is_exact() -> None:
    counts = {10: 999 * 10**12, 20: 10**12}
    assert quantile(counts, 0.999) == 10
    counts[20] += 1
    assert quantile(counts, 0.999) == 20


@pytest.mark.parametrize(
    ("counts", "q", "said"), [({}, 0.5, "counts"), ({1: 0}, 0.5, "counts"), ({1: -1, 2: 3}, 0.5, "counts")]
)
def test_nothing_has_no_quantile(counts: dict[int, int], q: float, said: str) -> None:
    with pytest.raises(ValueError, match=f"{said} must be"):
        quantile(counts, q)


@pytest.mark.parametrize("q", [0.0, -0.1, 1.1, math.nan])
def test_a_share_that_cannot_be_is_refused(q: float) -> None:
    with pytest.raises(ValueError, match="q must be above 0"):
        quantile({1: 1}, q)
