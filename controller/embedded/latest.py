"""The newest tick, as a file that the controller replaces and watchers read: what status does not hold."""

import contextlib
import json
from pathlib import Path
from typing import NamedTuple

from controller.embedded.folder import write_whole


class Latest(NamedTuple):
    """``metrics`` as ``loop.series`` names them; ``clock`` µs; ``pid`` of the controller that wrote it."""

    rollout: str
    clock: int
    run_id: str | None
    metrics: dict[str, float]
    pid: int


def write(path: Path, latest: Latest) -> None:
    """Replace the file. OSError is swallowed: nobody decides by it."""
    with contextlib.suppress(OSError):
        write_whole(path, json.dumps(latest._asdict()))


def read(path: Path) -> Latest | None:
    """None where there is none, or none that can be read."""
    with contextlib.suppress(OSError, ValueError, TypeError):
        return Latest(**json.loads(path.read_text(encoding="utf-8")))
    return None
