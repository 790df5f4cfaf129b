"""What the clients of the soak saw beside what the journals say, request by request.

Both sides are compared a while after a request has ended and then forgotten, so that an hour takes no more memory than
a minute does. Differences are counted, and the first few of each kind are kept to be shown.
"""

import time
from collections import Counter, deque
from typing import Any, NamedTuple

# A request is compared so long after its end: its event is on disk after a tenth of a second. Repeats of its event are
# known as such for as long.
SETTLE_S = 20.0
_SHOWN = 3

# What was met by a request, by what the exposure says the champion stepped in for; the other reasons are no faults.
FAULTS_MET = frozenset(("Error", "Status", "Timeout", "Unusable"))


class Note(NamedTuple):
    """What a client says of a request: that it is about to be sent, and later how it ended.

    ``status`` is 0 where no answer began. ``left``: the client went away on its own account. ``arm``: who says to have
    made the answer, where the answer says that.
    """

    request_id: str
    kind: str
    ended: bool = False
    status: int = 0
    whole: bool = False
    left: bool = False
    arm: str = ""


class Event(NamedTuple):
    """What matters of an exposure."""

    arm: str
    served_by: str
    usable: bool
    answer_status: int
    mirrored: bool


class _Entry:
    """One request, as far as it is known."""

    __slots__ = ("at", "event", "mirror", "note")

    def __init__(self, note: Note) -> None:
        self.note = note
        self.at = 0.0
        self.event: Event | None = None
        self.mirror = False


class Windows:
    """Counts by name and by window of time since the beginning."""

    def __init__(self, began: float, length: float) -> None:
        self.length = length
        self._began = began
        self._counts: dict[str, Counter[int]] = {}

    def add(self, name: str, number: int = 1) -> None:
        self._counts.setdefault(name, Counter())[int((time.monotonic() - self._began) / self.length)] += number

    def least(self, name: str, windows: int) -> int:
        """The fewest in one of the first so many windows."""
        found = self._counts.get(name, Counter())
        return min(found[window] for window in range(windows))

    def total(self, name: str) -> int:
        return self._counts.get(name, Counter()).total()


class Ledger:
    """The comparison. Clients call ``notes.append`` from their thread; all else belongs to one thread."""

    def __init__(self, windows: Windows) -> None:
        self.notes: deque[Note] = deque()
        self.windows = windows
        self.wrong: Counter[str] = Counter()
        self.shown: dict[str, list[str]] = {}
        self.statuses: Counter[str] = Counter()
        # Events that are not there: of requests that need one, of mirrors, and of requests whose clients left early.
        self.missing = self.missing_mirrors = self.silent = 0
        self.exposures = self.mirrors = 0
        self._entries: dict[str, _Entry] = {}

    def take_notes(self) -> None:
        """Enter what the clients have said by now; to be called after events were read and before they are entered,
        as a client speaks before it sends.
        """
        while self.notes:
            note = self.notes.popleft()
            entry = self._entries.setdefault(note.request_id, _Entry(note))
            if note.ended:
                entry.note, entry.at = note, time.monotonic()
                self._count(note)

    def _count(self, note: Note) -> None:
        self.statuses[f"{note.kind} {note.status}{' left' if note.left else '' if note.whole else ' cut'}"] += 1
        if note.left:
            self.windows.add("left")
        elif note.whole and 200 <= note.status < 300:
            self.windows.add(note.kind)

    def enter(self, line: dict[str, Any]) -> None:
        """An exposure, or that of a mirror."""
        request_id = line["request_id"]
        entry = self._entries.get(request_id)
        if line["mirror"]:
            self.mirrors += 1
            self.windows.add("mirrors")
        else:
            self.exposures += 1
        if line["fallback_reason"] in FAULTS_MET:
            self.windows.add("faults met")
        if entry is None:
            self._differs("events of requests that nobody sent, or that came too late", request_id)
        elif line["mirror"]:
            if entry.mirror:
                self._differs("mirrors that are recorded twice", request_id)
            entry.mirror = True
        else:
            if entry.event is not None:
                self._differs("requests that are recorded twice", request_id)
            entry.event = Event(*(line[field] for field in Event._fields))

    def settle(self, age_s: float = SETTLE_S) -> None:
        """Compare and forget the requests that ended so long ago."""
        before = time.monotonic() - age_s
        for request_id, entry in list(self._entries.items()):
            if entry.note.ended and entry.at <= before:
                del self._entries[request_id]
                self._judge(entry)

    def close(self) -> None:
        """Compare what is left; nothing more will come."""
        self.settle(0.0)
        for request_id in self._entries:
            self._differs("requests that never ended", request_id)

    @property
    def open(self) -> int:
        return len(self._entries)

    def _differs(self, what: str, which: str) -> None:
        self.wrong[what] += 1
        shown = self.shown.setdefault(what, [])
        if len(shown) < _SHOWN:
            shown.append(which)

    def _judge(self, entry: _Entry) -> None:
        note, event = entry.note, entry.event
        said = f"{note} {event}"
        successful = 200 <= note.status < 300
        if event is None:
            if successful:
                self.missing += 1
                self.shown.setdefault("missing", [said])
            else:
                self.silent += 1
            if not served(note):
                self._differs("requests that failed", said)
            return
        if entry.mirror != event.mirrored:
            if entry.mirror:
                self._differs("mirrors that their request does not know of", said)
            else:
                self.missing_mirrors += 1
                self.shown.setdefault("missing mirrors", [said])
        if note.whole:
            if event.answer_status != note.status:
                self._differs("events with another status than the client's", said)
            if note.arm and note.arm != event.served_by:
                self._differs("events with another arm than the answer's", said)
        elif note.left and successful and event.answer_status not in (note.status, 499):
            self._differs("events with another status than the client's", said)
        if not served(note) and not excused(note, event):
            self._differs("requests that failed", said)


def served(note: Note) -> bool:
    """Whether a client has no reason to complain."""
    if note.left and note.status == 0:
        return True
    return 200 <= note.status < 300 and (note.whole or note.left)


def excused(note: Note, event: Event) -> bool:
    """Whether a request may have failed: nobody can step in for a challenger that breaks what is passed on already, an
    upload on its way in or a long answer on its way out; and the event says that it was unusable.
    """
    passed_on = note.kind == "upload" or (note.kind != "plain" and 200 <= note.status < 300)
    return passed_on and event.served_by == "challenger" and not event.usable
