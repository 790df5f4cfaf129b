"""``understudy replay RECORDS``: every recorded decision derived again, bit for bit."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import get_type_hints

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
            yield _record(json.loads(line))
        except (ValueError, RecursionError) as error:
            raise SpecError(f"RECORDS: {path} line {number} is no record: {error}") from error


def _record(tree: object) -> Record:
    """ValueError that names the fields which it lacks, which it has too many, and which are of another type."""
    if not isinstance(tree, dict):
        raise ValueError("a JSON object is needed")
    kinds = get_type_hints(Record)
    wrong = {
        "lacks": kinds.keys() - tree.keys(),
        "should not have": tree.keys() - kinds.keys(),
        "has another type of": {name for name in kinds.keys() & tree.keys() if type(tree[name]) is not kinds[name]},
    }
    said = [f"it {what} {', '.join(sorted(names))}" for what, names in wrong.items() if names]
    if said:
        raise ValueError("; ".join(said))
    return Record(**tree)


def misplaced(found: Iterator[Record]) -> Iterator[tuple[Record, str]]:
    """Each record with what is wrong with its place: decisions of one object are numbered one by one."""
    last: dict[str, int] = {}
    for record in found:
        before = last.get(record.uid)
        text = ""
        if before is not None and record.sequence <= before:
            text = f"{record.key}: comes after number {before}"
        elif before is not None and record.sequence > before + 1:
            text = f"{record.key}: comes after number {before}, so what was decided between is missing"
        last[record.uid] = max(record.sequence, before or 0)
        yield record, text


@click.command()
@click.argument("path", metavar="RECORDS", type=click.Path(path_type=Path))
@output
def replay(path: Path, output: str) -> None:
    """Derive every decision in RECORDS again and compare: a state folder, its rollouts.sqlite, or JSON Lines.

    Exit code 1 where one differs, is missing between two others, or stands in the wrong place.
    """
    count, wrong, places = 0, [], []
    for record, place in misplaced(records(path)):
        count += 1
        if place:
            places.append(place)
            click.echo(place, err=True)
        try:
            found = differs(record)
        except ValueError as error:
            raise SpecError(f"RECORDS: {error}") from error
        if found is not None:
            wrong.append(found)
            differing = ", ".join(found.fields)
            click.echo(
                f"{found.key}: {differing} not as derived (digest {found.recorded[:12]}, {found.found[:12]})", err=True
            )
    if output == "json":
        print_json({"records": count, "differences": [d._asdict() for d in wrong], "misplaced": places})
    else:
        click.echo(f"{count} records, {len(wrong)} differ" + (f", {len(places)} misplaced" if places else ""))
    if wrong or places or not count:
        raise SystemExit(1)
