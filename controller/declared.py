"""The base of everything a user writes."""

from typing import Annotated, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

M = TypeVar("M", bound=BaseModel)
NAME_PATTERN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
TEXT_PATTERN = r"^[^\x00-\x1f\x7f]+$"
TOKEN_PATTERN = r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$"
POINTER_PATTERN = r"^(/([^~/\x00-\x1f\x7f]|~[01])*)+$"
Name = Annotated[str, Field(min_length=1, max_length=63, pattern=NAME_PATTERN)]
# A text that ends up in a request, a log or a query: without control characters.
Text = Annotated[str, Field(pattern=TEXT_PATTERN)]
# The name of a header or a cookie (RFC 9110, section 5.6.2).
Token = Annotated[str, Field(max_length=128, pattern=TOKEN_PATTERN)]
# A JSON pointer into a body (RFC 6901) that points below its root.
Pointer = Annotated[str, Field(max_length=512, pattern=POINTER_PATTERN)]
# What the patterns ask for, to people.
PATTERNS = {
    NAME_PATTERN: "lower-case letters, digits and -, with a letter or digit at both ends, such as click-rate",
    TEXT_PATTERN: "a text without control characters such as line breaks",
    TOKEN_PATTERN: "letters, digits and !#$%&'*+-.^_`|~, such as x-unit-id",
    POINTER_PATTERN: "a JSON pointer, which starts with /, such as /user/id or /predictions/0",
}


class Declared(BaseModel):
    """Base of everything a user writes: immutable, camelCase, and an unknown field is an error."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True, allow_inf_nan=False
    )


class Fault(NamedTuple):
    """Where something is wrong (from the model that was checked downwards, with dots; digits are a place in a list),
    and what."""

    where: str
    text: str


class Faults(ValueError):
    """Several faults of one model at once."""

    def __init__(self, *faults: Fault) -> None:
        self.faults = faults
        super().__init__("; ".join(f"{where}: {text}" for where, text in faults))


def refuse(faults: list[Fault]) -> None:
    """Faults where there is one."""
    if faults:
        raise Faults(*faults)


def exactly_one(model: M, *fields: str) -> M:
    """Return ``model``; ValueError unless exactly one of ``fields`` is set."""
    given = [f for f in fields if getattr(model, f) is not None]
    if len(given) != 1:
        names, found = ([f.removesuffix("_pointer") for f in some] for some in (fields, given))
        raise ValueError(f"exactly one of {', '.join(names)} is needed, got {' and '.join(found) or 'none'}")
    return model
