"""People: they approve, pause, resume, abort, promote, move aliases and edit the spec, at times of their own."""

from typing import Any

from controller.core.evolve import plan_digest
from controller.quantities import SECOND
from controller.spec import ModelRollout
from controller.status import PersonRequest, Progress, Reason, RolloutStatus
from tests.sim.faults import Fault
from tests.sim.plan import KEY, MODEL
from tests.sim.world import World

PERSON = "person"


class People:
    """``approvals``, ``promotions``: how often they asked. ``moved``: aliases that they moved. ``replanned``: how
    often an edit changed what an attempt must not change."""

    def __init__(self, world: World) -> None:
        rng = world.rng
        self._world = world
        self._pauses = rng.random() < 0.2
        self._meddles = rng.random() < 0.12
        self._aborts = rng.random() < 0.05
        self._promotes = rng.random() < 0.07
        self.approvals = self.promotions = self.replanned = 0
        self.moved: set[str] = set()
        self.moves = 0

    def act(self) -> None:
        """What they do between two ticks."""
        world = self._world
        rng, status = world.rng, world.status
        healed = world.faults.healed
        if status.reason is Reason.AWAITING_APPROVAL and rng.random() < (0.5 if healed else 0.15):
            self.ask("approve")
        if status.paused and not status.progress.terminal and rng.random() < (0.5 if healed else 0.1):
            self.ask("resume")
        if healed:
            self._tidy(status)
            return
        if self._pauses and rng.random() < 0.02:
            self.ask("pause")
        if self._aborts and rng.random() < 0.01:
            self.ask("abort")
        if self._promotes and rng.random() < 0.03:
            self.ask("promote")
        if self._meddles and rng.random() < 0.02:
            self._meddle()
        if world.edits < 2 and world.faults.fires(Fault.EDIT, 0.012):
            world.edits += 1
            self._edit()

    def ask(self, verb: str) -> None:
        """Submit a request."""
        world = self._world
        request = PersonRequest.model_validate({"id": f"p{len(world.asked)}", "verb": verb, "who": "Ada"})
        world.asked.append(request)
        world.store.submit(KEY, request)
        self.approvals += verb == "approve"
        self.promotions += verb == "promote"

    def _tidy(self, status: RolloutStatus) -> None:
        """Somebody looks after a rollout that only waits for people."""
        decision = self._world.rollout.spec.decision
        overdue = status.active >= decision.max_duration + decision.mismatch_for
        if status.progress is Progress.RUNNING and overdue and self._world.rng.random() < 0.5:
            self.ask("abort")

    def _meddle(self) -> None:
        rng, registry = self._world.rng, self._world.registry
        alias, version = rng.choice(
            (("champion", "3"), ("challenger", "3"), ("challenger", None), ("champion", "1"), ("challenger", "2"))
        )
        if registry.alias(MODEL, alias) != version:
            registry.move(MODEL, alias, version, PERSON)
            self.moved.add(alias)
            self.moves += 1

    def _edit(self) -> None:
        world = self._world
        rollout = world.rollout
        declared: dict[str, Any] = rollout.model_dump(mode="json", by_alias=True, exclude_none=True)
        spec = declared["spec"]
        match world.rng.choice(("minUnits", "maxDuration", "maxFallback", "hold", "margin")):
            case "minUnits":
                spec["decision"]["minUnits"] = world.rng.choice((5, 40))
            case "maxDuration":
                spec["decision"]["maxDuration"] = "250s"
            case "maxFallback":
                spec["decision"]["maxFallback"] = "3%"
            case "hold":
                hold = max(world.rng.randint(5, 20), rollout.spec.decision.block // SECOND)
                spec["steps"][-1]["hold"] = f"{hold}s"
            case "margin":
                spec["metrics"][0]["margin"] = "15pp" if spec["metrics"][0]["kind"] == "ErrorRate" else "25%"
        edited = ModelRollout.model_validate(declared)
        self.replanned += plan_digest(edited.spec) != plan_digest(rollout.spec)
        world.store.put(edited)
