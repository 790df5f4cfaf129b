"""A hard limit on a latency: the challenger's quantile by windows, also of answers that nobody was shown."""

from typing import Any

import pytest

from controller.core.evidence import Evidence, Verdict
from controller.status import Reason, RolloutStatus, Verb
from tests.limits.playing import MINUTE, Play

SLOW = {"name": "slow", "kind": "Latency", "limit": 250}
MIRROR = [{"mirror": 100, "hold": "10m"}, {"weight": 10, "hold": "30m"}]


def requests(play: Play, champion_ms: float, challenger_ms: float, units: int = 120, mirror: bool = False) -> None:
    """One request of each of ``units`` in the coming minute; in a mirror each is answered by both."""
    epoch = play.status.epoch
    for i in range(units):
        event: dict[str, Any] = {
            "type": "exposure", "t": play.now + (i + 1) * MINUTE // (units + 2), "attempt": 1, "epoch": epoch,
            "request_id": f"{play.now}.{units}.{i}", "unit": f"{units}.{i}", "assigned_by": "hash",
            "stale": False, "usable": True, "attributes": {}, "answer": None, "cut": False,
        }  # fmt: skip
        b = mirror or i % 2 == 0
        if mirror or not b:
            play.said(
                **event, arm="champion", served_by="champion", evidence=not mirror, mirror=False,
                latency_us=round(1000 * champion_ms),
            )  # fmt: skip
        if b:
            play.said(
                **event, arm="challenger", served_by="challenger", evidence=not mirror, mirror=mirror,
                latency_us=round(1000 * challenger_ms),
            )  # fmt: skip


def minutes(play: Play, slow: list[float], **fields: Any) -> RolloutStatus:
    for challenger_ms in slow:
        requests(play, 100, challenger_ms, **fields)
        play.tick()
    return play.status


def of(play: Play) -> Evidence:
    assert play.moved is not None
    return next(e for e in play.moved.evidence if e.metric == "slow")


def test_in_a_mirror_only_the_limit_decides_on_a_latency_and_it_does() -> None:
    """Twice as slow as the champion is nothing in a mirror, where there is no comparison; above the limit is."""
    play = Play({**SLOW, "margin": "10%"}, steps=MIRROR)
    status = minutes(play, [200.0] * 6, mirror=True)
    assert (status.decision, of(play).verdict) == (Verb.HOLD, Verdict.NOT_WORSE)
    assert str(of(play).limit) == "200.4 ms of 250 ms, breached in 0 of 5 windows"
    status = minutes(play, [300.0] * 3, mirror=True)
    assert (status.decision, status.reason, status.metric) == (Verb.ROLL_BACK, Reason.LIMIT_BREACHED, "slow")


def test_without_a_margin_slower_is_no_harm_as_long_as_the_limit_holds() -> None:
    alone, compared = (Play({**SLOW, **more}) for more in ({}, {"margin": "10%"}))
    for play in (alone, compared):
        minutes(play, [100.0] * 11, units=240)
        minutes(play, [240.0] * 8, units=240)
    assert alone.status.decision is Verb.HOLD
    assert of(alone).verdict is Verdict.NOT_WORSE
    assert compared.status.reason is Reason.SERVICE_HARM
    assert minutes(alone, [300.0] * 3, units=240).reason is Reason.LIMIT_BREACHED


def test_the_limit_needs_no_baseline_and_no_units_of_the_champion() -> None:
    play = Play(SLOW)
    status = minutes(play, [300.0] * 3, units=250)
    assert (status.reason, "slow" in play.status.baselines) == (Reason.LIMIT_BREACHED, False)


def test_a_window_waits_until_its_quantile_is_more_than_the_slowest_request() -> None:
    """Ten units of the challenger a minute: a p99 needs ten minutes of them, a p90 one."""
    for quantile, windows in ((0.99, 1), (0.9, 5)):
        play = Play({**SLOW, "quantile": quantile}, steps=[{"weight": 50, "hold": "1h"}])
        minutes(play, [100.0] * 12, units=20)
        limit = of(play).limit
        assert limit is not None
        assert limit.windows == windows


@pytest.mark.parametrize(("quantile", "breached"), [(0.99, True), (0.9, False)])
def test_the_share_above_the_limit_decides_and_not_the_mean(quantile: float, breached: bool) -> None:
    """Of 105 units 5 are slow: the p99 is above the limit, the p90 far below it."""
    play = Play({**SLOW, "quantile": quantile}, steps=[{"weight": 50, "hold": "1h"}])
    for _ in range(8):
        requests(play, 100, 100, units=200)
        requests(play, 100, 900, units=10)
        play.tick()
    assert (play.status.reason is Reason.LIMIT_BREACHED) is breached


@pytest.mark.parametrize("units", [0, 1])
def test_too_few_requests_are_no_window_and_no_pass(units: int) -> None:
    play = Play(SLOW)
    minutes(play, [900.0] * 6, units=units)
    limit = of(play).limit
    assert limit is not None
    assert (limit.windows, limit.met, of(play).verdict) == (0, False, Verdict.NO_DATA)
