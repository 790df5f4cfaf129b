"""Copies of the journals of a rollout's routers.

A copy is the same lines in files of the same numbers, so the next byte that is wanted is told by what is on the disk.
A router calls its journals after its own name, which is its pod's. Where a pod of that name comes back with other
journals (its volume was replaced, or lost its end), the copy goes on under a further name, from the beginning; what is
read twice counts once.
"""

import logging
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from controller.edges.cluster.routers import Replica
from controller.edges.engine.tailer import AGAIN, LONGEST_LINE, files, origin
from controller.edges.exchange import Answer, Call, Exchange, TooLong
from controller.errors import EdgeError

log = logging.getLogger("understudy.journals")
BUDGET_S = 10.0  # of one read for copying; what is left waits for the next one
CHUNK = 1 << 20
AT_ONCE = 16
LISTING = 2 << 20  # bytes of a list of journals
MOST_JOURNALS = 256  # of a router, which has one for each of its workers (128) and one for outcomes
LATE = "there is more than was copied in time"
MOST_BYTES = 1 << 30  # of copies that are not read yet
KEPT_FREE = 1 << 30  # of the volume, or an eighth of it where it is small: records of decisions have to fit
SHORTER = 416


class Listed(BaseModel):
    """A journal as its router lists it: the sizes of its files by their numbers, in the order they came."""

    # A path of a file is made of it: a router that is not itself any more must not choose where.
    journal: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,200}$")
    files: list[dict[str, int]]


_LISTING = TypeAdapter(list[Listed])


class Remote(NamedTuple):
    """One journal of one replica."""

    replica: Replica
    journal: str

    @property
    def key(self) -> tuple[str, str]:
        return self.replica.uid, self.journal


class Copies:
    """Copies of the journals of some replicas, in ``folder``. ``copied`` bytes, ``failures`` of calls so far."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._names: dict[tuple[str, str], str] = {}
        # Of one fetch, in which nobody else writes there: the files by copy, and where each copy ends.
        self._files: dict[str, list[int]] = {}
        self._ends: dict[str, tuple[int, int]] = {}
        self.copied = self.failures = 0

    def fetch(
        self,
        replicas: Sequence[Replica],
        exchange: Exchange,
        read: Mapping[str, tuple[int, int]] = MappingProxyType({}),
    ) -> dict[str, str]:
        """Copy what is new. By name of a copy, or of a replica none of whose journals are known: why more may be
        missing that lies before what the others have. ``read``: the file and offset up to which each copy is read.
        OSError where the disk does not take it."""
        end = time.monotonic() + BUDGET_S
        living = {replica.uid for replica in replicas}
        self._names = {key: name for key, name in self._names.items() if key[0] in living}
        awaited: dict[str, str] = {}
        known: set[tuple[str, str]] = set()
        self._files, self._ends = files(self._folder), {}
        room, full = self._room(read)
        while True:
            # Listed again until nothing new appears: what appears later holds nothing before that moment.
            listed = self._listed(replicas, exchange, awaited)
            behind = [remote for remote, sizes in listed.items() if self._grew(remote, sizes, exchange, awaited, end)]
            waiting = [remote for remote in behind if remote.key not in known]
            if not waiting:
                return awaited
            known |= {remote.key for remote in listed}
            while waiting:
                if time.monotonic() > end or room <= 0:
                    why = LATE if room > 0 else full
                    awaited |= {self._names[remote.key]: why for remote in waiting}
                    return awaited
                now, waiting = waiting[:AT_ONCE], waiting[AT_ONCE:]
                sizes = self._copy(now, exchange, awaited, end)
                room -= sum(sizes)
                # Not for ever, where lines are written as fast as they are copied.
                left = [remote for remote, size in zip(now, sizes, strict=True) if size]
                waiting += [remote for remote in left if self._lacks(remote, listed[remote])]

    def positions(self, replica: Replica, read: Mapping[str, tuple[int, int]]) -> dict[str, dict[str, int]]:
        """What need not be kept at ``replica`` any more, given how far each copy is ``read``: by journal, the next
        file and offset that are wanted."""
        names = {journal: name for (uid, journal), name in self._names.items() if uid == replica.uid}
        wanted = {journal: read[name] for journal, name in names.items() if name in read}
        return {journal: {"file": file, "offset": offset} for journal, (file, offset) in wanted.items()}

    def prune(self, read: Mapping[str, tuple[int, int]]) -> None:
        """Delete the files of every copy before those that are wanted; the newest stays, for it says where to go on."""
        for name, numbers in files(self._folder).items():
            wanted, _ = read.get(name, (0, 0))
            for number in numbers[:-1]:
                if number < wanted:
                    self._path(name, number).unlink(missing_ok=True)

    def _listed(
        self, replicas: Sequence[Replica], exchange: Exchange, awaited: dict[str, str]
    ) -> dict[Remote, dict[int, int]]:
        """Sizes of the files of every journal of every replica that answers."""
        answers = exchange.all([Call("GET", f"{r.url}/v1/journals", most=LISTING) for r in replicas])
        found: dict[Remote, dict[int, int]] = {}
        for replica, answer in zip(replicas, answers, strict=True):
            fault = fault_of(answer)
            try:
                listing = _LISTING.validate_json(answer.body) if isinstance(answer, Answer) and not fault else []
                if len(listing) > MOST_JOURNALS:
                    listing, fault = [], f"it lists {len(listing)} journals, and {MOST_JOURNALS} at most are read"
                for each in listing:
                    if each.journal.startswith(f"{replica.name}-"):  # no other journal is this router's
                        found[Remote(replica, each.journal)] = {f["file"]: f["size"] for f in each.files}
            except (ValidationError, KeyError) as error:
                fault = f"its list of journals cannot be read: {type(error).__name__}"
            if fault:
                self.failures += 1
                awaited |= self._of(replica, fault)
        return found

    def _of(self, replica: Replica, fault: str) -> dict[str, str]:
        """The copies that may lack something because ``replica`` does not answer. One that nobody is sent to and that
        we know no journal of has served nobody."""
        known = [name for name in self._files if name.startswith(f"{replica.name}-")]
        return dict.fromkeys(known or ([replica.name] if replica.ready else []), f"{replica.name}: {fault}")

    def _grew(
        self, remote: Remote, sizes: Mapping[int, int], exchange: Exchange, awaited: dict[str, str], end: float
    ) -> bool:
        """Whether there is more of it than is copied; finds out under which name it is, before ``end``."""
        if remote.key not in self._names:
            if time.monotonic() > end:
                awaited |= {**self._of(remote.replica, LATE), remote.journal: LATE}
                return False
            try:
                self._names[remote.key] = self._named(remote, sizes, exchange)
            except EdgeError as error:
                self.failures += 1
                awaited |= self._of(remote.replica, str(error))
                return False
        number, offset = self._next(self._names[remote.key])
        if sizes and (max(sizes) < number or sizes.get(number, offset) < offset):
            self._again(remote)
        return self._lacks(remote, sizes)

    def _lacks(self, remote: Remote, sizes: Mapping[int, int]) -> bool:
        """Whether there was more when it was listed."""
        number, offset = self._next(self._names[remote.key])
        return any(n > number or (n == number and size > offset) for n, size in sizes.items())

    def _named(self, remote: Remote, sizes: Mapping[int, int], exchange: Exchange) -> str:
        """The name of the copy: the last one there is, if its newest file begins as the router's does."""
        copies = [name for name in self._files if origin(name) == remote.journal]
        if not copies:
            return remote.journal
        name = max(copies, key=_number)
        number, _ = self._next(name)
        if number not in sizes:
            return name if not sizes or max(sizes) > number else _after(name)
        answer = exchange.one(Call("GET", _address(remote, number, 0, 1), most=LONGEST_LINE))
        if fault := fault_of(answer):
            raise EdgeError(fault)
        with self._path(name, number).open("rb") as copy:
            begins = copy.readline()
        return name if answer.body.startswith(begins) else _after(name)

    def _again(self, remote: Remote) -> None:
        old = self._names[remote.key]
        self._names[remote.key] = _after(old)
        log.warning("journal %s is not what it was: it is copied again, as %s", old, self._names[remote.key])

    def _copy(self, remotes: Sequence[Remote], exchange: Exchange, awaited: dict[str, str], end: float) -> list[int]:
        """One chunk of each, in parallel; how many bytes of each."""
        places = [self._next(self._names[remote.key]) for remote in remotes]
        calls = [Call("GET", _address(r, *p, CHUNK), most=CHUNK) for r, p in zip(remotes, places, strict=True)]
        sizes = []
        for remote, place, call, first in zip(remotes, places, calls, exchange.all(calls), strict=True):
            # A line comes whole, however long it is: alone, as sixteen of the longest are a gigabyte.
            alone = isinstance(first, TooLong) and time.monotonic() < end
            answer = exchange.all([call._replace(most=LONGEST_LINE)])[0] if alone else first
            name = self._names[remote.key]
            size, fault = 0, fault_of(answer)
            if isinstance(answer, Answer) and answer.status == SHORTER:
                self._again(remote)
                name, fault = self._names[remote.key], "a journal lost its end and is copied again"
            elif isinstance(answer, Answer) and not fault:
                size, fault = self._kept(name, place, answer)
            if fault:
                self.failures += 1
                awaited[name] = f"{remote.replica.name}: {fault}"
            sizes.append(size)
        return sizes

    def _kept(self, name: str, place: tuple[int, int], answer: Answer) -> tuple[int, str]:
        """Append an answer to its copy: how many bytes, and what is wrong with it."""
        body = answer.body
        if not body:
            return 0, ""
        try:
            number = int(answer.headers["x-journal-file"])
            start = int(answer.headers["x-journal-offset"]) - len(body)
        except (KeyError, ValueError):
            return 0, "the answer does not say where it ends"
        if not body.endswith(b"\n") or (number, start) != (place if number == place[0] else (max(number, place[0]), 0)):
            return 0, f"lines of file {number} from {start} came instead of file {place[0]} from {place[1]}"
        with self._path(name, number).open("ab") as copy:
            copy.write(body)
        if number not in (numbers := self._files.setdefault(name, [])):
            numbers.append(number)
        self._ends[name] = number, start + len(body)
        self.copied += len(body)
        return len(body), ""

    def _next(self, name: str) -> tuple[int, int]:
        """The file and offset that come next; a line that a crash has torn is cut away."""
        if (known := self._ends.get(name)) is not None:
            return known
        numbers = self._files.get(name, [])
        if not numbers:
            return 0, 0
        with self._path(name, numbers[-1]).open("r+b") as copy:
            size = copy.seek(0, 2)
            copy.seek(max(0, size - 1))
            if size and copy.read(1) != b"\n":
                copy.seek(0)
                size = copy.read().rfind(b"\n") + 1
                copy.truncate(size)
        self._ends[name] = numbers[-1], size
        return self._ends[name]

    def _path(self, name: str, number: int) -> Path:
        return self._folder / f"{name}.{number:08d}.jsonl"

    def _room(self, read: Mapping[str, tuple[int, int]]) -> tuple[int, str]:
        """How many bytes may be copied now, and what to say where that is too few."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        volume = os.statvfs(self._folder)
        size, free = volume.f_blocks * volume.f_frsize, volume.f_bavail * volume.f_frsize
        spare = free - min(KEPT_FREE, size // 8)
        left = MOST_BYTES - self._unread(read)
        if spare < left:
            return spare, f"the volume of the state folder ({size} bytes) is nearly full"
        return left, f"{MOST_BYTES} bytes wait unread"

    def _unread(self, read: Mapping[str, tuple[int, int]]) -> int:
        sizes = 0
        for name, numbers in self._files.items():
            wanted, offset = read.get(name, (0, 0))
            for number in numbers:
                if number >= wanted:
                    sizes += self._path(name, number).stat().st_size - (offset if number == wanted else 0)
        return sizes


def _address(remote: Remote, number: int, offset: int, limit: int) -> str:
    return f"{remote.replica.url}/v1/journals/{remote.journal}?file={number}&offset={offset}&limit={limit}"


def fault_of(answer: Answer | EdgeError) -> str:
    """What is wrong with an answer; empty: nothing."""
    if isinstance(answer, EdgeError):
        return str(answer)
    if 200 <= answer.status < 300:
        return ""
    return f"status {answer.status}: {answer.body[:200].decode(errors='replace')}"


def _number(name: str) -> int:
    number = name.partition(AGAIN)[2]
    return int(number) if number.isdigit() else 0


def _after(name: str) -> str:
    return f"{origin(name)}{AGAIN}{_number(name) + 1}"
