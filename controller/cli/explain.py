"""``understudy explain``: why the last decision was made, and what is missing."""

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from controller.cli.options import chosen, open_store, output, print_json, state_dir
from controller.core.cells import OVERALL, BaselineSums
from controller.core.decide import harm_thresholds, superior_threshold
from controller.core.evidence import Evidence, Verdict, until_data
from controller.core.evolve import Transition
from controller.core.fold import Statistics
from controller.core.outlook import discoveries, informed, until_proof
from controller.core.plans import metric_plan, until_baseline
from controller.core.record import Record
from controller.core.replay import derive, inputs
from controller.errors import EdgeError, SpecError
from controller.metric import Role
from controller.quantities import format_duration
from controller.spec import RolloutSpec
from controller.status import RolloutStatus


def row(
    spec: RolloutSpec,
    status: RolloutStatus,
    statistics: Statistics,
    e: Evidence,
    harm_needed: float | None,
    better_needed: float | None,
) -> dict[str, Any]:
    """One metric in one segment, finite numbers only (None for what is not known). ``expected_in_s``: until it is
    proven not worse, or until there is data, if things go on as they do."""
    needed = -math.log(spec.decision.promote_alpha)
    judged = harm_needed is not None and e.segment == OVERALL  # of segments no proof is asked
    better = better_needed if judged and e.role is Role.SUCCESS else None
    missing = None
    if judged and e.log_e_non_inferior < needed:
        missing = f"log e {e.log_e_non_inferior:.2f} of the {needed:.2f} that prove it not worse than {e.margin:.4g}"
    elif better is not None and e.log_e_superior < better:
        missing = f"log e {e.log_e_superior:.2f} of the {better:.2f} that prove it better; one Success metric has to be"
    numbers = {
        "estimate": e.estimate,
        "se": e.se,
        "lower": e.lower,
        "upper": e.upper,
        "champion": e.champion,
        "margin": e.margin,
        "log_e_harm": e.log_e_harm,
        "log_e_harm_needed": harm_needed,
        "log_e_non_inferior": e.log_e_non_inferior,
        "log_e_non_inferior_needed": needed if judged else None,
        "log_e_superior": e.log_e_superior,
        "log_e_superior_needed": better,
    }
    return {
        "metric": e.metric,
        "segment": e.segment or None,
        "role": e.role.value,
        "verdict": e.verdict.value,
        "units": {"champion": e.units[0], "challenger": e.units[1]},
        **{k: v if v is not None and math.isfinite(v) else None for k, v in numbers.items()},
        "due": e.due,
        "note": e.note or None,
        "limit": str(e.limit) if e.limit is not None else None,
        "missing": missing,
        "expected_in_s": _expected(spec, status, statistics, e),
    }


def _expected(spec: RolloutSpec, status: RolloutStatus, statistics: Statistics, e: Evidence) -> float | None:
    metric = next(m for m in spec.metrics if m.name == e.metric)
    if metric.name not in status.baselines and status.epochs:
        sums = statistics.baselines.get(metric.name, BaselineSums())
        left = until_baseline(metric, sums, status.clock - status.epochs[0].opened_at)
        return None if left is None else left / 1e6
    wait = until_data(spec, metric_plan(spec, metric, status.baselines.get(metric.name)))
    epoch = status.current_epoch
    if epoch is not None and e.verdict is Verdict.NO_DATA and not e.due and not e.paired:
        return max(0.0, (epoch.opened_at + wait - status.clock) / 1e6)
    if e.segment != OVERALL:
        return None
    elapsed = informed(status.epochs, status.clock, wait)
    left = until_proof(e, metric.decreasing, elapsed, spec.decision.promote_alpha)
    return None if left is None else left / 1e6


def deciding(records: Sequence[Record]) -> tuple[Record, Transition]:
    """The record of the last decision with what it derives to: the newest with evidence among those that say the same.

    A rollback is decided on evidence and then carried out in several transitions that look at none. EdgeError where
    a record cannot be derived.
    """
    last: tuple[Record, Transition] | None = None
    for record in reversed(records):
        if last is not None and (record.decision, record.reason) != (last[0].decision, last[0].reason):
            break
        try:
            moved = derive(record)
        except ValueError as error:
            raise EdgeError(f"record {record.key} cannot be derived again: {error}") from error
        if moved.evidence:
            return record, moved
        last = last or (record, moved)
    assert last is not None
    return last


@click.command()
@click.argument("rollout", required=False)
@state_dir
@output
def explain(rollout: str | None, state_dir: Path, output: str) -> None:
    """Why ROLLOUT's last decision was made: estimates, intervals, and evidence against thresholds."""
    store = open_store(state_dir)
    key = chosen(store, rollout)
    found = store.records(key)
    if not found:
        raise SpecError(f"ROLLOUT: {key} has no record yet; the first tick writes one")
    record, moved = deciding(found)
    given = inputs(record)
    spec = given.spec
    needed = {(e.metric, e.segment): t for e, t in harm_thresholds(spec, moved.evidence)}
    better = superior_threshold(spec, moved.evidence)
    rows = [
        row(spec, moved.status, given.statistics, e, needed.get((e.metric, e.segment)), better) for e in moved.evidence
    ]
    worse = [{"metric": e.metric, "segment": e.segment} for e in discoveries(moved.evidence)]
    said = {
        "rollout": key,
        "sequence": record.sequence,
        "decision": record.decision,
        "reason": record.reason,
        "message": record.message,
        "at": datetime.fromtimestamp(record.now / 1e6, UTC).isoformat(timespec="seconds"),
        "evidence": rows,
        "worse_segments": worse,
    }
    if output == "json":
        print_json(said)
        return
    click.echo(f"{key}: {record.decision}, {record.reason}. {record.message}")
    click.echo(f"as of {said['at']}, when this was first decided")
    for one in rows:
        _text(one)
    if worse:
        named = ", ".join(f"{w['metric']} in {w['segment']}" for w in worse)
        click.echo(f"\nworse in segments, at most 5 % of them by chance: {named}")


def _text(one: dict[str, Any]) -> None:
    def number(name: str) -> str:
        value = one[name]
        return "?" if value is None else f"{value:.4g}"

    where = f" in {one['segment']}" if one["segment"] else ""
    click.echo(f"\n{one['metric']}{where} ({one['role']}): {one['verdict']}")
    if one["se"] is not None or one["limit"] is None:
        click.echo(f"  units       {one['units']['champion']} champion, {one['units']['challenger']} challenger")
        click.echo(
            f"  estimate    {number('estimate')}  [{number('lower')}, {number('upper')}]  champion {number('champion')}"
        )
    if one["log_e_harm_needed"] is not None:
        click.echo(f"  harm        log e {number('log_e_harm')} of {number('log_e_harm_needed')}")
    if one["log_e_non_inferior_needed"] is not None:
        click.echo(f"  not worse   log e {number('log_e_non_inferior')} of {number('log_e_non_inferior_needed')}")
    if one["log_e_superior_needed"] is not None:
        click.echo(f"  better      log e {number('log_e_superior')} of {number('log_e_superior_needed')}")
    for name in ("limit", "note", "missing"):
        if one[name]:
            click.echo(f"  {name:<11} {one[name]}")
    if one["expected_in_s"]:
        what = "data" if one["verdict"] == Verdict.NO_DATA else "the proof"
        wait = format_duration(round(one["expected_in_s"]) * 1_000_000)
        click.echo(f"  expected    {what} in about {wait}, if things go on like this")
