"""``understudy schema``: the artefacts that are generated from the spec."""

from pathlib import Path

import click

from controller import schema as generated
from controller.cli.options import output, print_json


@click.command()
@click.option("--check", is_flag=True, help="Write nothing; exit code 1 where a file is stale.")
@click.option(
    "--directory",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(),
    show_default=True,
    help="The checkout whose files are meant.",
)
@output
def schema(check: bool, directory: Path, output: str) -> None:
    """Write the CRD and the chart's copy, the JSON Schema for editors and the README's field table, from the spec."""
    found = generated.stale(directory) if check else generated.write(directory)
    if output == "json":
        print_json({"stale" if check else "written": found})
    else:
        for name in found:
            click.echo(f"{name} is stale; `make gen` (understudy schema) writes it anew" if check else f"wrote {name}")
        if not found:
            click.echo("all generated files are up to date")
    if check and found:
        raise SystemExit(1)
