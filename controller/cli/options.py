"""Options that several commands share."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from controller.errors import SpecError

if TYPE_CHECKING:
    from controller.edges.store import SqliteStore

F = TypeVar("F", bound=Callable[..., Any])
STORE = "rollouts.sqlite"


def output(command: F) -> F:
    """``--output text|json``."""
    kinds = click.Choice(["text", "json"])
    return click.option("-o", "--output", type=kinds, default="text", show_default=True, help="How to print.")(command)


def state_dir(command: F) -> F:
    """``--state-dir``, the folder of `understudy run`."""
    return click.option(
        "--state-dir",
        type=click.Path(path_type=Path, file_okay=False),
        default=Path(".understudy"),
        envvar="UNDERSTUDY_STATE_DIR",
        show_default=True,
        show_envvar=True,
        help="Folder in which `understudy run` keeps its state.",
    )(command)


def open_store(folder: Path) -> "SqliteStore":
    """The store of a run. SpecError where no run ever was."""
    path = folder / STORE
    try:
        there = path.exists()
    except OSError as error:
        raise SpecError(f"--state-dir: {folder}: {error.strerror}") from None
    if not there:
        raise SpecError(f"--state-dir: {folder} holds no rollout; start one with `understudy run FILE`")
    # Brings numpy and scipy along, which commands that only read a file need not wait for.
    from controller.edges.store import SqliteStore

    return SqliteStore(path)


def chosen(store: Any, name: str | None, prefix: str = "") -> str:
    """The key of the rollout called ``name``, or of the only one; ``prefix`` stands before names. SpecError names
    those that exist."""
    keys = store.keys()
    if name is not None and prefix + name in keys:
        return prefix + name
    known = ", ".join(key.removeprefix(prefix) for key in keys) or "none"
    if name is not None:
        raise SpecError(f"ROLLOUT: there is no rollout {name!r}; there is: {known}")
    if len(keys) != 1:
        raise SpecError(f"ROLLOUT: say which one; there is: {known}")
    return str(keys[0])


def print_json(value: Any) -> None:
    """One JSON document on stdout."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))
