"""The demo's model as MLflow serves it: this file and one JSON artefact, nothing else.

MLflow copies the file into the model and executes the copy where it is served ("models from code"), so it must
not import anything of this project, and serving needs neither scikit-learn nor a pickle.

The artefact ``weights`` is a logistic regression in the units of the request:
``{"intercept": float, "slopes": {number: float}, "tables": {name: {value: float}}}``. A value that was not
seen in training adds nothing. The model's configuration may break it on purpose:

- ``delay_factor`` (1): what the departure delay is multiplied by first; 60 is a caller that sends seconds.
- ``crash_share`` (0): the share of flights, picked by a hash of their features, for which ``predict`` raises.
"""

import json
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import mlflow.models
import numpy as np
import pandas as pd
from mlflow.pyfunc.model import PythonModel

_HASHES = 1 << 32


def probabilities(weights: Mapping[str, Any], columns: Mapping[str, Sequence[Any]]) -> Iterator[float]:
    """The probability of a late arrival for each row of these columns of equal length."""
    intercept: float = weights["intercept"]
    slopes = list(weights["slopes"].values())
    tables = list(weights["tables"].values())
    numbers = zip(*(columns[name] for name in weights["slopes"]), strict=True)
    names = zip(*(columns[name] for name in weights["tables"]), strict=True)
    for values, keys in zip(numbers, names, strict=True):
        score = intercept
        for slope, value in zip(slopes, values, strict=True):
            score += slope * value
        for table, key in zip(tables, keys, strict=True):
            score += table.get(str(key), 0.0)
        yield 0.5 + 0.5 * math.tanh(0.5 * score)  # the logistic function, in a form that cannot overflow


class FlightModel(PythonModel):
    """A request's rows in, one probability of a late arrival per row out."""

    def load_context(self, context: Any) -> None:
        """Read the weights and the faults, once per process."""
        configuration = context.model_config or {}
        self._weights = json.loads(Path(context.artifacts["weights"]).read_text(encoding="utf-8"))
        self._delay_factor = float(configuration.get("delay_factor", 1))
        self._crash_below = float(configuration.get("crash_share", 0)) * _HASHES

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> Any:
        """Probabilities (float64, shape ``(rows,)``) for a data frame with the columns of the signature."""
        columns = {name: model_input[name].tolist() for name in _inputs(self._weights)}
        if self._crash_below:
            self._crash(columns)
        columns["dep_delay"] = [self._delay_factor * delay for delay in columns["dep_delay"]]
        return np.fromiter(probabilities(self._weights, columns), dtype=np.float64, count=len(model_input))

    def _crash(self, columns: Mapping[str, Sequence[Any]]) -> None:
        for row in zip(*columns.values(), strict=True):
            if zlib.crc32("|".join(map(str, row)).encode()) < self._crash_below:
                raise RuntimeError("this version crashes on some flights, on purpose")


def _inputs(weights: Mapping[str, Any]) -> tuple[str, ...]:
    return (*weights["slopes"], *weights["tables"])


mlflow.models.set_model(FlightModel())
