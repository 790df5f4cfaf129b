"""Where the rollouts are that a command is about: a folder of this machine, or a cluster."""

import functools
import getpass
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import click

from controller.cli.options import chosen, open_store, state_dir
from controller.ports import Stored
from controller.status import PersonRequest


class Rollouts(Protocol):
    """What commands need of a store."""

    def keys(self) -> list[str]: ...
    def load(self, key: str) -> Stored: ...
    def submit(self, key: str, request: PersonRequest) -> None: ...


class Place(NamedTuple):
    """``prefix`` stands before a rollout's name in its key; ``user``: who we are there, which nobody may choose
    where ``known``."""

    store: Rollouts
    prefix: str
    user: Callable[[], str]
    known: bool

    def chosen(self, name: str | None) -> str:
        """The key of the rollout called ``name``, or of the only one."""
        return chosen(self.store, name, self.prefix)


def place(command: Callable[..., None]) -> Callable[..., None]:
    """``--state-dir``, or ``--namespace``, ``--context``, ``--kubeconfig`` and ``--cluster``; the command gets a
    ``Place``. `kubectl understudy` always means a cluster."""

    @functools.wraps(command)
    def placed(state_dir: Path, cluster: bool, **given: Any) -> None:
        namespace, context, kubeconfig = (given.pop(name) for name in ("namespace", "context", "kubeconfig"))
        if cluster or namespace or context or kubeconfig or click.get_current_context().find_root().obj == "kubectl":
            command(place=_cluster(kubeconfig, context, namespace), **given)
        else:
            command(place=Place(open_store(state_dir), "", _user, False), **given)

    path = click.Path(path_type=Path, dir_okay=False)
    for add in (
        click.option("--kubeconfig", type=path, help="File that names the cluster."),
        click.option("--context", help="Context of the kubeconfig."),
        click.option("-n", "--namespace", help="The rollouts of this namespace of a cluster."),
        click.option("--cluster", is_flag=True, help="The rollouts of the cluster that kubectl would talk to."),
        state_dir,
    ):
        placed = add(placed)
    return placed


def _cluster(kubeconfig: Path | None, context: str | None, namespace: str | None) -> Place:
    from controller.edges.cluster.access import Access
    from controller.edges.cluster.store import ClusterStore
    from controller.edges.cluster.watch import Watched

    access = Access(kubeconfig, context, manager="understudy-cli")
    within = namespace or access.namespace
    return Place(ClusterStore(access, Watched(access, within), Path()), f"{within}/", access.whoami, True)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""
