"""The rollout of one run, drawn: a small plan whose steps take seconds, and how the two models really behave."""

import random
from typing import Any, NamedTuple

from controller.spec import ModelRollout

KEY = "sim"
MODEL = "m"
SECOND = 1_000_000


TRUTHS = {
    "same": 8.0, "better": 3.0, "fewer-clicks": 2.0, "no-clicks": 1.5, "errors": 1.5, "dead": 1.5, "slow": 1.5,
    "blunt": 1.5, "lopsided": 1.5,
}  # fmt: skip


class Behaviour(NamedTuple):
    """How a model serves: chance of an error, of a click, sharpness of its scores, median latency in µs."""

    error: float
    click: float
    sharpness: float
    latency: int


class Truth(NamedTuple):
    """What is true and must be found out. ``lopsided``: share of the challenger's exposures that vanish unseen."""

    name: str
    champion: Behaviour
    challenger: Behaviour
    lopsided: float = 0.0

    @property
    def dead(self) -> bool:
        """The challenger answers nothing; only the fallback hides it."""
        return self.challenger.error >= 1.0


def draw_truth(rng: random.Random, name: str | None = None) -> Truth:
    """Equal, better, harm of several kinds and sizes, dead, without any click, or with a broken split.

    ``name`` picks one of ``TRUTHS``.
    """
    a = Behaviour(rng.choice((0.0, 0.0, 0.01)), rng.uniform(0.3, 0.6), rng.uniform(0.5, 0.8), 20_000)
    drawn = rng.choices(list(TRUTHS), weights=list(TRUTHS.values()))[0]
    name = name or drawn
    size = rng.choice((0.15, 0.3, 0.6))
    b = {
        "same": a,
        "better": a._replace(click=a.click + (1 - a.click) * size),
        "fewer-clicks": a._replace(click=a.click * (1 - size)),
        "no-clicks": a._replace(click=0.0),
        "errors": a._replace(error=size),
        "dead": a._replace(error=1.0),
        "slow": a._replace(latency=round(a.latency * (1 + 5 * size))),
        "blunt": a._replace(sharpness=-a.sharpness),
        "lopsided": a,
    }[name]
    return Truth(name, a, b, rng.choice((0.5, 0.95)) if name == "lopsided" else 0.0)


def draw_rollout(rng: random.Random, same_version: bool) -> ModelRollout:
    """A valid rollout whose holds are seconds, so that it ends within minutes."""
    tick = rng.choice((1, 2, 2, 4))
    weights = sorted(rng.sample((5, 10, 20, 25, 30, 40, 50), rng.choice((1, 2, 2, 3))))
    if rng.random() < 0.1:
        weights.append(weights[-1])
    steps: list[dict[str, Any]] = [{"weight": w, "hold": f"{rng.randint(6, 30)}s"} for w in weights]
    if rng.random() < 0.35:
        steps.insert(0, {"mirror": rng.choice((30, 100)), "hold": f"{rng.randint(6, 30)}s"})
    careful = rng.random() < 0.15  # wants to be asked every time
    for step in steps:
        if careful or rng.random() < 0.15:
            step["approve"] = True
    holds = [int(step["hold"].removesuffix("s")) for step in steps]
    longest = max(holds)
    spec: dict[str, Any] = {
        "model": {"name": MODEL},
        "unit": {"header": "x-unit"},
        "steps": steps,
        "metrics": _metrics(rng),
        "decision": {
            "mode": "NonInferior",
            "tick": f"{tick}s",
            "block": f"{min(tick * rng.choice((1, 2)), longest)}s",
            "grace": f"{rng.choice((0, 2))}s",
            "minUnits": rng.choice((5, 20, 60)),
            "minAge": f"{rng.choice((0, 0, 40))}s",
            "maxDuration": f"{max(rng.choice((120, 200, 300)), sum(holds))}s",
            "onInconclusive": rng.choice(("RollBack", "RollBack", "Hold")),
            "onMismatch": rng.choice(("RollBack", "RollBack", "Hold")),
            "mismatchFor": f"{rng.choice((5, 30))}s",
            "maxFallback": rng.choice(("1%", "5%")),
            "approvePromotion": careful or rng.random() < 0.15,
        },
        "allowSameVersion": same_version,
    }
    if rng.random() < 0.1:
        spec["segments"] = [{"name": "land", "header": "x-land", "protected": rng.random() < 0.5}]
    if rng.random() < 0.6 and not same_version:
        spec["afterPromotion"] = {"holdback": rng.choice((0, 5, 20)), "hold": f"{rng.choice((5, 20))}s"}
    if rng.random() < 0.2:
        spec["traffic"] = {"router": {"timeout": "1s"}}
    return ModelRollout.model_validate({"metadata": {"name": KEY}, "spec": spec})


def _metrics(rng: random.Random) -> list[dict[str, Any]]:
    declared = rng.random() < 0.4
    errors: dict[str, Any] = {"name": "errors", "kind": "ErrorRate", "margin": rng.choice(("10pp", "20pp"))}
    clicks: dict[str, Any] = {
        "name": "clicks", "kind": "Proportion", "outcome": "click", "goal": "Increase",
        "window": f"{rng.choice((3, 6))}s", "margin": rng.choice(("30%", "20pp")),
        "role": rng.choice(("Success", "Guardrail")),
    }  # fmt: skip
    labels: dict[str, Any] = {
        "name": "labels", "kind": rng.choice(("Accuracy", "LogLoss", "Brier")), "outcome": "label",
        "window": f"{rng.choice((3, 6))}s", "margin": rng.choice((0.2, 0.4)),
    }  # fmt: skip
    latency: dict[str, Any] = {"name": "latency", "kind": "Latency", "quantile": 0.5, "margin": "60%"}
    spend: dict[str, Any] = {
        "name": "spend", "kind": "Mean", "outcome": "click", "goal": "Increase", "window": "4s",
        "margin": "40%", "cap": rng.choice(("p95", "10")), "role": rng.choice(("Guardrail", "Observe", "Signal")),
    }  # fmt: skip
    if declared:
        errors["baseline"] = {"mean": 0.01}
        clicks["baseline"] = {"mean": 0.45}
    chosen = [m for m in (errors, clicks, labels, latency, spend) if rng.random() < 0.5]
    if not any(m is errors or m is clicks for m in chosen):
        chosen.insert(0, errors)
    return chosen
