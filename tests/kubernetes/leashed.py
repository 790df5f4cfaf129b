"""Other people's programs as processes that do not outlive the tests, however these end."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from controller.embedded.child import LEASH


class Leashed:
    """A running program in a process group of its own; what it says goes to ``log``. OSError: it cannot be run."""

    def __init__(
        self, command: Sequence[str], log: Path, env: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> None:
        self._log = log
        with log.open("wb") as output:
            self._leash = subprocess.Popen(
                [sys.executable, "-I", "-S", LEASH, *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                start_new_session=True,
                env=env,
                cwd=cwd,
            )
        assert self._leash.stdout is not None
        self.pid = int(self._leash.stdout.readline() or b"0")
        if not self.pid:
            self._leash.wait()
            raise OSError(self.said().strip())

    @property
    def exit_code(self) -> int | None:
        """None while it runs; 128 + signal where a signal ended it."""
        return self._leash.poll()

    def wait(self, within: float) -> int:
        """Its exit code; subprocess.TimeoutExpired after ``within`` seconds."""
        return self._leash.wait(within)

    def stop(self, within: float = 10.0) -> None:
        """Ask it to end, wait, and make it."""
        self._leash.terminate()
        try:
            self._leash.wait(within)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            self._leash.wait()
        for pipe in (self._leash.stdin, self._leash.stdout):
            if pipe is not None:
                pipe.close()

    def said(self, limit: int = 1 << 14) -> str:
        """The end of what it has written."""
        return self._log.read_bytes()[-limit:].decode(errors="replace")
