"""The command ``router``: a flag for each field of RouterSettings, made from the field."""

import sys
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click
from pydantic import SecretStr, ValidationError
from pydantic.fields import FieldInfo

from router.settings import RouterSettings, environment_name
from router.table_store import problems


def _kind(field: FieldInfo) -> type:
    """The plain type of a field that may be optional."""
    named = [kind for kind in typing.get_args(field.annotation) if kind is not type(None)]
    kind = named[0] if named else field.annotation
    assert isinstance(kind, type)
    return kind


def _flag(name: str, field: FieldInfo) -> Callable[[Any], Any]:
    """A click option that says which environment variable it stands for; its value is checked with all the
    others.
    """
    kind = _kind(field)
    flag = f"--{name.replace('_', '-')}"
    shown: bool | str = field.default is not None
    if kind is bool:
        return click.option(
            f"{flag}/--no-{name.replace('_', '-')}",
            name,
            default=None,
            envvar=environment_name(name),
            show_envvar=True,
            help=field.description,
        )
    types: Mapping[type, Any] = {int: click.INT, float: click.FLOAT, Path: click.Path(path_type=Path)}
    text = f"{field.description}  [default: {field.default}]" if shown else field.description
    return click.option(
        flag, name, type=types.get(kind, click.STRING), envvar=environment_name(name), show_envvar=True, help=text
    )


def _with_flags(command: Callable[..., None]) -> Callable[..., None]:
    for name, field in reversed(RouterSettings.model_fields.items()):
        if _kind(field) is not SecretStr:
            command = _flag(name, field)(command)
    return command


@click.command("router", context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@_with_flags
def router(**given: Any) -> None:
    """Serve traffic by a route table: the data plane.

    Units are assigned to champion and challenger by the table that the controller puts to the control port;
    what was served goes into the journals, and outcomes are taken at the control port. The bearer token of
    the control port comes from UNDERSTUDY_ROUTER_TOKEN or --token-file.

    SIGTERM ends in good order, SIGHUP replaces the workers one by one without losing a request. Exit code 0
    after a good end, 1 where the workers do not start, 2 for bad use.
    """
    from router.main import BadUse, run

    try:
        settings = RouterSettings(**{name: value for name, value in given.items() if value is not None}, **_token())
        code = run(settings)
    except ValidationError as error:
        found = problems(error)[0]
        flag = f"--{found['field'].replace('_', '-')}" if found["field"] != "token" else environment_name("token")
        raise click.UsageError(f"{flag}{found['message'].removeprefix(found['field'])}") from None
    except BadUse as error:
        raise click.UsageError(str(error)) from None
    sys.exit(code)


def _token() -> dict[str, str]:
    import os

    name = environment_name("token")
    return {"token": os.environ[name]} if os.environ.get(name) else {}
