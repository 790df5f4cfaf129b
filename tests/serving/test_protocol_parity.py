"""Where MLflow's own scoring server is right, the answers are the same.

Numbers of a model that multiplies matrices are compared to 1e-12: twice the same rows have been seen to differ in the
last bit.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.models import infer_signature
from mlflow.pyfunc import scoring_server

from controller.serving.model import LoadedModel, load_model
from controller.serving.settings import ModelSource, ServeSettings
from tests.serving.conftest import COLUMNS, Store


def ours(path: str, **settings: Any) -> LoadedModel:
    return load_model(ServeSettings(model_uri=path, **settings), ModelSource(path))


def theirs(path: str) -> Callable[[Any], Any]:
    """What MLflow's own `/invocations` route answers; the route only calls this function in a thread."""
    model = mlflow.pyfunc.load_model(path)

    def score(body: Any) -> Any:
        schema = model.metadata.get_input_schema()
        answer = scoring_server.invocations(json.dumps(body).encode(), "application/json", model, schema)
        assert answer.status == 200, answer.response[:500]
        return json.loads(answer.response)

    return score


def split(frame: pd.DataFrame) -> dict[str, Any]:
    return {"dataframe_split": {"columns": list(frame.columns), "data": frame.to_numpy().tolist()}}


def column_bodies(frame: pd.DataFrame) -> list[dict[str, Any]]:
    records = frame.to_dict(orient="records")
    return [
        split(frame),
        split(frame[list(reversed(frame.columns))]),
        {"dataframe_records": records},
        {"inputs": records},
        {"inputs": frame.to_dict(orient="list")},
        {"instances": records},
        {"instances": frame.to_dict(orient="list")},
    ]


def close(answer: Any, expected: Any) -> None:
    assert answer.keys() == expected.keys() == {"predictions"}
    np.testing.assert_allclose(answer["predictions"], expected["predictions"], rtol=1e-12, atol=0)


def test_a_logistic_regression_gives_the_same_probabilities_as_mlflows_server_in_every_format(
    store: Store,
) -> None:
    model, reference = ours(store.path("lr")), theirs(store.path("lr"))
    assert model.path_taken == "array"
    random = np.random.default_rng(3)
    for rows in (1, 2, 7, 64):
        frame = pd.DataFrame(random.normal(scale=3.0, size=(rows, 4)), columns=COLUMNS)
        for body in column_bodies(frame):
            close(json.loads(model.scorer.score(json.dumps(body).encode())), reference(body))
    assert np.shape(reference(column_bodies(frame)[0])["predictions"]) == (64, 2)


def test_whole_numbers_and_one_row_of_scalars_are_read_as_mlflow_reads_them(store: Store) -> None:
    model, reference = ours(store.path("lr")), theirs(store.path("lr"))
    for body in (
        {"inputs": {"x0": 0.25, "x1": 1.5, "x2": -1.0, "x3": 0.0}},
        {"inputs": dict.fromkeys(COLUMNS, 1)},
    ):
        close(json.loads(model.scorer.score(json.dumps(body).encode())), reference(body))


def test_tensor_models_get_the_same_arrays_as_from_mlflows_server(store: Store) -> None:
    model, reference = ours(store.path("tensor")), theirs(store.path("tensor"))
    rows = np.random.default_rng(4).normal(size=(5, 4)).tolist()
    for body in (
        {"inputs": rows},
        {"instances": rows},
        {"dataframe_split": {"columns": COLUMNS, "data": rows}},
    ):
        close(json.loads(model.scorer.score(json.dumps(body).encode())), reference(body))


@pytest.fixture(scope="module")
def typed(store: Store) -> str:
    frame = pd.DataFrame(
        {
            "d": [1.5, 2.5],
            "f": np.array([0.1, 0.2], dtype=np.float32),
            "i": np.array([1, 2], dtype=np.int32),
            "l": [2**40, 3],
            "b": [True, False],
            "s": ["a", "é"],
            "t": pd.to_datetime(["2026-01-02T03:04:05", "2026-01-02T00:00:00"]),
            "o": [1.0, None],
            "p": ["x", None],
        }
    )
    signature = infer_signature(frame, params={"top": 3, "share": 0.5})
    return store.save_pyfunc("typed", store.acting.Showing(), signature=signature)


def typed_bodies() -> list[dict[str, Any]]:
    row = {
        "d": 1,
        "f": 0.1,
        "i": 5,
        "l": 2**40,
        "b": True,
        "s": "é",
        "t": "2026-01-02T03:04:05",
        "o": 1.5,
        "p": "x",
    }
    second = row | {"d": -2.25, "b": False, "t": "2026-03-04T00:00:00", "o": None, "p": None}
    short = {key: value for key, value in row.items() if key not in ("o", "p")}
    names = list(row)
    table = {"columns": names, "data": [[r[name] for name in names] for r in (row, second)]}
    return [
        {"dataframe_records": [row]},
        {"dataframe_records": [short]},
        {"dataframe_records": [row, second], "params": {"top": 5}},
        {"dataframe_split": table},
        {"dataframe_split": table | {"index": [10, 20]}},
        {"dataframe_records": [short, short], "params": {"share": 1}},
    ]


@pytest.mark.parametrize("number", range(len(typed_bodies())))
def test_a_pyfunc_model_sees_the_same_frame_types_and_params_as_behind_mlflows_server(typed: str, number: int) -> None:
    body = typed_bodies()[number]
    model = ours(typed)
    assert model.path_taken == "frame"
    answer = json.loads(model.scorer.score(json.dumps(body).encode()))
    assert answer == theirs(typed)(body)


def test_named_tensors_arrive_as_the_same_arrays(store: Store) -> None:
    signature = infer_signature({"p": np.zeros((2, 3)), "q": np.zeros(2, dtype=np.int64)})
    path = store.save_pyfunc("named", store.acting.Showing(), signature=signature)
    for body in (
        {"inputs": {"p": [[1, 2.5, 3]], "q": [4]}},
        {"instances": [{"p": [1.0, 2.0, 3.0], "q": 4}, {"p": [0.0, 0.0, 1.0], "q": 5}]},
    ):
        assert json.loads(ours(path).scorer.score(json.dumps(body).encode())) == theirs(path)(body)


def test_nested_columns_are_read_like_mlflow_and_checked_inside(store: Store) -> None:
    frame = pd.DataFrame({"who": [{"age": 1, "name": "a"}], "past": [[1.0, 2.0]]})
    path = store.save_pyfunc("nested", store.acting.Showing(), signature=infer_signature(frame))
    model, body = ours(path), {"inputs": [{"who": {"age": 3, "name": "b"}, "past": [0.5]}]}
    assert model.path_taken == "enforced"
    assert json.loads(model.scorer.score(json.dumps(body).encode())) == theirs(path)(body)
    with pytest.raises(Exception, match=r"who.*age.*the string '3'; allowed: a whole JSON number"):
        model.scorer.score(b'{"inputs": [{"who": {"age": "3", "name": "b"}, "past": [0.5]}]}')


def test_predict_fn_overrides_the_logged_function(store: Store) -> None:
    body = json.dumps(split(store.features[:3])).encode()
    labels = json.loads(ours(store.path("lr"), predict_fn="predict").scorer.score(body))["predictions"]
    assert labels == store.model.predict(store.features[:3]).tolist()
