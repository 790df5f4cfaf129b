"""Conditions, so that `kubectl wait` and kstatus understand a rollout; their times change only with their status.

kstatus (what Flux, Helm and kpt wait with) calls an object Failed where ``Stalled`` is True, Current where ``Ready``
is True, and InProgress otherwise.
"""

from datetime import UTC, datetime
from typing import Literal

from controller.status import Condition, Progress, Reason, RolloutStatus, Verb

INVALID = (Reason.SAMPLE_RATIO_MISMATCH, Reason.JOIN_LOSS, Reason.STALE, Reason.OVERLAPPING_UNITS)
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
    states: tuple[tuple[ConditionType, State], ...] = (
        ("Ready", "True" if ended and success != "False" else "False"),
        ("Stalled", "True" if success == "False" else "False"),
        ("Progressing", "False" if ended else "True"),
        ("Valid", "False" if status.reason in INVALID else "True"),
        ("Paused", "True" if status.paused else "False"),
        ("Succeeded", success),
    )
    said = (status.reason.value, status.message)
    return _with(status, {kind: (state, *said) for kind, state in states})


def refused(status: RolloutStatus, reason: Reason, message: str) -> RolloutStatus:
    """``status`` of a rollout that cannot go on until somebody changes something, and is not ticked until then.

    Of a live attempt only the conditions say so: what was decided on it stays the decision.
    """
    if status.progress is Progress.PENDING:
        update = {"decision": Verb.HOLD, "reason": reason, "message": message, "metric": None, "segment": None}
        status = with_conditions(status.model_copy(update=update))
    return _with(status, {"Ready": ("False", reason.value, message), "Stalled": ("True", reason.value, message)})


def instant(microseconds: int) -> str:
    """As Kubernetes writes a time."""
    return datetime.fromtimestamp(microseconds // 1_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _with(status: RolloutStatus, states: dict[ConditionType, tuple[State, str, str]]) -> RolloutStatus:
    """``status`` with these conditions, and those that it had besides."""
    held = {c.type: c for c in status.conditions}
    for kind, (state, reason, message) in states.items():
        old = held.get(kind)
        held[kind] = Condition(
            type=kind,
            status=state,
            reason=reason,
            message=message,
            observed_generation=status.generation,
            last_transition_time=old.last_transition_time if old and old.status == state else instant(status.clock),
        )
    return status.model_copy(update={"conditions": tuple(held.values())})
