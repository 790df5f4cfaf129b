"""Runs a program that must not outlive whoever holds the other end of our standard input.

``python leash.py COMMAND …`` starts COMMAND in a process group of its own and writes its process id, one line, to
standard output. SIGTERM and SIGINT are passed on to the program. When standard input ends (the holder is gone, however
it died) the whole group is told to end and a second later made to. When the program ends by itself, what it left behind
in its group is killed, and its exit code is ours (128 + signal where a signal ended it).

Runs by its path, without site packages and without imports of this project, so that it costs little.
"""

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from types import FrameType

GRACE_S = 1.0
_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl(2)


def _die_with_the_leash() -> None:
    """Where the kernel can: a leash that is itself killed takes the program along."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGKILL)


def _start(command: list[str]) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr.fileno(),
        process_group=0,
        preexec_fn=_die_with_the_leash,  # noqa: PLW1509 — there is one thread
    )


def _signal_group(group: int, number: int) -> bool:
    """Whether there was anybody left to hear it."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _ended(program: "subprocess.Popen[bytes]", within: float, wake: int) -> bool:
    """Wait for the program's end, at most ``within`` seconds."""
    deadline = time.monotonic() + within
    while program.poll() is None:
        left = deadline - time.monotonic()
        if left <= 0:
            return False
        select.select([wake], [], [], min(left, 0.1))
        _drain(wake)
    return True


def _drain(pipe: int) -> None:
    with contextlib.suppress(BlockingIOError):
        while os.read(pipe, 512):
            pass


def main(command: list[str]) -> int:
    wake, poke = os.pipe()
    for end in (wake, poke):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(poke, warn_on_full_buffer=False)
    asked: list[int] = []

    def heard(number: int, _frame: FrameType | None) -> None:
        asked.append(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, heard)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    try:
        program = _start(command)
    except OSError as error:
        sys.stderr.write(f"{command[0]}: {error.strerror}\n")
        return 127
    with contextlib.suppress(BrokenPipeError):
        os.write(1, b"%d\n" % program.pid)
    held = True
    while held and program.poll() is None:
        while asked:
            program.send_signal(asked.pop(0))
        readable, _, _ = select.select([0, wake], [], [])
        if wake in readable:
            _drain(wake)
        held = not (0 in readable and os.read(0, 512) == b"")
    if program.poll() is None:
        _signal_group(program.pid, signal.SIGTERM)
        _ended(program, GRACE_S, wake)
    # Also after a good end: a program that forked may have left somebody behind.
    _signal_group(program.pid, signal.SIGKILL)
    code = program.wait()
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
