"""``understudy validate FILE…``: fast, and without any server."""

from pathlib import Path

import click

from controller.cli.options import output, print_json
from controller.errors import SpecError
from controller.specfile import load, unsupported


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path, dir_okay=False))
@output
def validate(files: tuple[Path, ...], output: str) -> None:
    """Check rollout FILES: unknown fields, wrong units, impossible plans. Exit code 1 where one is wrong."""
    found: dict[str, list[str]] = {}
    for path in files:
        try:
            found[str(path)] = unsupported(load(path).spec)
        except SpecError as error:
            found[str(path)] = list(error.problems)
    if output == "json":
        print_json({"files": [{"file": f, "valid": not p, "problems": p} for f, p in found.items()]})
    else:
        for name, problems in found.items():
            click.echo(f"{name}: {'valid' if not problems else f'{len(problems)} problem(s)'}")
            for problem in problems:
                click.echo(f"  {problem}")
    if any(found.values()):
        raise SystemExit(1)
