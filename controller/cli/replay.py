"""``understudy replay RECORDS``: every recorded decision derived again, bit for bit."""

import json
from collections.abc import Iterator
from pathlib import Path

import click

from controller.cli.options import output, print_json
from controller.core.record import Record
from controller.core.replay import differs
from controller.edges.store import SqliteStore
from controller.errors import SpecError


def records(path: Path) -> Iterator[Record]:
    """Records of a state folder, of its store, or of a JSON Lines file. SpecError names the line that is none."""
    if path.is_dir():
        path = path / "rollouts.sqlite"
    if not path.exists():
        raise SpecError(f"RECORDS: {path} does not exist")
    with path.open("rb") as file:
        stored = file.read(16).startswith(b"SQLite format 3")
    if stored:
        store = SqliteStore(path)
        for key in sorted(store.keys()):
            yield from store.records(key)
        return
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            yield Record(**json.loads(line))
        except (ValueError, TypeError) as error:
            raise SpecError(f"RECORDS: {path} line {number} is no record: {error}") from error


@click.command()
@click.argument("path", metavar="RECORDS", type=click.Path(path_type=Path))
@output
def replay(path: Path, output: str) -> None:
    """Derive every decision in RECORDS again and compare: a state folder, its rollouts.sqlite, or JSON Lines.

    Exit code 1 where one differs.
    """
    count, wrong = 0, []
    for record in records(path):
        count += 1
        try:
            found = differs(record)
        except ValueError as error:
            raise SpecError(f"RECORDS: {error}") from error
        if found is not None:
            wrong.append(found)
            click.echo(f"{found.key}: recorded {found.recorded[:12]}, derived {found.found[:12]}", err=True)
    if output == "json":
        print_json({"records": count, "differences": [d._asdict() for d in wrong]})
    else:
        click.echo(f"{count} records, {len(wrong)} differ")
    if wrong or not count:
        raise SystemExit(1)
