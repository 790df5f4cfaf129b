"""Derive a recorded decision again: the inputs of a record back into the values they were, and ``evolve`` once more."""

import json
import types
from collections.abc import Mapping
from typing import Any, NamedTuple, Union, get_args, get_origin, get_type_hints

from controller.core.evolve import Transition, evolve
from controller.core.fold import Statistics
from controller.core.record import Record, digest
from controller.spec import RolloutSpec
from controller.status import RolloutStatus


class Inputs(NamedTuple):
    """What ``evolve`` was called with."""

    spec: RolloutSpec
    status: RolloutStatus
    statistics: Statistics
    now: int


class Difference(NamedTuple):
    """A record that does not derive again: its key, the fields that differ, and the digests recorded and found."""

    key: str
    fields: tuple[str, ...]
    recorded: str
    found: str


def inputs(record: Record) -> Inputs:
    """The arguments in ``record``. ValueError where its text is not what a record holds."""
    try:
        tree = json.loads(record.inputs)
        return Inputs(
            RolloutSpec.model_validate(tree["spec"]),
            RolloutStatus.model_validate(tree["status"]),
            _build(Statistics, tree["statistics"]),
            int(tree["now"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError(f"record {record.key}: its inputs are not what a record holds: {error}") from error


def derive(record: Record) -> Transition:
    """The transition that the record's inputs lead to."""
    return evolve(*inputs(record))


def differs(record: Record) -> Difference | None:
    """None where the record derives again bit for bit: what was decided, why and when, and the status after.

    ValueError where its inputs cannot be read, or nothing could be decided on them.
    """
    try:
        derived = derive(record)
    except (TypeError, AttributeError, LookupError, ArithmeticError) as error:
        raise ValueError(f"record {record.key}: nothing can be decided on its inputs: {error}") from error
    found = derived.record
    if found is None:
        return Difference(record.key, ("decision",), record.digest, digest(derived.status))
    # The inputs are what is given: an older release wrote them without what has been added since.
    derivable = (name for name in Record._fields if name != "inputs")
    fields = tuple(name for name in derivable if getattr(record, name) != getattr(found, name))
    return Difference(record.key, fields, record.digest, found.digest) if fields else None


def _build(kind: Any, value: Any) -> Any:
    """``value`` (plain JSON) as the annotated type ``kind``: named tuples, tuples, mappings with joined keys."""
    origin, args = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return _build_union(args, value)
    if isinstance(kind, type) and issubclass(kind, tuple) and hasattr(kind, "_fields"):
        hints = get_type_hints(kind)
        return kind(**{name: _build(hints[name], item) for name, item in value.items()})
    if origin is tuple:
        inner = [args[0]] * len(value) if args[-1] is Ellipsis else args
        return tuple(_build(t, v) for t, v in zip(inner, value, strict=True))
    if origin is not None and issubclass(origin, Mapping):
        return {_key(args[0], k): _build(args[1], v) for k, v in value.items()}
    return kind(value) if kind in (int, float) else value


def _build_union(kinds: tuple[Any, ...], value: Any) -> Any:
    """The member whose fields are exactly those of ``value``."""
    if value is None:
        return None
    if isinstance(value, dict):
        for kind in kinds:
            if set(getattr(kind, "_fields", ())) == set(value):
                return _build(kind, value)
        raise ValueError(f"fields of none of {[k.__name__ for k in kinds]}: {sorted(value)}")
    return _build(next(k for k in kinds if k is not type(None)), value)


def _key(kind: Any, text: str) -> Any:
    if get_origin(kind) is tuple:
        return tuple(text.split("|", len(get_args(kind)) - 1))
    return int(text) if kind is int else text
