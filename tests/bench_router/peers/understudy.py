"""Our router; with capture, every body in the journal."""

import json
import shutil
import sys
from typing import Any

from tests.bench_router.peers import Place
from tests.bench_router.processes import Running, free_port


def _start(place: Place, capture: bool) -> Running:
    directory = place.directory / f"understudy-{'capture' if capture else 'plain'}-{place.workers}"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    table: dict[str, Any] = {
        "generation": 1, "rollout": "bench", "salt": "s/1", "weight_bp": 500,
        "unit": {"header": "x-user-id"},
        "champion": {"version": "1", "upstreams": [place.champion]},
        "challenger": {"version": "2", "upstreams": [place.challenger]},
        "limits": {"challenger_timeout_ms": 10_000},
    }  # fmt: skip
    if not capture:
        table["capture"] = {"inputs_bp": 0, "answers_bp": 0}
    path = directory / "first.json"
    path.write_text(json.dumps(table))
    port = free_port()
    command = [
        sys.executable, "-m", "router", "--port", str(port), "--control-port", "0", "--table", str(path),
        "--journal-dir", str(directory / "journal"), "--workers", str(place.workers), "--log-level", "warning",
        "--ready-file", str(directory / "ready"),
    ]  # fmt: skip
    return Running(command, place.cores, port, directory / "log", directory / "ready")


def start(place: Place) -> Running:
    """Exposures without bodies."""
    return _start(place, False)


def start_capturing(place: Place) -> Running:
    """With bodies."""
    return _start(place, True)
