"""One simulated rollout: everything in it follows from its seed."""

import random
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

from controller.errors import EdgeError
from controller.quantities import SECOND
from controller.status import Progress
from tests.sim import liveness
from tests.sim.faults import CrashNow, Fault
from tests.sim.people import People
from tests.sim.plan import KEY
from tests.sim.safety import Safety, Violation, broken
from tests.sim.wires import Wires
from tests.sim.world import START, World

FAULTS = frozenset(Fault)
REST_TICKS = 8  # after the end everything must stay as it is


class Result(NamedTuple):
    """How a run went. ``rule`` and ``text`` say what was violated; empty where nothing was."""

    seed: int
    rule: str
    text: str
    fired: Counter[str]
    truth: str
    end: str
    reason: str
    ticks: int
    attempts: int
    seconds: int


class Run:
    """World, people, checkers, and a controller that may die at any call."""

    def __init__(self, seed: int, allowed: frozenset[Fault], truth: str | None = None, store: Any = None) -> None:
        """``store``: an empty one to use; None: in memory."""
        self.seed = seed
        rng = random.Random(seed)
        self.world = World(rng, allowed, truth, store)
        self.people = People(self.world)
        self.safety = Safety(self.world, self.people)
        self._loop = Wires(self.world, self.safety).loop()
        self.ticks = 0

    def play(self, watch: Callable[[], None] = lambda: None) -> None:
        """From the first tick to rest; ``watch`` is called after every tick. Raises Violation."""
        world = self.world
        heal_at = START + world.rng.randint(40, 200) * SECOND
        rest = 0
        while rest < REST_TICKS:
            self._step()
            watch()
            ended = liveness.settled(world.status)
            if not world.faults.healed and (world.true >= heal_at or (ended and world.rng.random() < 0.1)):
                world.heal()
                heal_at = world.true
            if world.faults.healed:
                rest = rest + 1 if ended else 0
                if world.true > heal_at + liveness.patience(world):
                    status = world.status
                    broken("liveness", f"still {status.progress} ({status.reason}: {status.message})")
        liveness.at_rest(world, self.people, self.safety)

    def _step(self) -> None:
        """One tick, and the time until the next."""
        world, safety = self.world, self.safety
        tick = world.rollout.spec.decision.tick
        wait = tick
        self.people.act()
        safety.begin_tick()
        self.ticks += 1
        try:
            wake_at = self._loop.tick(KEY, world.now)
        except CrashNow:
            world.crashes += 1
            self._loop = Wires(world, safety).loop()
            wait = world.rng.choice((0, 1, 2)) * tick
        except EdgeError:
            pass
        else:
            safety.end_tick(wake_at)
            wait = min(wake_at - world.now, 4 * tick)
        safety.look()
        world.pass_time(max(wait, tick // 20) + world.rng.randint(0, tick // 10))
        safety.look()


def play(seed: int, allowed: frozenset[Fault] = FAULTS, truth: str | None = None) -> Result:
    """Simulate the rollout of ``seed`` with the faults in ``allowed``, and with that truth if one is named."""
    run = Run(seed, allowed, truth)
    rule = text = ""
    try:
        run.play()
    except Violation as violation:
        rule, text = violation.rule, str(violation)
    except Exception as error:  # noqa: BLE001 — a campaign goes on, and names the seed
        rule, text = "error", f"error: {error!r}"
    world, status = run.world, run.world.status
    return Result(
        seed=seed,
        rule=rule,
        text=text,
        fired=Counter({str(fault): count for fault, count in world.faults.fired.items()}),
        truth=world.truth.name,
        end=status.progress.value if status.progress is not Progress.PENDING else f"Pending {status.reason}",
        reason=status.reason.value,
        ticks=run.ticks,
        attempts=status.attempts,
        seconds=(world.true - START) // SECOND,
    )
