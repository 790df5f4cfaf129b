"""Flags of the processes, made from the fields of their settings."""

import os
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click
from pydantic import SecretStr, ValidationError
from pydantic.fields import FieldInfo

from controller.settings import ProcessSettings, environment_name

S = TypeVar("S", bound=ProcessSettings)
_HINTS = {
    "tracking_uri": ": the address of an MLflow tracking server, http://… or https://…",
    "allow_models": ": NAMESPACE=PATTERN, the name of a namespace or * and a pattern of models, such as shop=shop-*",
}
_TYPES: Mapping[type, Any] = {int: click.INT, float: click.FLOAT, Path: click.Path(path_type=Path)}


def _kind(field: FieldInfo) -> Any:
    """The plain type of a field that may be optional."""
    named = [kind for kind in typing.get_args(field.annotation) if kind is not type(None)]
    return named[0] if named else field.annotation


class _Lines(click.types.StringParamType):
    """Texts of which a variable holds one a line."""

    envvar_list_splitter = "\n"


def _listed(field: FieldInfo) -> bool:
    """Whether the flag may be given several times."""
    return typing.get_origin(_kind(field)) is tuple


def _variables(name: str) -> list[str]:
    return [environment_name(name), *(["MLFLOW_TRACKING_URI"] if name == "tracking_uri" else [])]


def with_flags(
    model: type[ProcessSettings], names: tuple[str, ...]
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Adds a flag for each of the settings; the values are checked together, by the model."""

    def add(command: Callable[..., None]) -> Callable[..., None]:
        for name in reversed(names):
            field = model.model_fields[name]
            default = f"  [default: {field.default}]" if field.default is not None else ""
            command = click.option(
                f"--{name.replace('_', '-')}",
                name,
                type=_Lines() if _listed(field) else _TYPES.get(_kind(field), click.STRING),
                multiple=_listed(field),
                envvar=_variables(name),
                show_envvar=True,
                help=f"{field.description}{default}",
            )(command)
        return command

    return add


def settings_from(model: type[S], given: Mapping[str, Any]) -> S:
    """Settings of those flags that were given, and the token where they have one. click.UsageError names the flag and
    what is allowed."""
    # Of a flag that may be given several times, none at all is an empty list.
    values = {name: value for name, value in given.items() if value is not None and value != ()}
    token = os.environ.get(environment_name("token"))
    if token and "token" in model.model_fields:
        values["token"] = SecretStr(token)
    try:
        settings = model(**values)
    except ValidationError as error:
        found = error.errors()[0]
        name = str(found["loc"][0])
        where = environment_name("token") if name == "token" else f"--{name.replace('_', '-')}"
        text = _HINTS.get(name) or f": {found['msg']}"
        shown = "" if name == "token" else f" {found['input']}"
        raise click.UsageError(f"{where}{shown}{text}") from None
    return settings.model_copy(update={"state_dir": settings.state_dir.resolve()})
