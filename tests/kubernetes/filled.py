"""An instance of a pydantic model in which every field differs from its default, made from the annotations alone."""

import itertools
import types
from collections.abc import Iterator
from enum import Enum
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from router.table import Probe, Source, Target, Token

# A model that takes one field of several, and one whose texts are addresses.
WRITTEN: dict[type[BaseModel], BaseModel] = {
    Source: Source(feature="a_column"),
    Target: Target(
        version="/v1",
        upstreams=("a_server:1", "another:2"),
        probe=Probe(path="/path", body="{}", content_type="text/plain"),
    ),
}
TEXT = "/v"  # also where a path is asked for


def filled(model: type[BaseModel]) -> Any:
    """ValueError where an annotation is met that this does not know."""
    return _model(model, itertools.count(3))


def _model(model: type[BaseModel], numbers: Iterator[int]) -> Any:
    if model in WRITTEN:
        return WRITTEN[model]
    return model(**{n: _value(f.annotation, f.default, numbers) for n, f in model.model_fields.items()})


def _value(annotation: Any, default: Any, numbers: Iterator[int]) -> Any:
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return _value(next(each for each in inner if each is not type(None)), default, numbers)
    if origin is Literal:
        return next(each for each in reversed(inner) if each != default)
    if origin is tuple:
        items = inner[:1] * 2 if inner[-1] is Ellipsis else inner
        return tuple(_value(item, None, numbers) for item in items)
    if origin is dict:
        return {"one": _value(inner[1], None, numbers), "two": _value(inner[1], None, numbers)}
    if annotation == Token:
        return f"x-{next(numbers)}"
    if hasattr(annotation, "__metadata__"):
        return _value(inner[0], default, numbers)
    if issubclass(annotation, BaseModel):
        return _model(annotation, numbers)
    if issubclass(annotation, Enum):
        return next(each for each in reversed(annotation) if each != default)
    return _scalar(annotation, default, numbers)


def _scalar(annotation: Any, default: Any, numbers: Iterator[int]) -> Any:
    if annotation is bool:
        return not default
    made = {int: lambda: next(numbers), float: lambda: next(numbers) + 0.125, str: lambda: f"{TEXT}{next(numbers)}"}
    if annotation not in made:
        raise ValueError(f"cannot fill {annotation}")
    return made[annotation]()
