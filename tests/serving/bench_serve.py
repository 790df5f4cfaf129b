"""CPU per one-row request: `understudy serve` against MLflow's own scoring server, same model, same machine, one run.

`python -m tests.serving.bench_serve [REQUESTS]` prints milliseconds of server CPU (user + system of the process that
holds the model, from /proc) and the ratio, for a scikit-learn model and for a pyfunc model that takes a DataFrame with
a string and a number and gives the number back. Wall time is printed too, but the client shares the machine with the
servers. `predict alone` is the model's own share: the same rows given to the logged function in this process, as the
DataFrame MLflow hands over and as a plain array.
"""

from __future__ import annotations

import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

import httpx

from tests.serving.conftest import Server, Store, children, until

WARM_UP = 200
NUMBERS = {"dataframe_split": {"columns": ["x0", "x1", "x2", "x3"], "data": [[0.1, -0.2, 0.3, 0.4]]}}
MIXED = {"dataframe_split": {"columns": ["act", "x"], "data": [["go", 0.5]]}}


def cpu_seconds(pid: int) -> float:
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(url: str, pid: int, body: object, requests: int) -> tuple[float, float]:
    """(CPU, wall) milliseconds per request over one kept connection."""
    with httpx.Client(timeout=30.0) as client:

        def send() -> None:
            assert client.post(f"{url}/invocations", json=body).status_code == 200

        for _ in range(WARM_UP):
            send()
        cpu, wall = cpu_seconds(pid), time.perf_counter()
        for _ in range(requests):
            send()
        spent = cpu_seconds(pid) - cpu, time.perf_counter() - wall
    return spent[0] * 1000 / requests, spent[1] * 1000 / requests


def mlflow_server(path: str) -> tuple[subprocess.Popen[bytes], str]:
    """MLflow's own app under uvicorn, as `mlflow models serve` runs it, but with the access log off."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", "--no-access-log", "--port", str(port)]
    environment = os.environ | {"__pyfunc_model_path__": path}
    process = subprocess.Popen(
        [*command, "mlflow.pyfunc.scoring_server.app:app"], env=environment, stderr=subprocess.DEVNULL
    )
    url = f"http://127.0.0.1:{port}"

    def up() -> bool:
        try:
            return httpx.get(f"{url}/ping").status_code == 200
        except httpx.HTTPError:
            return False

    until(up, seconds=90.0, what="MLflow's server")
    return process, url


def predict_alone(store: Store, requests: int) -> tuple[float, float]:
    """CPU milliseconds of `predict_proba` on one row, as a DataFrame and as an array."""
    row = store.features[:1]

    def spent(model: Callable[[object], object], data: object) -> float:
        started = time.process_time()
        for _ in range(requests):
            model(data)
        return (time.process_time() - started) * 1000 / requests

    return spent(store.model.predict_proba, row), spent(store.array_model.predict_proba, row.to_numpy())


def compare(name: str, path: str, body: object, requests: int) -> None:
    server = Server(path)
    try:
        ours = measure(server.url, children(server.process.pid)[0], body, requests)
    finally:
        server.end()
    process, url = mlflow_server(path)
    try:
        theirs = measure(url, process.pid, body, requests)
    finally:
        process.terminate()
        process.wait(30.0)
    for server_name, (cpu, wall) in (("understudy serve", ours), ("mlflow scoring server", theirs)):
        print(f"{name}: {server_name:22} {cpu:6.3f} ms CPU, {wall:6.3f} ms wall per request")
    print(f"{name}: ratio of CPU per request {theirs[0] / ours[0]:.1f}")


def main(requests: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = Store(pathlib.Path(folder))
        frame_ms, array_ms = predict_alone(store, requests)
        print(f"sklearn: predict alone, from a DataFrame {frame_ms:.3f}, from an array {array_ms:.3f} ms CPU")
        numbers = store.save_sklearn("lr", store.model, store.features, "predict_proba")
        compare("sklearn", numbers, NUMBERS, requests)
        compare("pyfunc", store.save_acting("plain", store.acting.Failing(f"{folder}/never")), MIXED, requests)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3000)
