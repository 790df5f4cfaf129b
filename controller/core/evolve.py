"""``evolve(spec, status, statistics, now) -> Transition``: the only place where a rollout changes state.

::

    Pending ─servers ready─▶ Running ─Promote─▶ Promoting ─alias read back─▶ Holdback ─▶ Promoted
       ▲                        │                   │                           │
       │                        └───────RollBack────┴───────────────────────────┘
       │                                    ▼
       └─ another challenger ── RolledBack ◀─ weight 0 confirmed, alias read back ─ RollingBack

Status is desired state: the route table, the announced alias moves and the servers that should run are read off it
and re-applied by the loop until the world agrees. Every change of decision, reason, step or progress gets a new
sequence number and a record.
"""

from typing import NamedTuple

from controller.core import allocation, decide, endings, evidence, naming, places, plans, serving, validity
from controller.core.cells import EpochCounts
from controller.core.conditions import with_conditions
from controller.core.decide import Decision, Facts
from controller.core.evidence import Evidence
from controller.core.fold import Statistics
from controller.core.notices import in_vain, with_notice, with_stalled
from controller.core.record import Record, canonical, digest
from controller.spec import RolloutSpec
from controller.status import UNREAD, Attempt, ModelNames, PersonRequest, Progress, Reason, RolloutStatus, Verb

HANDLED_KEPT = 256
HURRY = 300_000


class Transition(NamedTuple):
    """What one tick leads to. ``record`` only where something was decided; ``wake_at`` in µs."""

    status: RolloutStatus
    record: Record | None
    wake_at: int
    evidence: tuple[Evidence, ...]


def evolve(spec: RolloutSpec, status: RolloutStatus, statistics: Statistics, now: int) -> Transition:
    """The next status of the rollout, of which ``spec`` is declared. Pure: the same arguments give the same bytes."""
    before = status
    status = naming.redeclared(spec, _clock(status, now))
    status = endings.left(_obey(spec, status))
    status = naming.looked_at(_restarted(spec, status))
    seen: tuple[Evidence, ...] = ()
    own = naming.pinned(spec, status)
    if status.progress is Progress.PENDING:
        status = _pending(own, status, statistics)
    elif not status.progress.terminal:
        status, seen = _live(own, status, statistics, now)
    status = allocation.with_table(own, status)
    status = with_stalled(before, with_conditions(status))
    record = None
    if _news(before, status):
        status = status.model_copy(update={"sequence": status.sequence + 1, "decided_at": status.clock})
        status = with_notice(spec, before, status)
        record = _record(spec, before, statistics, now, status)
    return Transition(status, record, now + _pause(spec, status), seen)


def _pause(spec: RolloutSpec, status: RolloutStatus) -> int:
    """Until the next tick: a promotion or rollback under way is a chain of short steps and does not wait for long."""
    hurry = status.progress in (Progress.PROMOTING, Progress.ROLLING_BACK)
    return min(spec.decision.tick, HURRY) if hurry else spec.decision.tick


def _clock(status: RolloutStatus, now: int) -> RolloutStatus:
    """Time never runs backwards; step and attempt age only while the step clock runs.

    Without a controller the routers serve the split for as long as the table lives, and the champion alone from then
    on: what is beyond that is no time of a hold.
    """
    later = max(now, status.clock)
    gone = later - status.clock if status.clock else 0
    if status.table is not None:
        gone = min(gone, status.table.ttl_s * 1_000_000)
    running = status.progress is Progress.RUNNING and not status.paused
    waiting = status.reason is Reason.AWAITING_APPROVAL
    update: dict[str, object] = {"clock": later}
    if running and not waiting:
        update["active"] = status.active + gone
        # The hold counts only while every worker serves the allocation.
        if endings.confirmed(status):
            update["step_elapsed"] = status.step_elapsed + gone
    if status.progress is Progress.HOLDBACK and endings.confirmed(status):
        update["holdback_elapsed"] = status.holdback_elapsed + gone
    return status.model_copy(update=update)


def _obey(spec: RolloutSpec, status: RolloutStatus) -> RolloutStatus:
    """People's requests, each once, in the order in which they came."""
    for request in status.observed.requests:
        if request.id in status.handled:
            continue
        obeyed = _obeyed(spec, status, request)
        status = in_vain(status, request) if obeyed is status else obeyed
        status = status.model_copy(update={"handled": (*status.handled, request.id)[-HANDLED_KEPT:]})
    return status


def _obeyed(spec: RolloutSpec, status: RolloutStatus, request: PersonRequest) -> RolloutStatus:
    """``status`` after ``request``; ``status`` itself where that has no effect."""
    if status.progress.terminal:
        return status
    said = " ".join(x for x in (f"by {request.who}" if request.who else "by hand", request.why) if x)
    match request.verb:
        case "pause":
            return status.model_copy(update={"paused": True, "message": f"paused {said}"})
        case "resume":
            return status.model_copy(update={"paused": False, "message": f"resumed {said}"})
        case "approve" if _asked(status):
            if status.step == len(spec.steps) - 1:
                return status.model_copy(update={"promotion_approved": True})
            return _approved(status, status.step + 1)
        case "approve" if status.progress is Progress.PENDING:
            return _approved(status, 0)
        case "abort" if status.progress is not Progress.ROLLING_BACK:
            return endings.roll_back(status, Decision(Verb.ROLL_BACK, Reason.ABORTED, f"aborted {said}"))
        case "promote" if status.progress is Progress.RUNNING and not spec.allow_same_version:
            return status.model_copy(update={"by_hand": said})
    return status


def _approved(status: RolloutStatus, step: int) -> RolloutStatus:
    """``status`` in which ``step`` is approved, however often it was."""
    return status.model_copy(update={"approved": tuple(sorted({*status.approved, step}))})


def _asked(status: RolloutStatus) -> bool:
    """A person's approval is waited for, or would be but for a pause."""
    return status.progress is Progress.RUNNING and (status.reason is Reason.AWAITING_APPROVAL or status.paused)


def _restarted(spec: RolloutSpec, status: RolloutStatus) -> RolloutStatus:
    """A changed plan, or another challenger after the end, starts a new attempt; the old one is superseded.

    So does an approval that is not asked for any more: who may edit does not approve by it what ran until then. One
    that is asked for now, and was not before, is asked for at once.
    Until the first table is asked for, a reference that names another version starts a new attempt as well. A rollout
    that is being deleted starts none.
    """
    plan = plan_digest(spec)
    observed, attempt = status.observed, status.attempt
    if observed.leaving:
        return status
    if observed.registry_error is None:
        status = status.model_copy(update={"waits": ""})
    if attempt is None and not status.progress.terminal:
        return status.model_copy(update={"plan": plan})
    if status.plan != plan and status.plan in (plan_digest(_without_approval(spec)), plan_digest(spec, whole=True)):
        status = status.model_copy(update={"plan": plan})
    changed = status.plan != plan
    if status.progress is Progress.PENDING:
        status, strange = naming.strangely_named(spec, status)
        return _fresh(spec, status, plan) if changed or strange else status
    if not status.progress.terminal:
        if changed and status.progress is Progress.RUNNING:
            text = "the plan changed under way; the attempt starts again"
            return endings.roll_back(status, Decision(Verb.ROLL_BACK, Reason.SUPERSEDED, text))
        return status
    if attempt is not None and attempt.model is not None and attempt.model.name != spec.model.name:
        # Its versions are numbers too, and say nothing about those of another model.
        return _fresh(spec, status, plan).model_copy(update={"past": ()})
    if status.reason is Reason.SUPERSEDED and status.progress is Progress.ROLLED_BACK:
        return _next(spec, status, plan)
    if observed.registry_error is not None or observed.challenger_alias is None:
        return status
    ended = (attempt.challenger,) if attempt is not None else status.past[-1:]
    if ended == (UNREAD,):  # what is named now is what was aborted while nobody could see its name
        return status.model_copy(update={"past": (*status.past[:-1], observed.challenger_alias)})
    another = observed.challenger_alias not in (*ended, observed.champion_alias)
    return _next(spec, status, plan) if another else status


def _next(spec: RolloutSpec, status: RolloutStatus, plan: str) -> RolloutStatus:
    """``status`` where another attempt is due, unless the servers that are declared for it are the other way round."""
    waits = places.misplaced(spec, status)
    return status.model_copy(update={"waits": waits}) if waits else _fresh(spec, status, plan)


def _fresh(spec: RolloutSpec, status: RolloutStatus, plan: str) -> RolloutStatus:
    """Forget the ended attempt but for its number, the table's generation and what people were told."""
    attempt, served = status.attempt, serving.in_force(status)
    observed = status.observed
    looked_for = serving.model_of(attempt) or spec.model.name, allocation.servers_wanted(status).get("champion")
    stranger = attempt is not None and looked_for != (spec.model.name, observed.champion_alias)
    if stranger or places.moved(spec, attempt):
        observed = places.unseen(observed, "champion", "challenger")
    elif attempt is not None and attempt.challenger != observed.challenger_alias:
        observed = places.unseen(observed, "challenger")
    past = (*status.past, attempt.challenger) if attempt else status.past
    return RolloutStatus(
        uid=status.uid,
        rollout=status.rollout,
        generation=status.generation,
        sequence=status.sequence,
        attempts=status.attempts,
        plan=plan,
        clock=status.clock,
        table=status.table,
        observed=observed,
        handled=status.handled,
        paused=status.paused and status.progress is Progress.PENDING,
        notices=status.notices,
        conditions=status.conditions,
        replacement=status.replacement,
        former=served.attempt if served is not None else None,
        past=past[-32:],
    )


def plan_digest(spec: RolloutSpec, *, whole: bool = False) -> str:
    """Digest of what an attempt must not change under way; everything else is applied at once.

    Of what is as it is without a word nothing counts, so that a release in which more can be declared starts no attempt
    again; ``whole``: as releases before had it.
    """
    fixed = spec.model_dump(
        mode="json",
        by_alias=True,
        exclude_defaults=not whole,
        include={"model", "unit", "segments", "prediction", "steps", "metrics", "allow_same_version"},
    )
    policy = spec.decision
    fixed["decision"] = [
        policy.mode,
        policy.promote_alpha,
        policy.rollback_alpha,
        policy.tick,
        policy.block,
        policy.grace,
    ]
    if spec.servers is not None:  # another build is another challenger, and another champion
        declared = spec.servers.model_dump(mode="json", by_alias=True, exclude_defaults=not whole, exclude={"replicas"})
        fixed["servers"] = declared
    if spec.decision.approve_promotion:
        fixed["approvePromotion"] = True
    if spec.traffic.gateway_api is not None:
        fixed["traffic"] = spec.traffic.gateway_api.model_dump(mode="json", by_alias=True, exclude_defaults=not whole)
    return digest(fixed)[:16]


def _without_approval(spec: RolloutSpec) -> RolloutSpec:
    decision = spec.decision.model_copy(update={"approve_promotion": False})
    return spec.model_copy(update={"decision": decision})


def _pending(spec: RolloutSpec, status: RolloutStatus, statistics: Statistics) -> RolloutStatus:
    """Versions, then servers, then the first allocation."""
    o = status.observed
    if status.attempt is None:
        missing = _missing(spec, status)
        if missing is not None:
            return endings.decided(status, missing)
        assert o.champion_alias is not None
        assert o.challenger_alias is not None
        number = status.attempts + 1
        attempt = Attempt(
            number=number,
            champion=o.champion_alias,
            challenger=o.challenger_alias,
            salt=f"{status.uid}/{number}",
            started_at=status.clock,
            model=ModelNames(name=spec.model.name, champion=spec.model.champion, challenger=spec.model.challenger),
            places=places.declared(spec),
        )
        status = status.model_copy(update={"attempt": attempt, "attempts": number})
    if not (o.champion_ready and o.challenger_ready):
        text = o.servers_message or "waiting for both model servers to answer the model's own example"
        return endings.decided(status, Decision(Verb.HOLD, Reason.SERVERS_NOT_READY, text))
    if status.paused:
        return endings.decided(status, Decision(Verb.HOLD, Reason.PAUSED, "paused by a person before the first step"))
    if spec.steps[0].approve and 0 not in status.approved:
        return endings.decided(
            status, Decision(Verb.HOLD, Reason.AWAITING_APPROVAL, "step 1 needs a person's approval")
        )
    first = Decision(Verb.ADVANCE, Reason.GATE_MET, "both servers are ready")
    return endings.decided(allocation.open_step(spec, status, statistics, 0, status.clock), first)


def _missing(spec: RolloutSpec, status: RolloutStatus) -> Decision | None:
    o, model = status.observed, spec.model
    if o.registry_error is not None:
        reason = Reason.MODEL_MISSING if o.model_missing else Reason.REGISTRY_UNAVAILABLE
        return Decision(Verb.HOLD, reason, o.registry_error)
    for role, reference, version in (
        ("champion", model.champion, o.champion_alias),
        ("challenger", model.challenger, o.challenger_alias),
    ):
        if version is None:
            text = f"model.{role}: {model.name} has no version or alias {reference!r}"
            return Decision(Verb.HOLD, Reason.VERSION_MISSING, text)
    if o.champion_alias == o.challenger_alias and not spec.allow_same_version:
        text = f"champion and challenger are both version {o.champion_alias}; allowSameVersion makes it an A/A run"
        return Decision(Verb.HOLD, Reason.SAME_VERSION, text)
    if not o.challenger_signed:
        text = f"version {o.challenger_alias} has no signature; log the model with one"
        return Decision(Verb.HOLD, Reason.NO_SIGNATURE, text)
    return None


def _live(
    spec: RolloutSpec, status: RolloutStatus, statistics: Statistics, now: int
) -> tuple[RolloutStatus, tuple[Evidence, ...]]:
    status = _aliases_watched(spec, status)
    if status.progress is Progress.ROLLING_BACK:
        return endings.rolling_back(spec, status, now), ()
    status = plans.with_baselines(spec, status, statistics)
    values = sorted({s for _, s in (*statistics.folds, *statistics.pairs) if s} - set(status.segment_values))
    if values:
        status = status.model_copy(update={"segment_values": (*status.segment_values, *values)})
    seen = evidence.read(spec, status, statistics, status.clock)
    valid = validity.judge(spec, status, statistics, now)
    if valid.reason is Reason.SAMPLE_RATIO_MISMATCH and status.mismatch_since is None:
        status = status.model_copy(update={"mismatch_since": status.clock})
    facts = _facts(spec, status, statistics)
    if status.progress is Progress.RUNNING:
        return _running(spec, status, statistics, decide.decide(spec, facts, seen, valid)), seen
    harmed = decide.harm(spec, facts, seen, valid)
    if harmed is not None:
        return endings.roll_back(status, harmed), seen
    if status.progress is Progress.PROMOTING:
        return endings.promoting(spec, status, statistics), seen
    return endings.holdback(spec, status), seen


def _aliases_watched(spec: RolloutSpec, status: RolloutStatus) -> RolloutStatus:
    """A move nobody announced stops the rollout, once it was seen at two ticks in a row."""
    if status.progress is Progress.ROLLING_BACK:
        return status
    status, strange = naming.strangely_named(spec, status)
    if strange is None:
        return status
    return endings.roll_back(status, Decision(Verb.ROLL_BACK, Reason.ALIAS_MOVED, strange))


def _facts(spec: RolloutSpec, status: RolloutStatus, statistics: Statistics) -> Facts:
    epoch, o = status.current_epoch, status.observed
    counts = statistics.counts.get(epoch.number, EpochCounts(0)) if epoch else EpochCounts(0)
    last = status.step >= len(spec.steps) - 1  # a plan may have become shorter since it was decided
    needs = not last and spec.steps[status.step + 1].approve and status.step + 1 not in status.approved
    return Facts(
        step=max(status.step, 0),
        is_last=last,
        step_elapsed=status.step_elapsed,
        active=status.active,
        mismatch_age=status.clock - status.mismatch_since if status.mismatch_since is not None else 0,
        units=counts.challenger_units,
        requests=counts.challenger_requests,
        fallbacks=counts.fallbacks,
        confirmed=endings.confirmed(status),
        trouble=status.observed.traffic_error or "",
        paused=status.paused,
        breaker_open=o.breaker_open,
        breaker_open_ms=o.breaker_open_ms,
        next_needs_approval=needs,
        promotion_needs_approval=spec.decision.approve_promotion and not status.promotion_approved,
        promote_by_hand=bool(status.by_hand),
    )


def _running(spec: RolloutSpec, status: RolloutStatus, statistics: Statistics, said: Decision) -> RolloutStatus:
    if said.ends:
        return endings.decided(status, said).model_copy(update={"progress": Progress.HELD, "end": "Held", "epoch": -1})
    if said.verb is Verb.ROLL_BACK:
        return endings.roll_back(status, said)
    if said.verb is Verb.ADVANCE and not status.observed.champion_upstreams:
        text = "the champion has no ready server: no other table can be made, and the last one stays in force"
        said = Decision(Verb.HOLD, Reason.SERVERS_NOT_READY, text)
    if said.verb is Verb.ADVANCE:
        return endings.decided(allocation.open_step(spec, status, statistics, status.step + 1, status.clock), said)
    status = endings.decided(status, said)
    if said.verb is Verb.PROMOTE:
        # By hand it may come out of a pause, which it ends.
        return status.model_copy(update={"progress": Progress.PROMOTING, "paused": False})
    return status


def _news(before: RolloutStatus, after: RolloutStatus) -> bool:
    fields = ("progress", "step", "paused", "decision", "reason", "metric", "segment", "attempt", "alias_moves")
    return any(getattr(before, f) != getattr(after, f) for f in fields)


def _record(spec: RolloutSpec, before: RolloutStatus, statistics: Statistics, now: int, after: RolloutStatus) -> Record:
    inputs = {"spec": spec, "status": before, "statistics": statistics, "now": now}
    return Record(
        uid=after.uid,
        generation=after.generation,
        sequence=after.sequence,
        now=now,
        decision=after.decision.value,
        reason=after.reason.value,
        message=after.message,
        inputs=canonical(inputs),
        digest=digest(after),
    )
