"""Where teams share a registry nobody is told of others' models, where it is, or what it and its files say."""

import json
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from mlflow.tracking import MlflowClient

from controller.edges.registry import MlflowRegistry
from controller.errors import EdgeError, NotFound
from tests.ports.tracking_server import TrackingServer, Wire, free_port, new_name, register_file

SAID = "psql://mlflow@db.internal: INSERT INTO versions VALUES ('acme-credit')"  # a text of no MLflow of ours


@contextmanager
def saying(status: int, body: str) -> Iterator[str]:
    """The address of a server that gives one answer to everything."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def told(uri: str, model: str = "m", reference: str = "champion") -> str:
    """What a rollout shows of the registry's failure."""
    shared = MlflowRegistry(uri, shared=True)
    with pytest.raises(EdgeError) as raised:
        shared.resolve(model, reference)
    shared.close()
    return str(raised.value)


@pytest.mark.parametrize(
    ("status", "code", "shown"),
    [
        (500, "INTERNAL_ERROR", "MLflow does not answer as it should"),
        (403, "PERMISSION_DENIED", "MLflow: PERMISSION_DENIED"),
        (400, SAID, "MLflow does not answer as it should"),
    ],
)
def test_what_the_server_says_is_for_the_log(
    status: int, code: str, shown: str, caplog: pytest.LogCaptureFixture
) -> None:
    body = json.dumps({"error_code": code, "message": SAID})
    with caplog.at_level(logging.WARNING), saying(status, body) as uri:
        assert told(uri) == f"{shown} (the controller's log says more)"
    assert f"MLflow at {uri}" in caplog.text


def test_an_answer_that_is_none_of_mlflow_is_for_the_log() -> None:
    with saying(502, f"<html>{SAID}</html>") as uri:
        assert told(uri) == "MLflow does not answer as it should (the controller's log says more)"


def test_a_server_that_is_not_there_is_told_without_its_address(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    assert told(f"http://127.0.0.1:{free_port()}") == (
        "MLflow does not answer as it should (the controller's log says more)"
    )
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    wire.mute()
    shared = MlflowRegistry(wire.uri, shared=True)
    with pytest.raises(EdgeError, match="does not answer"):
        shared.resolve("m", "champion")
    with pytest.raises(EdgeError) as raised:
        shared.resolve("m", "champion")
    assert str(raised.value) == "MLflow did not answer 0 s ago, and is asked again soon"
    shared.close()


def test_a_model_that_is_not_registered_is_told_without_others(tracking: TrackingServer) -> None:
    client = MlflowClient(tracking.uri, registry_uri=tracking.uri)
    model = new_name("model")
    client.create_registered_model(model)
    shared = MlflowRegistry(tracking.uri, shared=True)
    for act in (
        lambda: shared.resolve(model + "s", "champion"),
        lambda: shared.set_alias(model + "s", "champion", "1"),
    ):
        with pytest.raises(NotFound) as raised:
            act()
        assert str(raised.value) == f"model '{model}s' is not registered in MLflow"
    shared.close()


def test_a_file_that_cannot_be_read_is_not_quoted(tracking: TrackingServer) -> None:
    """Whose it is says the source of the version, which whoever registers it chooses."""
    client = MlflowClient(tracking.uri, registry_uri=tracking.uri)
    model = new_name("model")
    client.create_registered_model(model)
    version = register_file(client, model, "flavors: 1\npassword: 'hunter2' 'hunter3'\n")
    assert told(tracking.uri, model, version) == (
        f"the MLmodel file of '{model}' version 1 cannot be read: it is no YAML (line 2, column 21)"
    )
