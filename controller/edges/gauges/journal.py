"""The journal of samples: the same lines and files as the routers', with the controller as its writer."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson

from controller.errors import EdgeError
from router.events import Header, Mark

NAME = "controller-samples"
ROTATE_BYTES = 16 << 20
_FILE = re.compile(rf"{NAME}\.(\d{{8}})\.jsonl")
_TAIL = 1 << 16


class SampleJournal:
    """Appends samples to the journal ``NAME`` in ``directory``; each life of the process begins a file.

    Whoever deletes the routers' files deletes these as well, once they are read. The process that holds the engine's
    state is the only writer.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._descriptor = -1
        self._size = self._seq = self._t = 0

    def append(self, samples: Sequence[dict[str, Any]], now: int) -> None:
        """Write ``samples`` (without ``seq`` and ``t``) as of ``now`` (µs), or a mark that says the time.

        A clock that steps back repeats the last time. EdgeError where the disk does not take all of it; the journal
        goes on in a new file then, behind whatever was torn.
        """
        try:
            if self._descriptor < 0 or self._size >= ROTATE_BYTES:
                self._begin(now)
            self._t = max(self._t, now)
            lines = [{"type": "sample", **sample, "t": self._t} for sample in samples]
            mark = Mark(seq=0, t=self._t).model_dump()
            self._write([{**line, "seq": self._seq + i} for i, line in enumerate(lines or [mark], 1)])
        except OSError as error:
            self.close()
            raise EdgeError(f"{self._directory}: samples cannot be written: {error.strerror or error}") from error

    def close(self) -> None:
        """Let go of the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _begin(self, now: int) -> None:
        """The next file, with its header; ``seq`` goes on from the last line that was written whole."""
        self.close()
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        numbers = sorted(int(m[1]) for m in map(_FILE.fullmatch, self._names()) if m)
        for number in reversed(numbers):
            found = _last(self._path(number))
            if found is not None:
                self._seq, self._t = max(self._seq, found[0]), max(self._t, found[1])
                break
        number = numbers[-1] + 1 if numbers else 0
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        self._descriptor, self._size = os.open(self._path(number), flags, 0o600), 0
        header = Header(journal=NAME, file=number, seq=self._seq, t=max(self._t, now))
        self._put(orjson.dumps(header.model_dump(), option=orjson.OPT_APPEND_NEWLINE))

    def _write(self, lines: Sequence[dict[str, Any]]) -> None:
        self._put(b"".join(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE) for line in lines))
        self._seq += len(lines)

    def _put(self, data: bytes) -> None:
        if os.write(self._descriptor, data) != len(data):
            raise OSError("no space is left")
        self._size += len(data)

    def _names(self) -> list[str]:
        return [path.name for path in self._directory.iterdir()]

    def _path(self, number: int) -> Path:
        return self._directory / f"{NAME}.{number:08d}.jsonl"


def _last(path: Path) -> tuple[int, int] | None:
    """(seq, t) of the last whole line of a file; None where it has none."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _TAIL))
        for line in reversed(file.read().split(b"\n")[:-1]):
            try:
                event = orjson.loads(line)
                return int(event["seq"]), int(event["t"])
            except (ValueError, TypeError, KeyError):
                continue
    return None
