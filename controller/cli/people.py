"""What people ask of a running rollout: approve, pause, resume, abort, promote; each with who and why."""

import time
import uuid
from typing import Literal

import click

from controller.cli.options import output, print_json
from controller.cli.places import Place, place
from controller.errors import SpecError
from controller.status import PersonRequest

Asked = Literal["approve", "pause", "resume", "abort", "promote"]


def _command(verb: Asked, text: str) -> click.Command:
    @click.command(verb, help=text)
    @click.argument("rollout", required=False)
    @click.option("--why", default="", help="The reason, kept in the record.")
    @click.option("--who", help="Who asks; by default the user of this machine. On a cluster, who is logged in.")
    @place
    @output
    def command(rollout: str | None, why: str, who: str | None, place: Place, output: str) -> None:
        if who is not None and place.known:
            raise SpecError("--who: on a cluster it is the user that the API server knows; leave it out")
        key = place.chosen(rollout)
        status = place.store.load(key).status
        if status.progress.terminal:
            raise SpecError(f"ROLLOUT: {key} is over ({status.progress}); nothing is left to {verb}")
        asked = {"verb": verb, "who": _text(who or place.user()), "why": _text(why), "at": time.time_ns() // 1000}
        request = PersonRequest.model_validate({"id": uuid.uuid4().hex, **asked})
        place.store.submit(key, request)
        if output == "json":
            print_json({"rollout": key, "request": request.id, "verb": verb})
        else:
            click.echo(f"{key}: asked to {verb}; the controller does so at its next tick")

    return command


def _text(said: str) -> str:
    """``said`` without what a terminal of another encoding made of it: a request must not be lost to an accent."""
    return said.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


approve = _command("approve", "Approve the step or the promotion that waits for it.")
pause = _command("pause", "Keep the weight and stop the step's clock. Harm is still watched.")
resume = _command("resume", "Go on after a pause.")
abort = _command("abort", "Take all traffic back to the champion and end the rollout.")
promote = _command("promote", "Promote now, without waiting for evidence; proven harm still rolls back.")
