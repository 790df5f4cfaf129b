"""``understudy backtest``: the rule applied to what has happened already."""

import time
from pathlib import Path
from typing import Any

import click

from controller.backtest import replay_journals, run_log
from controller.backtest.result import moment, text
from controller.cli.options import chosen, open_store, output, print_json, state_dir
from controller.quantities import parse_duration
from controller.specfile import load
from controller.status import RolloutStatus

SAY_EVERY_S = 2.0
_FILE = click.Path(path_type=Path)


class _Progress:
    """Now and then a line on standard error, so that a long log is seen to move."""

    def __init__(self) -> None:
        self._next = time.monotonic() + SAY_EVERY_S

    def __call__(self, t: int, status: RolloutStatus) -> None:
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + SAY_EVERY_S
        epoch = status.current_epoch
        weight = f"weight {epoch.weight_bp / 100:g} %" if epoch else "no allocation"
        click.echo(f"{moment(t)}  {weight}  {status.decision} {status.reason}", err=True)


def _duration(_: click.Context, __: click.Parameter, value: str | None) -> int | None:
    if value is None:
        return None
    try:
        tick = parse_duration(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error
    if tick < 1000:
        raise click.BadParameter("must be 1ms or longer")
    return tick


@click.command()
@click.argument("spec", required=False, type=_FILE)
@click.option("--exposures", type=_FILE, help="CSV or Parquet: unit, arm, ts, weight, and what the metrics need.")
@click.option("--outcomes", type=_FILE, help="CSV or Parquet: unit or request_id, name, value, ts.")
@click.option("--tick", callback=_duration, help="Time between two looks, such as 60s. [default: see below]")
@click.option("--stop-at-decision", is_flag=True, help="Read no further once something is decided.")
@click.option("--journals", type=_FILE, help="Instead of a log: a router's journals, with the state of their run.")
@click.option("--rollout", help="With --journals: which rollout of the state folder, where it holds several.")
@click.option(
    "--expect",
    type=click.Choice(["Promoted", "RolledBack", "Held"]),
    help="Exit code 1 where the result is another.",
)
@state_dir
@output
def backtest(spec: Path | None, expect: str | None, output: str, **given: Any) -> None:
    """What the rule in SPEC would have decided on a log of exposures and outcomes, without network or registry.

    The columns of the exposures are unit, arm (champion or challenger), ts (ISO time or seconds since 1970) and
    weight (percent); beside them segment, request_id, prediction, latency_ms, status and control as the metrics need
    them. A column control marks the champion units that are the reserved control; without it all of them are.

    The logged weights go on whatever is decided. One look a minute is the default, or fewer in a log of more than 16
    hours. Exit code 0 whatever the result is, unless --expect says which it has to be.
    """
    how = {"tick": given["tick"], "stop_at_decision": given["stop_at_decision"], "progressed": _Progress()}
    exposures, outcomes, journals = given["exposures"], given["outcomes"], given["journals"]
    if journals is not None:
        if spec is not None or exposures is not None or outcomes is not None:
            raise click.UsageError("--journals takes the rollout from --state-dir: leave SPEC and the log out")
        store = open_store(given["state_dir"])
        stored = store.load(chosen(store, given["rollout"]))
        result = replay_journals(stored.rollout, stored.status, journals, **how)
    elif spec is None or exposures is None or outcomes is None:
        raise click.UsageError("SPEC, --exposures and --outcomes are needed, or --journals with --state-dir")
    else:
        result = run_log(load(spec), exposures, outcomes, warned=_warn, **how)
    if output == "json":
        print_json(result.plain())
    else:
        click.echo(text(result))
    if expect is not None and result.result != expect:
        raise SystemExit(1)


def _warn(said: str) -> None:
    click.echo(f"warning: {said}", err=True)
