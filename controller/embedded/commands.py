"""The commands ``run`` and ``controller``: flags made from the fields of Settings. Imports nothing heavy."""

import logging
import sys
from pathlib import Path
from typing import Any

import click

from controller.flags import settings_from, with_flags
from controller.settings import Settings
from router.certificates import BadCertificate, Certificates

RUN_FLAGS = (
    "state_dir", "tracking_uri", "prometheus_url", "host", "port", "control_port", "mlflow_port", "metrics_port",
    "workers", "control_ca", "control_cert", "control_key", "linger_s", "drain_s", "ready_s", "log_level",
)  # fmt: skip
CONTROLLER_FLAGS = (
    "state_dir", "tracking_uri", "prometheus_url", "control_url", "control_ca", "control_cert", "control_key",
    "metrics_port", "log_level",
)  # fmt: skip
_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


def refuse_certificates(settings: Settings) -> None:
    """click.UsageError where both ends of ``run`` could not use the certificates, and know each other by them."""
    files = settings.certificates
    if files.named() and None in files:
        raise click.UsageError("--control-ca, --control-cert and --control-key are needed together")
    try:
        for server in (True, False) if files.named() else ():
            Certificates(files, server=server)
    except BadCertificate as error:
        raise click.UsageError(str(error)) from None


@click.command("run", context_settings=_CONTEXT)
@click.argument("file", type=click.Path(path_type=Path))
@with_flags(Settings, RUN_FLAGS)
@click.option("--until-end", is_flag=True, help="End with the rollout: exit code 0 promoted, 1 rolled back or held.")
@click.option("--output", type=click.Choice(["text", "json"]), default="text", help="json: one object at the end.")
def run(file: Path, until_end: bool, output: str, **flags: Any) -> None:
    """Run the rollout in FILE on this machine, with everything that it needs.

    Starts MLflow (unless it is told where one is), the router, the controller and the model servers, and keeps them
    running. Killed or interrupted, it goes on where it was when it is started again. Ctrl-C ends all of it.

    Exit code: 0 ended as asked, 1 the rollout did not succeed or could not start, 2 the file or a flag was refused.
    """
    settings = settings_from(Settings, flags)
    refuse_certificates(settings)
    from controller import specfile
    from controller.embedded import running
    from controller.errors import SpecError

    try:
        rollout = specfile.load(file)
    except SpecError as error:
        sys.exit(running.failed(error.problems, 2))
    sys.exit(running.run(settings, rollout, until_end, output == "json"))


@click.command("controller", context_settings=_CONTEXT)
@with_flags(Settings, CONTROLLER_FLAGS)
@click.option("--check", "checks", is_flag=True, hidden=True)
def controller(checks: bool, **flags: Any) -> None:
    """Tick the rollouts of a state folder: the process that decides. `understudy run` starts one by itself.

    Exit code: 0 ended as asked, 1 a file could not be used, 2 settings or a rollout were refused.
    """
    settings = settings_from(Settings, flags)
    logging.basicConfig(
        stream=sys.stderr, level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s %(message)s"
    )
    from controller.embedded import ticking

    sys.exit(ticking.main(settings, checks))


@click.command("example", hidden=True)
@click.argument("model_uri")
def example(model_uri: str) -> None:
    """Print the request that MLflow keeps with a model; nothing where there is none."""
    from controller.embedded.check import serving_example

    sys.stdout.buffer.write(serving_example(model_uri))


@click.group(context_settings=_CONTEXT)
def main() -> None:
    """Rollouts on one machine."""


for _command in (run, controller, example):
    main.add_command(_command)
