"""`/health` scores the model's own example; `/ping` and `/version` only say what they can."""

from __future__ import annotations

import json
import pathlib
import time
from collections.abc import Callable

import pandas as pd
from mlflow.models import infer_signature

from tests.serving.conftest import Server, Store, secret_in, until


def test_a_healthy_model_says_that_its_example_was_scored(lr: Server) -> None:
    answer = lr.get("/health")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok", "example": "scored"})


def test_version_and_headers_name_the_model(lr: Server) -> None:
    version = lr.get("/version")
    document = version.json()
    assert (document["model_name"], document["model_version"]) == ("flights", "7")
    assert document["mlflow_version"].startswith("3.")
    assert (version.headers["x-model-name"], version.headers["x-model-version"]) == ("flights", "7")


def test_a_model_that_fails_on_its_example_is_unhealthy_but_alive(store: Store, serve: Callable[..., Server]) -> None:
    server = serve(store.path("failing"))
    answer = server.get("/health")
    assert answer.status_code == 503
    assert answer.json()["reason"] == "the model's own example: the model failed on this request"
    assert secret_in(answer.text) is None
    assert server.get("/ping").status_code == 200
    assert "warning: the model does not answer its own example" in server.log


def test_health_follows_the_model_and_is_scored_at_most_once_a_second(
    store: Store, serve: Callable[..., Server], tmp_path: pathlib.Path
) -> None:
    switch = tmp_path / "fail"
    server = serve(store.save_acting("switched", store.acting.Failing(str(switch))))
    assert server.get("/health").status_code == 200
    began = time.monotonic()
    switch.touch()
    until(lambda: server.get("/health").status_code == 503, seconds=10.0, what="failing health")
    codes = [server.get("/health").status_code for _ in range(50)]
    assert set(codes) == {503}
    # Every scoring of a failing example is logged: one a second, and two that were under way at the ends.
    assert server.log.count("request health: the model failed") <= time.monotonic() - began + 2
    switch.unlink()
    until(lambda: server.get("/health").status_code == 200, seconds=10.0, what="good health")


def test_without_an_example_health_says_that_it_is_missing(store: Store, serve: Callable[..., Server]) -> None:
    signature = infer_signature(pd.DataFrame({"act": ["go"], "x": [0.5]}))
    path = store.save_pyfunc("no-example", store.acting.Acting(), signature=signature)
    answer = serve(path).get("/health")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok", "example": "missing"})


def test_metrics_count_answers_by_status(lr: Server) -> None:
    def count(status: int) -> int:
        lines = lr.get("/metrics").text.splitlines()
        found = [line for line in lines if line.startswith(f'understudy_serve_requests_total{{status="{status}"}}')]
        return int(found[0].split()[-1]) if found else 0

    before = count(200), count(400)
    good = {"inputs": dict.fromkeys(("x0", "x1", "x2", "x3"), 1.0)}
    for body in (good, good, {"inputs": {}}):
        lr.post(body)
    assert (count(200), count(400)) == (before[0] + 2, before[1] + 1)


def test_the_example_of_an_older_model_is_made_from_its_input_example(store: Store) -> None:
    from controller.serving.model import load_model
    from controller.serving.settings import ModelSource, ServeSettings

    path = pathlib.Path(store.save_acting("older", store.acting.Acting()))
    (path / "serving_input_example.json").unlink()
    model = load_model(ServeSettings(model_uri=str(path)), ModelSource(str(path)))
    assert model.example is not None
    assert json.loads(model.scorer.score(model.example)) == {"predictions": [0.5]}
