"""How a rollout ends: promotion, holdback and rollback, each a chain of steps that a crash cannot tear.

Every step is taken only when the one before it reads back from the world, and what is asked for stands in status, so
a controller that dies anywhere goes on from there. Traffic moves before the alias on the way up and on the way down:
an alias never names a version that does not serve.
"""

from controller.core import allocation, naming
from controller.core.decide import Decision
from controller.core.fold import Statistics
from controller.spec import RolloutSpec
from controller.status import UNREAD, AliasMove, Attempt, Progress, Reason, RolloutStatus, Verb

CONFIRM_LIMIT = 10_000_000  # a router that has not confirmed weight 0 by then does not hold up the rollback
SETTLED = 20_000_000  # longer than a call of the registry with its retry: after that no earlier move can arrive


def decided(status: RolloutStatus, decision: Decision) -> RolloutStatus:
    """``status`` with what was decided, and why."""
    return status.model_copy(
        update={
            "decision": decision.verb,
            "reason": decision.reason,
            "message": decision.message,
            "metric": decision.metric,
            "segment": decision.segment,
        }
    )


def confirmed(status: RolloutStatus) -> bool:
    """Every worker of every router serves the table that status asks for."""
    return status.table is not None and status.observed.confirmed >= status.table.generation


def _serves(status: RolloutStatus) -> bool:
    """Every worker sends to the challenger what the promotion asks for, and it has servers to be sent to."""
    there = confirmed(status) and bool(status.observed.challenger_upstreams)
    return there and status.table is not None and allocation.as_asked(status, status.table)


def _told(status: RolloutStatus) -> RolloutStatus:
    """``status`` with what a promotion waits for where its version has no server, and without it once it has."""
    if not status.observed.challenger_upstreams:
        text = "the promoted version has no ready server; its promotion waits for one"
        return decided(status, Decision(Verb.HOLD, Reason.CHALLENGER_UNAVAILABLE, text))
    if status.reason is not Reason.CHALLENGER_UNAVAILABLE:
        return status
    reason = Reason.BY_HAND if status.by_hand else Reason.PROVEN
    return decided(status, Decision(Verb.PROMOTE, reason, "the promotion goes on: its version has a server again"))


def due_moves(status: RolloutStatus) -> tuple[AliasMove, ...]:
    """The announced moves that are to be made now, where they do not read back.

    In a promotion none while the version has no server: one that the registry refused for a while must not be made up
    for when nobody serves it any more. In the holdback they have read back: whoever moves one after that means it.
    """
    waits = status.progress is Progress.HOLDBACK or (status.progress is Progress.PROMOTING and not _serves(status))
    return () if waits else status.alias_moves


def promoting(spec: RolloutSpec, status: RolloutStatus, statistics: Statistics) -> RolloutStatus:
    """Capacity → traffic → confirmed → alias announced → read back. Each tick takes the next step that can be taken."""
    attempt, o = status.attempt, status.observed
    assert attempt is not None
    status = _told(status)
    if not status.promoted_traffic:
        if not o.challenger_ready:
            return status
        status = allocation.open_holdback(spec, status, statistics, status.clock)
        return status.model_copy(update={"promoted_traffic": True})
    if not _serves(status):
        return status
    moves = _promotion_moves(spec, attempt)
    if moves and not status.alias_moves:
        return status.model_copy(update={"alias_moves": moves})
    if not _moved(spec, status):
        return status
    share = spec.after_promotion.holdback if spec.after_promotion else 0
    if share == 0:
        return _promoted(spec, status)
    return status.model_copy(update={"progress": Progress.HOLDBACK, "holdback_since": status.clock})


def _promotion_moves(spec: RolloutSpec, attempt: Attempt) -> tuple[AliasMove, ...]:
    moves = []
    external = spec.servers is not None and spec.servers.champion is not None and spec.servers.champion.external
    if not spec.model.champion.isdigit() and not external:
        moves.append(AliasMove(alias=spec.model.champion, version=attempt.challenger, was=attempt.champion))
    if not spec.model.challenger.isdigit():
        moves.append(AliasMove(alias=spec.model.challenger, version=None, was=attempt.challenger))
    return tuple(moves)


def _moved(spec: RolloutSpec, status: RolloutStatus) -> bool:
    """Every announced move reads back. An alias that is to be removed may name the next challenger by now."""
    o = status.observed
    now = {spec.model.champion: o.champion_alias, spec.model.challenger: o.challenger_alias}
    done = (
        now.get(m.alias) == m.version if m.version is not None else now.get(m.alias) != m.was
        for m in status.alias_moves
    )
    return o.registry_error is None and all(done)


def holdback(spec: RolloutSpec, status: RolloutStatus) -> RolloutStatus:
    """The old champion's last share goes when its time is over; its server may go when nobody is sent there, and when
    the promoted version is served: where it has lost its servers the old one stands in.

    A pause keeps the weight here as anywhere. Its time is that of a step: while routers serve it, and somebody looks.
    """
    status = _told(status)
    over = spec.after_promotion is None or status.holdback_elapsed >= spec.after_promotion.hold
    if not over or (status.epoch == -1 and not _serves(status)):
        return status
    if status.epoch != -1:
        return status if status.paused else status.model_copy(update={"epoch": -1})
    return _promoted(spec, status)


def _promoted(spec: RolloutSpec, status: RolloutStatus) -> RolloutStatus:
    """The end; whoever moves an alias from now on means it."""
    status = naming.replaced(spec.model, status)
    return status.model_copy(update={"progress": Progress.PROMOTED, "end": "Promoted", "alias_moves": ()})


def roll_back(status: RolloutStatus, said: Decision) -> RolloutStatus:
    """Weight 0 at once; aliases follow when it is confirmed. Before versions were pinned nothing is to be taken back.

    A promotion's announced moves are asked for no longer. That the champion alias may have moved is remembered as a
    move of the old version to itself, which asks for nothing.
    """
    status = decided(status, said).model_copy(update={"epoch": -1, "paused": False, "rolled_at": status.clock})
    if status.attempt is None:
        o = status.observed
        unread = o.registry_error is not None and not o.model_missing
        named = o.challenger_alias or (UNREAD if unread else None)
        past = (*status.past, named) if named is not None else status.past
        return status.model_copy(update={"progress": Progress.ROLLED_BACK, "end": "RolledBack", "past": past[-32:]})
    moved = tuple(
        AliasMove(alias=m.alias, version=m.was, was=m.was) for m in status.alias_moves if m.version is not None
    )
    return status.model_copy(update={"progress": Progress.ROLLING_BACK, "alias_moves": moved})


def left(status: RolloutStatus) -> RolloutStatus:
    """``status`` of a rollout that is being deleted: what is under way goes back, as by an abort. In the holdback the
    promoted version is the champion, and stays it."""
    ends = status.progress.terminal or status.progress in (Progress.HOLDBACK, Progress.ROLLING_BACK)
    if ends or not status.observed.leaving:
        return status
    return roll_back(status, Decision(Verb.ROLL_BACK, Reason.ABORTED, "aborted because the rollout is being deleted"))


def rolling_back(spec: RolloutSpec, status: RolloutStatus, now: int) -> RolloutStatus:
    """Weight 0 confirmed (or 10 s gone) → aliases back → terminal."""
    attempt, o = status.attempt, status.observed
    # Where the clock of a leader before us ran ahead, its 10 s begin with us.
    status = status.model_copy(update={"rolled_at": min(status.rolled_at, now)})
    assert attempt is not None
    # The table in status may still be the one from before the rollback was decided, at this very tick.
    back = status.table is None or (status.table.challenger is None and confirmed(status))
    if not back and now - status.rolled_at < CONFIRM_LIMIT:
        return status
    if o.registry_error is not None:
        return status
    moves = []
    ours = any(m.alias == spec.model.champion for m in status.alias_moves)
    if ours and o.champion_alias == attempt.challenger != attempt.champion:
        moves.append(AliasMove(alias=spec.model.champion, version=attempt.champion, was=attempt.challenger))
    # One that was asked for a moment ago may still be on its way, though it reads back as it was.
    asked_at = status.rolled_at if status.holdback_since is None else status.holdback_since
    if ours and not moves and now - asked_at < SETTLED:
        return status
    # Before the first allocation nobody was sent to the challenger: there is nothing that it has lost.
    keep = status.reason is Reason.SUPERSEDED or spec.model.challenger.isdigit() or not status.epochs
    if not keep and o.challenger_alias == attempt.challenger:
        moves.append(AliasMove(alias=spec.model.challenger, version=None, was=attempt.challenger))
    if moves:
        kept = [m for m in status.alias_moves if m.alias not in {n.alias for n in moves}]
        return status.model_copy(update={"alias_moves": (*kept, *moves)})
    return status.model_copy(update={"progress": Progress.ROLLED_BACK, "end": "RolledBack", "alias_moves": ()})
