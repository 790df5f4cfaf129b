"""Models that misbehave on demand, for the tests of `understudy serve`."""

from __future__ import annotations

import os
import pathlib
import time
from typing import Any

import numpy as np
import pandas as pd
from mlflow.pyfunc import PythonModel


class Acting(PythonModel):  # type: ignore[misc]
    """Does what the column `act` of its first row says."""

    def predict(self, context: Any, model_input, params: dict[str, Any] | None = None) -> Any:
        act, x = str(model_input["act"].iloc[0]), model_input["x"].to_numpy()
        if act == "raise":
            raise ZeroDivisionError("secret detail of the model")
        if act == "sleep":
            time.sleep(float(x[0]))
        if act == "exit":
            os._exit(7)
        answers: dict[str, Any] = {
            "nan": np.where(x > -1e300, np.nan, x),
            "inf": [float("inf")] * len(x),
            "nested-nan": [{"score": float("nan")} for _ in x],
            "frame-nan": pd.DataFrame({"score": x * np.nan}),
            "extra-row": np.append(x, 0.0),
            "no-rows": [],
            "unserialisable": [object() for _ in x],
            "nat": [pd.NaT for _ in x],
            "big": ["y" * 200_000 for _ in x],
            "pid": [os.getpid() for _ in x],
            "scalar": 1.0,
        }
        return answers.get(act, x)


class Showing(PythonModel):  # type: ignore[misc]
    """Answers with what it was given: values, their types, column types, index."""

    def predict(self, context: Any, model_input, params: dict[str, Any] | None = None) -> list[str]:
        if isinstance(model_input, pd.DataFrame):
            types = [(str(name), str(dtype)) for name, dtype in model_input.dtypes.items()]
            rows = model_input.astype(object).itertuples(index=True)
            return [f"{tuple(map(repr, row))} {types} {params}" for row in rows]
        if isinstance(model_input, dict):
            keys = sorted(model_input)
            rows = zip(*(model_input[key] for key in keys), strict=True)
            return [f"{row!r} {[model_input[key].dtype for key in keys]}" for row in rows]
        return [f"{row!r} {model_input.dtype}" for row in model_input]


class Failing(PythonModel):  # type: ignore[misc]
    """Fails on everything, its own example included; or on everything after a file appears."""

    def __init__(self, switch: str | None = None) -> None:
        self.switch = switch

    def predict(self, context: Any, model_input) -> Any:
        if self.switch is None or pathlib.Path(self.switch).exists():
            raise RuntimeError(f"cannot open {__file__}")
        return model_input["x"].to_numpy()
