"""What has to be true of a history, whoever was killed in it: each function gives a line for each breach."""

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping

from controller.core.record import Record, digest
from controller.status import Progress, RolloutStatus
from router.table import RouteTable
from tests.kubernetes.kill_leader.history import Move


def served(table: RouteTable) -> set[str]:
    """The versions to which a table sends users."""
    if table.challenger is None or not table.weight_bp:
        return {table.champion.version}
    return {table.challenger.version} | ({table.champion.version} if table.weight_bp < 10_000 else set())


def in_order(statuses: list[RolloutStatus]) -> list[str]:
    """Memory goes forward: no decision, attempt, table or time is taken back, and no decision's number is left out."""
    said = []
    for before, after in itertools.pairwise(statuses):
        if after.sequence not in (before.sequence, before.sequence + 1):
            said.append(f"decision {after.sequence} follows {before.sequence}")
        if after.clock < before.clock:
            said.append(f"the clock goes back in decision {after.sequence}")
        if after.attempts not in (before.attempts, before.attempts + 1):
            said.append(f"attempt {after.attempts} follows {before.attempts}")
        if before.table is not None and _generation(after) not in (_generation(before), _generation(before) + 1):
            said.append(f"table {_generation(after)} follows {_generation(before)}")
    return said


def ended_once(statuses: list[RolloutStatus], expected: Mapping[str, Progress]) -> list[str]:
    """Each attempt is decided once and ends once; by challenger, as ``expected``."""
    turns: Counter[tuple[str, Progress]] = Counter()
    for before, after in itertools.pairwise(statuses):
        if after.attempt is not None and after.progress is not before.progress:
            turns[after.attempt.challenger, after.progress] += 1
    said = []
    for version, end in expected.items():
        turn = Progress.PROMOTING if end is Progress.PROMOTED else Progress.ROLLING_BACK
        final = (Progress.PROMOTING, Progress.ROLLING_BACK, Progress.PROMOTED, Progress.ROLLED_BACK, Progress.HELD)
        found = {p.value: turns[version, p] for p in final if turns[version, p]}
        if found != {turn.value: 1, end.value: 1}:
            said.append(f"version {version} should be {end.value} once, and was {found}")
    return said


def recorded(
    statuses: list[RolloutStatus], written: Mapping[str, list[Record]], counted: Mapping[str, list[Record]]
) -> list[str]:
    """Every decision was written to one disk, and no replica counts one that was never made. By disk: ``written``,
    all that is there, ``counted``, what the replica takes for decisions."""
    made = committed(statuses)
    found: dict[int, set[str]] = {sequence: set() for sequence in made}
    for disk, records in written.items():
        for record in records:
            if made.get(record.sequence) == record.digest:
                found[record.sequence].add(disk)
    said = [
        f"{disk} has a record of decision {record.sequence} that was never made"
        for disk, records in counted.items()
        for record in records
        if record.sequence in made and made[record.sequence] != record.digest
    ]
    wrong = [(sequence, on) for sequence, on in found.items() if len(on) != 1]
    return said + [f"decision {sequence} is recorded on {sorted(on) or 'no disk'}" for sequence, on in wrong]


def logged(statuses: list[RolloutStatus], records: Iterable[Record]) -> tuple[list[str], int]:
    """What MLflow's decision logs say that was not decided, or twice; and how many decisions they lack."""
    made = committed(statuses)
    records = list(records)
    said = [
        f"MLflow has a decision {record.sequence} that was never made"
        for record in records
        if record.sequence in made and made[record.sequence] != record.digest
    ]
    runs = Counter(record.key for record in records)
    # The one that begins an attempt stands in the run of it and in that of the attempt before.
    said += [f"MLflow has decision {key} {many} times" for key, many in runs.items() if many > 2]
    return said, len(made.keys() - {record.sequence for record in records})


def committed(statuses: list[RolloutStatus]) -> dict[int, str]:
    """The digest of the status of each decision, as it was when it was made."""
    made: dict[int, str] = {}
    for before, after in itertools.pairwise(statuses):
        if after.sequence > before.sequence:
            made[after.sequence] = digest(after)
    return made


def aliases(moves: list[Move], statuses: list[RolloutStatus], expected: list[str]) -> list[str]:
    """The champion's alias names ``expected`` one after the other; whenever it moved, its version had a server and
    every router sent everybody there."""
    named = [move for move in moves if move.alias == "champion"]
    said = []
    if [move.version for move in named] != expected:
        said.append(f"the alias was moved to {[move.version for move in named]}, not to {expected}")
    tables = {status.table.generation: status.table for status in statuses if status.table is not None}
    for move in named[1:]:
        if move.version not in move.serving:
            said.append(f"the alias was moved to version {move.version}, which nobody serves")
        for router, generation in move.tables.items():
            sent = served(tables[generation]) if generation in tables else set()
            if sent != {move.version}:
                said.append(f"the alias was moved to {move.version} while {router} sent users to {sorted(sent)}")
    return said


def forward(tables: Iterable[tuple[str, int]], statuses: list[RolloutStatus]) -> list[str]:
    """No router goes back to an older table, or has one that was not committed."""
    known = {_generation(status) for status in statuses} | {-1}
    newest: dict[str, int] = {}
    said = []
    for router, generation in tables:
        if generation < newest.get(router, -1):
            said.append(f"{router} went back from table {newest[router]} to {generation}")
        if generation not in known:
            said.append(f"{router} has table {generation}, which nobody has committed")
        newest[router] = generation
    return said


def told(statuses: list[RolloutStatus], events: Iterable[str], lines: Iterable[str], kills: int) -> list[str]:
    """``events``: names of those that people were told by, as often as they are there; ``lines``: keys in logs. A log
    line may be repeated by a kill; an Event may not."""
    due = {notice.key: notice.title for status in statuses for notice in status.notices}
    said = [f"the Event {name} is there {many} times" for name, many in Counter(events).items() if many > 1]
    if (many := len(set(events))) != len(due):
        said.append(f"{len(due)} notices were due, and there are {many} Events")
    counted = Counter(lines)
    said += [f"nobody was told: {due[key]}" for key in due.keys() - counted.keys()]
    said += [f"told, and never due: {key}" for key in counted.keys() - due.keys()]
    if (repeats := sum(counted.values()) - len(counted)) > kills:
        said.append(f"{repeats} lines of the log are repeats, after {kills} kills")
    return said


def _generation(status: RolloutStatus) -> int:
    return -1 if status.table is None else status.table.generation
