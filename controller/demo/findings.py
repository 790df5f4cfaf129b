"""What the demo says at the end of an act: read off the rollout's own records, never off the script."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

from controller.core.evidence import Evidence
from controller.core.fold import Statistics
from controller.core.record import Record
from controller.core.replay import derive, inputs
from controller.core.scores import ScoreFold
from controller.demo.load import Tally
from controller.demo.models import Scores
from controller.status import RolloutStatus, Verb


def models_text(scores: Sequence[Scores]) -> Iterator[str]:
    """How both models do on the months that the demo replays."""
    for found in scores:
        first, last = found.months
        when = "July–September" if (first, last) == (7, 9) else {7: "July", 8: "August", 9: "September"}[first]
        yield (
            f"  {when:<15} {found.model:<11} log loss {found.log_loss:.4f}  AUC {found.auc:.4f}  "
            f"Brier {found.brier:.4f}  accuracy {found.accuracy:.4f}"
        )
    yield "  In September both predict more delays than there were, and the challenger's log loss is the worse one."


def decisive(records: Sequence[Record]) -> Record | None:
    """The record of the promotion or rollback; without one the last."""
    ended = [r for r in records if r.decision in (Verb.PROMOTE, Verb.ROLL_BACK)]
    return ended[0] if ended else (records[-1] if records else None)


def result(status: RolloutStatus, records: Sequence[Record]) -> dict[str, Any]:
    """The act as a JSON object. Numbers that are not known are null."""
    record = decisive(records)
    evidence = derive(record).evidence if record else ()
    statistics = inputs(record).statistics if record else None
    named = next((e for e in evidence if e.metric == status.metric and e.segment == (status.segment or "")), None)
    return {
        "name": status.rollout,
        "result": status.end or "Held",
        "reason": status.reason.value,
        "metric": status.metric,
        "segment": status.segment,
        **_numbers(named),
        "challenger_requests": sum(c.challenger_requests for c in statistics.counts.values()) if statistics else 0,
        "evidence": [
            {"metric": e.metric, "verdict": e.verdict.value, **_numbers(e)} for e in evidence if not e.segment
        ],
        "pooled": _pooled(statistics, status.metric) if statistics else None,
    }


def _numbers(e: Evidence | None) -> dict[str, Any]:
    if e is None:
        return {"estimate": None, "lower": None, "upper": None, "units": {"champion": 0, "challenger": 0}}
    finite = {k: v if math.isfinite(v) else None for k, v in (("lower", e.lower), ("upper", e.upper))}
    return {
        "estimate": e.estimate if math.isfinite(e.se) else None,
        **finite,
        "units": {"champion": e.units[0], "challenger": e.units[1]},
    }


def _pooled(statistics: Statistics, metric: str | None) -> dict[str, float] | None:
    """What a comparison of two grand means would say, beside the same by epoch; relative to the champion."""
    state = statistics.folds.get((metric or "", ""))
    if not isinstance(state, ScoreFold) or len(state.epochs) < 2:
        return None
    a_x, b_x = sum(e.champion.x for e in state.epochs), sum(e.challenger.x for e in state.epochs)
    a_y, b_y = sum(e.champion.y for e in state.epochs), sum(e.challenger.y for e in state.epochs)
    if not (a_x and b_x and a_y):
        return None
    champion = a_y / a_x
    weights = [e.champion.x * e.challenger.x / (e.champion.x + e.challenger.x) for e in state.epochs if _both(e)]
    changes = [e.challenger.y / e.challenger.x - e.champion.y / e.champion.x for e in state.epochs if _both(e)]
    by_epoch = sum(w * c for w, c in zip(weights, changes, strict=True)) / sum(weights)
    return {"pooled": (b_y / b_x - champion) / champion, "by_epoch": by_epoch / champion}


def _both(epoch: Any) -> bool:
    return bool(epoch.champion.x and epoch.challenger.x)


def act_text(said: dict[str, Any], status: RolloutStatus, tally: Tally) -> Iterator[str]:
    """The act in a few lines."""
    yield f"→ {said['result']} ({said['reason']}): {status.message}"
    yield (
        f"  {tally.sent:,} requests, {said['challenger_requests']:,} of them the challenger's, "
        f"{tally.errors} answers that a user could not have used"
    )
    for reason in tally.reasons:
        yield f"    {reason}"
    if said["seconds_to_zero_weight"] is not None:
        yield f"  {said['seconds_to_zero_weight']:.2f} s from the decision until no worker sent it anything more"
    pooled = said["pooled"]
    if pooled is not None and said["result"] == "Promoted":
        yield (
            f"  A lesson: pooled over all weights, {said['metric']} would differ by {pooled['pooled']:+.1%}; epoch by "
            f"epoch it is {pooled['by_epoch']:+.1%}. The difference is the season, not the model: as the weight grew, "
            "flights got more or less punctual, and the challenger saw more of the later days."
        )
    if tally.behind_s > 1:
        yield f"  (this machine fell {tally.behind_s:.1f} s behind the schedule)"
