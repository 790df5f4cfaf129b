"""kill -9 at any moment: every acknowledged event is readable, none is there twice, nothing is torn."""

import random
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

from router.journal import Writer
from tests.router.journals import assert_sound, ids, outcome, read_all

_PROGRAM = """
    import os, sys
    from pathlib import Path
    from router.journal import Writer
    from tests.router.journals import exposure, outcome

    number = int(sys.argv[2])
    writer = Writer(Path(sys.argv[1]), "j", flush_ms=1, rotate_bytes=50_000)
    while True:
        for _ in range(20):
            writer.offer(exposure(number))
            number += 1
        writer.append([outcome(number), outcome(number + 1)])
        os.write(1, f"{number} {number + 1}\\n".encode())
        number += 2
"""


def _killed_after(directory: Path, first: int, acknowledged: int) -> list[int]:
    """Let a writer work from number ``first`` on, kill it at an acknowledgement; all that it acknowledged."""
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(_PROGRAM), str(directory), str(first)], stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    lines = []
    try:
        for line in child.stdout:
            lines.append(line)
            if len(lines) == acknowledged:
                child.send_signal(signal.SIGKILL)
        assert child.wait(10) == -signal.SIGKILL
    finally:
        child.kill()
        child.wait(10)
        child.stdout.close()
    return [int(number) for line in lines if line.endswith(b"\n") for number in line.split()]


def test_no_acknowledged_event_is_lost_or_doubled_by_a_kill(tmp_path: Path) -> None:
    chance = random.Random(20)
    acknowledged: list[int] = []
    for _ in range(10):
        first = acknowledged[-1] + 10_000 if acknowledged else 0
        acknowledged += _killed_after(tmp_path, first, chance.randrange(1, 120))
        assert_sound(read_all(tmp_path, "j"))
    Writer(tmp_path, "j").close()
    events = read_all(tmp_path, "j")
    assert_sound(events)
    found = ids(events)
    assert len(found) == len(set(found))
    assert {f"o{number}" for number in acknowledged} <= set(found)
    assert len(acknowledged) >= 20


def test_a_killed_writer_does_not_keep_the_journal_locked(tmp_path: Path) -> None:
    _killed_after(tmp_path, 0, 1)
    writer = Writer(tmp_path, "j")
    writer.append([outcome(77)])
    writer.close()
    assert ids(read_all(tmp_path, "j"))[-1] == "o77"
