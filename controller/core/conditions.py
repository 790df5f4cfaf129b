"""Conditions, so that `kubectl wait` and kstatus understand a rollout; their times change only with their status.

kstatus (what Flux, Helm and kpt wait with) calls an object Failed where ``Stalled`` is True, Current where ``Ready``
is True, and InProgress otherwise.
"""

from datetime import UTC, datetime
from typing import Literal

from controller.core.naming import astray
from controller.status import Condition, Progress, Reason, RolloutStatus, Verb

INVALID = (Reason.SAMPLE_RATIO_MISMATCH, Reason.JOIN_LOSS, Reason.STALE, Reason.OVERLAPPING_UNITS)
ALIAS_PENDING = "AliasPending"  # of conditions alone: what was decided stays the decision
REFUSED = ("Ready", "Stalled")  # the conditions of what is refused
State = Literal["True", "False", "Unknown"]
ConditionType = Literal["Ready", "Stalled", "Progressing", "Valid", "Paused", "Succeeded"]


def with_conditions(status: RolloutStatus) -> RolloutStatus:
    """``status`` with its conditions. Succeeded is True when promoted, False when rolled back, else Unknown.

    A superseded attempt is no end: the next one begins at the next tick.
    """
    ended = status.progress.terminal and status.reason is not Reason.SUPERSEDED
    success: State = "Unknown"
    if ended and status.end in ("Promoted", "RolledBack"):
        success = "True" if status.end == "Promoted" else "False"
    stray = astray(status)
    stuck = stray or status.waits
    states: tuple[tuple[ConditionType, State], ...] = (
        ("Ready", "True" if ended and success != "False" and not stuck else "False"),
        ("Stalled", "True" if success == "False" or stuck else "False"),
        ("Progressing", "False" if ended else "True"),
        ("Valid", "False" if status.reason in INVALID else "True"),
        ("Paused", "True" if status.paused else "False"),
        ("Succeeded", success),
    )
    said = (status.reason.value, status.message)
    reason = Reason.ALIAS_MOVED if stray else Reason.SERVERS_NOT_READY
    refusing = (reason.value, stuck) if stuck else said
    return _with(
        status, {kind: (state, *(refusing if kind in REFUSED else said)) for kind, state in states}, status.clock
    )


def refused(status: RolloutStatus, reason: Reason, message: str, since: RolloutStatus | None = None) -> RolloutStatus:
    """``status`` of a rollout that cannot go on as it is declared until somebody changes something.

    Of a live attempt only the conditions say so: what was decided on it stays the decision. ``since``: the status that
    this one comes from, whose conditions count for how long that has been so.
    """
    if since is not None:
        status = _since(status, since)
    if status.progress is Progress.PENDING:
        update = {"decision": Verb.HOLD, "reason": reason, "message": message, "metric": None, "segment": None}
        status = with_conditions(status.model_copy(update=update))
    return failing(status, reason.value, message, status.clock)


def failing(status: RolloutStatus, reason: str, message: str, now: int) -> RolloutStatus:
    """``status`` whose conditions say at ``now`` (µs) that it does not go on by itself; all else stays."""
    return _with(status, {"Ready": ("False", reason, message), "Stalled": ("True", reason, message)}, now)


def hampered(status: RolloutStatus, message: str, since: RolloutStatus) -> RolloutStatus:
    """``status``, which comes from ``since``, with conditions that say why an announced alias is not moved; all else
    stays."""
    return failing(_since(status, since), ALIAS_PENDING, message, status.clock)


def _since(status: RolloutStatus, before: RolloutStatus) -> RolloutStatus:
    """``status`` with those conditions of ``before`` that tell since when it has not gone on."""
    held = {c.type: c for c in before.conditions}
    kept = tuple(held.get(c.type, c) if c.type in REFUSED else c for c in status.conditions)
    return status.model_copy(update={"conditions": kept})


def instant(microseconds: int) -> str:
    """As Kubernetes writes a time."""
    return datetime.fromtimestamp(microseconds // 1_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _with(status: RolloutStatus, states: dict[ConditionType, tuple[State, str, str]], now: int) -> RolloutStatus:
    """``status`` with these conditions at ``now``, and those that it had besides."""
    held = {c.type: c for c in status.conditions}
    for kind, (state, reason, message) in states.items():
        old = held.get(kind)
        held[kind] = Condition(
            type=kind,
            status=state,
            reason=reason,
            message=message,
            observed_generation=status.generation,
            last_transition_time=old.last_transition_time if old and old.status == state else instant(now),
        )
    return status.model_copy(update={"conditions": tuple(held.values())})
