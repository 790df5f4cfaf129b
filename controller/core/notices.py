"""What people are told: one message per transition, keyed, kept in status until it was delivered."""

from controller.core.naming import astray
from controller.spec import RolloutSpec
from controller.status import OWN, Notice, PersonRequest, Progress, Reason, RolloutStatus

WAITING = 100  # messages that nobody takes; more would make the status too large for the API server
NO_EFFECT = "NoEffect"
TOLD_HOLDS = (Reason.AWAITING_APPROVAL, Reason.SAMPLE_RATIO_MISMATCH, Reason.VERSION_MISSING, Reason.NO_SIGNATURE)


def with_notice(spec: RolloutSpec, before: RolloutStatus, after: RolloutStatus) -> RolloutStatus:
    """``after``, with a notice added where its transition from ``before`` concerns people."""
    title = _title(spec, before, after)
    if title is None:
        return after
    attempt = after.attempt.number if after.attempt else 0
    bad = after.progress in (Progress.ROLLING_BACK, Progress.ROLLED_BACK) or after.reason in TOLD_HOLDS[1:]
    notice = Notice(
        key=f"{after.uid}/{attempt}/{after.sequence}",
        reason=after.reason.value,
        title=f"{after.rollout}: {title}",
        text=after.message,
        level="warning" if bad else "info",
    )
    return after.model_copy(update={"notices": (*after.notices, notice)[-WAITING:]})


def with_stalled(before: RolloutStatus, after: RolloutStatus) -> RolloutStatus:
    """``after``, with a notice added where it shows for the first time that the champion was moved after the end, or
    that the next attempt cannot begin. That is no decision, so its key has the time in the place of a sequence of its
    own."""
    if astray(after) and not astray(before):
        return _noticed(after, Reason.ALIAS_MOVED, "the champion was moved after the end", astray(after))
    if after.waits and not before.waits:
        return _noticed(after, Reason.SERVERS_NOT_READY, "the next attempt cannot begin", after.waits)
    return after


def _noticed(after: RolloutStatus, reason: Reason, title: str, text: str) -> RolloutStatus:
    notice = Notice(
        key=f"{after.uid}/{after.attempt.number if after.attempt else 0}/{after.sequence}/{after.clock}",
        reason=reason.value,
        title=f"{after.rollout}: {title}",
        text=text,
        level="warning",
    )
    return after.model_copy(update={"notices": (*after.notices, notice)[-WAITING:]})


def in_vain(status: RolloutStatus, request: PersonRequest) -> RolloutStatus:
    """``status``, on which ``request`` has no effect, with a notice that tells whoever asked why."""
    if request.id.startswith(OWN):
        return status
    said = " ".join(x for x in (request.verb, f"by {request.who}" if request.who else "", request.why) if x)
    notice = Notice(
        key=f"{status.uid}/request/{request.id}",
        reason=NO_EFFECT,
        title=f"{status.rollout}: {request.verb} had no effect",
        text=f"{said}: {_vain(status, request)}",
        level="warning",
    )
    return status.model_copy(update={"notices": (*status.notices, notice)[-WAITING:]})


def _vain(status: RolloutStatus, request: PersonRequest) -> str:
    if status.progress.terminal:
        return f"the rollout is over ({status.progress})"
    if request.verb == "abort":
        return f"it is {status.progress} already"
    if request.verb == "promote" and status.progress is not Progress.RUNNING:
        return f"an attempt that runs can be promoted, and it is {status.progress}"
    return "both arms are to be the same version" if request.verb == "promote" else "nothing waits for it"


def _title(spec: RolloutSpec, before: RolloutStatus, after: RolloutStatus) -> str | None:
    versions = f"version {after.attempt.challenger}" if after.attempt else "the challenger"
    starts = after.progress is Progress.RUNNING
    if after.progress is not before.progress and starts:
        return f"{versions} starts, step 1 of {len(spec.steps)}: {_step(spec, after)}"
    if after.progress is not before.progress:
        return {
            Progress.PENDING: "a new attempt begins",
            Progress.PROMOTING: f"promoting {versions} ({after.reason})",
            Progress.HOLDBACK: f"{versions} is champion, the old one keeps a holdback",
            Progress.ROLLING_BACK: f"rolling back {versions} ({after.reason})",
            Progress.PROMOTED: f"{versions} is promoted",
            Progress.ROLLED_BACK: f"{versions} is rolled back",
            Progress.HELD: "the A/A run is over",
        }[after.progress]
    if after.step != before.step and starts:
        return f"step {after.step + 1} of {len(spec.steps)}: {_step(spec, after)}"
    if after.paused != before.paused:
        return "paused" if after.paused else "resumed"
    if after.reason is not before.reason and after.reason in TOLD_HOLDS:
        return f"holding ({after.reason})"
    return None


def _step(spec: RolloutSpec, status: RolloutStatus) -> str:
    step = spec.steps[status.step]
    return f"mirror {step.percent:g} %" if step.mirror is not None else f"weight {step.percent:g} %"
