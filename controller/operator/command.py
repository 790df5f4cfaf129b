"""The command ``operator``. Imports nothing heavy."""

import logging
import sys
from typing import Any

import click

from controller.flags import settings_from, with_flags
from controller.settings import OperatorSettings

FLAGS = tuple(OperatorSettings.model_fields)


@click.command("operator", context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@with_flags(OperatorSettings, FLAGS)
def operator(**flags: Any) -> None:
    """Run the controller on a cluster: every ModelRollout, or those of one namespace.

    Several replicas may run: one decides, the others wait. Exit code: 0 ended as asked, 1 something could not be
    used, 2 settings were refused.
    """
    settings = settings_from(OperatorSettings, flags)
    logging.basicConfig(
        stream=sys.stderr, level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s %(message)s"
    )
    from controller.operator import running

    sys.exit(running.main(settings))
