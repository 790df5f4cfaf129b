"""``understudy init``: a rollout to start from."""

from pathlib import Path

import click

from controller.errors import SpecError

EXAMPLE = """\
apiVersion: understudy.dev/v1alpha1
kind: ModelRollout
metadata: {name: my-model}
spec:
  model:
    name: my-model            # the registered model in MLflow
    champion: champion        # alias or version number; these two are the defaults
    challenger: challenger
  unit: {header: x-unit-id}   # what is randomised: a request header, a cookie, or json: /pointer/into/the/body
  steps:
    - {mirror: 100, hold: 10m}                 # the challenger answers unseen
    - {weight: 1, hold: 30m}                   # percent of units that the challenger serves
    - {weight: 5, hold: 1h}
    - {weight: 25, hold: 1d}
    - {weight: 50, hold: 1d}
  metrics:
    # margin: how much worse is still not worse. 0.05pp is absolute, 2% relative, a bare number in the metric's unit
    - {name: errors, kind: ErrorRate, role: Guardrail, margin: 0.05pp}
    - {name: clicks, kind: Proportion, outcome: click, window: 30m, goal: Increase, role: Success, margin: 2%}
    - {name: accuracy, kind: Accuracy, outcome: label, window: 1d, role: Guardrail, margin: 1pp}
  decision: {mode: NonInferior, minUnits: 2000, maxDuration: 14d}
"""


@click.command()
@click.argument("file", default="rollout.yaml", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--force", is_flag=True, help="Overwrite a file that is there.")
def init(file: Path, force: bool) -> None:
    """Write an example rollout to FILE (rollout.yaml)."""
    if file.exists() and not force:
        raise SpecError(f"FILE: {file} is there already; --force overwrites it")
    try:
        file.write_text(EXAMPLE, encoding="utf-8")
    except OSError as error:
        raise SpecError(f"FILE: {file}: {error.strerror}") from error
    click.echo(f"wrote {file}; next: understudy validate {file}")
