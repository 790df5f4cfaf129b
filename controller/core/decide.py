"""The decision of one tick, from evidence and facts alone.

Rows are tried from the top; the first that holds decides. H = log e of ever-harm, each test at its share of
``rollbackAlpha``; NI, SUP = log e now.

=====  ==============================================  ===========================  =====================
row    condition                                       decision                     reason
=====  ==============================================  ===========================  =====================
0      a limit breached in 3 of 5 windows              RollBack                     LimitBreached
1      service metric: H proven                        RollBack                     ServiceHarm
2      breaker open for 60 s in total                  RollBack                     BreakerOpen
3      outcome metric: H proven                        RollBack                     OutcomeHarm
4      protected segment: H proven                     RollBack                     SegmentHarm
5      sample-ratio mismatch, for mismatchFor          onMismatch                   SampleRatioMismatch
6      sample-ratio mismatch                           Hold                         SampleRatioMismatch
7      active for maxDuration, promotion not earned    onInconclusive               Inconclusive
8      other invalidity                                Hold                         its own
9      a person asked to promote                       Promote                      ByHand
10     paused                                          Hold                         Paused
11     breaker open, or fallbacks above maxFallback    Hold                         ChallengerUnavailable
12     table not confirmed by every worker             Hold                         NotConfirmed
13     hold of the step not over                       Hold                         HoldTime
14     fewer than minUnits challenger units            Hold                         MinUnits
15     a due Guardrail or Success without data         Hold                         NoData
16     an estimate too far on the bad side             Hold                         Gate (Signal: Signal)
17     not the last step, it needs approval            Hold                         AwaitingApproval
18     not the last step                               Advance                      GateMet
19     a Guardrail or Success not proven NotWorse,     Hold                         NotProven
       or a limit not met in 5 windows
20     the last epoch alone beyond the margin          Hold                         LastEpochWorse
       no data of the last epoch yet                   Hold                         NoData
21     Superior: no Success proven better              Hold                         NotProven
22     younger than minAge                             Hold                         MinAge
23     promotion needs approval                        Hold                         AwaitingApproval
24     an A/A run                                      Hold, the rollout ends       SameVersionEnds
25     else                                            Promote                      Proven
=====  ==============================================  ===========================  =====================

Rows 0–4 need no minimum, hold in every state, also while paused or invalid, and say which validity they had. Row 7
comes after the question whether rows 19–25 would promote now: time runs out only for what is not earned. An A/A run
ends in row 24 or at maxDuration, never promoted.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from controller.core.evidence import Evidence, Verdict
from controller.core.limits import WINDOWS
from controller.core.validity import Validity
from controller.kinds import KINDS, MIRRORED
from controller.metric import Role
from controller.spec import Mode, RolloutSpec
from controller.status import Reason, Verb

BREAKER_LIMIT_MS = 60_000
PROTECTED_SHARE = 0.25


class Facts(NamedTuple):
    """What a decision needs besides evidence. Times in µs; ``step`` counts from 0; ``trouble``: why the table is not
    confirmed, as far as that is known."""

    step: int = 0
    is_last: bool = True
    step_elapsed: int = 0
    active: int = 0
    mismatch_age: int = 0
    units: int = 0
    requests: int = 0
    fallbacks: int = 0
    confirmed: bool = True
    paused: bool = False
    breaker_open: bool = False
    breaker_open_ms: int = 0
    next_needs_approval: bool = False
    promotion_needs_approval: bool = False
    promote_by_hand: bool = False
    trouble: str = ""


class Decision(NamedTuple):
    """What to do and why. ``ends``: an A/A run is over."""

    verb: Verb
    reason: Reason
    message: str
    metric: str | None = None
    segment: str | None = None
    ends: bool = False


def decide(spec: RolloutSpec, facts: Facts, evidence: Sequence[Evidence], validity: Validity) -> Decision:
    """One row of the table above."""
    harmed = harm(spec, facts, evidence, validity)
    if harmed is not None:
        return harmed
    if validity.reason is Reason.SAMPLE_RATIO_MISMATCH:
        over = facts.mismatch_age >= spec.decision.mismatch_for
        verb = Verb(spec.decision.on_mismatch.value) if over else Verb.HOLD
        return Decision(verb, Reason.SAMPLE_RATIO_MISMATCH, validity.message)
    wish = _wish(spec, facts, evidence, validity)
    earned = wish.verb is Verb.PROMOTE or wish.ends
    if facts.active >= spec.decision.max_duration and not earned:
        if spec.allow_same_version:
            return Decision(Verb.HOLD, Reason.SAME_VERSION_ENDS, "the A/A run is over", ends=True)
        return Decision(Verb(spec.decision.on_inconclusive.value), Reason.INCONCLUSIVE, f"time is up: {wish.message}")
    return wish


def harm(spec: RolloutSpec, facts: Facts, evidence: Sequence[Evidence], validity: Validity) -> Decision | None:
    """Rows 0 to 4: breached limits and proven harm, service kinds first."""
    tests = harm_thresholds(spec, evidence)
    suffix = f" (while {validity.reason}: {validity.message})" if validity.reason else ""
    for e in judging(evidence):
        if e.limit is not None and e.limit.breached:
            return Decision(Verb.ROLL_BACK, Reason.LIMIT_BREACHED, f"{e.metric} {e.limit}{suffix}", e.metric)
    for service in (True, False):
        for e, threshold in tests:
            if not e.segment and e.service is service and e.log_e_harm >= threshold:
                reason = Reason.SERVICE_HARM if service else Reason.OUTCOME_HARM
                return Decision(Verb.ROLL_BACK, reason, describe(e, threshold) + suffix, e.metric)
        if service and facts.breaker_open_ms >= BREAKER_LIMIT_MS:
            text = f"the router's breaker kept the challenger off for {facts.breaker_open_ms / 1000:.0f} s"
            return Decision(Verb.ROLL_BACK, Reason.BREAKER_OPEN, text + suffix)
    for e, threshold in tests:
        if e.segment and e.log_e_harm >= threshold:
            text = f"{e.segment}: {describe(e, threshold)}"
            return Decision(Verb.ROLL_BACK, Reason.SEGMENT_HARM, text + suffix, e.metric, e.segment)
    return None


def judging(evidence: Sequence[Evidence]) -> list[Evidence]:
    """The evidence on all traffic that may veto or must win."""
    return [e for e in evidence if not e.segment and e.role in (Role.GUARDRAIL, Role.SUCCESS)]


def harm_thresholds(spec: RolloutSpec, evidence: Sequence[Evidence]) -> list[tuple[Evidence, float]]:
    """Every harm test with the log e it must reach. Their alphas sum to at most ``rollbackAlpha``.

    A metric that is not compared has a limit, which is no test and takes no part of it.
    A mirror's tests are tests of their own beside those of the weights, so a plan with a mirror counts them as well.
    The k-th value of a protected segment to appear has the weight 1/(k(k+1)), so their number needs no bound.
    """
    protected = [s.name for s in spec.segments if s.protected]
    harmful = [m for m in spec.metrics if m.role in (Role.GUARDRAIL, Role.SUCCESS) and m.compared]
    paired = [m for m in harmful if KINDS[m.kind].family in MIRRORED]
    weighted = [m for m in harmful if KINDS[m.kind].family != "pair"]
    mirrors = any(s.mirror is not None for s in spec.steps)
    tests = len(weighted) + (len(paired) if mirrors else 0)
    whole = spec.decision.rollback_alpha * (1 - PROTECTED_SHARE if protected else 1) / tests
    said = [(e, -math.log(whole)) for e in judging(evidence) if e.compared]
    rank: dict[str, int] = {}
    for e in evidence:
        name = e.segment.partition("=")[0]
        if e.segment and name in protected and e.compared and e.role in (Role.GUARDRAIL, Role.SUCCESS):
            k = rank.setdefault(e.segment, len(rank) + 1)
            alpha = spec.decision.rollback_alpha * PROTECTED_SHARE / tests / (k * (k + 1))
            said.append((e, -math.log(alpha)))
    return said


def _wish(spec: RolloutSpec, facts: Facts, evidence: Sequence[Evidence], validity: Validity) -> Decision:
    """Rows 8 to 25."""
    if validity.reason is not None:
        return Decision(Verb.HOLD, validity.reason, validity.message)
    if facts.promote_by_hand:
        return Decision(Verb.PROMOTE, Reason.BY_HAND, "promoted by hand, without waiting for evidence")
    if facts.paused:
        return Decision(Verb.HOLD, Reason.PAUSED, "paused by a person; harm is still watched")
    share = facts.fallbacks / facts.requests if facts.requests else 0.0
    if facts.breaker_open or share > spec.decision.max_fallback:
        text = f"the champion answered {facts.fallbacks} of {facts.requests} challenger requests in its place"
        return Decision(Verb.HOLD, Reason.CHALLENGER_UNAVAILABLE, text)
    if not facts.confirmed:
        text = "not every router worker serves the table yet"
        return Decision(Verb.HOLD, Reason.NOT_CONFIRMED, f"{text}: {facts.trouble}" if facts.trouble else text)
    return _gate(spec, facts, evidence) or (_promotion(spec, facts, evidence) if facts.is_last else _widening(facts))


def _gate(spec: RolloutSpec, facts: Facts, evidence: Sequence[Evidence]) -> Decision | None:
    hold = spec.steps[facts.step].hold
    if facts.step_elapsed < hold:
        return Decision(Verb.HOLD, Reason.HOLD_TIME, f"{(hold - facts.step_elapsed) / 1e6:.0f} s of the hold are left")
    if facts.units < spec.decision.min_units:
        text = f"{facts.units} of {spec.decision.min_units} challenger units in this step"
        return Decision(Verb.HOLD, Reason.MIN_UNITS, text)
    for e in judging(evidence):
        if e.due and e.verdict is Verdict.NO_DATA:
            return Decision(Verb.HOLD, Reason.NO_DATA, f"{e.metric} has no data yet{_note(e)}", e.metric)
    for e in judging(evidence):
        if not e.gate:
            return Decision(Verb.HOLD, Reason.GATE, describe(e), e.metric)
    for e in evidence:
        if e.role is Role.SIGNAL and not e.segment and not e.gate:
            return Decision(Verb.HOLD, Reason.SIGNAL, describe(e), e.metric)
    return None


def superior_threshold(spec: RolloutSpec, evidence: Sequence[Evidence]) -> float | None:
    """log e at which a Success metric is proven better, if one of them has to be."""
    tried = sum(e.role is Role.SUCCESS for e in judging(evidence))
    if spec.decision.mode is not Mode.SUPERIOR or not tried:
        return None
    return -math.log(spec.decision.promote_alpha / tried)


def _widening(facts: Facts) -> Decision:
    if facts.next_needs_approval:
        return Decision(Verb.HOLD, Reason.AWAITING_APPROVAL, f"step {facts.step + 2} needs a person's approval")
    return Decision(Verb.ADVANCE, Reason.GATE_MET, f"step {facts.step + 1} is done, nothing speaks against more")


def _promotion(spec: RolloutSpec, facts: Facts, evidence: Sequence[Evidence]) -> Decision:
    needed = -math.log(spec.decision.promote_alpha)
    for e in judging(evidence):
        if e.limit is not None and not e.limit.met:
            text = f"{e.metric} {e.limit}; a limit is met after {WINDOWS} windows of this step"
            return Decision(Verb.HOLD, Reason.NOT_PROVEN, text, e.metric)
    open_ones = [e for e in judging(evidence) if e.compared and e.log_e_non_inferior < needed]
    if open_ones:
        worst = min(open_ones, key=lambda e: e.log_e_non_inferior)
        text = f"{len(open_ones)} metrics are not proven yet; {describe(worst, needed, worst.log_e_non_inferior)}"
        return Decision(Verb.HOLD, Reason.NOT_PROVEN, text, worst.metric)
    for e in judging(evidence):
        if e.last is None:
            return Decision(Verb.HOLD, Reason.NO_DATA, f"{e.metric} has no data of the last step yet", e.metric)
        if not e.last:
            return Decision(Verb.HOLD, Reason.LAST_EPOCH_WORSE, f"{e.metric} is worse in the last epoch", e.metric)
    success = [e for e in judging(evidence) if e.role is Role.SUCCESS]
    superior = superior_threshold(spec, evidence)
    if superior is not None and not any(e.log_e_superior >= superior for e in success):
        best = max(success, key=lambda e: e.log_e_superior)
        text = f"no Success metric is proven better; {describe(best, superior, best.log_e_superior)}"
        return Decision(Verb.HOLD, Reason.NOT_PROVEN, text, best.metric)
    if facts.active < spec.decision.min_age:
        return Decision(
            Verb.HOLD, Reason.MIN_AGE, f"younger than minAge by {(spec.decision.min_age - facts.active) / 1e6:.0f} s"
        )
    if facts.promotion_needs_approval:
        return Decision(Verb.HOLD, Reason.AWAITING_APPROVAL, "the promotion needs a person's approval")
    if spec.allow_same_version:
        return Decision(Verb.HOLD, Reason.SAME_VERSION_ENDS, "the A/A run would have been promoted", ends=True)
    named = (success or judging(evidence))[0]
    text = "every guardrail is proven not worse than its margin"
    return Decision(Verb.PROMOTE, Reason.PROVEN, text, named.metric)


def _note(e: Evidence) -> str:
    return f": {e.note}" if e.note else ""


def describe(e: Evidence, threshold: float | None = None, log_e: float | None = None) -> str:
    """One line for people: estimate, interval, units, evidence against what is needed; how it stands to its limit."""
    if not e.compared and e.limit is not None:
        return f"{e.metric} {e.limit}"
    text = f"{e.metric} {e.estimate:+.4g} [{e.lower:.4g}, {e.upper:.4g}], champion {e.champion:.4g}"
    text += f", {e.units[0]} and {e.units[1]} units"
    if threshold is not None:
        text += f", log e {e.log_e_harm if log_e is None else log_e:.2f} of {threshold:.2f}"
    return ", ".join(filter(None, (text, e.note, str(e.limit or ""))))
