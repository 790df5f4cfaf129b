"""What a person sees of a rollout that runs: lines of text, in colour where the terminal has it."""

import sys
import time
from collections.abc import Mapping

from controller.core.allocation import weight
from controller.loop import silence
from controller.spec import ModelRollout
from controller.status import Progress, RolloutStatus

_QUIET_S = 5.0  # without news, a line this often
_OVER_S = 60.0  # and after the end this often


class Top:
    """The metric that matters most now: the one decided by, else the one nearest to harm, else furthest from proof."""

    def __init__(self, metrics: Mapping[str, float], named: str | None) -> None:
        self.name = ""
        names = [key.removesuffix("/estimate") for key in metrics if key.endswith("/estimate")]
        if named in names:
            self.name = str(named)
        elif names:
            nearest = max(names, key=lambda name: metrics.get(f"{name}/log_e_harm", 0.0))
            furthest = min(names, key=lambda name: metrics.get(f"{name}/log_e_non_inferior", 0.0))
            self.name = nearest if metrics.get(f"{nearest}/log_e_harm", 0.0) > 1.0 else furthest
        self._metrics = metrics

    def __str__(self) -> str:
        if not self.name:
            return ""
        said = {part: self._metrics.get(f"{self.name}/{part}") for part in ("estimate", "lower", "upper")}
        estimate, lower, upper = said["estimate"], said["lower"], said["upper"]
        if estimate is None or lower is None or upper is None:
            return f"{self.name} too little data"
        harm = self._metrics.get(f"{self.name}/log_e_harm", 0.0)
        proof = self._metrics.get(f"{self.name}/log_e_non_inferior", 0.0)
        return f"{self.name} {estimate:+.4g} [{lower:+.4g}, {upper:+.4g}] harm {harm:.1f} not worse {proof:.1f}"


def line(rollout: ModelRollout, status: RolloutStatus, metrics: Mapping[str, float], stale: str = "") -> str:
    """One line: where the rollout stands, what is decided and why. ``harm`` and ``not worse`` are log e-values."""
    steps, epoch = len(rollout.spec.steps), status.current_epoch
    where = f"step {status.step + 1}/{steps}" if status.progress is Progress.RUNNING else status.progress.value
    mirrored = epoch is not None and epoch.mirror_bp
    share = f"mirror {epoch.mirror_bp / 100:g} %" if epoch and mirrored else f"weight {weight(status):g} %"
    units = " / ".join(f"{metrics.get(f'units/{arm}', 0.0):,.0f}" for arm in ("champion", "challenger"))
    found = Top(metrics, status.metric)
    top = "" if f"{found.name} " in status.message else str(found)
    why = "" if status.measuring else f" {status.reason}"
    said = f"{where:<12} {share:<13} units {units:<16} {status.decision}{why}"
    parts = [stale, said, status.measuring or status.message, top]
    return " · ".join(part for part in parts if part)


class View:
    """Prints what is new, and now and then that nothing is. Writes to standard error where standard output belongs to
    a JSON document."""

    def __init__(self, to_stderr: bool = False) -> None:
        self._stream = sys.stderr if to_stderr else sys.stdout
        self._console = None
        if self._stream.isatty():
            from rich.console import Console

            self._console = Console(file=self._stream, highlight=False)
        self._last: tuple[object, ...] = ()
        self._said_at = 0.0

    def say(self, text: str, style: str = "") -> None:
        """One line, with the time."""
        stamp = time.strftime("%H:%M:%S")
        if self._console is not None:
            self._console.print(f"[dim]{stamp}[/dim] ", end="")
            self._console.print(text, style=style or None, markup=False, soft_wrap=True)
            return
        self._stream.write(f"{stamp} {text}\n")
        self._stream.flush()

    def shows(self, rollout: ModelRollout, status: RolloutStatus, metrics: Mapping[str, float]) -> None:
        """The rollout as it stands, where that is new."""
        stale = silence(rollout.spec, status, time.time_ns() // 1000)
        news = (status.progress, status.step, status.decision, status.reason, status.metric, status.paused, stale)
        quiet = time.monotonic() - self._said_at < (_OVER_S if status.progress.terminal else _QUIET_S)
        if news == self._last and quiet:
            return
        style = "" if news == self._last else self._style(status)
        self._last, self._said_at = news, time.monotonic()
        self.say(line(rollout, status, metrics, stale), style)

    @staticmethod
    def _style(status: RolloutStatus) -> str:
        if status.progress in (Progress.ROLLING_BACK, Progress.ROLLED_BACK):
            return "bold red"
        return "bold green" if status.progress in (Progress.PROMOTED, Progress.HOLDBACK) else "bold"
