"""What cannot be served is refused at the start, with exit code 2 and a sentence a newcomer can act on."""

from __future__ import annotations

import pathlib
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from tests.serving.conftest import ROOT, Server, Store


def refusal(serve: Callable[..., Server], uri: str, *flags: str, **options: Any) -> str:
    server = serve(uri, *flags, wait=False, **options)
    assert server.exit_code(90.0) == 2, server.log
    assert "Traceback" not in server.log
    return server.log


def test_a_model_without_a_signature_is_refused_unless_allowed(store: Store, serve: Callable[..., Server]) -> None:
    path = store.save_pyfunc("unsigned", store.acting.Showing())
    log = refusal(serve, path)
    assert "has no signature" in log
    assert "--allow-no-signature" in log
    server = serve(path, "--allow-no-signature")
    answer = server.post({"dataframe_records": [{"anything": 1}]})
    assert answer.status_code == 200, answer.text
    assert "anything" in answer.json()["predictions"][0]


def test_a_folder_that_is_no_model_and_an_unknown_function_are_refused(
    store: Store, serve: Callable[..., Server], tmp_path: pathlib.Path
) -> None:
    assert "not an MLflow model" in refusal(serve, str(tmp_path))
    assert "no function 'guess'" in refusal(serve, store.path("lr"), "--predict-fn", "guess")


def test_an_unknown_model_and_a_missing_alias_are_refused(store: Store, serve: Callable[..., Server]) -> None:
    store.register("known", "champion", store.model)
    env = {"MLFLOW_TRACKING_URI": store.tracking_uri}
    assert "cannot find the model 'models:/unknown@champion'" in refusal(serve, "models:/unknown@champion", env=env)
    assert "cannot find the model 'models:/known@nobody'" in refusal(serve, "models:/known@nobody", env=env)
    assert "cannot find the model 'models:/known/99'" in refusal(serve, "models:/known/99", env=env)


def test_a_model_of_no_mlflow_is_refused_and_leaves_no_database_behind(
    serve: Callable[..., Server], tmp_path: pathlib.Path
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    log = refusal(serve, "models:/nope/1", env={"MLFLOW_TRACKING_URI": "", "MLFLOW_REGISTRY_URI": ""}, cwd=here)
    assert "set MLFLOW_TRACKING_URI" in log
    assert list(here.iterdir()) == []


def test_a_port_in_use_is_refused_before_anything_is_loaded(store: Store, serve: Callable[..., Server]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen(1)
        log = refusal(serve, store.path("lr"), "--port", str(taken.getsockname()[1]))
    assert "cannot listen on 127.0.0.1" in log
    assert "Address already in use" in log


@pytest.mark.parametrize(("flag", "value"), [("--threads", "0"), ("--timeout", "-1"), ("--port", "70000")])
def test_a_flag_out_of_range_is_bad_usage(flag: str, value: str) -> None:
    command = [sys.executable, "-m", "controller.serving", "models:/a/1", flag, value]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30.0, check=False)
    assert done.returncode == 2
    assert flag in done.stderr


def test_the_command_line_does_not_import_mlflow() -> None:
    code = "import sys, controller.serving.command, controller.serving.supervisor; print('mlflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
