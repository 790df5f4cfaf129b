"""Two operators as processes, one of which leads; whoever is killed is started again with the disk that it had."""

import base64
import json
import os
import signal
import time
from pathlib import Path
from typing import NamedTuple

from controller.edges.cluster.resources import LEASES
from tests.bench_controller.operator_process import OperatorProcess
from tests.kubernetes.kill_leader.world import ACCOUNT, HOME, ROUTERS, World
from tests.kubernetes.operating.theatre import until

LEASE_S = 3.0
LEASE = "understudy-controller"
READY_WITHIN_S = 120.0
RECORD_WITHIN_S = 5.0
FLAGS = {
    "lease-s": LEASE_S, "call-s": LEASE_S / 2, "alias-s": 0.3, "linger-s": 2, "ticks": 2, "drain-s": 20,
}  # fmt: skip


class Life(NamedTuple):
    """A process from its start to its end. ``credential``: under which the API server's audit knows it."""

    replica: int
    credential: str
    process: OperatorProcess

    @property
    def ready(self) -> bool:
        """It could lead."""
        try:
            return self.process.runs and self.process.ready()
        except OSError:
            return False


class Kill(NamedTuple):
    """``at``: seconds since 1970. ``where``: how the rollout stood, ``aim`` where it was to be hit."""

    at: float
    credential: str
    aim: str
    where: str


class Replicas:
    """Operators of a world. Each process has a token of its own, so that what it wrote can be told from the others'."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.lives: list[Life] = []
        self._now: dict[int, Life] = {}
        for number in (1, 2):
            self.start(number)

    def start(self, number: int) -> None:
        """A new life of replica ``number``, on the disk of the one before."""
        folder = self._world.folder / f"life-{len(self.lives) + 1}"
        folder.mkdir()
        login = self._world.plane.login(HOME, ACCOUNT)
        kubeconfig = login.rename(folder / "kubeconfig.json")
        flags = [word for name, value in FLAGS.items() for word in (f"--{name}", str(value))]
        flags += ["--state-dir", str(self.disk(number))]
        process = OperatorProcess(folder, kubeconfig, self._world.registry.address, ROUTERS, flags)
        life = Life(number, credential_of(kubeconfig), process)
        self.lives.append(life)
        self._now[number] = life

    def disk(self, number: int) -> Path:
        """The state folder of a replica, which outlives it."""
        return self._world.folder / f"replica-{number}"

    def leader(self) -> Life | None:
        """Who holds the Lease, by the API server; None where it is nobody that runs."""
        spec = self._world.access.get(LEASES, HOME, LEASE)["spec"]
        holder = spec.get("holderIdentity") or "nobody"
        said = f"{holder} leads".encode()
        return next((life for life in self._now.values() if said in life.process.log.read_bytes()), None)

    def both(self) -> Life:
        """Wait until two run and one leads; the leader."""

        def led() -> Life | None:
            for life in self._now.values():
                assert life.process.runs, f"an operator ended: {life.process.log.read_text()[-3000:]}"
            return self.leader() if all(life.ready for life in self._now.values()) else None

        found = until(led, "two operators, one of which leads", READY_WITHIN_S)
        assert isinstance(found, Life)
        return found

    def until_recorded(self, life: Life) -> None:
        """Wait for the next record on its disk, for as long as there may be one. Its status is committed after it."""
        folder = self.disk(life.replica) / "records"

        def size() -> int:
            return sum(file.stat().st_size for file in folder.glob("*.jsonl"))

        before, end = size(), time.monotonic() + RECORD_WITHIN_S
        while size() <= before + 1 and time.monotonic() < end:  # one byte tells that the one before was committed
            time.sleep(0.0005)

    def kill(self, life: Life, aim: str, where: str) -> Kill:
        """Without a word. ``start`` brings it back."""
        at = time.time()
        os.kill(life.process.pid, signal.SIGKILL)
        life.process.stop()
        return Kill(at, life.credential, aim, where)

    def stop(self) -> None:
        """Let those that run end as they should."""
        for life in self._now.values():
            life.process.stop()

    def logs(self) -> str:
        """What all of them have said, in the order of their starts."""
        return "\n".join(life.process.log.read_text(errors="replace") for life in self.lives)


def credential_of(kubeconfig: Path) -> str:
    """The id of the token in a file, as the audit log has it."""
    token = json.loads(kubeconfig.read_text())["users"][0]["user"]["token"]
    payload = token.split(".")[1]
    return f"JTI={json.loads(base64.urlsafe_b64decode(payload + '=' * (-len(payload) % 4)))['jti']}"
