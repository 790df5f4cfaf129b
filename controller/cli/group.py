"""The command group. Commands are imported when they are called, so that help is quick and extras stay optional."""

import importlib
from typing import Any

import click

from controller.errors import SpecError, UnderstudyError

COMMANDS = {
    "approve": ("controller.cli.people", "approve", "Approve the step or the promotion that waits for it."),
    "abort": ("controller.cli.people", "abort", "Take all traffic back to the champion and end the rollout."),
    "backtest": ("controller.cli.backtest", "backtest", "What the rule would have decided on a log."),
    "controller": ("controller.embedded.commands", "controller", "Run the controller alone, on a state directory."),
    "demo": ("controller.demo.commands", "demo", "Three rollouts on real flights, watched live."),
    "explain": ("controller.cli.explain", "explain", "Why the last decision was made, and what is missing."),
    "init": ("controller.cli.init", "init", "Write an example rollout to start from."),
    "operator": ("controller.operator.command", "operator", "Run the controller on a Kubernetes cluster."),
    "pause": ("controller.cli.people", "pause", "Keep the weight and stop the step's clock; harm is still watched."),
    "plan": ("controller.cli.plan", "plan", "Units and days each metric needs, and what harm could do."),
    "promote": ("controller.cli.people", "promote", "Promote now, without waiting for evidence."),
    "replay": ("controller.cli.replay", "replay", "Derive recorded decisions again, bit for bit."),
    "resume": ("controller.cli.people", "resume", "Go on after a pause."),
    "router": ("router.command", "router", "Run the router: the data plane and its control API."),
    "run": ("controller.embedded.commands", "run", "Run a rollout on this machine."),
    "schema": ("controller.cli.schema", "schema", "Write the CRD, the JSON Schema and the README's field table."),
    "serve": ("controller.serving.command", "serve", "Serve an MLflow model."),
    "status": ("controller.cli.status", "status", "Where a rollout stands."),
    "validate": ("controller.cli.validate", "validate", "Check rollout files, offline."),
}
EXTRAS = {
    "controller.embedded": "embedded",
    "controller.demo": "demo",
    "controller.operator": "kubernetes",
    "controller.serving": "serve",
    "router": "router",
    "controller.cli": "controller",
}


class Lazy(click.Group):
    """A group that knows its commands by name, and turns errors made on purpose into messages."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, name, _ = COMMANDS[cmd_name]
        try:
            command: click.Command = getattr(importlib.import_module(module), name)
        except ModuleNotFoundError as error:
            extra = next(e for prefix, e in EXTRAS.items() if module.startswith(prefix))
            raise click.ClickException(
                f"`{cmd_name}` needs the package {error.name!r}: pip install 'understudy[{extra}]'"
            ) from error
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in sorted(COMMANDS.items())])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except SpecError as error:
            for problem in error.problems:
                click.echo(f"error: {problem}", err=True)
            ctx.exit(2)
        except UnderstudyError as error:
            click.echo(f"error: {error}", err=True)
            ctx.exit(1)


@click.command(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="understudy", prog_name="understudy")
def understudy() -> None:
    """Release a new machine-learning model on evidence: split, compare, then promote or roll back."""
