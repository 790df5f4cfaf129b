"""``understudy demo``."""

import asyncio
import json
import logging
import sys
import time
from pathlib import Path

import click


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--state-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=None,
    help="Folder for MLflow, journals and logs. [default: .understudy/demo-TIME]",
)
@click.option("--act", "only", type=click.IntRange(1, 3), multiple=True, help="Play only these acts.")
@click.option("--rate", type=click.FloatRange(10, 5000), default=300.0, show_default=True, help="Flights a second.")
@click.option("--output", type=click.Choice(["text", "json"]), default="text", help="json: one object at the end.")
def demo(state_dir: Path | None, only: tuple[int, ...], rate: float, output: str) -> None:
    """Three rollouts on real flights, watched live (about five minutes)."""
    from controller.demo.acts import ACTS
    from controller.demo.play import perform

    # MLflow tells of each version it makes; the demo tells of what matters.
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    folder = (state_dir or Path(".understudy") / time.strftime("demo-%Y%m%d-%H%M%S")).resolve()
    acts = tuple(act for number, act in enumerate(ACTS, start=1) if not only or number in only)
    started = time.monotonic()

    def say(text: str) -> None:
        click.echo(text, err=output == "json")

    try:
        results = asyncio.run(perform(folder, say, rate, acts))
    except (asyncio.CancelledError, KeyboardInterrupt):
        click.echo("ended by hand; nothing is left running", err=True)
        sys.exit(130)
    say(f"\n{len(results)} acts in {time.monotonic() - started:.0f} s. The evidence stays in {folder}; to read it:")
    say(f"  mlflow ui --backend-store-uri sqlite:///{folder / 'mlflow' / 'mlflow.db'}")
    if output == "json":
        sys.stdout.write(json.dumps({"rollouts": results}) + "\n")
