"""`understudy serve MODEL_URI`: the command line. Imports nothing heavy, so that `--help` is fast."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import click

from controller.serving.settings import ServeSettings

_DEFAULTS = ServeSettings(model_uri="")
_COUNT = click.IntRange(min=1)
_SECONDS = click.FloatRange(min=0.001, max=3600.0)


def _option(field: str, kind: Any, text: str) -> Callable[[Any], Any]:
    """A flag for one field of ServeSettings, with its environment variable and its default."""
    default = getattr(_DEFAULTS, field)
    return click.option(
        f"--{field.replace('_', '-')}",
        type=kind,
        default=default,
        is_flag=kind is bool,
        envvar=f"UNDERSTUDY_SERVE_{field.upper()}",
        show_envvar=True,
        show_default=default is not None,
        help=text,
    )


@click.command("serve")
@click.argument("model_uri", envvar="UNDERSTUDY_SERVE_MODEL_URI")
@_option("host", str, "Address to listen on.")
@_option("port", click.IntRange(0, 65535), "Port to listen on; 0 takes a free one. Printed when ready.")
@_option("max_requests", click.IntRange(min=0), "Replace the worker process after so many requests; 0 is never.")
@_option("max_request_bytes", _COUNT, "A larger request body is answered 413.")
@_option("max_response_bytes", _COUNT, "A larger answer of the model is a fault of the model, 500.")
@_option("timeout", _SECONDS, "Seconds for one request: in the line (then 503) and in the model (then 504).")
@_option("threads", click.IntRange(1, 256), "Predictions at a time.")
@_option("max_waiting", click.IntRange(min=0), "Requests in line for a thread; more are answered 503.")
@_option("max_connections", _COUNT, "Open connections; more are answered 503.")
@_option("drain_timeout", _SECONDS, "Seconds for requests in flight when told to stop.")
@_option("load_timeout", _SECONDS, "Seconds for a worker to load the model.")
@_option("predict_fn", str, "Function of the model to call, such as predict_proba, instead of the logged one.")
@_option("model_name", str, "Value of the header x-model-name, instead of the registered model's.")
@_option("model_version", str, "Value of the header x-model-version, instead of the registered model's.")
@_option("allow_no_signature", bool, "Serve a model without a signature, its inputs unchecked.")
def serve(model_uri: str, **flags: Any) -> None:
    """Serve the MLflow model MODEL_URI over HTTP.

    POST /invocations takes MLflow's body formats (dataframe_split, dataframe_records, instances, inputs, params) as
    JSON. GET /health scores the model's own example, /ping only says that the process runs, /version names the model.

    Exit code: 0 ended as asked, 1 failed, 2 the model or the usage was refused.
    """
    from controller.serving.supervisor import supervise

    settings = ServeSettings(model_uri=model_uri, **flags)
    try:
        code = supervise(settings)
    except OSError as error:
        click.echo(f"understudy serve: cannot listen on {settings.host}:{settings.port}: {error.strerror}", err=True)
        code = 2
    sys.exit(code)
