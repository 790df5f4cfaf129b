"""A model whose predict is typed: MLflow hands it the elements themselves, and no DataFrame.

No `from __future__ import annotations` here: MLflow reads the types from the function.
"""

import pydantic
from mlflow.pyfunc import PythonModel


class Flight(pydantic.BaseModel):
    delay: float
    carrier: str
    stops: list[int] = []

    @pydantic.field_validator("carrier")
    @classmethod
    def known(cls, value: str) -> str:
        if len(value) != 2:
            raise ValueError("a carrier has two letters")
        return value


class Typed(PythonModel):  # type: ignore[misc]
    def predict(self, model_input: list[Flight]) -> list[float]:
        if model_input[0].delay < 0:
            raise ValueError("secret detail of the model")
        return [flight.delay + len(flight.stops) for flight in model_input]
