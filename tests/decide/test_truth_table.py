"""Each row of the table in ``controller.core.decide`` decides, and decides before every row below it."""

import math
from typing import Any

import pytest

from controller.core.decide import Decision, Facts, decide
from controller.core.evidence import Evidence, Verdict
from controller.core.validity import Validity
from controller.metric import Role
from controller.spec import RolloutSpec
from controller.status import Reason, Verb
from tests.decide.rollouts import rollout, seen

HARM = -math.log(0.02 / 2)  # two harm tests share rollbackAlpha
OVER = 600_000_000
DAY = 86_400_000_000
GOOD = Facts(step=1, is_last=True, step_elapsed=OVER, active=OVER, units=100, requests=1000)
EARLY = GOOD._replace(step=0, is_last=False)
VALID = Validity()
STALE = Validity(Reason.STALE, "no events")
MISMATCH = Validity(Reason.SAMPLE_RATIO_MISMATCH, "lost units")


def outcome(facts: Facts, evidence: tuple[Evidence, ...] = (), validity: Validity = VALID, **spec: Any) -> Decision:
    declared: RolloutSpec = rollout(**spec).spec
    return decide(declared, facts, evidence or (seen(), seen("errors")), validity)


def test_row_1_proven_service_harm_rolls_back_before_everything_else() -> None:
    bad = (seen(log_e_harm=HARM + 1), seen("errors", log_e_harm=HARM))
    facts = Facts(paused=True, confirmed=False, breaker_open_ms=60_000, active=100 * DAY)
    said = outcome(facts, bad, MISMATCH)
    assert (said.verb, said.reason, said.metric) == (Verb.ROLL_BACK, Reason.SERVICE_HARM, "errors")
    assert "SampleRatioMismatch" in said.message


def test_row_2_a_breaker_open_for_a_minute_rolls_back_before_outcome_harm() -> None:
    said = outcome(GOOD._replace(breaker_open_ms=60_000), (seen(log_e_harm=HARM + 1), seen("errors")))
    assert (said.verb, said.reason) == (Verb.ROLL_BACK, Reason.BREAKER_OPEN)
    assert outcome(GOOD._replace(breaker_open_ms=59_999)).reason is not Reason.BREAKER_OPEN


def test_row_3_proven_outcome_harm_rolls_back_while_paused_invalid_or_without_any_minimum() -> None:
    bad = (seen(log_e_harm=HARM), seen("errors"))
    for facts, validity in ((Facts(paused=True), STALE), (Facts(units=0), MISMATCH), (GOOD, Validity())):
        said = outcome(facts, bad, validity)
        assert (said.verb, said.reason, said.metric) == (Verb.ROLL_BACK, Reason.OUTCOME_HARM, "ctr")
    assert outcome(GOOD, (seen(log_e_harm=HARM - 1e-9), seen("errors"))).verb is not Verb.ROLL_BACK


def test_row_4_harm_in_a_protected_segment_rolls_back_at_its_own_small_alpha() -> None:
    segments = [{"name": "carrier", "feature": "carrier", "protected": True}]
    first = -math.log(0.02 * 0.25 / 2 / 2)
    second = -math.log(0.02 * 0.25 / 2 / 6)
    overall = (seen(), seen("errors"))
    said = outcome(GOOD, (*overall, seen(segment="carrier=AA", log_e_harm=first)), segments=segments)
    assert (said.verb, said.reason, said.segment) == (Verb.ROLL_BACK, Reason.SEGMENT_HARM, "carrier=AA")
    later = (*overall, seen(segment="carrier=AA"), seen(segment="carrier=UA", log_e_harm=second - 1e-9))
    assert outcome(GOOD, later, segments=segments).verb is Verb.PROMOTE
    unprotected = [{"name": "carrier", "feature": "carrier"}]
    free = (*overall, seen(segment="carrier=AA", log_e_harm=50.0))
    assert outcome(GOOD, free, segments=unprotected).verb is Verb.PROMOTE


def test_the_alphas_of_all_harm_tests_sum_to_no_more_than_rollback_alpha() -> None:
    from controller.core.decide import harm_thresholds

    spec = rollout(segments=[{"name": "carrier", "feature": "carrier", "protected": True}]).spec
    evidence = [seen(), seen("errors")]
    evidence += [seen(m, segment=f"carrier={i}") for i in range(400) for m in ("ctr", "errors")]
    spent = sum(math.exp(-threshold) for _, threshold in harm_thresholds(spec, evidence))
    assert 0.98 * 0.02 < spent <= 0.02 + 1e-12


@pytest.mark.parametrize(("policy", "verb"), [("RollBack", Verb.ROLL_BACK), ("Hold", Verb.HOLD)])
def test_row_5_a_mismatch_that_stands_for_mismatch_for_ends_as_declared(policy: str, verb: Verb) -> None:
    said = outcome(GOOD._replace(mismatch_age=3_600_000_000), validity=MISMATCH, decision={"onMismatch": policy})
    assert (said.verb, said.reason) == (verb, Reason.SAMPLE_RATIO_MISMATCH)


def test_row_6_a_mismatch_holds_even_what_is_proven_and_when_time_is_up() -> None:
    for facts in (GOOD, GOOD._replace(active=100 * DAY), GOOD._replace(promote_by_hand=True)):
        said = outcome(facts, validity=MISMATCH)
        assert (said.verb, said.reason) == (Verb.HOLD, Reason.SAMPLE_RATIO_MISMATCH)


@pytest.mark.parametrize(("policy", "verb"), [("RollBack", Verb.ROLL_BACK), ("Hold", Verb.HOLD)])
def test_row_7_when_time_is_up_what_is_not_earned_ends_as_declared_and_never_promotes(policy: str, verb: Verb) -> None:
    late = GOOD._replace(active=2 * 3600 * 1_000_000)
    unproven = (seen(log_e_non_inferior=1.0), seen("errors"))
    for validity in (Validity(), STALE):
        said = outcome(late, unproven, validity, decision={"onInconclusive": policy})
        assert (said.verb, said.reason) == (verb, Reason.INCONCLUSIVE)
    assert outcome(late).verb is Verb.PROMOTE


def test_row_8_invalid_evidence_holds_with_its_own_reason_and_no_person_overrides_it() -> None:
    said = outcome(GOOD._replace(promote_by_hand=True), validity=STALE)
    assert (said.verb, said.reason) == (Verb.HOLD, Reason.STALE)


def test_row_9_a_person_may_promote_without_evidence_but_not_against_proven_harm() -> None:
    facts = EARLY._replace(promote_by_hand=True, step_elapsed=0, units=0)
    nothing = (seen(verdict=Verdict.NO_DATA, log_e_non_inferior=0.0), seen("errors"))
    assert outcome(facts, nothing).reason is Reason.BY_HAND
    assert outcome(facts, (seen(log_e_harm=HARM), seen("errors"))).verb is Verb.ROLL_BACK


def test_row_10_paused_holds_what_could_advance_or_promote() -> None:
    for facts in (EARLY, GOOD):
        assert outcome(facts._replace(paused=True)).reason is Reason.PAUSED


def test_row_11_an_unavailable_challenger_is_neither_advanced_nor_promoted() -> None:
    for facts in (EARLY, GOOD):
        assert outcome(facts._replace(breaker_open=True)).reason is Reason.CHALLENGER_UNAVAILABLE
        assert outcome(facts._replace(fallbacks=11)).reason is Reason.CHALLENGER_UNAVAILABLE
        assert outcome(facts._replace(fallbacks=10)).verb in (Verb.ADVANCE, Verb.PROMOTE)


def test_row_12_an_unconfirmed_table_holds() -> None:
    assert outcome(EARLY._replace(confirmed=False)).reason is Reason.NOT_CONFIRMED
    said = outcome(EARLY._replace(confirmed=False, trouble="pod late-router-0: Unschedulable")).message
    assert said == "not every router worker serves the table yet: pod late-router-0: Unschedulable"


def test_row_13_the_hold_of_the_step_is_a_minimum() -> None:
    assert outcome(EARLY._replace(step_elapsed=OVER - 1)).reason is Reason.HOLD_TIME
    assert outcome(GOOD._replace(step_elapsed=OVER - 1)).reason is Reason.HOLD_TIME


def test_row_14_too_few_units_hold() -> None:
    assert outcome(EARLY._replace(units=99)).reason is Reason.MIN_UNITS


def test_row_15_a_due_guardrail_without_data_holds_and_one_that_is_not_due_does_not() -> None:
    nothing = seen("errors", verdict=Verdict.NO_DATA, due=True)
    assert outcome(EARLY, (seen(), nothing)).reason is Reason.NO_DATA
    assert outcome(EARLY, (seen(), nothing._replace(due=False))).verb is Verb.ADVANCE


def test_row_16_an_estimate_on_the_bad_side_holds_and_a_signal_says_so() -> None:
    assert outcome(EARLY, (seen(gate=False), seen("errors"))).reason is Reason.GATE
    signal = seen("shown", role=Role.SIGNAL, gate=False)
    assert outcome(EARLY, (seen(), seen("errors"), signal)).reason is Reason.SIGNAL
    watched = signal._replace(role=Role.OBSERVE)
    assert outcome(EARLY, (seen(), seen("errors"), watched)).verb is Verb.ADVANCE


def test_row_17_a_step_that_needs_approval_waits_for_it() -> None:
    assert outcome(EARLY._replace(next_needs_approval=True)).reason is Reason.AWAITING_APPROVAL


def test_row_18_a_step_that_is_done_widens_without_any_proof() -> None:
    unproven = (seen(log_e_non_inferior=0.0, verdict=Verdict.INCONCLUSIVE), seen("errors"))
    said = outcome(EARLY, unproven)
    assert (said.verb, said.reason) == (Verb.ADVANCE, Reason.GATE_MET)


@pytest.mark.parametrize("metric", ["ctr", "errors"])
def test_row_19_each_guardrail_and_success_must_be_proven_not_worse_now(metric: str) -> None:
    almost = math.log(20) - 1e-9
    evidence = tuple(seen(m, log_e_non_inferior=almost if m == metric else 9.0) for m in ("ctr", "errors"))
    said = outcome(GOOD, evidence)
    assert (said.verb, said.reason, said.metric) == (Verb.HOLD, Reason.NOT_PROVEN, metric)


def test_row_19_no_data_is_not_proof() -> None:
    nothing = seen("errors", verdict=Verdict.NO_DATA, log_e_non_inferior=0.0, due=False)
    assert outcome(GOOD, (seen(), nothing)).reason is Reason.NOT_PROVEN


def test_row_20_a_last_epoch_beyond_the_margin_holds() -> None:
    assert outcome(GOOD, (seen(last=False), seen("errors"))).reason is Reason.LAST_EPOCH_WORSE


def test_row_20_a_last_epoch_without_data_holds() -> None:
    said = outcome(GOOD, (seen(last=None), seen("errors")))
    assert (said.verb, said.reason) == (Verb.HOLD, Reason.NO_DATA)


def test_row_21_mode_superior_needs_a_success_metric_proven_better() -> None:
    superior = {"mode": "Superior"}
    assert outcome(GOOD, decision=superior).reason is Reason.NOT_PROVEN
    won = (seen(log_e_superior=math.log(20)), seen("errors"))
    assert outcome(GOOD, won, decision=superior).verb is Verb.PROMOTE


def test_row_22_min_age_holds() -> None:
    assert outcome(GOOD, decision={"minAge": "1h"}).reason is Reason.MIN_AGE


def test_row_23_a_promotion_that_needs_approval_waits_for_it() -> None:
    said = outcome(GOOD._replace(promotion_needs_approval=True))
    assert (said.verb, said.reason) == (Verb.HOLD, Reason.AWAITING_APPROVAL)


def test_row_24_an_a_a_run_ends_held_and_is_never_promoted() -> None:
    said = outcome(GOOD, allowSameVersion=True)
    assert (said.verb, said.reason, said.ends) == (Verb.HOLD, Reason.SAME_VERSION_ENDS, True)
    late = outcome(
        GOOD._replace(active=100 * DAY), (seen(log_e_non_inferior=0.0), seen("errors")), allowSameVersion=True
    )
    assert (late.verb, late.ends) == (Verb.HOLD, True)


def test_row_25_all_proven_promotes_and_names_the_success_metric() -> None:
    said = outcome(GOOD)
    assert (said.verb, said.reason, said.metric) == (Verb.PROMOTE, Reason.PROVEN, "ctr")


def test_signal_and_observe_never_roll_back() -> None:
    for role in (Role.SIGNAL, Role.OBSERVE):
        shown = seen("shown", role=role, log_e_harm=99.0)
        assert outcome(GOOD, (seen(), seen("errors"), shown)).verb is Verb.PROMOTE
