"""What people ask of a running rollout: approve, pause, resume, abort, promote; each with who and why."""

import getpass
import time
import uuid
from pathlib import Path
from typing import Literal

import click

from controller.cli.options import chosen, open_store, output, print_json, state_dir
from controller.errors import SpecError
from controller.status import PersonRequest

Asked = Literal["approve", "pause", "resume", "abort", "promote"]


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""


def _command(verb: Asked, text: str) -> click.Command:
    @click.command(verb, help=text)
    @click.argument("rollout", required=False)
    @click.option("--why", default="", help="The reason, kept in the record.")
    @click.option("--who", default=_user, help="Who asks; by default the user of this machine.")
    @state_dir
    @output
    def command(rollout: str | None, why: str, who: str, state_dir: Path, output: str) -> None:
        store = open_store(state_dir)
        key = chosen(store, rollout)
        status = store.load(key).status
        if status.progress.terminal:
            raise SpecError(f"ROLLOUT: {key} is over ({status.progress}); nothing is left to {verb}")
        request = PersonRequest(id=uuid.uuid4().hex, verb=verb, who=who, why=why, at=time.time_ns() // 1000)
        store.submit(key, request)
        if output == "json":
            print_json({"rollout": key, "request": request.id, "verb": verb})
        else:
            click.echo(f"{key}: asked to {verb}; the controller does so at its next tick")

    return command


approve = _command("approve", "Approve the step or the promotion that waits for it.")
pause = _command("pause", "Keep the weight and stop the step's clock. Harm is still watched.")
resume = _command("resume", "Go on after a pause.")
abort = _command("abort", "Take all traffic back to the champion and end the rollout.")
promote = _command("promote", "Promote now, without waiting for evidence; proven harm still rolls back.")
