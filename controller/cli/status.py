"""``understudy status``: where a rollout stands."""

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from controller.cli.options import output, print_json
from controller.cli.places import Place, Rollouts, place
from controller.core.allocation import weight
from controller.loop import silence
from controller.quantities import format_duration
from controller.status import RolloutStatus

if TYPE_CHECKING:
    from controller.ports import Stored

REFRESH_S = 1.0


def summary(stored: "Stored") -> dict[str, Any]:
    """What people ask first, by name; the whole status stands under ``status`` in JSON."""
    spec, status = stored.rollout.spec, stored.status
    epoch, attempt = status.current_epoch, status.attempt
    return {
        "rollout": stored.rollout.metadata.name,
        "progress": status.progress.value,
        "champion": attempt.champion if attempt else None,
        "challenger": attempt.challenger if attempt else None,
        "attempt": attempt.number if attempt else None,
        "step": f"{status.step + 1} of {len(spec.steps)}" if status.step >= 0 else None,
        "weight": weight(status),
        "mirror": epoch.mirror_bp / 100 if epoch else 0.0,
        "step_time": format_duration(status.step_elapsed),
        "age": format_duration(status.active),
        "paused": status.paused,
        "decision": status.decision.value,
        "reason": status.reason.value,
        "message": status.measuring or status.message,
        "limits": "; ".join(status.observed.traffic_limits),
        "stale": silence(spec, status, time.time_ns() // 1000),
        "since": datetime.fromtimestamp(status.decided_at / 1e6, UTC).isoformat() if status.decided_at else None,
        "mlflow_run": status.run_id,
    }


@click.command()
@click.argument("rollout", required=False)
@click.option("-w", "--watch", is_flag=True, help="Refresh until the rollout is over.")
@place
@output
def status(rollout: str | None, watch: bool, place: Place, output: str) -> None:
    """Where a rollout stands: step, weight, decision and why."""
    store = place.store
    if rollout is None and not watch and len(store.keys()) != 1:
        _all(store, output)
        return
    key = place.chosen(rollout)
    shown = None
    while True:
        stored = store.load(key)
        said = summary(stored)
        if said != shown:
            _show(said, stored.status, output, again=shown is not None)
            shown = said
        if not watch or stored.status.progress.terminal:
            return
        time.sleep(REFRESH_S)


def _all(store: Rollouts, output: str) -> None:
    found = [store.load(key) for key in sorted(store.keys())]
    said = [summary(stored) for stored in found]
    if output == "json":
        print_json({"rollouts": said})
        return
    for stored, one in zip(found, said, strict=True):
        why = stored.status.measuring or one["reason"]
        click.echo(f"{one['rollout']}: {one['progress']}, weight {one['weight']:g} %, {why}")
    if not found:
        click.echo("no rollouts")


def _show(said: dict[str, Any], status: RolloutStatus, output: str, *, again: bool) -> None:
    if output == "json":
        print_json({**said, "status": status.model_dump(mode="json", by_alias=True)})
        return
    if again:
        click.echo("")
    for name, value in said.items():
        if value not in (None, "") and not (name == "reason" and status.measuring):
            click.echo(f"{name.replace('_', ' '):>12}  {value}")
