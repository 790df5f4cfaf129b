"""Our router as its wheel has it, compiled, on the loop that it takes by itself; with capture, all bodies are kept."""

import importlib.util
import json
import shutil
import sys
from contextlib import suppress
from typing import Any

from tests import compiled
from tests.bench_router.peers import Place
from tests.bench_router.processes import Missing, Running, debian, free_port
from tests.kubernetes.binaries import Unavailable

NO_BODIES = {"inputs_bp": 0, "answers_bp": 0}


def start_with(
    place: Place, name: str, weight_bp: int = 500, loop: str = "auto", interpreted: bool = False, **capture: Any
) -> Running:
    """The router by a table with this weight and these rules of capture. Raises Missing where it cannot be compiled, or
    the loop is not installed.
    """
    if loop != "asyncio" and importlib.util.find_spec("uvloop") is None:
        raise Missing("pip install uvloop")
    environment = {} if interpreted else _compiled()
    directory = place.directory / f"understudy-{name}-{place.workers}"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    table: dict[str, Any] = {
        "generation": 1, "rollout": "bench", "salt": "s/1", "weight_bp": weight_bp,
        "unit": {"header": "x-user-id"},
        "champion": {"version": "1", "upstreams": [place.champion]},
        "challenger": {"version": "2", "upstreams": [place.challenger]},
        "limits": {"challenger_timeout_ms": 10_000}, "capture": capture,
    }  # fmt: skip
    path = directory / "first.json"
    path.write_text(json.dumps(table))
    port = free_port()
    command = [
        sys.executable, "-m", "router", "--port", str(port), "--control-port", "0", "--table", str(path),
        "--journal-dir", str(directory / "journal"), "--workers", str(place.workers), "--log-level", "warning",
        "--ready-file", str(directory / "ready"), "--loop", loop,
    ]  # fmt: skip
    return Running(command, place.cores, port, directory / "log", directory / "ready", **environment)


def _compiled() -> dict[str, str]:
    with suppress(Missing):  # another compiler may be there
        debian("gcc", "gcc")
    try:
        return compiled.environment(compiled.tree())
    except Unavailable as unavailable:
        raise Missing(str(unavailable)) from unavailable


def start(place: Place) -> Running:
    """Exposures without bodies."""
    return start_with(place, "plain", **NO_BODIES)


def start_capturing(place: Place) -> Running:
    """With bodies."""
    return start_with(place, "capture")


def start_on_asyncio(place: Place) -> Running:
    """The same on asyncio's own event loop."""
    return start_with(place, "asyncio", loop="asyncio")


def start_interpreted(place: Place) -> Running:
    """The same without a compiler."""
    return start_with(place, "interpreted", interpreted=True)
