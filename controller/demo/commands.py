"""``understudy demo``."""

import asyncio
import json
import logging
import shlex
import sys
import time
from pathlib import Path

import click


def how_to_read(folder: Path) -> str:
    """The command that shows what MLflow keeps in ``folder``, with the program of this very environment."""
    program = Path(sys.executable).with_name("mlflow")
    near = Path.cwd() in program.parents
    words = [str(program.relative_to(Path.cwd()) if near else program), "ui"]
    words += ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"]
    words += ["--artifacts-destination", str(folder / "artifacts")]
    return shlex.join(words)


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
    acts_said = "1 act" if len(results) == 1 else f"{len(results)} acts"
    say(f"\n{acts_said} in {time.monotonic() - started:.0f} s. The evidence stays in {folder}; to read it:")
    say(f"  {how_to_read(folder / 'mlflow')}")
    if output == "json":
        sys.stdout.write(json.dumps({"rollouts": results}) + "\n")
