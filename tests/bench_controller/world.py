"""Everything around the controller: API server, MLflow, routers, and the objects that it finds when it starts."""

import contextlib
import os
import shutil
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import psutil
import yaml

from controller.edges.cluster.access import Access
from controller.edges.cluster.resources import ROLLOUTS
from controller.errors import EdgeError
from controller.schema import CRD
from tests.bench_controller import objects, registry
from tests.bench_controller.audit import Asked, counted
from tests.bench_controller.node import Pods
from tests.bench_controller.objects import rollouts
from tests.bench_controller.places import ACTIVE, IDLE
from tests.bench_router.processes import ROOT, free_port
from tests.embedded.machine import wait_for
from tests.embedded.registered import wait_for_answer
from tests.kubernetes import binaries, control_plane
from tests.kubernetes.leashed import Leashed

HOME, ACCOUNT = "understudy", "understudy-controller"
USER = f"system:serviceaccount:{HOME}:{ACCOUNT}"
SAY_EVERY = 500


class Size(NamedTuple):
    """How much of everything. ``rate``: requests a second of one rollout at work; ``tick``, ``block`` in seconds."""

    idle: int
    active: int
    routers: int
    tick: float
    block: float
    rate: float
    harmed: float
    mlflow_workers: int


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def progress(what: str, of: int) -> Callable[[int], None]:
    """Tells now and then how far it is."""

    def tell(done: int) -> None:
        if done % SAY_EVERY == 0 or done == of:
            say(f"{what}: {done} of {of}")

    return tell


class World:
    """What runs, until the block of ``built`` ends. ``kubeconfig``: the controller's own account."""

    def __init__(self, size: Size, folder: Path, plane: control_plane.ControlPlane, mlflow: str, port: int) -> None:
        self.size, self.folder, self.plane, self.mlflow, self.port = size, folder, plane, mlflow, port
        self.access = Access(plane.kubeconfig, manager="bench", connections=objects.AT_ONCE * 2 + 2)
        self.pods = Pods(self.access, port)
        self.rollouts = rollouts(size.idle, size.active)
        self.kubeconfig = plane.kubeconfig
        self.processes: dict[str, psutil.Process] = {}

    @property
    def active(self) -> list[objects.Rollout]:
        return [each for each in self.rollouts if each.kind == ACTIVE]

    def declare(self) -> None:
        """CRD, account, rollouts, and the routers of those that are over."""
        self.plane.define(yaml.safe_load((ROOT / CRD).read_text(encoding="utf-8")))
        self.plane.kubectl("apply", "--server-side", "-f", str(ROOT / "manifests" / "install.yaml"))
        self.kubeconfig = self.plane.login(HOME, ACCOUNT)

        def served() -> bool:
            with contextlib.suppress(EdgeError):
                return self.access.list(ROLLOUTS, None).version != ""
            return False

        wait_for("ModelRollouts are served", served, 60)
        tell = progress("rollouts", len(self.rollouts))
        objects.make(self.access, self.rollouts, self.port, objects.Pace(self.size.tick, self.size.block), tell)
        idle = [each for each in self.rollouts if each.kind == IDLE]
        objects.side_by_side(lambda each: self.pods.router(each, 0), idle, progress("routers' pods", len(idle)))

    def asked(self, since: int, until: int) -> Counter[Asked]:
        """What the controller asked the API server between two sizes of the audit log."""
        with self.plane.audit_log.open("rb") as file:
            file.seek(since)
            return counted(file.read(until - since).splitlines(), USER)

    def audit_size(self) -> int:
        return self.plane.audit_log.stat().st_size

    def told(self, path: str, body: Any = None) -> Any:
        """What the routers' process says."""
        sent = None if body is None else orjson.dumps(body)
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data=sent)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return orjson.loads(answer.read())

    def cpu(self) -> dict[str, float]:
        """Seconds of processor time so far, by process."""
        found = {}
        for name, process in self.processes.items():
            family = [process, *process.children(recursive=True)]
            with contextlib.suppress(psutil.NoSuchProcess):
                found[name] = sum(sum(each.cpu_times()[:2]) for each in family)
        own = psutil.Process().cpu_times()
        return {**found, "benchmark": own.user + own.system}


@contextlib.contextmanager
def built(size: Size, folder: Path) -> Iterator[World]:
    """A world with all its objects, and no controller yet."""
    assets = binaries.programs(lambda text: say(f"Kubernetes: {text}"))
    with contextlib.ExitStack() as stack:
        each = rollouts(size.idle, size.active)
        say(f"{len(each)} models into MLflow")
        registry.fill(folder / "mlflow", each)
        url, server = stack.enter_context(registry.server(folder / "mlflow", size.mlflow_workers))
        port = free_port()
        rate = str(size.rate / size.routers)
        command = [sys.executable, "-m", "tests.bench_controller.routers", "--port", str(port), "--rate", rate]
        routers = Leashed(command, folder / "routers.log", os.environ | {"PYTHONPATH": str(ROOT)}, ROOT)
        stack.callback(routers.stop)
        wait_for_answer(f"http://127.0.0.1:{port}/health", 60)
        (folder / "plane").mkdir()
        plane = stack.enter_context(control_plane.running(assets, folder / "plane"))
        world = World(size, folder, plane, url, port)
        stack.callback(world.access.close)
        pids = {"MLflow": server.pid, "routers": routers.pid, **plane.pids()}
        world.processes = {name: psutil.Process(pid) for name, pid in pids.items()}
        world.declare()
        yield world


@contextlib.contextmanager
def workplace(kept: Path | None) -> Iterator[Path]:
    """A folder for everything that is written: a new one that goes at the end, or ``kept``, emptied before."""
    folder = kept or Path(os.environ.get("TMPDIR", "/tmp")) / f"bench-controller-{os.getpid()}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        if kept is None:
            shutil.rmtree(folder, ignore_errors=True)
