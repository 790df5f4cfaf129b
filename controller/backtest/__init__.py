"""The rule applied to what has happened already: a log of exposures and outcomes, or the journals of a run.

The same engine counts and the same core decides as in a live rollout; only the traffic is not ours to move. What the
log says of the weight is in force whatever is decided, so a backtest answers: what would have been decided, when, on
which evidence. ``run_log`` reads CSV or Parquet, ``replay_journals`` the journals of an embedded run.
"""

from controller.backtest.journals import replay_journals
from controller.backtest.log import run_log
from controller.backtest.result import Result

__all__ = ["Result", "replay_journals", "run_log"]
