"""Helm for the tests: your own, or the one that ``tests/tools/helm`` pins, built here once and kept.

``HELM_BIN`` names your own. ``python -m tests.kubernetes.helm`` builds the other; the tests of the chart do not, since
that takes minutes, but run wherever it was done.
"""

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.kubernetes.binaries import ROOT, Built, Say, Unavailable, had, tell

CHART = ROOT / "helm" / "understudy"
SOURCE = ROOT / "tests" / "tools" / "helm"
_MODULES = dict(re.findall(r"^\t(\S+) (v\S+)", (SOURCE / "go.mod").read_text(), re.MULTILINE))
VERSION = _MODULES["helm.sh/helm/v3"]
# `helm template` asks no server for its version: it takes the one that is linked in, and 1.20 without.
_KUBERNETES = _MODULES["k8s.io/client-go"].replace("v0.", "1.").split(".")
_STAMP = {
    "internal/version.version": VERSION,
    **{
        f"pkg/{package}.k8sVersion{part}": number
        for package in ("chartutil", "lint/rules")
        for part, number in zip(("Major", "Minor"), _KUBERNETES, strict=False)
    },
}
_LINK = " ".join(f"-X helm.sh/helm/v3/{name}={value}" for name, value in _STAMP.items())
_BUILT = Built(
    f"Helm {VERSION}",
    SOURCE,
    "helm",
    "helm.sh/helm/v3/cmd/helm",
    ("-trimpath", "-buildvcs=false", "-gcflags=all=-dwarf=false", f"-ldflags=-s -w {_LINK}"),
    (),
    "HELM_BIN may name a helm of your own (3.17 or newer)",
)


def found() -> Path | None:
    """The program, where it is there already. Raises Unavailable where HELM_BIN names none."""
    own = os.environ.get("HELM_BIN")
    if own and not os.access(own, os.X_OK):
        raise Unavailable(f"HELM_BIN: {own} cannot be run")
    program = Path(own) if own else _BUILT.folder / "helm"
    return program if program.exists() else None


def program(say: Say) -> Path:
    """The program; it is built where it is not there yet. Raises Unavailable."""
    return found() or had(_BUILT, say) / "helm"


class Refused(Exception):
    """Helm has ended with an error; the text is what it said."""


class Helm:
    """The program with files of its own in ``folder``, against the cluster of ``kubeconfig`` or none at all."""

    def __init__(self, program: Path, folder: Path, kubeconfig: Path | None = None) -> None:
        self._program, self._kubeconfig = program, kubeconfig
        homes = {f"HELM_{kind}_HOME": str(folder / kind.lower()) for kind in ("CACHE", "CONFIG", "DATA")}
        foreign = ("HELM_", "KUBE", "http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")
        self._env: Mapping[str, str] = {k: v for k, v in os.environ.items() if not k.startswith(foreign)} | homes

    def __call__(self, *arguments: str | Path) -> str:
        """What it prints. Raises Refused."""
        cluster = [f"--kubeconfig={self._kubeconfig}"] if self._kubeconfig else []
        command = [str(self._program), *map(str, arguments), *cluster]
        done = subprocess.run(command, env=self._env, capture_output=True, text=True, timeout=100, check=False)
        if done.returncode:
            raise Refused(done.stderr)
        return done.stdout


if __name__ == "__main__":
    sys.exit(tell(program))
