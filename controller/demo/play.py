"""The demo: three rollouts on real flights, one after the other, on this machine.

Each act is a real ``understudy run`` in a process of its own, with a state folder of its own; only MLflow is shared.
This module sends the traffic, watches, and reads the result off the rollout's own records.
"""

import asyncio
import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from controller.demo import findings
from controller.demo.acts import ACTS, MODEL, RATE, Act
from controller.demo.flights import Flight, load
from controller.demo.load import Passengers, Tally
from controller.edges.store import SqliteStore
from controller.embedded import latest
from controller.embedded.child import Child, environment, python
from controller.embedded.folder import Folder
from controller.embedded.tracking import tracking_command, tracking_environment
from controller.embedded.view import line
from controller.errors import EdgeError, UnderstudyError
from controller.settings import Settings
from controller.status import Progress, RolloutStatus

READY_S = 180.0
LOOK_S = 0.1
SHOW_S = 2.0
AFTER_LAST_FLIGHT_S = 20.0
END_S = 40.0

Say = Callable[[str], None]


class Demo:
    """All three acts under ``folder``; ``say`` gets every line that a person should see."""

    def __init__(self, folder: Path, say: Say, rate: float = RATE) -> None:
        self._folder, self._say, self._rate = folder, say, rate
        self._tracking = ""

    async def run(self, acts: tuple[Act, ...] = ACTS) -> list[dict[str, Any]]:
        """The results, one object an act. UnderstudyError where a part of it does not start."""
        self._folder.mkdir(parents=True, exist_ok=True)
        ports = Folder(self._folder)
        port = ports.port("mlflow", "127.0.0.1", 0)
        self._tracking = f"http://127.0.0.1:{port}"
        self._say(f"starting MLflow on {self._tracking} (half a minute the first time)")
        logs = self._folder / "logs" / "mlflow.log"
        command = tracking_command("127.0.0.1", port, self._folder / "mlflow")
        server = await Child.start(command, logs, environment(tracking_environment(command)))
        try:
            flights = await asyncio.to_thread(load, 7, 9)
            await _answers(self._tracking + "/health", server)
            versions = await asyncio.to_thread(self._register, flights)
            return [await self._act(act, versions, flights) for act in acts]
        finally:
            await server.stop(10.0)
            ports.close()

    def _register(self, flights: list[Flight]) -> Any:
        """Train and register (a few seconds), and say how good the models are on what is to come."""
        from controller.demo import models  # scikit-learn and MLflow take seconds to import

        self._say("training the champion on January–March and the challenger on April–June")
        versions = models.register(self._tracking, MODEL)
        weights = {
            role: models.weights_of(self._tracking, MODEL, getattr(versions, role))
            for role in ("champion", "challenger")
        }
        for text in findings.models_text(models.evaluate(weights, flights)):
            self._say(text)
        return versions

    async def _act(self, act: Act, versions: Any, flights: list[Flight]) -> dict[str, Any]:
        from controller.demo import models

        self._say(f"\n{act.title}\n{act.text}")
        challenger = getattr(versions, act.challenger)
        await asyncio.to_thread(models.point, self._tracking, MODEL, champion=versions.champion, challenger=challenger)
        folder = self._folder / act.name
        folder.mkdir(exist_ok=True)
        (folder / "rollout.yaml").write_text(act.plan)
        arguments = ["run", str(folder / "rollout.yaml"), "--state-dir", str(folder), "--tracking-uri", self._tracking]
        command = python("controller", *arguments, "--port", "0", "--linger-s", "5")
        run = await Child.start(command, folder / "logs" / "run.log", environment({}))
        try:
            return await Watched(self, act, folder, run).watch(flights[: act.flights])
        finally:
            await run.stop(END_S)

    @property
    def say(self) -> Say:
        return self._say

    @property
    def rate(self) -> float:
        return self._rate


async def _answers(url: str, process: Child) -> None:
    """Wait for a server of ours; UnderstudyError with the end of its log where it ends instead."""
    end = time.monotonic() + READY_S
    async with httpx.AsyncClient(timeout=5.0) as http:
        while time.monotonic() < end:
            if not process.alive:
                raise UnderstudyError(f"a process ended at its start:\n{process.said()[-2000:]}")
            try:
                if (await http.get(url)).is_success:
                    return
            except httpx.HTTPError:
                pass
            await asyncio.sleep(LOOK_S)
    raise UnderstudyError(f"{url} did not answer within {READY_S:g} s")


class Watched:
    """One act while it runs."""

    def __init__(self, demo: Demo, act: Act, folder: Path, run: Child) -> None:
        self._demo, self._act, self._folder, self._run = demo, act, folder, run
        self._settings = Settings(state_dir=folder)
        self._status: RolloutStatus | None = None
        self._shown = 0.0
        self._over = False
        self._control = ""
        self._zero_s: float | None = None

    async def watch(self, flights: list[Flight]) -> dict[str, Any]:
        """Traffic from the first step to the end of the rollout; the act's result."""
        store = await self._started()
        ready = json.loads((self._folder / "router.json").read_text())
        self._control = ready["control"]
        host, _, port = ready["traffic"].removeprefix("http://").rpartition(":")
        passengers = Passengers((host.strip("[]"), int(port)), self._control, self._demo.rate, lambda: self._over)
        watching = asyncio.create_task(self._look(store, passengers))
        try:
            await passengers.run(flights)
            await asyncio.wait({watching}, timeout=AFTER_LAST_FLIGHT_S)
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
        return self._result(store, passengers.tally)

    async def _started(self) -> SqliteStore:
        """The store, once both servers answered the model's own example and the first step is open."""
        end = time.monotonic() + READY_S
        while time.monotonic() < end:
            if not self._run.alive:
                raise UnderstudyError(f"`understudy run` ended at its start:\n{self._run.said()[-2000:]}")
            if self._settings.rollouts_file.exists() and (self._folder / "router.json").exists():
                store = SqliteStore(self._settings.rollouts_file)
                if self._act.name in set(store.keys()):
                    status = store.load(self._act.name).status
                    if status.progress is not Progress.PENDING and status.observed.confirmed >= 1:
                        return store
                store.close()
            await asyncio.sleep(LOOK_S)
        raise UnderstudyError(f"{self._act.name} did not start within {READY_S:g} s; see {self._folder / 'logs'}")

    async def _look(self, store: SqliteStore, passengers: Passengers) -> None:
        """Show progress, and end the traffic when the rollout has ended."""
        rollout = store.load(self._act.name).rollout
        while not self._over:
            try:
                status = store.load(self._act.name).status
            except EdgeError:
                await asyncio.sleep(LOOK_S)
                continue
            news = self._status is None or (status.step, status.progress) != (self._status.step, self._status.progress)
            self._status = status
            if status.progress in (Progress.ROLLING_BACK, Progress.ROLLED_BACK) and self._zero_s is None:
                await self._weight_gone(status)
            if news or time.monotonic() - self._shown > SHOW_S:
                self._shown = time.monotonic()
                said = latest.read(self._settings.latest_file)
                tally = passengers.tally
                day = time.strftime("%b %d %H:%M", time.gmtime(passengers.clock)) if passengers.clock else "        "
                text = line(rollout, status, said.metrics if said else {})
                self._demo.say(f"{day} · {tally.sent:>6,} flights, {tally.errors} user errors · {text}")
            self._over = status.progress.terminal
            await asyncio.sleep(LOOK_S)

    async def _weight_gone(self, status: RolloutStatus) -> None:
        """Seconds from the decision until every worker serves a table without the challenger."""
        if status.table is None or status.table.challenger is not None:
            return
        async with httpx.AsyncClient(timeout=2.0) as http:
            for _ in range(200):
                state = (await http.get(self._control + "/v1/state")).json()
                if all(w["generation"] >= status.table.generation for w in state["workers"]):
                    self._zero_s = round(time.time() - status.decided_at / 1e6, 3)
                    return
                await asyncio.sleep(0.01)

    def _result(self, store: SqliteStore, tally: Tally) -> dict[str, Any]:
        stored = store.load(self._act.name)
        found = findings.result(stored.status, store.records(self._act.name))
        store.close()
        said = {**found, "user_errors": tally.errors, "seconds_to_zero_weight": self._zero_s}
        said |= {"requests": tally.sent, "labels": tally.labels, "mlflow_run": stored.status.run_id}
        for text in findings.act_text(said, stored.status, tally):
            self._demo.say(text)
        return said


async def perform(folder: Path, say: Say, rate: float, acts: tuple[Act, ...]) -> list[dict[str, Any]]:
    """The demo until its end, or until a person ends it: then everything that was started ends too."""
    playing = asyncio.ensure_future(Demo(folder, say, rate).run(acts))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, playing.cancel)
    return await playing
