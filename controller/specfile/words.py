"""What is wrong, in words: a line for each fault, with its path and what is allowed there."""

import difflib
import re
import types
import typing
from collections.abc import Iterator
from enum import Enum
from typing import Any

from pydantic import BaseModel

from controller.declared import Faults
from controller.sections import PATTERNS
from controller.spec import ModelRollout

Loc = tuple[str | int, ...]

_NEEDED = {
    "missing": "is missing",
    "bool_type": "true or false is needed",
    "int_type": "a whole number is needed, such as 10",
    "int_from_float": "a whole number is needed, such as 10",
    "int_parsing": "a whole number is needed, such as 10",
    "float_type": "a number is needed, such as 0.5",
    "float_parsing": "a number is needed, such as 0.5",
    "finite_number": "a finite number is needed",
    "string_type": "a text is needed",
    "tuple_type": "a list is needed",
    "list_type": "a list is needed",
    "dict_type": "a mapping is needed",
    "model_type": "a mapping is needed",
    "model_attributes_type": "a mapping is needed",
}
_BOUNDS = {
    "greater_than": ("gt", "above"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "below"),
    "less_than_equal": ("le", "at most"),
}


def place(loc: Loc, tree: Any = None) -> str:
    """``spec.metrics[0].margin``; where ``tree`` has a name for the item: ``spec.metrics[0].margin (ctr)``."""
    said, name = "", ""
    for i, part in enumerate(loc):
        said += (
            f"[{part}]" if isinstance(part, int) else f".{shown(part, bare=True)}" if said else shown(part, bare=True)
        )
        tree = _below(tree, part)
        named = tree.get("name") if isinstance(tree, dict) else None
        if isinstance(part, int) and isinstance(named, str) and loc[i + 1 :] != ("name",):
            name = f" ({shown(named, bare=True)})"
    return said + name


def _below(tree: Any, part: str | int) -> Any:
    if isinstance(tree, dict):
        return tree.get(part)
    return tree[part] if isinstance(tree, list) and isinstance(part, int) and part < len(tree) else None


def shown(value: Any, *, bare: bool = False) -> str:
    """A value as it was written, on one line and short."""
    match value:
        case None:
            return "nothing"
        case bool():
            return str(value).lower()
        case dict():
            return "a mapping"
        case list():
            return "a list"
    text = repr(value) if isinstance(value, str) else str(value)
    if bare and text[1:-1] == value:
        text = text[1:-1]
    return text if len(text) <= 64 else f"{text[:48]}… ({len(text)} characters)"


def lines(error: Any, tree: Any) -> Iterator[str]:
    """The lines of one of pydantic's errors about ``tree``."""
    loc = tuple(part for part in error["loc"] if not str(part).startswith("function-"))
    raised = error.get("ctx", {}).get("error")
    if isinstance(raised, Faults):
        for where, text in raised.faults:
            inner = tuple(int(part) if part.isdigit() else part for part in where.split("."))
            yield f"{place((*loc, *inner), tree)}: {text}"
        return
    yield f"{place(loc, tree) or 'rollout'}: {_text(error, loc)}"


def _text(error: Any, loc: Loc) -> str:
    kind, value, ctx = error["type"], error["input"], error.get("ctx", {})
    if kind == "extra_forbidden":
        return _unknown(str(loc[-1]), loc[:-1])
    if kind == "value_error":
        return str(ctx["error"])
    if kind == "missing":
        return f"is missing{_meaning(loc)}"
    if kind in _NEEDED:
        return f"{_NEEDED[kind]}, got {shown(value)}{_quote(kind, value)}"
    if kind in _BOUNDS:
        return f"{shown(value)} is out of range; allowed is a number {_range(loc, kind, ctx)}"
    if kind in ("enum", "literal_error"):
        return _one_of(value, loc)
    if kind == "string_pattern_mismatch":
        return f"{shown(value)} is not allowed; allowed: {PATTERNS[ctx['pattern']]}"
    if kind in ("string_too_long", "too_long"):
        what = "characters" if kind == "string_too_long" else "items"
        return f"has {len(value)} {what}; allowed are at most {ctx['max_length']}"
    if kind in ("string_too_short", "too_short"):
        return "must not be empty"
    return f"{shown(value)} is not allowed here"


def _quote(kind: str, value: Any) -> str:
    scalar = isinstance(value, int | float)
    return f"; write it in quotes: '{shown(value)}'" if kind == "string_type" and scalar else ""


def _range(loc: Loc, kind: str, ctx: Any) -> str:
    """Both bounds of the field, so that nobody has to try twice."""
    said = []
    for bound in _metadata(loc):
        said += [f"{words} {getattr(bound, name):g}" for name, words in _BOUNDS.values() if hasattr(bound, name)]
    name, words = _BOUNDS[kind]
    return " and ".join(said) or f"{words} {ctx[name]}"


def _one_of(value: Any, loc: Loc) -> str:
    choices = _choices(loc)
    near = _near(value, choices) if isinstance(value, str) else ""
    return f"{shown(value)} is unknown{near}{'' if near else ';'} allowed: {', '.join(choices)}"


def _unknown(name: str, loc: Loc) -> str:
    """An unknown field: what it may have meant, what is known here, and where else it is known."""
    model = _model(loc)
    if model is None:
        return "unknown field"
    known = [str(field.alias or key) for key, field in model.model_fields.items()]
    near = _near(name, known)
    if not near and loc == ("metadata",):
        spec = _model(("spec",))
        if spec is not None and name in [f.alias for f in spec.model_fields.values()]:
            near = "; it belongs under spec"
    return f"unknown field{near}{'' if near.endswith('?') else ';'} known here: {', '.join(known)}"


def _near(name: str, known: list[str]) -> str:
    lower = {k.lower(): k for k in known}
    plain = re.sub(r"[_\- ]", "", name).lower()[:64]
    found = [lower[plain]] if plain in lower else [lower[k] for k in difflib.get_close_matches(plain, lower, 1, 0.6)]
    return f"; did you mean {found[0]}?" if found else ""


def _meaning(loc: Loc) -> str:
    choices = _choices(loc)
    if choices:
        return f"; one of {', '.join(choices)}"
    field = _field(loc)
    return f"; {field.description}" if field is not None and field.description else ""


def _choices(loc: Loc) -> list[str]:
    held = _held(_annotation(loc))
    if isinstance(held, type) and issubclass(held, Enum):
        return [str(member.value) for member in held]
    return [str(value) for value in typing.get_args(held)] if typing.get_origin(held) is typing.Literal else []


def _metadata(loc: Loc) -> list[Any]:
    field = _field(loc)
    return list(field.metadata) if field is not None else []


def _field(loc: Loc) -> Any:
    model = _model(loc[:-1]) if loc else None
    if model is None:
        return None
    return next((f for key, f in model.model_fields.items() if (f.alias or key) == loc[-1]), None)


def _annotation(loc: Loc) -> Any:
    if not loc:
        return ModelRollout
    if isinstance(loc[-1], int):
        inner = typing.get_args(_held(_annotation(loc[:-1])))
        return inner[0] if inner else None
    field = _field(loc)
    return None if field is None else field.annotation


def _model(loc: Loc) -> type[BaseModel] | None:
    held = _held(_annotation(loc))
    return held if isinstance(held, type) and issubclass(held, BaseModel) else None


def _held(annotation: Any) -> Any:
    """An annotation without its constraints, and without None beside it."""
    while True:
        if typing.get_origin(annotation) is typing.Annotated:
            annotation = typing.get_args(annotation)[0]
        elif typing.get_origin(annotation) in (typing.Union, types.UnionType):
            annotation = next(a for a in typing.get_args(annotation) if a is not type(None))
        else:
            return annotation
