"""A program on a leash does not outlive its holder, and leaves nobody behind."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from controller.embedded.child import LEASH
from tests.embedded.machine import alive, wait_for

# Starts a child that ignores SIGTERM, names both, and sleeps.
PARENT = """
import os, signal, subprocess, sys, time
stubborn = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
child = subprocess.Popen([sys.executable, "-c", stubborn], stdout=subprocess.PIPE)
child.stdout.readline()
open(sys.argv[1], "w").write(f"{os.getpid()} {child.pid} ")
time.sleep(600)
"""
# Holds a leash as the parent of a run does, and sleeps.
HOLDER = """
import subprocess, sys, time
leash = subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True)
time.sleep(600)
"""


def leashed(*command: str) -> list[str]:
    return [sys.executable, "-I", "-S", LEASH, *command]


def family(note: Path) -> list[int]:
    def look() -> list[int] | None:
        text = note.read_text() if note.exists() else ""
        return [int(pid) for pid in text.split()] if text.endswith(" ") else None

    return wait_for("the program's processes", look, 20)


def test_when_the_holder_is_killed_the_program_and_its_children_end_within_seconds(tmp_path: Path) -> None:
    note = tmp_path / "pids"
    command = leashed(sys.executable, "-c", PARENT, str(note))
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, *command])
    pids = family(note)
    assert all(map(alive, pids))
    holder.kill()
    holder.wait()
    wait_for("their end", lambda: not any(map(alive, pids)), 10)


def test_when_the_program_ends_what_it_left_behind_ends_with_it(tmp_path: Path) -> None:
    note = tmp_path / "pids"
    leash = subprocess.Popen(
        leashed(sys.executable, "-c", PARENT, str(note)), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    program, child = family(note)
    os.kill(program, signal.SIGKILL)
    assert leash.wait(10) == 128 + signal.SIGKILL
    wait_for("the child's end", lambda: not alive(child), 5)


def test_when_the_leash_itself_is_killed_the_program_ends(tmp_path: Path) -> None:
    if sys.platform != "linux":
        pytest.skip("needs-linux: a signal at the parent's death")
    note = tmp_path / "pids"
    leash = subprocess.Popen(
        leashed(sys.executable, "-c", PARENT, str(note)), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    program, child = family(note)
    leash.kill()
    leash.wait()
    wait_for("the program's end", lambda: not alive(program), 5)
    os.kill(child, signal.SIGKILL)  # whoever holds the leash does this


def test_a_request_to_end_is_passed_on_and_the_programs_own_end_is_waited_for() -> None:
    code = "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(7)); print('up', flush=True, file=sys.stderr); time.sleep(600)"  # noqa: E501
    leash = subprocess.Popen(
        leashed(sys.executable, "-c", code), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert leash.stderr is not None
    assert leash.stderr.readline() == b"up\n"
    leash.terminate()
    # Our end of its input stays open till then: to close it is to ask once more, and a program that ends may not hear.
    assert leash.wait(10) == 7
    leash.communicate()


def test_the_exit_code_is_the_programs() -> None:
    command = leashed(sys.executable, "-c", "raise SystemExit(3)")
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as leash:
        assert leash.wait(20) == 3


def test_a_command_that_does_not_exist_is_said() -> None:
    with subprocess.Popen(
        leashed("no-such-program"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as leash:
        assert leash.stderr is not None
        said = leash.stderr.read()
        assert leash.wait(10) == 127
    assert b"no-such-program: No such file or directory" in said
