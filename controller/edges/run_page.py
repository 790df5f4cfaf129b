"""What the MLflow run of an attempt says: names, parameters, tags, the summary. Pure: values in, texts out."""

import hashlib
import json
import re
from datetime import UTC, datetime
from typing import NamedTuple

import yaml

from controller.core.record import Record, digest
from controller.quantities import format_duration
from controller.spec import ModelRollout
from controller.status import Progress, Reason, RolloutStatus

TAG_UID = "understudy.rollout_uid"
TAG_ATTEMPT = "understudy.attempt"
NOTE = "mlflow.note.content"
# People ended these, not evidence.
_STOPPED = {Reason.ABORTED, Reason.ALIAS_MOVED, Reason.SUPERSEDED}
_NAME_LIMIT = 250
_PARAM_LIMIT = 5_900  # MLflow: 6,000
_TAG_LIMIT = 5_000
_NOTE_ROWS = 120


class RunKey(NamedTuple):
    """Which run: one per attempt of a rollout."""

    uid: str
    attempt: int

    @property
    def tags(self) -> dict[str, str]:
        return {TAG_UID: self.uid, TAG_ATTEMPT: str(self.attempt)}


def experiment(rollout: ModelRollout) -> str:
    return f"rollouts/{rollout.spec.model.name}"


def run_name(rollout: ModelRollout, status: RolloutStatus) -> str:
    """``v1→v2 flight-delay``."""
    if status.attempt is None:
        return rollout.metadata.name
    return f"{_v(status.attempt.champion)}→{_v(status.attempt.challenger)} {rollout.metadata.name}"


def params(rollout: ModelRollout, status: RolloutStatus) -> dict[str, str]:
    """Plan, thresholds and versions, fixed when the run is made: MLflow does not let a parameter change."""
    spec, attempt = rollout.spec, status.attempt
    plan = " → ".join(
        f"{'mirror ' if step.mirror is not None else ''}{step.percent:g}% {format_duration(step.hold)}"
        + (" (approve)" if step.approve else "")
        for step in spec.steps
    )
    said = {"rollout": rollout.metadata.name, "model": spec.model.name, "plan": plan, "config_digest": digest(spec)}
    if attempt is not None:
        said |= {"champion": attempt.champion, "challenger": attempt.challenger, "salt": attempt.salt}
    for name, value in spec.decision.model_dump(mode="json", by_alias=True, exclude_none=True).items():
        said[f"decision/{name}"] = str(value)
    for metric in spec.metrics:
        tree = metric.model_dump(mode="json", by_alias=True, exclude_none=True, exclude={"name"})
        said[metric_name(f"metric/{metric.name}")] = json.dumps(tree, sort_keys=True)
    return {name: value[:_PARAM_LIMIT] for name, value in said.items()}


def tags(rollout: ModelRollout, status: RolloutStatus, metrics: dict[str, float]) -> dict[str, str]:
    """Everything that changes, the markdown summary of the run's page included."""
    epoch, attempt = status.current_epoch, status.attempt
    said = {
        "understudy.rollout": rollout.metadata.name,
        "understudy.generation": str(status.generation),
        "understudy.config_digest": digest(rollout.spec),
        "understudy.state": status.progress.value,
        "understudy.step": str(status.step + 1),
        "understudy.weight": f"{epoch.weight_bp / 100:g}" if epoch else "0",
        "understudy.decision": status.decision.value,
        "understudy.reason": status.reason.value,
        "understudy.metric": status.metric or "",
    }
    if attempt is not None:
        said |= {"understudy.champion": attempt.champion, "understudy.challenger": attempt.challenger}
    return {k: v[:_TAG_LIMIT] for k, v in said.items()} | {NOTE: note(rollout, status, metrics)}


def note(rollout: ModelRollout, status: RolloutStatus, metrics: dict[str, float]) -> str:
    """The summary on the run's page, in markdown."""
    spec, epoch, attempt = rollout.spec, status.current_epoch, status.attempt
    step = f"{status.step + 1} of {len(spec.steps)}" if status.step >= 0 else "before the first"
    split = "–"
    if epoch is not None:
        split = f"mirror {epoch.mirror_bp / 100:g} %" if epoch.kind == "mirror" else f"{epoch.weight_bp / 100:g} %"
    rows = {
        "Champion": _v(attempt.champion) if attempt else "–",
        "Challenger": _v(attempt.challenger) if attempt else "–",
        "State": status.progress.value + (" (paused)" if status.paused else ""),
        "Step": step,
        "Challenger's traffic": split,
        "Decision": f"{status.decision.value}: {status.reason.value}",
        "Metric": " · ".join(x for x in (status.metric, status.segment) if x) or "–",
        "As of": _time(status.clock),
    }
    lines = [
        f"# {_plain(run_name(rollout, status))}",
        "",
        f"**{status.progress.value}** – {_plain(status.message)}",
        "",
    ]
    lines += ["| | |", "|---|---|", *(f"| {k} | {_cell(v)} |" for k, v in rows.items()), ""]
    if metrics:
        lines += ["| Last tick | |", "|---|---:|"]
        lines += [f"| {_cell(name)} | {value:.6g} |" for name, value in sorted(metrics.items())[:_NOTE_ROWS]]
    return "\n".join(lines) + "\n"


def version_tags(status: RolloutStatus, run_id: str) -> dict[str, str]:
    """Tags of the challenger's version. The verdict comes with the end."""
    said = {"understudy.state": status.progress.value, "understudy.rollout_run": run_id}
    if status.progress.terminal:
        metric = f" ({status.metric})" if status.metric else ""
        said["understudy.verdict"] = f"{status.progress.value}: {status.reason.value}{metric}"
    return said


def end(status: RolloutStatus) -> str | None:
    """The run's end status; None while it goes on. KILLED: stopped by what people did, not by evidence."""
    match status.progress:
        case Progress.PROMOTED | Progress.HELD:
            return "FINISHED"
        case Progress.ROLLED_BACK:
            return "KILLED" if status.reason in _STOPPED else "FAILED"
        case _:
            return None


def metric_name(name: str) -> str:
    """``name`` in the characters that MLflow allows. A changed one ends in a digest of the original, so that two
    names never become one series."""
    parts = re.sub(r"[^A-Za-z0-9_\-. :/]", "_", name).split("/")
    clean = "/".join(part.strip() for part in parts if part.strip() not in ("", ".", ".."))[:_NAME_LIMIT]
    if clean and clean == name:
        return name
    return f"{clean[: _NAME_LIMIT - 9]}_{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def plan_yaml(rollout: ModelRollout) -> str:
    """The rollout as declared, with all defaults."""
    tree = rollout.model_dump(mode="json", by_alias=True, exclude_none=True)
    return str(yaml.safe_dump(tree, sort_keys=False, allow_unicode=True))


def record_line(record: Record) -> str:
    """A line of the decision log: the record's fields as JSON."""
    return json.dumps(record._asdict(), sort_keys=True) + "\n"


def parse_line(line: str) -> Record | None:
    """The record of a line; None for what is none."""
    try:
        return Record(**json.loads(line))
    except (ValueError, TypeError):
        return None


def order(key: str) -> int:
    """The place of a record in the log, by its key: all decisions of an object are numbered one by one."""
    return int(key.rpartition("/")[2])


def records_of_attempt(records: list[Record], status: RolloutStatus) -> list[Record]:
    """Those decided in the attempt of ``status``, with the one that began it. Between two of them may be some that
    another replica decided."""
    attempt = status.attempt.number if status.attempt is not None else None
    numbers = [(json.loads(r.inputs).get("status") or {}).get("attempt") for r in records]
    own = [r for r, found in zip(records, numbers, strict=True) if found and found.get("number") == attempt]
    began = own[0].sequence - 1 if own else status.sequence
    return [*(r for r in records if r.sequence == began), *own]


def _v(version: str) -> str:
    return f"v{version}" if version.isdigit() else version


def _time(microseconds: int) -> str:
    return datetime.fromtimestamp(microseconds / 1e6, UTC).isoformat(timespec="seconds")


def _plain(text: str) -> str:
    """Markdown's own characters lose their meaning."""
    return re.sub(r"([\\`*_\[\]<>#|])", r"\\\1", " ".join(text.split()))


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
