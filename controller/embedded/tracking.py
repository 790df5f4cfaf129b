"""The MLflow tracking server that is started where none is named."""

import os
from collections.abc import Sequence
from pathlib import Path

from controller.embedded.child import python


def tracking_command(host: str, port: int, folder: Path) -> list[str]:
    """One worker on a SQLite store in ``folder``, which is made if absent."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return [
        *python("mlflow", "server", "--host", host, "--port", str(port), "--workers", "1"),
        "--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}",
        "--artifacts-destination", str(folder / "artifacts"),
    ]  # fmt: skip


def tracking_environment(command: Sequence[str]) -> dict[str, str]:
    """No job runners, no telemetry; and uvicorn is found by its name, so our own folder of programs comes first."""
    programs = os.pathsep.join([str(Path(command[0]).parent), os.environ.get("PATH", os.defpath)])
    return {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true", "PATH": programs}
