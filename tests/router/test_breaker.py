"""The breaker by itself, under a clock of the test's own."""

from hypothesis import given
from hypothesis import strategies as st

from router.breaker import AT_LEAST, IN_A_ROW, PROBES, REST_S, SLOW_START_S, Breaker


def opened(now: float = 100.0) -> Breaker:
    breaker = Breaker()
    for _ in range(IN_A_ROW):
        breaker.failed(now)
    assert breaker.state == "open"
    return breaker


def test_ten_failures_in_a_row_open_it_and_nine_do_not() -> None:
    breaker = Breaker()
    for _ in range(IN_A_ROW - 1):
        breaker.failed(5.0)
    assert breaker.state == "closed"
    breaker.failed(5.0)
    assert breaker.state == "open"


def test_a_success_in_between_starts_the_row_anew() -> None:
    breaker = Breaker()
    for _ in range(2):
        for _ in range(IN_A_ROW - 1):
            breaker.failed(5.0)
        breaker.succeeded(5.0)
    assert breaker.state == "closed"


def test_it_opens_only_once_enough_requests_mostly_failed() -> None:
    breaker = Breaker()
    for n in range(AT_LEAST - 1):
        (breaker.failed if n % 3 else breaker.succeeded)(7.0)
        assert breaker.state == "closed"
    breaker.failed(7.0)
    assert breaker.state == "open"


def test_half_failed_is_not_mostly_failed() -> None:
    breaker = Breaker()
    for n in range(1_000):
        (breaker.failed if n % 2 else breaker.succeeded)(n / 100)
    assert breaker.state == "closed"


def test_a_fast_collapse_is_seen_though_the_seconds_before_were_good() -> None:
    breaker = Breaker()
    for n in range(5_000):
        breaker.succeeded(n / 1_000)
    for n in range(30):
        (breaker.failed if n % 3 else breaker.succeeded)(6.0)
    assert breaker.state == "open"


def test_failures_of_more_than_ten_seconds_ago_are_forgotten() -> None:
    breaker = Breaker()
    for n in range(AT_LEAST - 2):
        (breaker.failed if n % 3 else breaker.succeeded)(1.0)
    for n in range(4):
        (breaker.failed if n % 2 else breaker.succeeded)(12.0)
    assert breaker.state == "closed"


def test_open_it_admits_nobody_then_one_request_a_second() -> None:
    breaker = opened(100.0)
    assert not breaker.admit(100.0 + REST_S - 0.01)
    times = [100.0 + REST_S + tenth / 10 for tenth in range(25)]
    admitted = [now for now in times if breaker.admit(now)]
    assert breaker.state == "half-open"
    assert len(admitted) == 3
    assert admitted[1] - admitted[0] >= 0.99


def test_a_failed_probe_opens_it_again_for_the_whole_rest() -> None:
    breaker = opened(100.0)
    assert breaker.admit(105.0)
    breaker.failed(105.5)
    assert breaker.state == "open"
    assert not breaker.admit(110.4)
    assert breaker.admit(110.6)


def test_it_closes_after_three_good_probes_and_then_starts_slowly() -> None:
    breaker = opened(100.0)
    for probe in range(PROBES):
        assert breaker.admit(105.0 + 1.1 * probe)
        breaker.succeeded(105.0 + 1.1 * probe)
    assert breaker.state == "closed"
    closed = 105.0 + 1.1 * (PROBES - 1)
    shares = []
    for second in range(int(SLOW_START_S) + 2):
        answers = [breaker.admit(closed + second + n / 1_000) for n in range(1_000)]
        shares.append(sum(answers) / 1_000)
    assert shares == sorted(shares)
    assert 0.1 <= shares[0] <= 0.2
    assert shares[-1] == 1.0


def test_the_time_in_which_it_was_not_closed_is_added_up() -> None:
    breaker = opened(100.0)
    assert breaker.unavailable_ms(103.0) == 3_000
    for probe in (105.0, 106.0, 107.0):
        assert breaker.admit(probe)
        breaker.succeeded(probe)
    assert breaker.unavailable_ms(200.0) == 7_000
    for _ in range(IN_A_ROW):
        breaker.failed(200.0)
    assert breaker.unavailable_ms(202.5) == 9_500
    assert breaker.opened == 2


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 2, allow_nan=False)), max_size=200))
def test_whatever_happens_it_admits_at_most_one_request_a_second_while_not_closed(
    events: list[tuple[bool, float]],
) -> None:
    breaker, now, last_probe = Breaker(), 0.0, -10.0
    for good, wait in events:
        now += wait
        was = breaker.state
        if breaker.admit(now):
            if was != "closed":
                assert now - last_probe >= 1.0
                last_probe = now
            (breaker.succeeded if good else breaker.failed)(now)
