"""The command line: ``understudy …``."""

from controller.cli.group import understudy


def main() -> None:
    """Run the command line; exit code 0 ok, 1 a check or rollout failed, 2 bad usage."""
    understudy(prog_name="understudy")


def kubectl() -> None:
    """The same commands as `kubectl understudy …`: about the rollouts of the cluster that kubectl talks to."""
    understudy(prog_name="kubectl understudy", obj="kubectl")


if __name__ == "__main__":
    main()
