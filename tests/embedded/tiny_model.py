"""A model that answers at once: x in, a probability out. MLflow serves a copy of this file: it imports nothing of ours.

Configuration: ``shift`` is added to the answer; ``crash_share`` of the rows, by their x, raise.
"""

from typing import Any

import mlflow.models
import numpy as np
import pandas as pd
from mlflow.pyfunc.model import PythonModel


class TinyModel(PythonModel):
    """0.2 where x is below one half, 0.8 above, plus the shift."""

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> Any:
        configuration = context.model_config or {}
        x = model_input["x"].to_numpy(dtype=np.float64)
        # The example, 0.25, is answered by every version.
        if ((x * 1000 + 0.99) % 1 < float(configuration.get("crash_share", 0))).any():
            raise RuntimeError("crashes on purpose")
        return np.where(x < 0.5, 0.2, 0.8) + float(configuration.get("shift", 0.0))


mlflow.models.set_model(TinyModel())
