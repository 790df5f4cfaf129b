"""A run ends when it is asked to, at any moment, and then nothing of it is left."""

import signal
import time
from collections.abc import Callable

import pytest

from tests.embedded import rollouts
from tests.embedded.machine import Machine, of_the_folder, wait_for


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("wait_s", [0.0, 0.4, 2.0])
def test_asked_to_end_while_it_starts_it_ends_in_order(
    machine: Callable[..., Machine], tracking: str, number: int, wait_s: float
) -> None:
    run = machine(rollouts.plan(), "--tracking-uri", tracking)
    wait_for("the first process", (run.state / "run.lock").exists, 60)
    time.sleep(wait_s)  # the moment is what is tried
    run.process.send_signal(number)
    assert run.ended(60) == 0, run.said()
    assert "Traceback" not in run.said()
    assert of_the_folder(run.state) == []


def test_when_the_parent_is_killed_all_its_processes_end_within_seconds(
    machine: Callable[..., Machine], tracking: str
) -> None:
    run = machine(rollouts.plan(), "--tracking-uri", tracking)
    for name in ("router", "controller"):
        run.pid(name, 120)
    run.process.kill()
    run.process.wait()
    wait_for("the end of all processes", lambda: of_the_folder(run.state) == [], 10)
