"""Conditions, so that `kubectl wait` and kstatus understand a rollout; their times change only with their status."""

from typing import Literal

from controller.status import Condition, Reason, RolloutStatus

INVALID = (Reason.SAMPLE_RATIO_MISMATCH, Reason.JOIN_LOSS, Reason.STALE, Reason.OVERLAPPING_UNITS)
State = Literal["True", "False", "Unknown"]
ConditionType = Literal["Progressing", "Valid", "Paused", "Succeeded"]


def with_conditions(status: RolloutStatus) -> RolloutStatus:
    """``status`` with its four conditions. Succeeded is True when promoted, False when rolled back, else Unknown."""
    ended = status.progress.terminal
    success: State = "Unknown"
    if status.end in ("Promoted", "RolledBack"):
        success = "True" if status.end == "Promoted" else "False"
    states: tuple[tuple[ConditionType, State], ...] = (
        ("Progressing", "False" if ended else "True"),
        ("Valid", "False" if status.reason in INVALID else "True"),
        ("Paused", "True" if status.paused else "False"),
        ("Succeeded", success),
    )
    old = {c.type: c for c in status.conditions}
    return status.model_copy(update={"conditions": tuple(_one(status, old.get(t), t, s) for t, s in states)})


def _one(status: RolloutStatus, old: Condition | None, kind: ConditionType, state: State) -> Condition:
    since = old.last_transition_time if old is not None and old.status == state else status.clock
    return Condition(
        type=kind,
        status=state,
        reason=status.reason.value,
        message=status.message,
        observed_generation=status.generation,
        last_transition_time=since,
    )
