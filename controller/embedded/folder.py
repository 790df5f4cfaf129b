"""The state folder of one machine: who may use it, and what of an earlier life is used again."""

import contextlib
import errno
import fcntl
import json
import logging
import os
import socket
import time
from pathlib import Path

from controller.errors import UnderstudyError

log = logging.getLogger("understudy.run")
_OLD_CHILDREN_S = 10.0


class Refused(UnderstudyError):
    """It cannot start here and now; the text says why. ``code``: exit code, 1 the world's fault, 2 the user's."""

    def __init__(self, text: str, code: int = 1) -> None:
        self.code = code
        super().__init__(text)


class Folder:
    """Holds the folder at ``path`` until ``close``.

    There are two locks. ``run.lock`` is the parent's, and refuses a second one at once. ``processes.lock`` is shared
    with every leash, so that a parent after a killed one waits until none of its processes is left: two controllers
    at a time would both act.
    """

    def __init__(self, path: Path) -> None:
        """Refused where it is in use or cannot be written."""
        self.path = path
        try:
            if path.exists() and not path.is_dir():
                raise Refused(f"--state-dir {path}: is a file; name a folder", 2)
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(path / "run.lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise Refused(f"--state-dir {path}: {error.strerror}", 2) from None
        self.processes_lock = -1
        try:
            self._take()
            self.processes_lock = self._without_old_children()
        except BaseException:
            self.close()
            raise
        self._ports = self._remembered()
        self._unwritten: set[str] = set()

    def _take(self) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._lock, 32, 0).decode(errors="replace").strip() or "another process"
            raise Refused(
                f"--state-dir {self.path} is in use: `understudy run` with process id {holder} runs there;"
                " end it first, or name another folder"
            ) from None
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, f"{os.getpid()}\n".encode(), 0)

    def _without_old_children(self) -> int:
        lock = os.open(self.path / "processes.lock", os.O_RDWR | os.O_CREAT, 0o600)
        end = time.monotonic() + _OLD_CHILDREN_S
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return lock
            except BlockingIOError:
                if time.monotonic() > end:
                    os.close(lock)
                    raise Refused(
                        f"--state-dir {self.path}: processes of an earlier run have not ended after"
                        f" {_OLD_CHILDREN_S:g} s; see processes.json there"
                    ) from None
                time.sleep(0.05)

    def _remembered(self) -> dict[str, int]:
        with contextlib.suppress(OSError, ValueError):
            found = json.loads((self.path / "ports.json").read_text())
            if isinstance(found, dict):
                return {name: port for name, port in found.items() if isinstance(port, int)}
        return {}

    def port(self, name: str, host: str, asked: int) -> int:
        """The port for ``name``: what was asked for, else the one of the last time if it is free, else a free one.

        Addresses that people and applications have noted down stay true over restarts. Refused where somebody else
        listens on the one that was asked for: his answers must not be taken for our own program's.
        """
        if asked:
            if _taken(host, asked):
                flag = "port" if name == "traffic" else f"{name}-port"
                raise Refused(f"--{flag} {asked}: {host}:{asked} is in use by another program")
            return asked
        last = self._ports.get(name, 0)
        taken = _free(host, last) if last else None
        port = taken or _free(host, 0) or 0
        self.remember(name, port)
        return port

    def remember(self, name: str, port: int) -> None:
        """Note the port of ``name`` for the next start."""
        if self._ports.get(name) != port:
            self._ports[name] = port
            write_whole(self.path / "ports.json", json.dumps(self._ports))

    def note(self, name: str, text: str) -> bool:
        """Replace the file ``name``, which is for information: whether that went well. A full disk ends no run."""
        try:
            write_whole(self.path / name, text)
        except OSError as error:
            if name not in self._unwritten:
                log.warning("%s cannot be written: %s", self.path / name, error.strerror)
            self._unwritten.add(name)
            return False
        self._unwritten.discard(name)
        return True

    def close(self) -> None:
        """Let go of both locks."""
        for descriptor in (self.processes_lock, self._lock):
            if descriptor >= 0:
                with contextlib.suppress(OSError):
                    os.close(descriptor)
        self.processes_lock = self._lock = -1


def _taken(host: str, port: int) -> bool:
    """Whether somebody listens there; whatever else is wrong with the address is told by who uses it."""
    try:
        _bound(host, port)
    except OSError as error:
        return error.errno == errno.EADDRINUSE
    return False


def _bound(host: str, port: int) -> int:
    family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)
        return int(probe.getsockname()[1])


def _free(host: str, port: int) -> int | None:
    """``port`` (0: any) if nobody listens on it."""
    try:
        return _bound(host, port)
    except OSError:
        return None


def write_whole(path: Path, text: str) -> None:
    """Readers see the old content or the new, never half of it."""
    aside = path.with_name(f".{path.name}.new")
    try:
        aside.write_text(text, encoding="utf-8")
        aside.replace(path)
    except OSError:
        aside.unlink(missing_ok=True)
        raise
