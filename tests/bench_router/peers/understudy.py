"""Our router; with capture, every body in the journal."""

import importlib.util
import json
import shutil
import sys
from typing import Any

from tests.bench_router.peers import Place
from tests.bench_router.processes import Missing, Running, free_port

NO_BODIES = {"inputs_bp": 0, "answers_bp": 0}


def start_with(place: Place, name: str, weight_bp: int = 500, loop: str = "asyncio", **capture: Any) -> Running:
    """The router by a table with this weight and these rules of capture."""
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
    return Running(command, place.cores, port, directory / "log", directory / "ready")


def start(place: Place) -> Running:
    """Exposures without bodies."""
    return start_with(place, "plain", **NO_BODIES)


def start_capturing(place: Place) -> Running:
    """With bodies."""
    return start_with(place, "capture")


def start_on_uvloop(place: Place) -> Running:
    """The same on the event loop that ``--loop uvloop`` asks for; raises Missing where it is not installed."""
    if importlib.util.find_spec("uvloop") is None:
        raise Missing("pip install 'understudy[uvloop]'")
    return start_with(place, "uvloop", loop="uvloop")
