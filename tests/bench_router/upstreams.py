"""Real model servers behind the proxies: a logistic regression in MLflow's own server and in ours."""

import json
import sys
import time
from pathlib import Path

from tests.bench_router.load import status
from tests.bench_router.processes import Missing, Running, free_port

_LOADED_S = 180.0

BODY = json.dumps(
    {"dataframe_split": {"columns": ["x0", "x1", "x2", "x3"], "data": [[0.1, -0.2, 0.3, 0.4], [1.0, 0.5, -1.5, 0.0]]}}
).encode()


def _model(directory: Path) -> str:
    import mlflow
    import numpy as np
    import pandas as pd
    from mlflow.models import infer_signature
    from sklearn.linear_model import LogisticRegression

    chance = np.random.default_rng(1)
    features = pd.DataFrame(chance.normal(size=(500, 4)), columns=[f"x{n}" for n in range(4)])
    model = LogisticRegression().fit(features, features["x0"] + chance.normal(size=500) > 0)
    path = str(directory / "model")
    signature = infer_signature(features, model.predict(features))
    mlflow.sklearn.save_model(model, path, signature=signature, input_example=features[:2])
    return path


def mlflow_server(directory: Path, cores: str) -> Running:
    """As ``mlflow models serve`` runs it, but without a log of requests."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "--no-access-log", "--port", str(port)]
    app = "mlflow.pyfunc.scoring_server.app:app"
    return _answering(Running([*command, app], cores, port, directory / "log", __pyfunc_model_path__=_model(directory)))


def understudy_serve(directory: Path, cores: str) -> Running:
    """The lean server."""
    port = free_port()
    command = [sys.executable, "-m", "controller.serving", _model(directory), "--port", str(port)]
    return _answering(Running(command, cores, port, directory / "log"))


def _answering(server: Running) -> Running:
    """The server once it answers: it may listen while it still loads its model."""
    deadline = time.monotonic() + _LOADED_S
    while status(server.port, BODY) != 200:
        if server.lost() or time.monotonic() > deadline:
            server.stop()
            raise Missing(f"no answer within {_LOADED_S} s: {server.said()}")
    return server
