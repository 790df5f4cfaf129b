"""Stores of MLflow and a tracking server, made once; runs that are ended with the test."""

import fcntl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.embedded import registered
from tests.embedded.machine import Machine


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's database and artefacts with the tiny models; to be copied. Processes side by side make one."""
    mine = tmp_path_factory.getbasetemp()
    shared = mine.parent if mine.name.startswith("popen-") else mine
    folder, done = shared / "store", shared / "store.done"
    with (shared / "store.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            registered.make_store(folder)
            done.touch()
    return folder


@pytest.fixture(scope="session")
def tracking(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A tracking server on a copy, for tests that change nothing in it."""
    folder = tmp_path_factory.mktemp("tracking")
    registered.copy_store(store, folder)
    with registered.tracking_server(folder) as uri:
        yield uri


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Callable[..., Machine]]:
    """Starts `run` in a state folder of the test; whatever still runs in the end is killed."""
    made: list[Machine] = []

    def start(tree: dict[str, Any], *flags: str, **options: Any) -> Machine:
        made.append(Machine(tmp_path, tree, flags, **options))
        return made[-1]

    yield start
    for each in made:
        each.kill()
