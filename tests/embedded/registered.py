"""A store of MLflow with tiny models in it, and a tracking server on it."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow import MlflowClient
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema

from tests.embedded import tiny_model

MODEL = "tiny"
SIGNATURE = ModelSignature(inputs=Schema([ColSpec("double", "x")]), outputs=Schema([ColSpec("double")]))
STARTED_S = 90.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def tracking_server(folder: Path) -> Iterator[str]:
    """A tracking server on the store in ``folder``, which is made if absent; its address."""
    folder.mkdir(parents=True, exist_ok=True)
    url = f"http://127.0.0.1:{(port := free_port())}"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
    command += ["--artifacts-destination", f"{folder}/artifacts"]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "PATH": path}
    with (folder / "server.log").open("ab") as log:
        server = subprocess.Popen(command, env=os.environ | quiet, stdout=log, stderr=log, start_new_session=True)
    try:
        wait_for_answer(f"{url}/health", STARTED_S)
        yield url
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait(10)


def wait_for_answer(url: str, within: float) -> None:
    end = time.monotonic() + within
    while True:
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except OSError:
            assert time.monotonic() < end, f"{url} does not answer within {within} s"
            time.sleep(0.1)


def register(tracking_uri: str, name: str, *, signed: bool = True, **configuration: Any) -> str:
    """A new version of ``name``; its number."""
    client = MlflowClient(tracking_uri)
    with contextlib.suppress(mlflow.exceptions.MlflowException):
        client.create_registered_model(name)
    found = client.get_experiment_by_name("training")
    experiment = found.experiment_id if found else client.create_experiment("training")
    logged = client.create_logged_model(experiment, name=name)
    with tempfile.TemporaryDirectory() as folder:
        mlflow.pyfunc.save_model(
            path=f"{folder}/model",
            python_model=tiny_model.__file__,
            model_config=configuration,
            signature=SIGNATURE if signed else None,
            input_example=pd.DataFrame([{"x": 0.25}]) if signed else None,
            pip_requirements=["mlflow"],
            mlflow_model=mlflow.models.Model(
                artifact_path=logged.artifact_location, model_uuid=logged.model_id, model_id=logged.model_id
            ),
        )
        if not signed:
            _without_signature(Path(folder, "model", "MLmodel"))
        client.log_model_artifacts(logged.model_id, f"{folder}/model")
    client.finalize_logged_model(logged.model_id, "READY")
    made = client.create_model_version(name, source=f"models:/{logged.model_id}", model_id=logged.model_id)
    return str(made.version)


def _without_signature(path: Path) -> None:
    import yaml

    tree = yaml.safe_load(path.read_text())
    tree.pop("signature", None)
    path.write_text(yaml.safe_dump(tree))


def make_store(folder: Path) -> None:
    """Model ``tiny``: version 1 champion, 2 an equal challenger, 3 a worse one, 4 without a signature."""
    with tracking_server(folder) as uri:
        for options in ({}, {"shift": 0.01}, {"shift": -0.15}):
            register(uri, MODEL, **options)
        register(uri, MODEL, signed=False)
        client = MlflowClient(uri)
        client.set_registered_model_alias(MODEL, "champion", "1")
        client.set_registered_model_alias(MODEL, "challenger", "2")
        client.set_registered_model_alias(MODEL, "unsigned", "4")
    for leftover in folder.glob("server.log"):
        leftover.unlink()


def copy_store(store: Path, folder: Path) -> None:
    """A store of one's own."""
    shutil.copytree(store, folder, dirs_exist_ok=True)
