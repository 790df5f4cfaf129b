"""The base of everything a user writes."""

from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

M = TypeVar("M", bound=BaseModel)
NAME_PATTERN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
Name = Annotated[str, Field(min_length=1, max_length=63, pattern=NAME_PATTERN)]


class Declared(BaseModel):
    """Base of everything a user writes: immutable, camelCase, and an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)


def exactly_one(model: M, *fields: str) -> M:
    """Return ``model``; ValueError unless exactly one of ``fields`` is set."""
    given = [f for f in fields if getattr(model, f) is not None]
    if len(given) != 1:
        names = [f.removesuffix("_pointer") for f in fields]
        raise ValueError(f"exactly one of {', '.join(names)} is needed, got {', '.join(given) or 'none'}")
    return model
