"""A hard limit is a rule: 3 of the last 5 windows roll back, 5 good ones of a step meet it, no data is never a pass."""

import pytest

from controller.core.decide import Facts, decide, harm_thresholds
from controller.core.evidence import Verdict
from controller.core.limits import Limited
from controller.core.replay import differs
from controller.core.validity import Validity
from controller.metric import Role
from controller.status import Progress, Reason, Verb
from tests.decide.rollouts import seen
from tests.limits.playing import MEMORY, MINUTE, Play


def limit(play: Play) -> Limited:
    assert play.moved is not None
    found = next(e.limit for e in play.moved.evidence if e.metric == "memory")
    assert found is not None
    return found


def verdict(play: Play) -> tuple[Verdict, bool]:
    assert play.moved is not None
    found = next(e for e in play.moved.evidence if e.metric == "memory")
    return found.verdict, found.gate


def test_three_of_five_windows_above_the_limit_roll_back_and_say_so() -> None:
    play = Play(MEMORY)
    for value in (1.0, 2.5, 1.0, 2.25):
        status = play.tick(champion=1.0, challenger=value)
        assert status.decision is not Verb.ROLL_BACK
    assert str(limit(play)) == "2.25 GiB of 2 GiB, breached in 2 of 4 windows"
    status = play.tick(champion=1.0, challenger=2.125)
    assert (status.decision, status.reason, status.metric) == (Verb.ROLL_BACK, Reason.LIMIT_BREACHED, "memory")
    assert status.message.startswith("memory 2.12 GiB of 2 GiB, breached in 3 of 5 windows")
    assert play.moved is not None
    assert play.moved.record is not None
    assert differs(play.moved.record) is None


def test_spikes_that_are_far_apart_roll_nothing_back() -> None:
    play = Play(MEMORY, steps=[{"weight": 10, "hold": "2h"}], decision={"maxDuration": "5h"})
    for minute in range(60):
        status = play.tick(challenger=3.0 if minute % 4 == 0 else 1.0)
    assert status.decision is not Verb.ROLL_BACK
    assert limit(play).breaches == 1


def test_what_the_champion_uses_has_no_limit() -> None:
    play = Play(MEMORY)
    for _ in range(8):
        status = play.tick(champion=9.0, challenger=1.0)
    assert status.progress is Progress.RUNNING
    assert limit(play).met


def test_a_limit_is_met_after_five_windows_of_its_own_step_and_judged_by_all() -> None:
    play = Play(MEMORY, steps=[{"mirror": 100, "hold": "10m"}, {"weight": 10, "hold": "30m"}])
    said = []
    for _ in range(6):
        play.tick(challenger=1.0)
        said.append((limit(play).here, limit(play).met, *verdict(play)))
    assert said[3:] == [
        (4, False, Verdict.INCONCLUSIVE, True), (5, True, Verdict.NOT_WORSE, True), (5, True, Verdict.NOT_WORSE, True),
    ]  # fmt: skip
    weight = play.status.epochs[-1].model_copy(update={"number": 2, "kind": "weight", "opened_at": play.now})
    update = {"epochs": (*play.status.epochs, weight), "epoch": 2, "step": 1}
    play.status = play.status.model_copy(update=update)
    play.tick(challenger=2.5)
    play.tick(challenger=2.5)
    assert (limit(play).here, limit(play).breaches, limit(play).windows) == (2, 2, 5)
    assert verdict(play) == (Verdict.INCONCLUSIVE, False)
    assert play.tick(challenger=2.5).reason is Reason.LIMIT_BREACHED


def test_a_source_that_breaks_holds_and_never_rolls_back_or_promotes() -> None:
    """Two windows above the limit and then silence: what is not known is no breach, and no pass either."""
    play = Play(MEMORY, decision={"minUnits": 1})
    for value in (1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 2.5, 2.5):
        play.tick(challenger=value)
    said = []
    for _ in range(8):
        status = play.tick()
        said.append((status.decision, *verdict(play)))
    assert {decision for decision, *_ in said} == {Verb.HOLD}
    assert said[-1][1:] == (Verdict.NO_DATA, False)
    assert not limit(play).met


def test_without_any_sample_the_rollout_holds_for_want_of_data() -> None:
    play = Play(MEMORY, steps=[{"weight": 10, "hold": "1m"}], decision={"minUnits": 1})
    for _ in range(5):
        play.tick()
    assert verdict(play)[0] is Verdict.NO_DATA
    assert play.moved is not None
    assert play.moved.evidence[1].due


def test_the_same_samples_in_another_unit_of_time_give_the_same_windows() -> None:
    """A window's value is the mean of its samples; a longer window holds more of them."""
    play = Play({**MEMORY, "window": "2m"})
    for value in (1.5, 2.5, 1.0, 1.0):
        play.tick(challenger=value)
    assert (limit(play).windows, limit(play).breaches, limit(play).value) == (2, 0, pytest.approx(1.0 * 2**30))


def test_a_rule_takes_no_part_of_the_error_rate_and_is_no_proof() -> None:
    with_limit, without = Play(MEMORY), Play()
    for play in (with_limit, without):
        play.tick(challenger=1.0)
    found = []
    for play in (with_limit, without):
        assert play.moved is not None
        found.append({e.metric: needed for e, needed in harm_thresholds(play.spec, play.moved.evidence)})
    assert found[0] == found[1]
    assert set(found[0]) == {"errors"}


@pytest.mark.parametrize(("here", "breaches", "reason"), [(4, 0, Reason.NOT_PROVEN), (5, 2, Reason.PROVEN)])
def test_a_promotion_waits_until_every_limit_is_met(here: int, breaches: int, reason: Reason) -> None:
    spec = Play(MEMORY).spec
    found = Limited(2.0**30, 2.0**31, "bytes", breaches, 5, here, above=False, due=True)
    memory = seen("memory", role=Role.GUARDRAIL, log_e_non_inferior=0.0, compared=False, limit=found)
    facts = Facts(units=1_000, step_elapsed=600 * MINUTE)
    said = decide(spec, facts, [seen("errors"), memory], Validity())
    assert said.reason is reason
    assert reason is Reason.PROVEN or said.message.startswith("memory 1 GiB of 2 GiB, breached in 0 of 5 windows, 4 of")


def test_a_rollback_by_a_limit_needs_no_minimum_and_happens_while_paused() -> None:
    play = Play(MEMORY)
    play.status = play.status.model_copy(update={"paused": True})
    for _ in range(3):
        status = play.tick(challenger=2.5)
    assert (status.reason, play.now) == (Reason.LIMIT_BREACHED, play.status.epochs[0].opened_at + 3 * MINUTE)
