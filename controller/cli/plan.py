"""``understudy plan FILE``: the units and days a rollout needs, and what a bad challenger could do, beforehand."""

import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from controller.cli.options import output, print_json
from controller.core.cells import BaselineSums
from controller.core.plans import requirements
from controller.errors import SpecError
from controller.kinds import Kind
from controller.planning.champion import OF_LABELS, SHARES, SPREAD, Given
from controller.planning.forecast import Forecast, MetricForecast, forecast
from controller.planning.ramp import Course
from controller.planning.steps import DAY
from controller.quantities import format_duration
from controller.specfile import load


def given(option: str, written: tuple[str, ...]) -> dict[str, float]:
    """``METRIC=VALUE`` texts as numbers; SpecError names the option. A value may be a percentage."""
    said: dict[str, float] = {}
    for text in written:
        name, equals, value = text.partition("=")
        if name in said:
            raise SpecError(f"{option} {text}: {name} is given twice")
        try:
            number = float(value.removesuffix("%")) / (100 if value.endswith("%") else 1)
        except ValueError:
            number = math.nan
        if not name or not equals or not math.isfinite(number):
            raise SpecError(f"{option} {text}: write METRIC=VALUE, such as clicks=0.05 or clicks=5%")
        said[name] = number
    return said


def progress() -> Callable[[int, int, str], None]:
    """Progress on stderr: one line that is written over in a terminal, else a line per metric and step."""
    started, live = time.monotonic(), sys.stderr.isatty()

    def report(done: int, total: int, what: str) -> None:
        text = f"plan {done}/{total}, {time.monotonic() - started:.1f} s: {what}"
        click.echo(f"\r{text:<78}" if live else text, err=True, nl=not live or done == total)

    return report


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--units-per-day", type=float, help="Units that come in a day, each counted once a step.")
@click.option(
    "--requests-per-unit",
    type=float,
    default=1.0,
    show_default=True,
    help="Requests of a unit, well apart in time: errors and latency count each.",
)
@click.option("--base", multiple=True, metavar="METRIC=VALUE", help="The champion's mean or share; Latency: ms.")
@click.option("--spread", multiple=True, metavar="METRIC=SD", help="Standard deviation per unit, after the cap.")
@click.option("--nonzero", multiple=True, metavar="METRIC=SHARE", help="Mean, Ratio: share of units with a value.")
@click.option("--share", multiple=True, metavar="METRIC=SHARE", help="Share of positives; Precision: of yeses.")
@click.option("--runs", type=int, default=300, show_default=True, help="Rollouts simulated for each figure.")
@click.option("--seed", type=int, default=0, show_default=True, help="The same seed gives the same plan.")
@output
def plan(
    file: Path,
    units_per_day: float | None,
    requests_per_unit: float,
    runs: int,
    seed: int,
    output: str,
    **written: tuple[str, ...],
) -> None:
    """What the rollout in FILE can prove, how soon, and what a bad challenger could do, by simulating its tests.

    Offline. Base rates come from the metrics' baselines or from --base. Of spreads that are not given, a Mean's is
    that of 3 units in 100 with values, a loss' and a Ratio's is twice the mean. What is assumed is listed as a
    warning. Segments are not simulated, mirror steps only for Disagreement.
    """
    if seed < 0:
        raise SpecError(f"--seed: allowed is a whole number from 0, got {seed}")
    rollout = load(file)
    said = forecast(
        rollout.spec,
        Given(*(given(f"--{name}", written[name]) for name in Given._fields)),
        units_per_day,
        requests_per_unit,
        runs,
        seed,
        progress(),
    )
    if output == "json":
        print_json({"rollout": rollout.metadata.name, **as_json(said)})
    else:
        click.echo("\n".join(text(rollout.metadata.name, said)))


def as_json(said: Forecast) -> dict[str, Any]:
    """The forecast as plain values, times in days; None where nothing is known or nothing suffices."""
    return {
        "units_per_day": said.units_per_day,
        "requests_per_unit": said.requests_per_unit,
        "runs": said.runs,
        "seed": said.seed,
        "days": said.days,
        "most_exposed": said.most_exposed,
        "steps": [
            {
                "step": s.number,
                "weight": s.weight,
                "hold": format_duration(s.hold),
                "lasts": format_duration(s.lasts),
                "challenger_share": s.share,
                "challenger_units": s.challenger * s.lasts if s.challenger else None,
                "champion_units": s.champion * s.lasts if s.champion else None,
            }
            for s in said.steps
        ],
        "metrics": [_metric_json(m) for m in said.metrics],
        "warnings": [
            {"code": c.code.value, "metric": c.metric, "step": c.step, "message": c.message} for c in said.cautions
        ],
    }


def _metric_json(m: MetricForecast) -> dict[str, Any]:
    c = m.champion
    return {
        "metric": c.metric.name,
        "kind": c.metric.kind.value,
        "role": c.metric.role.value,
        "base": c.base,
        "spread": c.spread or None,
        "spread_assumed": c.assumed,
        "share": c.share if c.metric.kind in OF_LABELS else None,
        "assumptions": list(c.assumptions),
        "margin": m.margin,
        "baseline_days": m.lead / DAY,
        "log_e_harm_needed": c.harm_needed,
        "log_e_non_inferior_needed": c.proof_needed,
        "steps": [
            {
                "step": s.at.number,
                "units_to_prove_not_worse": s.proof.units,
                "days_to_prove_not_worse": s.proof.days,
                "detectable_harm": s.detectable,
            }
            for s in m.steps
        ],
        "equal_challenger": m.equal and {"proven": m.equal.proven, "proven_days": m.equal.proven_days},
        "two_margins": m.two_margins and _exposure_json(m.two_margins),
        "gross_harm": m.gross and _exposure_json(m.gross),
    }


def _exposure_json(course: Course) -> dict[str, Any]:
    return {
        "harm": course.harm,
        "rolled_back": course.found,
        "median_days": course.median_days,
        "units_exposed_mean": course.mean,
        "units_exposed_worst_twentieth": course.worst_5,
    }


def text(name: str, said: Forecast) -> list[str]:
    """The forecast for people, line by line."""
    traffic = "unknown traffic" if said.units_per_day is None else f"{said.units_per_day:,.0f} units a day"
    lines = [f"{name}: {traffic}, {said.runs} simulated rollouts for each figure"]
    for m in said.metrics:
        lines += _metric_text(m)
    lines.append("")
    if said.days is not None:
        lines.append(
            f"All of it proves an equal challenger in about {said.days:.3g} days (each metric with probability .8)."
        )
    if said.most_exposed is not None:
        lines.append(f"If nothing is ever found, {said.most_exposed:,.0f} units meet the challenger by maxDuration.")
    if said.cautions:
        lines.append(f"{len(said.cautions)} warnings:")
        lines += [f"  {c.code.value}: {c.message}" for c in said.cautions]
    return lines


def _metric_text(m: MetricForecast) -> list[str]:
    c = m.champion
    spread = (
        f", standard deviation {c.spread:.4g}{' (assumed)' if c.assumed else ''}" if c.metric.kind in SPREAD else ""
    )
    champion = f"p{100 * c.plan.quantile:g} {c.base:.4g} ms" if c.metric.kind is Kind.LATENCY else f"{c.base:.4g}"
    if c.metric.kind in OF_LABELS:
        what = "yes is said to" if c.metric.kind is Kind.PRECISION else "positives are"
        champion += f", {what} {100 * c.share:.3g} % of the rows"
    margin = c.metric.margin.text if c.metric.margin else "none"
    seen = ("mirror", "requests        ") if c.plan.family == "pair" else ("weight", "challenger units")
    whose = "answers that differ" if c.plan.family == "pair" else "champion"
    lines = [
        "",
        f"{c.metric.name} ({c.metric.kind}, {c.metric.role}): {whose} {champion}{spread}, margin {margin}",
        *_baseline_text(m),
        f"  step  {seen[0]}  lasts      {seen[1]}   days    finds a harm of",
    ]
    for row in m.steps:
        step = row.at
        units = "none in reach" if row.proof.units is None else f"{row.proof.units:,}"
        days = "–" if row.proof.days is None else f"{row.proof.days:.3g}"
        lines.append(
            f"  {step.number:<5} {step.weight:>4g} %  {format_duration(step.lasts)[:10]:<10} {units:>16}   {days:<7} "
            f"{_harm(m, row.detectable) if step.challenger else '–'}"
        )
    for what, course in (("two margins", m.two_margins), ("gross harm", m.gross)):
        if course is not None:
            lines.append(
                f"  {what} ({_harm(m, course.harm)}): {100 * course.found:.0f} of 100 rolled back by it, "
                f"{course.mean:,.0f} units exposed on average, {course.worst_5:,.0f} in the worst twentieth"
            )
    if m.equal is not None and m.equal.proven_days is not None:
        lines.append(f"  an equal challenger is proven not worse after {m.equal.proven_days:.3g} days of weights")
    return lines


def _baseline_text(m: MetricForecast) -> list[str]:
    if not m.lead:
        return []
    needs = ", ".join(f"{r.need:,} {r.what}" for r in requirements(m.champion.metric, BaselineSums()) if r.need > 1)
    return [f"  no evidence for {m.lead / DAY:.2g} days of weights, which go into its baseline ({needs})"]


def _harm(m: MetricForecast, harm: float | None) -> str:
    """A harm in the metric's unit and relative to the champion."""
    if harm is None:
        return "none"
    c = m.champion
    if c.metric.kind is Kind.LATENCY:
        return f"{100 * harm:.3g} % slower"
    relative = f" ({100 * harm / abs(c.base):.3g} %)" if 0 < harm < 5 * abs(c.base) else ""
    sign = "+" if c.plan.decreasing else "−"
    return f"{sign}{100 * harm:.3g} pp{relative}" if c.metric.kind in SHARES else f"{sign}{harm:.3g}{relative}"
