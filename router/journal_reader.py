"""Reading journals: by file and byte offset, up to the last newline, across rotations.

A position ``(file, offset)`` names the next unread byte; ``(0, 0)`` is the beginning of what is still there.
The writer finishes a file before it creates the next one, so a file that has a successor never grows again.
"""

import json
import os
import re
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

_FILE = re.compile(r"(?P<journal>[A-Za-z0-9][A-Za-z0-9._-]*)\.(?P<file>\d{8})\.jsonl")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
LONGEST_LINE = 64 << 20


class JournalFile(NamedTuple):
    """One file of a journal, with its size in bytes at the time of listing."""

    file: int
    size: int


class Chunk(NamedTuple):
    """Complete lines without their newlines, and the position after them."""

    lines: list[bytes]
    file: int
    offset: int


def checked_name(name: str) -> str:
    """``name`` if it can name a journal or a reader; raises ValueError with what is allowed otherwise."""
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} names no journal or reader: 1 to 128 letters, digits, dots, dashes and underscores, "
            "a letter or digit first"
        )
    return name


def file_path(directory: Path, journal: str, file: int) -> Path:
    """Where file number ``file`` of ``journal`` lies."""
    return directory / f"{journal}.{file:08d}.jsonl"


def journals(directory: Path) -> dict[str, list[JournalFile]]:
    """Every journal of the directory with its files in ascending order; empty where there is no directory."""
    found: dict[str, list[JournalFile]] = {}
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                named = _FILE.fullmatch(entry.name)
                if named is None:
                    continue
                try:
                    size = entry.stat().st_size
                except FileNotFoundError:  # deleted by retention since it was listed
                    continue
                found.setdefault(named["journal"], []).append(JournalFile(int(named["file"]), size))
    except FileNotFoundError:
        return {}
    return {journal: sorted(files) for journal, files in sorted(found.items())}


def files_of(directory: Path, journal: str) -> list[int]:
    """The numbers of the files of one journal, ascending."""
    numbers = []
    for path in directory.glob(f"{journal}.*.jsonl"):
        named = _FILE.fullmatch(path.name)
        if named is not None and named["journal"] == journal:
            numbers.append(int(named["file"]))
    return sorted(numbers)


def read_from(directory: Path, journal: str, file: int, offset: int, limit_bytes: int = 1 << 20) -> Chunk:
    """The complete lines from a position on, at least one if there is one, about ``limit_bytes`` of them at
    most.

    Lines come from one file at a time; without new lines the position stays. A position in a file that
    retention has deleted moves to the next file that exists (the reader sees the gap in ``seq``).

    Raises ValueError for a name that is none, for a position beyond the end of its file (the journal was
    replaced, or lost its end with the machine's power: start again from an earlier position), and for a line
    longer than LONGEST_LINE; OSError where the directory cannot be read.
    """
    checked_name(journal)
    if file < 0 or offset < 0 or limit_bytes < 1:
        raise ValueError(f"no position to read from: file {file}, offset {offset}, limit {limit_bytes}")
    while True:
        # The listing comes first: what is listed as a successor proves that the file before it is finished.
        numbers = [number for number in files_of(directory, journal) if number >= file]
        if not numbers:
            return Chunk([], file, offset)
        if numbers[0] != file:
            file, offset = numbers[0], 0
        try:
            data = _read(file_path(directory, journal, file), offset, limit_bytes)
        except FileNotFoundError:  # deleted by retention since it was listed
            continue
        if data:
            return Chunk(data[:-1].split(b"\n"), file, offset + len(data))
        if len(numbers) == 1:
            return Chunk([], file, offset)
        file, offset = numbers[1], 0


def _read(path: Path, offset: int, limit: int) -> bytes:
    """Bytes of ``path`` from ``offset`` to the last newline within ``limit``, or the first after it."""
    with path.open("rb", buffering=0) as log:
        size = os.fstat(log.fileno()).st_size
        if offset > size:
            raise ValueError(f"{path.name}: offset {offset} is beyond its end at {size}")
        while True:
            data = os.pread(log.fileno(), min(limit, size - offset), offset)
            end = data.rfind(b"\n") + 1
            if end or len(data) == size - offset or not data:
                return data[:end]
            if limit >= LONGEST_LINE:
                raise ValueError(f"{path.name}: no line ends within {limit} bytes from {offset}")
            limit *= 2


class Position(NamedTuple):
    """The next unread byte of a journal."""

    file: int
    offset: int


def acknowledge(directory: Path, reader: str, positions: Mapping[str, tuple[int, int]]) -> None:
    """Leave word that ``reader`` no longer needs what lies before ``positions`` (journal → file, offset).

    Replaces what the same reader said before. The files before the acknowledged ones may be deleted from now
    on. Raises ValueError for an impossible name or position, OSError where it cannot be written.
    """
    checked_name(reader)
    for journal, (file, offset) in positions.items():
        checked_name(journal)
        if file < 0 or offset < 0:
            raise ValueError(f"{journal}: file {file}, offset {offset} is no position")
    folder = directory / "readers"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    said = {name: {"file": file, "offset": offset} for name, (file, offset) in positions.items()}
    write_atomically(folder / f"{reader}.json", json.dumps(said).encode())


def forget(directory: Path, reader: str) -> None:
    """Forget a reader and what it has acknowledged. Raises ValueError for an impossible name, OSError."""
    (directory / "readers" / f"{checked_name(reader)}.json").unlink(missing_ok=True)


def acknowledged(directory: Path) -> dict[str, dict[str, Position]]:
    """What every known reader has acknowledged: reader → journal → position.

    A reader whose file cannot be understood counts as known and as having acknowledged nothing.
    """
    said: dict[str, dict[str, Position]] = {}
    for path in sorted((directory / "readers").glob("*.json")):
        try:
            content: dict[str, Any] = json.loads(path.read_bytes())
            said[path.stem] = {journal: Position(int(at["file"]), int(at["offset"])) for journal, at in content.items()}
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            said[path.stem] = {}
    return said


def write_atomically(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Replace ``path`` by ``content``, whole or not at all, also across a loss of power. Raises OSError."""
    # Each thread's own: two of the API may say the same at once.
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.new")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
        with open(descriptor, "wb") as out:  # noqa: PTH123  # a descriptor, not a path
            out.write(content)
            out.flush()
            os.fsync(out.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Make the names in ``directory`` durable. Raises OSError."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
