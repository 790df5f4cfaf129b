"""Flags that may be given several times, and their variable."""

import click
import pytest
from click.testing import CliRunner

from controller.flags import settings_from, with_flags
from controller.settings import OperatorSettings


@click.command()
@with_flags(OperatorSettings, ("allow_models",))
def shown(**flags: object) -> None:
    for rule in settings_from(OperatorSettings, flags).allow_models or ("all",):
        click.echo(rule)


@pytest.mark.parametrize(
    ("given", "variable", "said"),
    [
        ((), None, ["all"]),
        ((), "", ["all"]),
        (("shop=shop-*", "*=shared one"), None, ["shop=shop-*", "*=shared one"]),
        ((), "shop=a, b\n\n  *=c=d\n", ["shop=a, b", "*=c=d"]),
        (("shop=a",), "other=b", ["shop=a"]),
    ],
)
def test_rules_come_from_flags_or_from_the_lines_of_the_variable(
    given: tuple[str, ...], variable: str | None, said: list[str]
) -> None:
    arguments = [part for rule in given for part in ("--allow-models", rule)]
    found = CliRunner().invoke(shown, arguments, env={"UNDERSTUDY_ALLOW_MODELS": variable})
    assert (found.exit_code, found.output.splitlines()) == (0, said)


@pytest.mark.parametrize("rule", ["shop", "=a", "shop=", "Shop=a", "shop-*=a", "shop=a/b"])
def test_what_is_no_rule_is_refused_and_the_flag_named(rule: str) -> None:
    found = CliRunner().invoke(shown, ["--allow-models", "shop=a", "--allow-models", rule])
    assert found.exit_code == 2
    assert f"--allow-models {rule}: NAMESPACE=PATTERN" in found.output
