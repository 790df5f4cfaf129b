"""Real models in a real MLflow store, and real server processes."""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
ROOT = pathlib.Path(__file__).resolve().parents[2]
COLUMNS = [f"x{number}" for number in range(4)]


def until(condition: Callable[[], Any], seconds: float = 60.0, what: str = "condition") -> Any:
    """Poll with a deadline; the truthy result of `condition`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if result := condition():
            return result
        time.sleep(0.02)
    raise AssertionError(f"{what} did not come true within {seconds} s")


def alive(pid: int) -> bool:
    """True for a running process; a zombie has ended."""
    try:
        state = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def children(pid: int) -> list[int]:
    """Processes whose parent is `pid`, over all of its threads."""
    found: list[int] = []
    for task in pathlib.Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += [int(number) for number in task.read_text().split()]
    return found


class Server:
    """One `python -m controller.serving` process and what it wrote to stderr."""

    def __init__(
        self,
        uri: str,
        *flags: str,
        env: dict[str, str] | None = None,
        wait: bool = True,
        cwd: pathlib.Path = ROOT,
    ) -> None:
        command = [sys.executable, "-m", "controller.serving", uri, "--port", "0", *flags]
        self.process = subprocess.Popen(
            command,
            cwd=cwd,
            env=os.environ | (env or {}),
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.url = ""
        if wait:
            line = until(lambda: self.said("listening on ") or self.process.poll() is not None, what="ready line")
            assert isinstance(line, str), "\n".join(self.lines)
            self.url = line.split("listening on ")[1].strip()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)

    @property
    def log(self) -> str:
        return "".join(self.lines)

    def said(self, text: str) -> str | None:
        return next((line for line in list(self.lines) if text in line), None)

    def workers(self) -> list[int]:
        return children(self.process.pid)

    def post(self, document: Any, **options: Any) -> httpx.Response:
        return httpx.post(f"{self.url}/invocations", json=document, timeout=30.0, **options)

    def get(self, path: str) -> httpx.Response:
        return httpx.get(f"{self.url}{path}", timeout=30.0)

    def exit_code(self, seconds: float = 30.0) -> int:
        code = self.process.wait(seconds)
        self._reader.join(10.0)
        return code

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(30.0)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(10.0)


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    """Start a server for one test."""
    started: list[Server] = []

    def start(uri: str, *flags: str, **options: Any) -> Server:
        started.append(Server(uri, *flags, **options))
        return started[-1]

    yield start
    for server in started:
        server.end()


class Store:
    """Saved models by name, and an MLflow store with one registered model behind an alias."""

    def __init__(self, folder: pathlib.Path) -> None:
        import cloudpickle
        import numpy as np
        import pandas as pd
        from sklearn.linear_model import LogisticRegression

        from tests.serving import acting

        cloudpickle.register_pickle_by_value(acting)
        self.folder = folder
        self.tracking_uri = f"sqlite:///{folder}/mlflow.db"
        random = np.random.default_rng(7)
        self.features = pd.DataFrame(random.normal(size=(300, 4)), columns=COLUMNS)
        late = (self.features.x0 + random.normal(size=300) > 0).astype(int)
        self.model = LogisticRegression().fit(self.features, late)
        self.array_model = LogisticRegression().fit(self.features.to_numpy(), late)
        self.acting = acting

    def path(self, name: str) -> str:
        return str(self.folder / name)

    def save_sklearn(self, name: str, model: Any, inputs: Any, predict_fn: str, **options: Any) -> str:
        import mlflow
        from mlflow.models import infer_signature

        signature = infer_signature(inputs, getattr(model, predict_fn)(inputs))
        mlflow.sklearn.save_model(
            model,
            self.path(name),
            pyfunc_predict_fn=predict_fn,
            pip_requirements=["scikit-learn"],
            **({"signature": signature, "input_example": inputs[:2]} | options),
        )
        return self.path(name)

    def save_pyfunc(self, name: str, model: Any, **options: Any) -> str:
        import mlflow

        mlflow.pyfunc.save_model(self.path(name), python_model=model, pip_requirements=["mlflow"], **options)
        return self.path(name)

    def save_acting(self, name: str, model: Any) -> str:
        import pandas as pd
        from mlflow.models import infer_signature

        example = pd.DataFrame({"act": ["go"], "x": [0.5]})
        return self.save_pyfunc(name, model, signature=infer_signature(example), input_example=example)

    def register(self, name: str, alias: str, model: Any) -> str:
        """A new version of `name` with the alias on it."""
        import mlflow
        from mlflow.models import infer_signature

        mlflow.set_tracking_uri(self.tracking_uri)
        if mlflow.get_experiment_by_name("models") is None:
            mlflow.create_experiment("models", artifact_location=(self.folder / "artifacts").as_uri())
        mlflow.set_experiment("models")
        info = mlflow.sklearn.log_model(
            model,
            name="model",
            registered_model_name=name,
            pyfunc_predict_fn="predict_proba",
            signature=infer_signature(self.features, model.predict_proba(self.features)),
            input_example=self.features[:2],
            pip_requirements=["scikit-learn"],
        )
        version = str(info.registered_model_version)
        mlflow.MlflowClient().set_registered_model_alias(name, alias, version)
        return version


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    made = Store(tmp_path_factory.mktemp("models"))
    made.save_sklearn("lr", made.model, made.features, "predict_proba")
    made.save_sklearn("tensor", made.array_model, made.features.to_numpy(), "predict_proba")
    made.save_acting("acting", made.acting.Acting())
    made.save_acting("failing", made.acting.Failing())
    return made


@pytest.fixture(scope="session")
def lr(store: Store) -> Iterator[Server]:
    server = Server(store.path("lr"), "--model-name", "flights", "--model-version", "7")
    yield server
    server.end()


@pytest.fixture(scope="session")
def acting(store: Store) -> Iterator[Server]:
    flags = (
        "--max-response-bytes",
        "100000",
        "--max-request-bytes",
        "50000",
        "--timeout",
        "20",
        "--threads",
        "2",
    )
    server = Server(store.path("acting"), *flags)
    yield server
    server.end()


def secret_in(text: str) -> str | None:
    """What must never reach a client: a stack trace, a path of this server, a message of the model's exception."""
    return next(iter(re.findall(r"Traceback|File \"|/site-packages|secret detail|\.py\b|ZeroDivision", text)), None)
