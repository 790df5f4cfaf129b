"""A model with a type hint gets its elements without a DataFrame, checked as strictly as columns are."""

from __future__ import annotations

import json
from typing import Any

import cloudpickle
import pytest

from controller.serving.faults import Fault
from controller.serving.model import LoadedModel, load_model
from controller.serving.settings import ModelSource, ServeSettings
from tests.serving import hinted
from tests.serving.conftest import Store

GOOD = {"delay": 1.5, "carrier": "UA", "stops": [1, 2]}


@pytest.fixture(scope="module")
def model(store: Store) -> LoadedModel:
    cloudpickle.register_pickle_by_value(hinted)
    path = store.save_pyfunc("hinted", hinted.Typed(), input_example=[GOOD])
    return load_model(ServeSettings(model_uri=path), ModelSource(path))


def score(model: LoadedModel, body: Any) -> Any:
    return json.loads(model.scorer.score(json.dumps(body).encode()))


def test_elements_reach_the_model_and_its_defaults_apply(model: LoadedModel) -> None:
    assert model.path_taken == "elements"
    assert model.example is not None
    assert json.loads(model.scorer.score(model.example)) == {"predictions": [3.5]}
    body = {"inputs": [GOOD, {"delay": 2, "carrier": "AA"}]}
    assert score(model, body) == {"predictions": [3.5, 2.0]}


@pytest.mark.parametrize(
    ("element", "part"),
    [
        (GOOD | {"delay": "1.5"}, "inputs[0].delay got the string '1.5'; allowed: a finite JSON number"),
        (GOOD | {"delay": True}, "inputs[0].delay got the boolean true"),
        (GOOD | {"stops": [1, 2.5]}, "inputs[0].stops[1] got the number 2.5"),
        (GOOD | {"more": 1}, "inputs[0] has the unknown property 'more'"),
        ({"delay": 1.0}, "carrier"),
        (GOOD | {"carrier": "United"}, "a carrier has two letters"),
        (5, "inputs[0] got the number 5"),
    ],
)
def test_a_wrong_element_is_the_clients_fault(model: LoadedModel, element: Any, part: str) -> None:
    with pytest.raises(Fault) as caught:
        score(model, {"inputs": [element]})
    assert caught.value.status == 400
    assert part in caught.value.message


def test_other_formats_are_refused_and_a_raising_model_is_the_models_fault(model: LoadedModel) -> None:
    with pytest.raises(Fault, match="allowed: inputs with a list"):
        score(model, {"dataframe_records": [GOOD]})
    with pytest.raises(Fault, match="the model failed on this request") as caught:
        score(model, {"inputs": [GOOD | {"delay": -1.0}]})
    assert caught.value.status == 500
