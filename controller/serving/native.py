"""When a DataFrame is a detour: scikit-learn models that turn it into a plain array anyway.

scikit-learn's own estimators convert a numeric DataFrame to an array as their first step, which costs several times
the prediction itself for one row. Where that is known to be all they do with it, the array is given to them at once.
"""

from __future__ import annotations

import warnings
from typing import Any

# Estimators of scikit-learn that treat a DataFrame as columns with names or types, not as a matrix.
_BY_NAME = {"ColumnTransformer", "FunctionTransformer", "OneHotEncoder", "OrdinalEncoder", "TargetEncoder"}
# Only modules whose estimators validate their input to one matrix.
_MODULES = (
    "sklearn.linear_model",
    "sklearn.preprocessing",
    "sklearn.ensemble",
    "sklearn.tree",
    "sklearn.svm",
    "sklearn.naive_bayes",
    "sklearn.neighbors",
    "sklearn.neural_network",
    "sklearn.discriminant_analysis",
    "sklearn.decomposition",
    "sklearn.impute",
    "sklearn.cluster",
)
_NUMERIC = ("integer", "long", "float", "double")


def native_predict(model: Any, direct: Any, predict_fn: str) -> Any | None:
    """`direct` for arrays, when it is known to be safe for this model; else None.

    Safe means: a scikit-learn model of its own estimators only, fitted on exactly the signature's columns in the
    signature's order, all of them numeric and required.
    """
    if model.loader_module != "mlflow.sklearn" or predict_fn not in (
        "predict",
        "predict_proba",
        "predict_log_proba",
    ):
        return None
    columns = model.metadata.get_input_schema().to_dict()
    if not all(column["type"] in _NUMERIC and column.get("required", True) for column in columns):
        return None
    estimator = model.get_raw_model()
    names = getattr(estimator, "feature_names_in_", None)
    if names is None or list(names) != [column.get("name") for column in columns]:
        return None
    if not all(_takes_matrix(step) for step in _steps(estimator)):
        return None
    # The estimator knows column names and the array has none; the order was compared above.
    warnings.filterwarnings("ignore", message="X does not have valid feature names", category=UserWarning)
    return direct


def _steps(estimator: Any) -> list[Any]:
    if type(estimator).__module__ == "sklearn.pipeline" and type(estimator).__name__ == "Pipeline":
        return [inner for _, step in estimator.steps if step != "passthrough" for inner in _steps(step)]
    return [estimator]


def _takes_matrix(step: Any) -> bool:
    kind = type(step)
    own = any(kind.__module__ == module or kind.__module__.startswith(module + ".") for module in _MODULES)
    composed = any(hasattr(step, name) for name in ("estimators", "estimator", "_sklearn_output_config"))
    return own and kind.__name__ not in _BY_NAME and not composed
