"""``understudy validate FILE…``: fast, and without any server."""

from pathlib import Path

import click

from controller.cli.options import output, print_json
from controller.errors import SpecError
from controller.specfile import Unreadable, load, of_prometheus, unsupported


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@output
def validate(files: tuple[Path, ...], output: str) -> None:
    """Check rollout FILES: unknown fields, wrong units, impossible plans.

    Exit code: 0 all are valid, 1 one is wrong, 2 one cannot be read.
    """
    code = 0
    found: dict[str, list[str]] = {}
    needs: dict[str, list[str]] = {}
    for path in files:
        try:
            spec = load(path).spec
            found[str(path)], needs[str(path)] = unsupported(spec), of_prometheus(spec)
            code = max(code, int(bool(found[str(path)])))
        except SpecError as error:
            found[str(path)] = list(error.problems)
            code = max(code, 2 if isinstance(error, Unreadable) else 1)
    if output == "json":
        print_json({
            "files": [
                {"file": f, "valid": not p, "problems": p, "needs": needs.get(f, [])} for f, p in found.items()
            ]
        })  # fmt: skip
    else:
        for name, problems in found.items():
            many = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
            click.echo(f"{name}: {many if problems else 'valid'}")
            for problem in problems:
                click.echo(f"  {problem}")
            for need in needs.get(name, []):
                click.echo(f"  note: {need}")
    if code:
        raise SystemExit(code)
