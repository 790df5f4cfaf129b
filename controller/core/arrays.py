"""Numbers or numpy arrays in, the same out: what the formulae of the core share."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
T = TypeVar("T", float, FloatArray)


def as_array(value: npt.ArrayLike) -> FloatArray:
    """Doubles of any shape."""
    return np.asarray(value, dtype=np.float64)


def plain(value: FloatArray) -> Any:
    """A number where numbers came in."""
    return value.item() if value.ndim == 0 else value


def require(name: str, allowed: str, good: npt.ArrayLike | bool) -> None:
    """ValueError that names the argument and what is allowed, unless all of `good` holds."""
    if not (good if isinstance(good, bool) else np.all(good)):
        raise ValueError(f"{name} must be {allowed}")


def log_mean_exp(values: npt.ArrayLike, axis: int = -1) -> float | FloatArray:
    """log(mean(exp(values))) along `axis`, without overflow: the mean of e-values for one null is an e-value.

    A number for one-dimensional `values`, else an array without that axis.
    """
    logs = as_array(values)
    require("values", "at least one number", logs.ndim > 0 and logs.shape[axis] > 0)
    top = np.max(logs, axis=axis, keepdims=True)
    shift = np.where(np.isfinite(top), top, 0.0)
    with np.errstate(divide="ignore", over="ignore"):
        mean = np.log(np.mean(np.exp(logs - shift), axis=axis, keepdims=True))
    result: float | FloatArray = plain(np.squeeze(mean + shift, axis=axis))
    return result
