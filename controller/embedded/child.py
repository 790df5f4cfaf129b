"""One process on a leash, and keeping it alive."""

import asyncio
import contextlib
import os
import re
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

LEASH = str(Path(__file__).with_name("leash.py"))
ROOT = str(Path(__file__).resolve().parents[2])
LOG_BYTES = 16 << 20
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 10.0
STEADY_S = 20.0
_POLL_S = 0.1


def python(module: str, *arguments: str) -> list[str]:
    """The command of one of our own programs. ``-P``: nothing in the current folder may stand in for a module."""
    return [sys.executable, "-P", "-m", module, *arguments]


def environment(extra: Mapping[str, str]) -> dict[str, str]:
    """Ours, so that children find the same packages wherever they start. Settings travel as flags, not by chance."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("UNDERSTUDY_")}
    secrets = {name: value for name, value in os.environ.items() if name.startswith("UNDERSTUDY_SECRET_")}
    paths = os.pathsep.join(filter(None, [ROOT, os.environ.get("PYTHONPATH")]))
    return {**kept, **secrets, "PYTHONPATH": paths, "PYTHONUNBUFFERED": "1", **extra}


class Child:
    """A running program. Ends with us, however we end; its output goes to a log."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path, log_from: int) -> None:
        self._process = process
        self._log = log
        self._log_from = log_from
        self.pid = 0

    @classmethod
    async def start(
        cls, command: Sequence[str], log: Path, env: Mapping[str, str], keep: Sequence[int] = ()
    ) -> "Child":
        """``keep``: file descriptors that the leash holds for as long as the program runs. OSError: no process."""
        with _opened(log) as output:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-I", "-S", LEASH, *command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=output,
                start_new_session=True,
                pass_fds=tuple(keep),
                env=dict(env),
            )  # fmt: skip
            child = cls(process, log, os.fstat(output.fileno()).st_size)
        assert process.stdout is not None
        with contextlib.suppress(ValueError):
            child.pid = int(await process.stdout.readline() or b"0")
        return child

    @property
    def alive(self) -> bool:
        return self._process.returncode is None

    async def wait(self) -> int:
        """Exit code of the program, 128 + signal where one ended it."""
        code = await self._process.wait()
        if code < 0 and self.pid:  # the leash itself was killed
            _signal_group(self.pid, signal.SIGKILL)
            return 128 - code
        return code

    async def stop(self, within: float) -> None:
        """Ask it to end, wait ``within`` seconds, and make it."""
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()
        try:
            await asyncio.wait_for(self.wait(), within)
        except TimeoutError:
            self.kill()
            await self.wait()

    def kill(self) -> None:
        if self.pid:
            _signal_group(self.pid, signal.SIGKILL)
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    async def says(self, pattern: re.Pattern[str]) -> str:
        """Wait until it has written what ``pattern`` finds; all it has written. Without an end of its own."""
        while True:
            said = self.said()
            if pattern.search(said):
                return said
            await asyncio.sleep(_POLL_S)

    def said(self, limit: int = 1 << 16) -> str:
        """The end of what it has written since it started."""
        with contextlib.suppress(OSError), self._log.open("rb") as log:
            size = os.fstat(log.fileno()).st_size
            log.seek(max(self._log_from, size - limit))
            return log.read(limit).decode(errors="replace")
        return ""


def _opened(log: Path) -> BinaryIO:
    """The log to write on; one that has grown too long is put aside first."""
    log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if log.exists() and log.stat().st_size > LOG_BYTES:
        log.replace(log.with_suffix(".log.1"))
    return log.open("ab")


def _signal_group(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


class Keeper:
    """Keeps one program running: started again when it ends, at distances that grow from 0.1 s to 10 s.

    ``command`` is asked anew for each start. ``watch`` runs beside each life of the program, for readiness; ``fatal``
    are exit codes after which it is not started again as long as it has never been ``settled``.
    """

    def __init__(
        self,
        name: str,
        command: Callable[[], Sequence[str]],
        log: Path,
        env: Mapping[str, str],
        *,
        keep: Sequence[int] = (),
        watch: Callable[[Child], Awaitable[None]] | None = None,
        fatal: frozenset[int] = frozenset(),
    ) -> None:
        self.name = name
        self.child: Child | None = None
        self.starts = 0
        self.failure: str | None = None
        self.exit_code: int | None = None
        self.settled = False
        self._command, self._log, self._env, self._keep = command, log, env, keep
        self._watch, self._fatal = watch, fatal
        self._task: asyncio.Task[None] | None = None
        self._ending = asyncio.Event()
        self._birth = asyncio.Lock()
        self.ended = asyncio.Event()

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run(), name=self.name)

    @property
    def pid(self) -> int | None:
        child = self.child
        return child.pid if child is not None and child.alive else None

    async def _run(self) -> None:
        loop, pause = asyncio.get_running_loop(), FIRST_PAUSE_S
        try:
            while not self._ending.is_set():
                born = loop.time()
                code = await self._live()
                if self._ending.is_set():
                    break
                self.exit_code = code
                self.failure = _last_words(self.child) or f"ended with code {code}"
                if code in self._fatal and not self.settled:
                    break
                if loop.time() - born > STEADY_S:
                    pause = FIRST_PAUSE_S
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE_S)
        finally:
            self.ended.set()

    async def _live(self) -> int:
        """One life of the program; its exit code."""
        async with self._birth:
            if self._ending.is_set():
                return 0
            try:
                self.child = await Child.start(self._command(), self._log, self._env, self._keep)
            except OSError as error:
                self.failure = str(error)
                return 127
        self.starts += 1
        watching = None
        if self._watch is not None:
            watching = asyncio.ensure_future(self._watch(self.child))
        try:
            return await self.child.wait()
        finally:
            if watching is not None:
                watching.cancel()
                await asyncio.gather(watching, return_exceptions=True)

    async def stop(self, within: float) -> None:
        """End it for good."""
        self._ending.set()
        async with self._birth:  # one that is just being started is known after this
            child = self.child
        if child is not None:
            await child.stop(within)
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)


def _last_words(child: Child | None) -> str:
    """What a program said was wrong: the line that says so, else its last one."""
    lines = [line.strip() for line in (child.said() if child else "").splitlines() if line.strip()]
    told = [line for line in lines if line.startswith(("Error: ", "understudy serve: "))]
    return (told or lines or [""])[-1].removeprefix("Error: ").removeprefix("understudy serve: ")[:500]
