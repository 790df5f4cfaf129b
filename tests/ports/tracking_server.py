"""A real MLflow tracking server, models in its registry, and a wire to it that can be cut."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from pathlib import Path

import httpx
from mlflow.tracking import MlflowClient

_START_S = 110.0


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


class TrackingServer:
    """``mlflow server`` with one worker on a new SQLite database, in a process group of its own."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        store = ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", f"{folder}/files"]
        binaries = str(Path(sys.executable).parent)
        self._log = (folder / "server.log").open("wb")
        self.process = subprocess.Popen(
            [f"{binaries}/mlflow", "server", "--workers", "1", "--host", "127.0.0.1", "--port", str(self.port), *store],
            cwd=folder,
            env=os.environ
            | {"PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            self._wait(folder)
        except BaseException:
            self.close()
            raise

    def _wait(self, folder: Path) -> None:
        end = time.monotonic() + _START_S
        while True:
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{self.uri}/health", timeout=2.0).status_code == 200:
                    return
            assert self.process.poll() is None, (folder / "server.log").read_text()
            assert time.monotonic() < end, (folder / "server.log").read_text()
            time.sleep(0.1)

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(timeout=30)
        self._log.close()


class Wire:
    """Forwards a port of its own to the server's; ``cut`` refuses, ``mute`` accepts and never answers."""

    def __init__(self, target: int) -> None:
        self._target = target
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self._listener: socket.socket | None = None
        self._open: list[socket.socket] = []
        self._muted = False
        self.restore()

    def restore(self) -> None:
        self.cut()
        self._muted = False
        self._listen()

    def mute(self) -> None:
        self.cut()
        self._muted = True
        self._listen()

    def cut(self) -> None:
        if self._listener is not None:
            # A thread in accept() would else keep it alive.
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
        while self._open:
            with contextlib.suppress(OSError):
                self._open[-1].shutdown(socket.SHUT_RDWR)
            self._open.pop().close()

    def _listen(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, args=(self._listener, self._muted), daemon=True).start()

    def _accept(self, listener: socket.socket, muted: bool) -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            self._open.append(near)
            if muted:
                continue
            far = socket.create_connection(("127.0.0.1", self._target))
            self._open.append(far)
            for pair in ((near, far), (far, near)):
                threading.Thread(target=self._pump, args=pair, daemon=True).start()

    @staticmethod
    def _pump(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


def register_version(client: MlflowClient, model: str, signed: bool) -> str:
    """A version of a model that consists of its MLmodel file alone."""
    text = "flavors:\n  python_function:\n    loader_module: nothing\n"
    text += 'signature:\n  inputs: \'[{"type": "double", "name": "x"}]\'\n  outputs: null\n' if signed else ""
    return register_file(client, model, text)


def register_file(client: MlflowClient, model: str, text: str) -> str:
    """A version with this MLmodel file."""
    found = client.get_experiment_by_name("training")
    experiment = found.experiment_id if found else client.create_experiment("training")
    logged = client.create_logged_model(experiment, name="model")
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "MLmodel").write_text(text)
        client.log_model_artifacts(logged.model_id, folder)
    client.finalize_logged_model(logged.model_id, "READY")
    source = f"models:/{logged.model_id}"
    return str(client.create_model_version(model, source, model_id=logged.model_id).version)


def register_pair(client: MlflowClient, prefix: str) -> str:
    """A model with a version of its own under each of the two aliases; its name."""
    model = new_name(prefix)
    client.create_registered_model(model)
    for alias in ("champion", "challenger"):
        client.set_registered_model_alias(model, alias, register_version(client, model, signed=True))
    return model


def new_name(prefix: str) -> str:
    """The server lives for the whole session: each test has names of its own."""
    return f"{prefix}-{uuid.uuid4().hex[:12]}"
