"""`run` as a process, seen from outside: its lines, its state folder, its processes."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from controller.edges.store import SqliteStore
from controller.ports import Stored
from tests.embedded import rollouts

T = TypeVar("T")
COMMAND = [sys.executable, "-m", "controller.embedded", "run"]


def wait_for(what: str, look: Callable[[], T | None], within: float) -> T:
    """The first result of ``look`` that is not None (or false); fails after ``within`` seconds."""
    end = time.monotonic() + within
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < end, f"not within {within:g} s: {what}"
        time.sleep(0.05)


class Machine:
    """One `run`; ``flags`` after the file. Its output is collected in ``folder``."""

    def __init__(self, folder: Path, tree: dict[str, Any], flags: Sequence[str], state: Path | None = None) -> None:
        self.folder, self.state = folder, state or folder / "state"
        self.name: str = tree["metadata"]["name"]
        file = rollouts.write(folder / f"{self.name}.yaml", tree)
        self._command = [*COMMAND, str(file), "--state-dir", str(self.state), "--port", "0", *flags]
        self.out, self.err = folder / "out.txt", folder / "err.txt"
        self.start()

    def start(self) -> None:
        """Also after it was killed."""
        with self.out.open("ab") as out, self.err.open("ab") as err:
            self.process = subprocess.Popen(self._command, stdout=out, stderr=err, cwd=self.folder)

    def ended(self, within: float) -> int:
        return self.process.wait(within)

    def said(self) -> str:
        return self.out.read_text() + self.err.read_text()

    def processes(self) -> dict[str, int]:
        with contextlib.suppress(OSError, ValueError):
            found: dict[str, int] = json.loads((self.state / "processes.json").read_text())
            return found
        return {}

    def pid(self, name: str, within: float = 60.0) -> int:
        """The living process of this name."""

        def look() -> int | None:
            pid = self.processes().get(name)
            return pid if pid is not None and alive(pid) else None

        return wait_for(f"process {name}", look, within)

    def addresses(self, within: float = 120.0) -> tuple[str, str]:
        """Traffic and control, once the run says them."""

        def look() -> tuple[str, str] | None:
            assert self.process.poll() is None, self.said()
            with contextlib.suppress(OSError, ValueError):
                said = json.loads((self.state / "router.json").read_text())
                return said["traffic"], said["control"]
            return None

        return wait_for("the router's addresses", look, within)

    def stored(self) -> Stored:
        store = SqliteStore(self.state / "rollouts.sqlite")
        try:
            return store.load(self.name)
        finally:
            store.close()

    def until(self, what: str, holds: Callable[[Stored], bool], within: float) -> Stored:
        """The rollout once ``holds``."""

        def look() -> Stored | None:
            assert self.process.poll() is None, self.said()
            if not (self.state / "rollouts.sqlite").exists():
                return None
            stored = self.stored()
            return stored if holds(stored) else None

        try:
            return wait_for(what, look, within)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.said()}") from error

    def served(self, within: float) -> Stored:
        """The rollout once its first table is in force: before, there is nobody who could answer."""

        def holds(stored: Stored) -> bool:
            status = stored.status
            return (
                status.step >= 0 and status.table is not None and status.observed.confirmed >= status.table.generation
            )

        return self.until("traffic is served", holds, within)

    def interrupt(self, within: float = 40.0) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.ended(within)

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def alive(pid: int) -> bool:
    """Whether the process runs (one that has ended and was not waited for does not)."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


def of_the_folder(state: Path) -> list[int]:
    """Processes that have the state folder on their command line, that are leashes among others."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                command = (entry / "cmdline").read_bytes()
                if str(state).encode() in command and int(entry.name) != os.getpid() and alive(int(entry.name)):
                    found.append(int(entry.name))
    return found
