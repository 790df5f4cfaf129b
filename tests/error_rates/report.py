"""What a campaign showed: counts with exact binomial limits, as a table, a plot and JSON under ``build/``."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from scipy.stats import beta

LIMITS = 0.95


class Row(NamedTuple):
    """``hits`` of ``runs``; ``claim`` is the bound that is promised, on the side ``at_most``; None: nothing is."""

    scenario: str
    event: str
    rule: str
    hits: int
    runs: int
    claim: float | None = None
    at_most: bool = True

    @property
    def rate(self) -> float:
        return self.hits / self.runs

    @property
    def limits(self) -> tuple[float, float]:
        """Clopper and Pearson's exact limits at 95 %."""
        tail = (1 - LIMITS) / 2
        low = float(beta.ppf(tail, self.hits, self.runs - self.hits + 1)) if self.hits else 0.0
        high = float(beta.ppf(1 - tail, self.hits + 1, self.runs - self.hits)) if self.hits < self.runs else 1.0
        return low, high

    @property
    def holds(self) -> bool:
        return self.claim is None or (self.rate <= self.claim if self.at_most else self.rate >= self.claim)


class Median(NamedTuple):
    """A median number of challenger requests, and the largest that is promised."""

    scenario: str
    weight: float
    median: float
    ninetieth: float
    runs: int
    claim: float

    @property
    def holds(self) -> bool:
        return self.median <= self.claim


def text(rows: Sequence[Row], medians: Sequence[Median]) -> str:
    """The tables, for a terminal and for the docs."""
    lines = [
        "| scenario | event | rule | rate | exact 95 % limits | runs | promised | holds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        low, high = r.limits
        said = "" if r.claim is None else f"{'≤' if r.at_most else '≥'} {r.claim:g}"
        lines.append(
            f"| {r.scenario} | {r.event} | {r.rule} | {r.rate:.4f} | {low:.4f} – {high:.4f} | {r.runs} | {said} "
            f"| {'' if r.claim is None else 'yes' if r.holds else 'NO'} |"
        )
    lines += [
        "",
        "| harm | weight | median challenger requests | 90 % | runs | promised | holds |",
        "|---|---|---|---|---|---|---|",
    ]
    for m in medians:
        lines.append(
            f"| {m.scenario} | {m.weight:g} % | {m.median:g} | {m.ninetieth:g} | {m.runs} | ≤ {m.claim:g} "
            f"| {'yes' if m.holds else 'NO'} |"
        )
    return "\n".join(lines)


def write(folder: Path, rows: Sequence[Row], medians: Sequence[Median]) -> None:
    """``error-rates.md``, ``.json`` and ``.png`` in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "error-rates.md").write_text(text(rows, medians) + "\n")
    figures = {
        "rates": [{**r._asdict(), "rate": r.rate, "limits": r.limits, "holds": r.holds} for r in rows],
        "medians": [{**m._asdict(), "holds": m.holds} for m in medians],
    }
    (folder / "error-rates.json").write_text(json.dumps(figures, indent=1) + "\n")
    _plot(folder / "error-rates.png", rows)


def _plot(path: Path, rows: Sequence[Row]) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(10, 0.34 * len(rows) + 1.2), layout="constrained")
    for place, row in enumerate(reversed(rows)):
        low, high = row.limits
        colour = "tab:blue" if row.rule == "understudy" else "tab:gray"
        axes.plot([low, high], [place, place], color=colour, linewidth=2)
        axes.plot(row.rate, place, "o", color=colour)
        if row.claim is not None:
            axes.plot(row.claim, place, "|", color="tab:red", markersize=14)
    axes.set_yticks(range(len(rows)), [f"{r.scenario}: {r.event} ({r.rule})" for r in reversed(rows)], fontsize=8)
    axes.set_xlabel("share of rollouts, with exact 95 % limits; red: what is promised")
    axes.set_xlim(-0.01, 1.01)
    figure.savefig(path, dpi=120)
    plt.close(figure)
