"""The three acts of the demo: what is on trial, the plan as YAML, and what to say about it.

Durations are wall time: at 300 flights a second a day of departures takes about three seconds, so a label that came
hours later in 2013 comes within a second or two. The unit is the flight.
"""

from typing import Literal, NamedTuple

MODEL = "flight-delay"
RATE = 300.0

_PLAN = """\
apiVersion: understudy.dev/v1alpha1
kind: ModelRollout
metadata: {{name: {name}}}
spec:
  model: {{name: {model}}}
  unit: {{header: x-unit-id}}
  prediction: {{json: /predictions/0, positive: 1, threshold: 0.5}}
  steps:
{steps}
  metrics:
    - {{name: log-loss, kind: LogLoss, outcome: late, window: 5s, role: Guardrail, margin: 0.025}}
    - {{name: brier, kind: Brier, outcome: late, window: 5s, role: Guardrail, margin: 0.008}}
    - {{name: accuracy, kind: Accuracy, outcome: late, window: 5s, role: Guardrail, margin: 1.5pp}}
    - {{name: errors, kind: ErrorRate, role: Guardrail, margin: 0.5pp}}
    - {{name: latency, kind: Latency, role: Observe, margin: 20%}}
  decision:
    mode: NonInferior
    minUnits: {min_units}
    tick: 1s
    grace: 2s
    maxDuration: 10m
"""

_CAREFUL = """\
    - {mirror: 100, hold: 10s}
    - {weight: 1, hold: 14s}
    - {weight: 5, hold: 28s}
    - {weight: 25, hold: 50s}
    - {weight: 50, hold: 40s}"""

_QUICK = """\
    - {weight: 5, hold: 20s}
    - {weight: 25, hold: 20s}
    - {weight: 50, hold: 20s}"""


class Act(NamedTuple):
    """One rollout of the demo. ``challenger`` names one of ``models.Versions``; ``flights`` bounds its traffic."""

    name: str
    title: str
    challenger: Literal["challenger", "skewed", "crashing"]
    plan: str
    flights: int
    text: str


def _plan(name: str, steps: str, min_units: int) -> str:
    return _PLAN.format(name=name, model=MODEL, steps=steps, min_units=min_units)


ACTS = (
    Act(
        "act-one",
        "Act one: an honest challenger",
        "challenger",
        _plan("act-one", _CAREFUL, 30),
        1_000_000,
        "The champion learnt on January to March, the challenger on April to June. Both predict July to September as "
        "it happened. Nothing is arranged: the evidence decides.",
    ),
    Act(
        "act-two",
        "Act two: a train/serve skew",
        "skewed",
        _plan("act-two", _QUICK, 100),
        20_000,
        "The same challenger, but its server gets the departure delay in seconds where training had minutes. It "
        "answers every request with status 200.",
    ),
    Act(
        "act-three",
        "Act three: a crash on one request in fifty",
        "crashing",
        _plan("act-three", _QUICK, 100),
        20_000,
        "The same challenger, but its code fails on 2 % of the flights. The champion answers in its place within the "
        "same request, so no user sees it; the evidence does.",
    ),
)
