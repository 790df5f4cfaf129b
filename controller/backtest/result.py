"""What a backtest says."""

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

from controller.core.evidence import Evidence

End = Literal["Promoted", "RolledBack", "Held"]
NUMBERS = ("estimate", "se", "lower", "upper", "log_e_harm", "log_e_non_inferior", "log_e_superior")


class Decided(NamedTuple):
    """A decision that differs from the one before it. ``t`` in µs; ``step`` from 0; ``weight`` in percent."""

    t: int
    step: int
    weight: float
    decision: str
    reason: str
    metric: str | None
    segment: str | None
    message: str


class Result(NamedTuple):
    """How the rollout would have ended.

    ``result``: Promoted or RolledBack at the first tick that decided so (harm that is proven after a promotion takes
    it back, as in a holdback), Held where nothing was decided until the end of the log. ``reason``, ``metric``,
    ``segment``, ``message`` and ``at`` (µs) are of that decision, or of the last one. ``evidence``: of all that was
    read, the metrics on all traffic first.
    """

    result: End
    reason: str
    metric: str | None
    segment: str | None
    message: str
    at: int
    evidence: tuple[Evidence, ...]
    decisions: tuple[Decided, ...]

    def plain(self) -> dict[str, Any]:
        """As JSON shows it; a number that is not finite is null."""
        overall = [_evidence(e) for e in self.evidence if not e.segment]
        return {
            "result": self.result,
            "reason": self.reason,
            "metric": self.metric,
            "segment": self.segment,
            "message": self.message,
            "at": moment(self.at),
            "evidence": overall,
            "segments": [{"segment": e.segment, **_evidence(e)} for e in self.evidence if e.segment],
            "decisions": [
                {"at": moment(d.t), **{k: v for k, v in d._asdict().items() if k != "t"}, "step": d.step + 1}
                for d in self.decisions
            ],
        }


def moment(t: int) -> str:
    """µs since the epoch as ISO time."""
    return datetime.fromtimestamp(t / 1e6, UTC).isoformat()


def _evidence(e: Evidence) -> dict[str, Any]:
    numbers = {name: getattr(e, name) for name in NUMBERS}
    return {
        "metric": e.metric,
        **{name: value if math.isfinite(value) else None for name, value in numbers.items()},
        "units": {"champion": e.units[0], "challenger": e.units[1]},
        "verdict": e.verdict.value,
        "note": e.note or None,
    }


def text(result: Result) -> str:
    """The result for people."""
    where = f" by {result.metric}" if result.metric else ""
    lines = [f"{result.result} ({result.reason}{where}) at {moment(result.at)}", f"  {result.message}", ""]
    lines += _table(result.evidence)
    lines += ["", "decisions:"]
    for d in result.decisions:
        said = f"{d.decision} {d.reason}" + (f" {d.metric}" if d.metric else "")
        lines.append(f"  {moment(d.t)}  step {d.step + 1}  weight {d.weight:g} %  {said}")
    return "\n".join(lines)


def _table(evidence: Sequence[Evidence]) -> list[str]:
    lines = [f"{'metric':<24} {'verdict':<13} {'estimate':>11} {'interval':>25} {'units':>21}"]
    for e in evidence:
        name = f"{e.metric} {e.segment}".strip()
        interval = f"[{e.lower:.4g}, {e.upper:.4g}]"
        units = f"{e.units[0]} / {e.units[1]}"
        lines.append(f"{name:<24} {e.verdict.value:<13} {e.estimate:>+11.4g} {interval:>25} {units:>21}")
    return lines
